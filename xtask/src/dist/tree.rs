//! The files of a package, as they will lie on a machine.

use std::fs;
use std::io::ErrorKind;
use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result};
use oarlock_lab::deadline::check;

use super::{Job, notices};

const UNIT: &str = include_str!("../../../packaging/oarlock.service");
const DEFAULT: &str = include_str!("../../../packaging/default");
const README: &str = include_str!("../../../packaging/README.package");
const EXAMPLE: &str = include_str!("../../../packaging/example.toml");
const CHANGELOG: &str = include_str!("../../../CHANGELOG.md");
/// Where documentation goes in both kinds of package.
pub(super) const DOC: &str = "usr/share/doc/oarlock";
const COMPRESS: Duration = Duration::from_secs(60);

/// What differs between the kinds of package.
pub(super) struct Places {
    /// The file of settings of the service.
    pub(super) settings: &'static str,
    /// Completions of zsh.
    pub(super) zsh: &'static str,
    /// What tells of this kind of package.
    pub(super) readme: &'static str,
}

/// A directory in the making.
pub(super) struct Tree {
    pub(super) root: PathBuf,
}

impl Tree {
    /// Everything that both kinds of package have.
    pub(super) fn make(job: &Job, root: PathBuf, places: &Places) -> Result<Self> {
        match fs::remove_dir_all(&root) {
            Err(error) if error.kind() != ErrorKind::NotFound => {
                return Err(error).with_context(|| format!("cannot remove {}", root.display()));
            }
            _ => {}
        }
        let tree = Self { root };
        let program = &job.program;
        tree.put("usr/sbin/oarlock", &fs::read(&program.file)?, 0o755)?;
        tree.text("usr/lib/systemd/system/oarlock.service", UNIT)?;
        tree.text(places.settings, DEFAULT)?;
        for (shell, place) in [
            ("bash", "usr/share/bash-completion/completions/oarlock"),
            ("zsh", places.zsh),
            ("fish", "usr/share/fish/vendor_completions.d/oarlock.fish"),
        ] {
            tree.text(place, &program.says(&["generate", "completions", shell])?)?;
        }
        tree.manual(job)?;
        tree.text(&format!("{DOC}/{}", places.readme), README)?;
        tree.text(&format!("{DOC}/examples/oarlock.toml"), EXAMPLE)?;
        tree.compressed(&format!("{DOC}/changelog"), CHANGELOG)?;
        tree.compressed(&format!("{DOC}/configuration.md"), &program.says(&["generate", "config-reference"])?)?;
        tree.compressed(&format!("{DOC}/third-party"), &notices::text(&job.paths)?)?;
        Ok(tree)
    }

    /// A page for the command and one for each of its commands.
    fn manual(&self, job: &Job) -> Result<()> {
        let pages = self.root.join("usr/share/man/man1");
        directory(&pages)?;
        job.program.says(&["generate", "man", "--dir", &pages.display().to_string()])?;
        for page in fs::read_dir(&pages)?.flatten() {
            mode(&page.path(), 0o644)?;
            compress(&page.path())?;
        }
        Ok(())
    }

    pub(super) fn text(&self, place: &str, text: &str) -> Result<()> {
        self.put(place, text.as_bytes(), 0o644)
    }

    pub(super) fn compressed(&self, place: &str, text: &str) -> Result<()> {
        self.text(place, text)?;
        compress(&self.root.join(place))
    }

    pub(super) fn put(&self, place: &str, content: &[u8], permissions: u32) -> Result<()> {
        let path = self.root.join(place);
        if let Some(parent) = path.parent() {
            directory(parent)?;
        }
        fs::write(&path, content).with_context(|| format!("cannot write {}", path.display()))?;
        mode(&path, permissions)
    }

    /// Its files, as absolute names on the machine, sorted.
    pub(super) fn files(&self) -> Result<Vec<String>> {
        let mut found = Vec::new();
        let mut open = vec![self.root.clone()];
        while let Some(directory) = open.pop() {
            for entry in fs::read_dir(&directory)?.flatten() {
                if entry.file_type()?.is_dir() {
                    open.push(entry.path());
                } else {
                    found.push(format!("/{}", entry.path().strip_prefix(&self.root)?.display()));
                }
            }
        }
        found.sort();
        Ok(found)
    }
}

/// Whatever the umask is.
fn directory(path: &Path) -> Result<()> {
    fs::DirBuilder::new()
        .recursive(true)
        .mode(0o755)
        .create(path)
        .with_context(|| format!("cannot make {}", path.display()))
}

fn mode(path: &Path, permissions: u32) -> Result<()> {
    fs::set_permissions(path, fs::Permissions::from_mode(permissions))
        .with_context(|| format!("cannot set the mode of {}", path.display()))
}

/// Without name and time, so that the same text gives the same file.
fn compress(path: &Path) -> Result<()> {
    check(Command::new("gzip").args(["--best", "--no-name"]).arg(path), "cannot compress", COMPRESS).map(drop)
}
