//! A disk of the database that hangs, or has no room left.

use crate::bench::{Bench, Node};
use crate::failover::serve_alone;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

/// A file system of its own below a node's home, with the image in memory; gone when dropped.
struct Disk {
    image: PathBuf,
    mount: PathBuf,
}

fn run(program: &str, arguments: &[&Path]) -> bool {
    Command::new(program).args(arguments).stderr(Stdio::null()).status().is_ok_and(|status| status.success())
}

impl Disk {
    fn below(mount: &Path) -> Disk {
        let image = PathBuf::from(format!("/dev/shm/oarlock-{}.image", std::process::id()));
        std::fs::create_dir_all(mount).unwrap();
        let disk = Disk { image, mount: mount.to_owned() };
        assert!(run("truncate", &["-s".as_ref(), "256M".as_ref(), &disk.image]));
        assert!(run("mkfs.ext4", &["-q".as_ref(), &disk.image]));
        assert!(run("mount", &["-o".as_ref(), "loop".as_ref(), &disk.image, &disk.mount]));
        // In memory, as it is where the agent runs: what it writes there no disk can hold up.
        std::fs::create_dir(disk.memory()).unwrap();
        assert!(run("mount", &["-t".as_ref(), "tmpfs".as_ref(), "tmpfs".as_ref(), &disk.memory()]));
        disk
    }

    fn memory(&self) -> PathBuf {
        self.mount.join("run")
    }

    fn freeze(&self) {
        assert!(run("fsfreeze", &["-f".as_ref(), &self.mount]));
    }

    /// One that is not frozen is as good.
    fn thaw(&self) {
        run("fsfreeze", &["-u".as_ref(), &self.mount]);
    }

    fn filler(&self) -> PathBuf {
        self.mount.join("filler")
    }

    /// Leaves no room at all.
    fn fill(&self) {
        let filler = std::fs::File::create(self.filler()).unwrap();
        let mut zeros = std::io::repeat(0);
        let full = std::io::copy(&mut zeros, &mut &filler).unwrap_err();
        assert_eq!(full.kind(), std::io::ErrorKind::StorageFull);
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        self.thaw();
        let until = Instant::now() + Duration::from_secs(10);
        run("umount", &[&self.memory()]);
        while !run("umount", &[&self.mount]) && Instant::now() < until {
            std::thread::sleep(Duration::from_millis(50));
        }
        let _ = std::fs::remove_file(&self.image);
    }
}

async fn until_sick(node: &mut Node, why: &str) {
    let start = Instant::now();
    node.until("sick", |node| node.sick()).await;
    let sick = node.status.as_ref().unwrap().sick.clone().unwrap();
    assert!(sick.contains(why), "{sick}");
    assert!(start.elapsed() < node.settings.timing.probe_deadline * 3, "{:?}", start.elapsed());
}

#[tokio::test]
async fn a_disk_that_hangs_or_is_full_is_sick() {
    let Some(bench) = Bench::new(1) else { return };
    if !rustix::process::geteuid().is_root() {
        eprintln!("skipped: a file system can be mounted by root only");
        return;
    }
    let disk = Disk::below(&bench.root.path().join("n1"));
    let mut a = bench.node(1);
    std::os::unix::fs::chown(&disk.mount, Some(a.settings.user.uid), Some(a.settings.user.gid)).unwrap();
    serve_alone(&mut a, 1).await;
    a.until("well", |a| a.status.as_ref().is_some_and(|status| status.sick.is_none())).await;
    disk.freeze();
    until_sick(&mut a, "the disk made nothing durable").await;
    disk.thaw();
    a.until("well", |a| !a.sick()).await;
    disk.fill();
    until_sick(&mut a, "no space left").await;
    std::fs::remove_file(disk.filler()).unwrap();
    a.until("well", |a| !a.sick()).await;
    a.kill().await;
}
