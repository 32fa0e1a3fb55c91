//! One virtual machine: its disks, its power, its console.

use std::fs::{self, File};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

use super::image::Image;
use super::lab::Shape;
use super::{CONTROL, READY, qmp, wires};
use crate::cgroup::{self, Hierarchy};
use crate::deadline;
use crate::host::Host;
use crate::layout::{Kind, Spec};
use crate::net;
use crate::process::Process;

/// The program that emulates a machine.
pub(super) const QEMU: &str = "qemu-system-x86_64";
/// A machine's own disk grows up to this; it begins empty.
const OWN_DISK: &str = "4G";
/// How long a machine may take to boot on a busy host.
const BOOT: Duration = Duration::from_secs(180);
/// How often the console is looked at.
const LOOK: Duration = Duration::from_millis(20);
/// For commands that only make a file, and for the kernel to end a process.
const QUICK: Duration = Duration::from_secs(10);

/// What power-on needs to know beside the machine itself.
#[derive(Debug)]
pub(super) struct Hardware<'a> {
    pub image: &'a Image,
    /// The lab's directory.
    pub dir: &'a Path,
    pub shape: Shape,
    pub wires: Process,
    /// The hierarchy by which all machines are found again.
    pub hierarchies: &'a [Hierarchy],
    /// What the lab is called in it.
    pub lab: &'a str,
}

impl Hardware<'_> {
    fn host(&self, spec: &Spec) -> PathBuf {
        host_dir(self.dir, spec.name)
    }
}

/// Where a machine's disks and its console are.
pub(super) fn host_dir(lab: &Path, name: &str) -> PathBuf {
    lab.join("hosts").join(name)
}

/// Starts the machine `spec`; it is not ready yet.
pub(super) fn power_on(hardware: &Hardware<'_>, spec: &Spec) -> Result<Process> {
    let dir = hardware.host(spec);
    fs::create_dir_all(&dir).with_context(|| format!("cannot create {}", dir.display()))?;
    disks(hardware, &dir)?;
    for old in [qmp::SOCKET, "console"] {
        crate::root::remove(&dir.join(old))?;
    }
    cgroup::create(hardware.hierarchies, hardware.lab, spec.name)?;
    let log = File::create(dir.join("qemu.log")).context("cannot create qemu.log")?;
    let mut command = cgroup::join(hardware.hierarchies, hardware.lab, spec.name);
    command
        .arg("nsenter")
        .arg(format!("--net=/proc/{}/ns/net", hardware.wires.pid))
        .arg("--")
        .arg(QEMU)
        .args(arguments(hardware, spec))
        .current_dir(&dir)
        // A terminal's interrupt is not for machines.
        .process_group(0)
        .stdin(Stdio::null())
        .stdout(log.try_clone()?)
        .stderr(log);
    let child = command.spawn().with_context(|| format!("cannot start {}", spec.name))?;
    Process::of(child.id().cast_signed())
}

/// Makes the disks that are missing; a power-off leaves them.
fn disks(hardware: &Hardware<'_>, dir: &Path) -> Result<()> {
    let own = dir.join("own.ext4");
    if !own.exists() {
        let new = dir.join("own.new");
        crate::root::remove(&new)?;
        let mut make = Command::new("mke2fs");
        // Nothing is left for the machine to do in the background.
        make.args(["-q", "-t", "ext4", "-N", "131072", "-J", "size=16", "-E", "lazy_itable_init=0", "-L", "own"]);
        deadline::check(make.arg(&new).arg(OWN_DISK), "cannot make a disk", QUICK)?;
        fs::rename(&new, &own)?;
    }
    let data = dir.join("data.img");
    if !data.exists() {
        let bytes = u64::from(hardware.shape.data_mib) << 20;
        File::create(&data).and_then(|file| file.set_len(bytes)).context("cannot make a disk")?;
    }
    Ok(())
}

fn arguments(hardware: &Hardware<'_>, spec: &Spec) -> Vec<String> {
    let kind = match spec.kind {
        Kind::Server => "server",
        Kind::Frontend => "frontend",
        Kind::User => "user",
        Kind::Node => "node",
    };
    let (name, octet, memory_mib) = (spec.name, spec.octet, hardware.shape.memory_mib);
    // A timer of a machine that is emulated on a busy host fails the kernel's check of it now and then.
    let append = format!(
        "console=ttyS0 loglevel=4 panic=-1 no_timer_check vm_name={name} vm_octet={octet} vm_kind={kind} vm_control={CONTROL}"
    );
    let words = [
        "-M pc -nodefaults -no-user-config -vga none -display none -cpu max -smp 1",
        // Translated code is kept in this many MiB; the default would be a quarter of the host's memory.
        "-accel tcg,thread=multi,tb-size=256",
        "-rtc base=utc -no-reboot -device i6300esb -action watchdog=reset",
        "-serial file:console",
    ];
    let mut list: Vec<String> = words.iter().flat_map(|line| line.split(' ')).map(str::to_owned).collect();
    let mut push = |flag: &str, value: String| list.extend([flag.to_owned(), value]);
    push("-name", name.to_owned());
    push("-m", memory_mib.to_string());
    push("-qmp", format!("unix:{},server=on,wait=off", qmp::SOCKET));
    push("-kernel", hardware.image.kernel.display().to_string());
    push("-initrd", hardware.image.initramfs.display().to_string());
    push("-append", append);
    // In the order in which the machine sees them: vda, vdb, vdc, vdd.
    let disk = |path: &Path| format!("if=virtio,format=raw,cache=writeback,file={}", path.display());
    let shared = |path: &Path| format!("{},readonly=on,file.locking=off", disk(path));
    push("-drive", shared(&hardware.image.root));
    push("-drive", disk(Path::new("own.ext4")));
    push("-drive", shared(&hardware.dir.join("programs.ext4")));
    push("-drive", disk(Path::new("data.img")));
    // In the order in which the machine sees them: eth0 is the control's.
    for link in wires::cables(spec) {
        push("-netdev", format!("tap,id=net{link},ifname={},script=no,downscript=no", spec.port(link)));
        push("-device", format!("virtio-net-pci,id={},netdev=net{link},mac={}", card(link), spec.mac(link)));
    }
    list
}

/// What QEMU calls the card of a link.
pub(super) fn card(link: u8) -> String {
    format!("link{link}")
}

/// Waits until commands can be run in a machine that was started at `started`; says how long it took.
pub(super) fn await_ready(
    hardware: &Hardware<'_>,
    host: &Host,
    process: Process,
    started: Instant,
) -> Result<Duration> {
    let dir = hardware.host(host.spec());
    loop {
        // What a machine writes to its console need not be text.
        let console = fs::read(dir.join("console")).unwrap_or_default();
        if String::from_utf8_lossy(&console).contains(READY) {
            host.run(&["true"], QUICK).context("its agent listens and does not answer")?;
            return Ok(started.elapsed());
        }
        let alive = process.alive();
        if !alive || started.elapsed() >= BOOT {
            let why = if alive { "is not ready" } else { "has ended" };
            let name = host.name();
            bail!("{name} {why} after {} ms:\n{}", started.elapsed().as_millis(), last_words(&dir));
        }
        thread::sleep(LOOK);
    }
}

/// The end of what the machine and its emulator have written.
pub(super) fn last_words(dir: &Path) -> String {
    let mut text = String::new();
    for file in ["qemu.log", "console"] {
        let bytes = fs::read(dir.join(file)).unwrap_or_default();
        let lines = String::from_utf8_lossy(&bytes).replace('\r', "");
        let lines: Vec<&str> = lines.lines().collect();
        let last = &lines[lines.len().saturating_sub(15)..];
        text += &format!("{file}:\n  {}\n", last.join("\n  "));
    }
    text
}

/// Ends machines as a loss of power does: cables first, then the emulators, whose disks are files that keep
/// what was written.
pub(super) fn power_off(hardware: &Hardware<'_>, machines: &[(&'static Spec, Process)]) -> Result<()> {
    for (spec, _) in machines {
        net::unplug(hardware.wires, spec)?;
    }
    for (spec, process) in machines {
        process.kill(QUICK).with_context(|| format!("cannot power off {}", spec.name))?;
    }
    for (spec, _) in machines {
        cgroup::remove(hardware.hierarchies, hardware.lab, Some(spec.name), QUICK)?;
    }
    Ok(())
}
