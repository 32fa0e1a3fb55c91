//! The facts about the machine that belong beside every published figure.

use crate::deadline::check;
use crate::paths::{Paths, fnv1a};
use crate::stats::Summary;
use anyhow::{Context, Result};
use std::fs::{self, File};
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

const SYNCS: usize = 200;
/// One page of a database's log.
const PAGE: [u8; 8192] = [0x5a; 8192];

/// Measures how long writing one page and fdatasync take on the disk of `dir`, milliseconds.
pub fn fdatasync_ms(dir: &Path) -> Result<Summary> {
    let path = dir.join("fdatasync.probe");
    let file = File::create(&path).with_context(|| format!("create {}", path.display()))?;
    let measured = measure(&file);
    fs::remove_file(&path).with_context(|| format!("remove {}", path.display()))?;
    let times = measured.with_context(|| format!("fdatasync of {}", path.display()))?;
    Summary::of(&times).context("no fdatasync was measured")
}

fn measure(file: &File) -> std::io::Result<Vec<f64>> {
    let mut times = Vec::with_capacity(SYNCS);
    for index in 0..SYNCS {
        let began = Instant::now();
        file.write_all_at(&PAGE, (index * PAGE.len()) as u64)?;
        file.sync_data()?;
        times.push(began.elapsed().as_secs_f64() * 1_000.0);
    }
    Ok(times)
}

/// What to write beside figures: cores, kernel, and the disk under the lab.
pub fn facts(dir: &Path) -> Result<Vec<String>> {
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let kernel = fs::read_to_string("/proc/sys/kernel/osrelease").context("read the kernel's release")?;
    let disk = fdatasync_ms(dir)?;
    Ok(vec![
        format!("{cores} cores, kernel {}", kernel.trim()),
        format!(
            "write + fdatasync of 8 KiB on the lab's disk: median {:.2} ms, p99 {:.2} ms, max {:.2} ms (n = {})",
            disk.median, disk.p99, disk.max, disk.n
        ),
    ])
}

/// The build that is measured: the checkout's commit; where its sources were changed, with a
/// mark of the program itself. Results written into the checkout do not change it.
pub fn build(paths: &Paths) -> Result<String> {
    let git = |args: &[&str]| {
        let mut git = Command::new("git");
        git.arg("-C").arg(&paths.workspace).args(args);
        check(&mut git, "name the commit that is measured", Duration::from_secs(10))
    };
    let commit = git(&["rev-parse", "--short=12", "HEAD"])?;
    if git(&["status", "--porcelain", "--", "crates", "xtask", "Cargo.toml", "Cargo.lock"])?.is_empty() {
        return Ok(commit);
    }
    let program = paths.release("oarlock");
    let bytes = fs::read(&program).with_context(|| format!("read {}", program.display()))?;
    Ok(format!("{commit}+{:06x}", fnv1a(&bytes) & 0xff_ffff))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn measures_a_disk_and_leaves_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let summary = fdatasync_ms(dir.path()).unwrap();
        assert_eq!(summary.n, SYNCS);
        assert!(summary.min > 0.0 && summary.max < 60_000.0, "{summary:?}");
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 0);
    }
}
