//! A disk of the database that has no room left.

use crate::bench::{Bench, SOON, insert, right, rows, serve_alone};
use oarlock_core::resource::database::{DataCommand, DataObservation};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

/// A file system of its own, with the image in memory; gone when dropped.
struct Disk {
    image: PathBuf,
    mount: PathBuf,
}

fn run(program: &str, arguments: &[&Path]) -> bool {
    Command::new(program).args(arguments).stderr(Stdio::null()).status().is_ok_and(|status| status.success())
}

impl Disk {
    /// `None` where file systems cannot be mounted.
    fn at(mount: &Path) -> Option<Disk> {
        let image = PathBuf::from(format!("/dev/shm/oarlock-mariadb-{}.image", std::process::id()));
        let disk = Disk { image, mount: mount.to_owned() };
        let size: &Path = "256M".as_ref();
        assert!(run("truncate", &["-s".as_ref(), size, &disk.image]));
        assert!(run("mkfs.ext4", &["-q".as_ref(), &disk.image]));
        run("mount", &["-o".as_ref(), "loop".as_ref(), &disk.image, &disk.mount]).then_some(disk)
    }

    fn filler(&self) -> PathBuf {
        self.mount.join("filler")
    }

    fn fill(&self) {
        let filler = std::fs::File::create(self.filler()).unwrap();
        let full = std::io::copy(&mut std::io::repeat(0), &mut &filler).unwrap_err();
        assert_eq!(full.kind(), std::io::ErrorKind::StorageFull);
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        let until = Instant::now() + Duration::from_secs(10);
        while !run("umount", &[&self.mount]) && Instant::now() < until {
            std::thread::sleep(Duration::from_millis(50));
        }
        let _ = std::fs::remove_file(&self.image);
    }
}

/// A full disk is told, no row that was acknowledged is lost, and with room again all is well.
#[tokio::test]
async fn a_full_disk_is_told() {
    let Some(bench) = Bench::new() else { return };
    let mut a = bench.node(1);
    let home = a.settings.data_dir.parent().unwrap().to_owned();
    let Some(disk) = Disk::at(&home) else {
        eprintln!("skipped: no loop devices here");
        return;
    };
    bench.give(&home);
    serve_alone(&mut a, 1).await;
    let mut client = a.client().await.unwrap();
    assert!(insert(&mut client, 1, SOON).await);
    disk.fill();
    a.until("sick", |a| {
        a.status.as_ref().is_some_and(|status| status.sick.as_ref().is_some_and(|why| why.contains("space")))
    })
    .await;
    let late = insert(&mut client, 2, Duration::from_secs(1)).await;
    a.done(DataCommand::Kill, DataObservation::Stopped).await;
    std::fs::remove_file(disk.filler()).unwrap();
    a.done(DataCommand::StartPrimary { guard: right(2) }, DataObservation::Started).await;
    a.guard(&[], 2).await;
    a.done(DataCommand::Open, DataObservation::Opened).await;
    let found = rows(&mut a.client().await.unwrap()).await;
    assert!(found.contains(&1) && (!late || found.contains(&2)), "{found:?}");
    a.until("well", |a| !a.sick()).await;
    a.done(DataCommand::Kill, DataObservation::Stopped).await;
    drop(disk);
}
