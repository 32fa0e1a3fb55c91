//! Where the lab keeps its files: all of them under the checkout's target directory.

use std::env;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};

/// The lab's directories.
#[derive(Debug, Clone)]
pub struct Paths {
    /// The workspace's root directory.
    pub workspace: PathBuf,
    /// Cargo's target directory.
    pub target: PathBuf,
    /// Debian roots, one directory per suite; may be shared between checkouts.
    pub roots: PathBuf,
    /// State and file systems of the running lab.
    pub run: PathBuf,
}

impl Paths {
    /// Finds the workspace that Cargo runs us from, or that holds the current directory.
    ///
    /// `OARLOCK_LAB_ROOTS` may name another directory for the Debian roots.
    pub fn find() -> Result<Self> {
        let here = env::current_dir().context("cannot read the current directory")?;
        let start = env::var_os("CARGO_MANIFEST_DIR").map_or(here, PathBuf::from);
        let workspace = start
            .ancestors()
            .find(|dir| dir.join("xtask/Cargo.toml").is_file())
            .context("not inside a checkout of oarlock")?
            .to_owned();
        let target =
            env::var_os("CARGO_TARGET_DIR").map_or_else(|| workspace.join("target"), |dir| workspace.join(dir));
        let roots = env::var_os("OARLOCK_LAB_ROOTS").map_or_else(|| target.join("lab"), PathBuf::from);
        let run = target.join("lab/run");
        for path in [&roots, &run] {
            // The overlay mount options have no way to write these characters.
            if path.to_string_lossy().contains([':', ',', '\\', '\n']) {
                bail!("the lab cannot live in {}: the path holds one of `: , \\`", path.display());
            }
        }
        Ok(Self { workspace, target, roots, run })
    }

    /// A short name that differs between checkouts, for what is visible machine-wide.
    #[must_use]
    pub fn lab_id(&self) -> String {
        format!("oarlab-{:06x}", fnv1a(self.run.as_os_str().as_encoded_bytes()) & 0xff_ffff)
    }

    /// The directory of one host: its upper layer, console log and mount point.
    #[must_use]
    pub fn host(&self, name: &str) -> PathBuf {
        self.run.join("hosts").join(name)
    }

    /// The directory that every host sees as /opt/oarlock.
    #[must_use]
    pub fn bin(&self) -> PathBuf {
        self.run.join("bin")
    }

    /// The users' home directories, shared by all hosts.
    #[must_use]
    pub fn home(&self) -> PathBuf {
        self.run.join("home")
    }

    /// The layer of configuration files between the Debian root and the hosts' own layers.
    #[must_use]
    pub fn layer(&self) -> PathBuf {
        self.run.join("layer")
    }

    /// A program of the release build.
    #[must_use]
    pub fn release(&self, program: &str) -> PathBuf {
        self.target.join("release").join(program)
    }
}

/// The 64-bit FNV-1a hash: names and stamps only, nothing that must resist anybody.
#[must_use]
pub fn fnv1a(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0xcbf2_9ce4_8422_2325, |hash, byte| (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3))
}

/// Writes `text` to `path` so that a reader sees the old or the new content, never half.
pub fn write_atomically(path: &Path, text: &str) -> Result<()> {
    let temporary = path.with_extension("tmp");
    std::fs::write(&temporary, text)
        .and_then(|()| std::fs::rename(&temporary, path))
        .with_context(|| format!("cannot write {}", path.display()))
}

#[cfg(test)]
mod tests {
    #[test]
    fn fnv1a_is_the_published_function() {
        assert_eq!(super::fnv1a(b""), 0xcbf2_9ce4_8422_2325);
        assert_eq!(super::fnv1a(b"foobar"), 0x8594_4171_f739_67e8);
    }
}
