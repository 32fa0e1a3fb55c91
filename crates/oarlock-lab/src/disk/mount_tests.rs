//! Disks that are mounted, filled, frozen and lost, by the very lines that a host starts with.

use super::*;
use crate::deadline;
use crate::layout::Layout;
use std::io::{BufRead, BufReader, ErrorKind};
use std::process::{Child, Stdio};

const START: &str = include_str!("../../assets/start-host.sh");
const PLACE: &str = "/var/lib/oarlock";
const PATIENCE: Duration = Duration::from_secs(30);

/// A file system of little more than a disk, in namespaces of its own. Its process is the first there.
struct Host {
    dir: Option<tempfile::TempDir>,
    unshare: Child,
    first: Process,
}

impl Drop for Host {
    fn drop(&mut self) {
        // Gone already, unless the test has failed.
        thaw_all(self.first);
        let _ = self.first.kill(PATIENCE);
        let _ = deadline::wait(&mut self.unshare, PATIENCE);
    }
}

impl Host {
    /// Powered on; None for who is not root.
    fn start(dir: tempfile::TempDir) -> Option<Host> {
        if !rustix::process::geteuid().is_root() {
            eprintln!("not root: nothing is mounted");
            return None;
        }
        let disks = prepare(dir.path(), Layout::Two.host("frontend").unwrap(), Engine::Postgresql).unwrap();
        let lines = &START[START.find("for disk in $DISKS").unwrap()..];
        let lines = &lines[..lines.find("\ndone\n").unwrap() + 6];
        let script = format!(
            "set -eu; dir=$1; cd \"$dir/mnt\"\n{lines}\n\
             for shared in bin lib lib64 usr; do mkdir -p $shared; mount --rbind /$shared $shared; done\n\
             read -r pid rest </proc/self/stat; exec chroot . /bin/sh -c 'echo $1; exec sleep 300' first \"$pid\""
        );
        fs::create_dir_all(dir.path().join("mnt").join(&PLACE[1..])).unwrap();
        fs::write(dir.path().join("mnt").join(&PLACE[1..]).join("shipped"), "").unwrap();
        let mut unshare = Command::new("unshare");
        unshare.args(["--mount", "--pid", "--fork", "--kill-child", "sh", "-c", &script, "host"]).arg(dir.path());
        let mut unshare = unshare.env("DISKS", disks).stdin(Stdio::null()).stdout(Stdio::piped()).spawn().unwrap();
        let mut line = String::new();
        BufReader::new(unshare.stdout.take().unwrap()).read_line(&mut line).unwrap();
        let first = Process::of(line.trim().parse().unwrap()).unwrap();
        Some(Host { dir: Some(dir), unshare, first })
    }

    fn path(&self, name: &str) -> PathBuf {
        seen(self.first, PLACE).unwrap().join(name)
    }

    /// Who writes to the disk, seen waiting in the kernel.
    fn stuck_writer(&self) -> Child {
        let mut nsenter = Command::new("nsenter");
        nsenter.arg(format!("--target={}", self.first.pid)).args(["--mount", "--root", "/bin/sh", "-c"]);
        let writer = nsenter.arg(format!("echo late >{PLACE}/late")).spawn().unwrap();
        let waits = || fs::read_to_string(format!("/proc/{}/stat", writer.id())).unwrap().contains(") D ");
        let end = Instant::now() + PATIENCE;
        while !waits() {
            assert!(Instant::now() < end, "a frozen disk was written to");
            thread::sleep(LOOK);
        }
        writer
    }

    /// Its first process is gone, and all with it. Returns its directory.
    fn kill(mut self) -> tempfile::TempDir {
        self.first.kill(PATIENCE).unwrap();
        deadline::wait(&mut self.unshare, PATIENCE).unwrap().unwrap();
        self.dir.take().unwrap()
    }
}

fn new_host() -> Option<Host> {
    Host::start(tempfile::tempdir_in("/tmp").unwrap())
}

#[test]
fn a_disk_takes_over_what_was_there_once_and_survives_a_power_off() {
    let Some(host) = new_host() else { return };
    let names = |host: &Host| {
        let mut names: Vec<_> = fs::read_dir(host.path("")).unwrap().map(|e| e.unwrap().file_name()).collect();
        names.sort();
        names
    };
    assert_eq!(names(&host), ["shipped"]);
    fs::write(host.path("written"), "text").unwrap();
    fs::remove_file(host.path("shipped")).unwrap();
    assert_eq!(devices(&images(&[host.dir.as_ref().unwrap().path().to_owned()]).unwrap()).unwrap().len(), 1);
    let dir = host.kill();
    await_release(&[dir.path().to_owned()], PATIENCE).unwrap();
    let host = Host::start(dir).unwrap();
    assert_eq!(names(&host), ["written"]);
    assert_eq!(fs::read_to_string(host.path("written")).unwrap(), "text");
    let dir = host.kill();
    await_release(&[dir.path().to_owned()], PATIENCE).unwrap();
}

#[test]
fn a_full_disk_has_no_room_until_it_is_relieved() {
    let Some(host) = new_host() else { return };
    let write = || fs::write(host.path("more"), vec![1; 1 << 20]);
    begin(host.first, PLACE, Trouble::Full).unwrap();
    assert_eq!(write().unwrap_err().kind(), ErrorKind::StorageFull);
    end(host.first, PLACE, Trouble::Full).unwrap();
    write().unwrap();
    end(host.first, PLACE, Trouble::Full).unwrap();
    let dir = host.kill();
    await_release(&[dir.path().to_owned()], PATIENCE).unwrap();
    // Hardly anything of it was ever written.
    let image = fs::metadata(dir.path().join("state.image")).unwrap();
    assert!(image.blocks() * 512 < STATE_BYTES / 2, "{} blocks", image.blocks());
}

#[test]
fn a_frozen_disk_holds_writers_until_it_is_thawed() {
    let Some(host) = new_host() else { return };
    begin(host.first, PLACE, Trouble::Frozen).unwrap();
    let mut writer = host.stuck_writer();
    end(host.first, PLACE, Trouble::Frozen).unwrap();
    assert!(deadline::wait(&mut writer, PATIENCE).unwrap().unwrap().success());
    assert_eq!(fs::read_to_string(host.path("late")).unwrap(), "late\n");
    end(host.first, PLACE, Trouble::Frozen).unwrap();
    let dir = host.kill();
    await_release(&[dir.path().to_owned()], PATIENCE).unwrap();
}

#[test]
fn a_host_with_a_frozen_disk_can_lose_its_power() {
    let Some(host) = new_host() else { return };
    begin(host.first, PLACE, Trouble::Frozen).unwrap();
    let mut writer = host.stuck_writer();
    thaw_all(host.first);
    let dir = host.kill();
    deadline::wait(&mut writer, PATIENCE).unwrap().unwrap();
    await_release(&[dir.path().to_owned()], PATIENCE).unwrap();
}

#[test]
fn a_disk_whose_host_went_while_it_was_frozen_is_released_too() {
    let Some(host) = new_host() else { return };
    begin(host.first, PLACE, Trouble::Frozen).unwrap();
    let dir = host.kill();
    let dirs = [dir.path().to_owned()];
    assert_eq!(devices(&images(&dirs).unwrap()).unwrap().len(), 1);
    await_release(&dirs, Duration::from_secs(4)).unwrap();
    assert!(devices(&images(&dirs).unwrap()).unwrap().is_empty());
}
