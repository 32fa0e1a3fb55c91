//! Disks of a host's own: an ext4 image beside its layer, mounted in place of a directory, so that one
//! host's disk can be full or stand still while the machine's own goes on.
//!
//! The mounts are made by the host itself (`start-host.sh`) and go with its last process, and with them their
//! loop devices. A frozen one keeps processes in the kernel, SIGKILL or not, and itself for ever: thaw first.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use clap::ValueEnum;
use rustix::fs::{major, minor};

use crate::deadline::{check, output};
use crate::layout::{Kind, Spec};
use crate::process::Process;
use crate::state::Engine;

/// Room for what may lie side by side: the data, a gibibyte each of the database's log and of saved tails, and a
/// copy in the making. The image is sparse.
const DATABASE_BYTES: u64 = 4 << 30;
/// What an agent remembers is small.
const STATE_BYTES: u64 = 64 << 20;
/// For making a file system.
const MAKE: Duration = Duration::from_secs(60);
/// For freezing (which first writes out what is dirty), thawing, filling and making room.
const CHANGE: Duration = Duration::from_secs(15);
/// Between two looks at what the kernel lets go of by itself.
const LOOK: Duration = Duration::from_millis(20);
/// The file that takes all the room.
const FILLER: &str = "lab-filler";
/// Takes all the room: the most of it without writing it, the rest by writing.
const FILL: &str = r#"room() { echo $(($(stat -f -c '%a * %S' "$1"))); }
fallocate -l "$(room "$1")" "$1/$2" 2>/dev/null
cat /dev/zero >>"$1/$2" 2>/dev/null
[ "$(room "$1")" -lt 1048576 ]"#;
/// Thaws a loop device that nobody has mounted any more. Arguments: the device, an empty directory.
const RESCUE: &str = r#"mount "$1" "$2" && fsfreeze --unfreeze "$2""#;

/// What a disk of its own holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Disk {
    /// The database's files.
    Database,
    /// What the agent remembers.
    State,
}

/// What can be wrong with a disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Trouble {
    /// No room is left.
    Full,
    /// Who writes waits in the kernel until it goes on.
    Frozen,
}

impl Disk {
    /// The disks of a host.
    #[must_use]
    pub fn of(kind: Kind) -> &'static [Disk] {
        match kind {
            Kind::Server => &[Disk::Database, Disk::State],
            Kind::Frontend => &[Disk::State],
            Kind::User | Kind::Node => &[],
        }
    }

    /// The directory that it takes the place of: one above the data, beside which copies in the making lie.
    #[must_use]
    pub fn place(self, engine: Engine) -> &'static str {
        match (self, engine) {
            (Disk::Database, Engine::Postgresql) => "/var/lib/postgresql",
            (Disk::Database, Engine::Mariadb) => "/srv/mysql",
            (Disk::State, _) => "/var/lib/oarlock",
        }
    }

    fn name(self) -> &'static str {
        match self {
            Disk::Database => "database",
            Disk::State => "state",
        }
    }

    /// Of the directory, where no layer has it.
    fn mode(self) -> &'static str {
        match self {
            Disk::Database => "755",
            Disk::State => "700",
        }
    }

    fn bytes(self) -> u64 {
        match self {
            Disk::Database => DATABASE_BYTES,
            Disk::State => STATE_BYTES,
        }
    }
}

/// Makes the images of `host` in its directory `dir` where they are missing. Returns what its start is to
/// mount where, as `NAME=MODE=PLACE …`.
pub(crate) fn prepare(dir: &Path, host: &Spec, engine: Engine) -> Result<String> {
    let mut mounts = Vec::new();
    for disk in Disk::of(host.kind) {
        let image = dir.join(format!("{}.image", disk.name()));
        if !image.exists() {
            // Made under another name, so that an interruption leaves no half of one.
            let making = image.with_extension("making");
            make(&making, disk.bytes())
                .and_then(|()| fs::rename(&making, &image).map_err(anyhow::Error::from))
                .with_context(|| format!("cannot make the disk {}", image.display()))?;
        }
        mounts.push(format!("{}={}={}", disk.name(), disk.mode(), disk.place(engine)));
    }
    Ok(mounts.join(" "))
}

fn make(image: &Path, bytes: u64) -> Result<()> {
    fs::File::create(image)?.set_len(bytes)?;
    let mut mkfs = Command::new("mkfs.ext4");
    // No work for later in the background, and no share for root that a database could not have.
    mkfs.args(["-q", "-F", "-m", "0", "-E", "lazy_itable_init=0"]).arg(image);
    check(&mut mkfs, "mkfs.ext4", MAKE).map(drop)
}

/// A host's disk as the machine sees it, through the host's pid 1. An error if there is none of its own:
/// what is done to it must not be done to the machine's.
fn seen(host: Process, place: &str) -> Result<PathBuf> {
    let mounts = fs::read_to_string(format!("/proc/{}/mountinfo", host.pid)).context("cannot read a host's mounts")?;
    ensure!(is_own(&mounts, place), "{place} is no disk of its own\nhint: cargo xtask lab up --disks");
    ensure!(host.alive(), "the host is powered off");
    Ok(PathBuf::from(format!("/proc/{}/root{place}", host.pid)))
}

/// Whether an ext4 file system on a loop device is what is seen at `place`.
fn is_own(mountinfo: &str, place: &str) -> bool {
    let top = mountinfo.lines().rfind(|line| line.split(' ').nth(4) == Some(place));
    top.and_then(|line| line.split_once(" - ")).is_some_and(|(_, what)| what.starts_with("ext4 /dev/loop"))
}

/// Begins a trouble of the disk at `place`.
pub(crate) fn begin(host: Process, place: &str, trouble: Trouble) -> Result<()> {
    match trouble {
        Trouble::Full => fill(host, place),
        Trouble::Frozen => freeze(host, place),
    }
}

/// Ends a trouble of the disk at `place`. One that is not there is no error.
pub(crate) fn end(host: Process, place: &str, trouble: Trouble) -> Result<()> {
    match trouble {
        Trouble::Full => make_room(host, place),
        Trouble::Frozen => thaw(host, place),
    }
}

fn freeze(host: Process, place: &str) -> Result<()> {
    let mut freeze = Command::new("fsfreeze");
    freeze.arg("--freeze").arg(seen(host, place)?);
    check(&mut freeze, "cannot freeze a disk", CHANGE).map(drop)
}

fn thaw(host: Process, place: &str) -> Result<()> {
    let mut thaw = Command::new("fsfreeze");
    thaw.arg("--unfreeze").arg(seen(host, place)?);
    let outcome = output(&mut thaw, None, CHANGE)?;
    // How the kernel calls one that was not frozen.
    if outcome.status.success() || outcome.stderr.contains("Invalid argument") {
        return Ok(());
    }
    outcome.ok().context("cannot thaw a disk").map(drop)
}

fn fill(host: Process, place: &str) -> Result<()> {
    let mut fill = Command::new("sh");
    fill.args(["-c", FILL, "fill"]).arg(seen(host, place)?).arg(FILLER);
    check(&mut fill, "cannot fill a disk", CHANGE).map(drop)
}

fn make_room(host: Process, place: &str) -> Result<()> {
    // By another process: a disk that hangs shall not hang us.
    let mut remove = Command::new("rm");
    remove.arg("-f").arg(seen(host, place)?.join(FILLER));
    check(&mut remove, "cannot make room on a disk", CHANGE).map(drop)
}

/// Thaws what `process` sees of disks, before it is killed: one that waits in the kernel would stay.
pub(crate) fn thaw_all(process: Process) {
    for place in [Engine::Postgresql, Engine::Mariadb].map(|engine| Disk::Database.place(engine)) {
        // No such disk, or the process has gone: nothing to thaw, and what stays is found afterwards.
        let _ = thaw(process, place);
    }
    let _ = thaw(process, Disk::State.place(Engine::Postgresql));
}

/// Waits until no loop device has one of the images in `dirs` any more; an error that names one at the
/// deadline. The mounts went with the last process, but the kernel may need a moment.
pub(crate) fn await_release(dirs: &[PathBuf], deadline: Duration) -> Result<()> {
    let images = images(dirs)?;
    let end = Instant::now() + deadline;
    let mut rescued = false;
    while !images.is_empty() {
        let held = devices(&images)?;
        let Some((device, image)) = held.first() else { break };
        if Instant::now() >= end {
            bail!("{device} still has {} mounted {} ms after power-off", image.display(), deadline.as_millis());
        }
        // One that was frozen when the last of the host's processes went can only be thawed by mounting it anew.
        if !rescued && Instant::now() + deadline / 2 >= end {
            rescued = true;
            held.iter().for_each(|(device, _)| rescue(device));
        }
        thread::sleep(LOOK);
    }
    Ok(())
}

/// The images in `dirs`, by what a loop device calls its file: inode and device.
fn images(dirs: &[PathBuf]) -> Result<BTreeMap<String, PathBuf>> {
    let mut images = BTreeMap::new();
    for dir in dirs {
        let entries = match fs::read_dir(dir) {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => continue,
            entries => entries.with_context(|| format!("cannot list {}", dir.display()))?,
        };
        for path in
            entries.flatten().map(|entry| entry.path()).filter(|path| path.extension() == Some("image".as_ref()))
        {
            let file = fs::metadata(&path).with_context(|| format!("cannot look at {}", path.display()))?;
            let (major, minor) = (major(file.dev()), minor(file.dev()));
            images.insert(format!("{} {major}:{minor}", file.ino()), path);
        }
    }
    Ok(images)
}

/// The loop devices that have one of `images`, and which.
fn devices(images: &BTreeMap<String, PathBuf>) -> Result<Vec<(String, &Path)>> {
    let mut list = Command::new("losetup");
    list.args(["--list", "--noheadings", "--output", "NAME,BACK-INO,BACK-MAJ:MIN"]);
    let list = check(&mut list, "cannot list loop devices", CHANGE)?;
    let held = |line: &str| {
        let mut fields = line.split_whitespace();
        let (name, inode, device) = (fields.next()?, fields.next()?, fields.next()?);
        Some((name.to_owned(), images.get(&format!("{inode} {device}"))?.as_path()))
    };
    Ok(list.lines().filter_map(held).collect())
}

/// Thaws the file system on a device of ours that is mounted nowhere.
fn rescue(device: &str) {
    let dir = std::env::temp_dir().join(format!("oarlab-rescue-{}", std::process::id()));
    if fs::create_dir(&dir).is_ok() {
        let mut mount = Command::new("unshare");
        mount.args(["--mount", "sh", "-c", RESCUE, "rescue", device]).arg(&dir);
        // What could not be done shows as a device that stays.
        let _ = output(&mut mount, None, CHANGE);
        let _ = fs::remove_dir(&dir);
    }
}

#[cfg(test)]
mod mount_tests;

#[cfg(test)]
mod tests {
    use super::*;

    const OVERLAY: &str = "50 30 0:60 / / rw,relatime - overlay overlay rw,lowerdir=/a,upperdir=/b\n";
    const DISK: &str = "157 50 7:1 / /var/lib/oarlock rw,nodev,relatime - ext4 /dev/loop1 rw\n";

    #[test]
    fn only_a_disk_of_its_own_may_be_touched() {
        let own = |text: &str| is_own(text, "/var/lib/oarlock");
        assert!(own(&format!("{OVERLAY}{DISK}")));
        assert!(!own(OVERLAY));
        assert!(!own("1 1 8:1 / /var/lib/oarlock rw - ext4 /dev/sda1 rw\n"));
        // Something else lies over it now.
        assert!(!own(&format!("{DISK}158 157 0:61 / /var/lib/oarlock rw - tmpfs tmpfs rw\n")));
        assert!(!is_own(DISK, "/var/lib"));
        assert!(seen(Process::of(std::process::id().cast_signed()).unwrap(), "/").is_err());
    }

    #[test]
    fn an_image_is_made_once_and_takes_little() {
        let dir = tempfile::tempdir().unwrap();
        let spec = crate::layout::Layout::Two.host("frontend").unwrap();
        assert_eq!(prepare(dir.path(), spec, Engine::Postgresql).unwrap(), "state=700=/var/lib/oarlock");
        let image = dir.path().join("state.image");
        let made = fs::metadata(&image).unwrap();
        assert_eq!(made.len(), STATE_BYTES);
        assert!(made.blocks() * 512 < STATE_BYTES, "{} blocks", made.blocks());
        prepare(dir.path(), spec, Engine::Postgresql).unwrap();
        assert_eq!(fs::metadata(&image).unwrap().mtime_nsec(), made.mtime_nsec());
        let dirs = [dir.path().to_owned(), dir.path().join("none")];
        assert_eq!(images(&dirs).unwrap().into_values().collect::<Vec<_>>(), [image]);
        await_release(&dirs, Duration::ZERO).unwrap();
    }

    #[test]
    fn servers_have_two_disks_the_witness_one() {
        assert_eq!(Disk::of(Kind::Server).len(), 2);
        assert_eq!(Disk::of(Kind::Frontend), [Disk::State]);
        assert!(Disk::of(Kind::Node).is_empty());
    }
}
