//! What all virtual machines boot from, built once: the kernel, the first file system in memory, and an
//! image of the same Debian root that namespace hosts have.

use std::fs::{self, File};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use serde::{Deserialize, Serialize};

use super::cpio::Archive;
use crate::deadline;
use crate::layer;
use crate::paths::{Paths, fnv1a, write_atomically};
use crate::root;
use crate::state::{Shape, lock};
use crate::suite::Suite;

const SCRIPT: &str = include_str!("../../assets/vm-image.sh");
const INIT: &str = include_str!("../../assets/vm-init.sh");
const BOOT: &str = include_str!("../../assets/vm-boot.sh");
/// What a machine has beside the packages of a namespace host.
const PACKAGES: [&str; 4] = ["drbd-utils", "kmod", "e2fsprogs", "busybox-static"];
/// How long unpacking a kernel may take.
const UNPACK: Duration = Duration::from_secs(60);
/// How long another checkout may take to build the image.
const BUILD: Duration = Duration::from_secs(1800);

/// What a machine is started with.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Image {
    /// The kernel, uncompressed: so it is started at once, without the code that unpacks it.
    pub kernel: PathBuf,
    /// The archive with its first file system.
    pub initramfs: PathBuf,
    /// The root that all machines read and none writes.
    pub root: PathBuf,
}

/// The image of `suite`, built first when there is none or what it is made of has changed.
pub(super) fn ensure(paths: &Paths, suite: Suite) -> Result<Image> {
    let below = root::ensure(paths, suite)?;
    let suite_dir = paths.roots.join(suite.to_string());
    let (dir, stamp) = (suite_dir.join("vm"), suite_dir.join("vm.stamp"));
    let temporary = suite_dir.join("vm.build");
    let _lock = lock(&suite_dir.join("vm.lock"), BUILD)?;
    root::remove(&temporary)?;
    let files = temporary.join("files");
    fs::create_dir_all(&files).with_context(|| format!("cannot create {}", files.display()))?;
    configure(&files, &below, suite)?;
    let root_stamp = fs::read_to_string(suite_dir.join("stamp")).context("the root has no stamp")?;
    let mut recipe = format!("{root_stamp}{SCRIPT}{INIT}{PACKAGES:?}").into_bytes();
    contents(&files, &mut recipe)?;
    let recipe = format!("{:016x}\n", fnv1a(&recipe));
    let image = Image { kernel: dir.join("vmlinux"), initramfs: dir.join("initramfs"), root: dir.join("root.ext4") };
    let built = fs::read_to_string(&stamp).is_ok_and(|text| text == recipe) && image.root.is_file();
    if !built {
        let out = build(&temporary, &below, &files)?;
        root::remove(&stamp)?;
        root::remove(&dir)?;
        fs::rename(&out, &dir).context("cannot put the new image in place")?;
        write_atomically(&stamp, &recipe)?;
    }
    root::remove(&temporary)?;
    Ok(image)
}

/// The files that make a Debian root a host of the lab.
fn configure(files: &Path, below: &Path, suite: Suite) -> Result<()> {
    // OAR's job manager wants control groups of version 1, which machines do not have.
    layer::write(files, below, Shape { suite, ..Shape::default() }, &[])?;
    let boot = files.join("usr/local/sbin/vm-boot");
    fs::write(&boot, BOOT)
        .and_then(|()| fs::set_permissions(&boot, fs::Permissions::from_mode(0o755)))
        .with_context(|| format!("cannot write {}", boot.display()))
}

/// Everything below `dir`, so that a change of it is seen.
fn contents(dir: &Path, bytes: &mut Vec<u8>) -> Result<()> {
    let entries = fs::read_dir(dir).with_context(|| format!("cannot read {}", dir.display()))?;
    let mut paths: Vec<PathBuf> = entries.map(|entry| Ok(entry?.path())).collect::<std::io::Result<_>>()?;
    paths.sort();
    for path in paths {
        bytes.extend_from_slice(path.file_name().unwrap_or_default().as_encoded_bytes());
        if path.is_dir() {
            contents(&path, bytes)?;
        } else if !path.is_symlink() {
            bytes.extend(fs::read(&path).with_context(|| format!("cannot read {}", path.display()))?);
        }
    }
    Ok(())
}

fn build(temporary: &Path, below: &Path, files: &Path) -> Result<PathBuf> {
    let out = temporary.join("out");
    let dirs = ["layer", "work", "merged"].map(|name| temporary.join(name));
    for dir in dirs.iter().chain([&out]) {
        fs::create_dir_all(dir).with_context(|| format!("cannot create {}", dir.display()))?;
    }
    let mut script = Command::new("unshare");
    script.args(["--mount", "--pid", "--fork", "--kill-child", "--uts", "--ipc"]);
    script.args(["sh", "-c", SCRIPT, "vm-image"]).arg(below).args(&dirs).arg(files).arg(&out).args(PACKAGES);
    root::step("image of the virtual machines", &mut script)?;
    unpack_kernel(&out.join("vmlinuz"), &out.join("vmlinux"))?;
    fs::write(out.join("initramfs"), initramfs(&out)?).context("cannot write the initramfs")?;
    for spent in ["vmlinuz", "busybox", "modules", "modules.order"] {
        root::remove(&out.join(spent))?;
    }
    Ok(out)
}

fn initramfs(out: &Path) -> Result<Vec<u8>> {
    let order = fs::read(out.join("modules.order")).context("no modules for the initramfs")?;
    let mut archive = Archive::default();
    for dir in ["bin", "dev", "modules"] {
        archive.directory(dir);
    }
    archive.device("dev/console", 5, 1);
    archive.file("init", INIT.as_bytes());
    archive.file("bin/busybox", &fs::read(out.join("busybox")).context("no busybox for the initramfs")?);
    for name in String::from_utf8_lossy(&order).lines() {
        let path = out.join("modules").join(name);
        let module = fs::read(&path).with_context(|| format!("cannot read {}", path.display()))?;
        archive.file(&format!("modules/{name}"), &module);
    }
    archive.file("modules.order", &order);
    Ok(archive.finish())
}

/// A compressed kernel in the middle of its boot code.
#[derive(Debug, PartialEq, Eq)]
struct Packed<'a> {
    bytes: &'a [u8],
    /// The program that unpacks it, from its standard input to its standard output.
    unpacker: [&'static str; 3],
    unpacked_bytes: u32,
}

/// Finds the compressed kernel in the file that boot loaders start: its header says where it is.
fn packed(file: &[u8]) -> Result<Packed<'_>> {
    let word = |at: usize| -> Result<u32> {
        let bytes = file.get(at..at + 4).and_then(|bytes| bytes.try_into().ok()).context("a kernel that ends early")?;
        Ok(u32::from_le_bytes(bytes))
    };
    ensure!(file.get(0x202..0x206) == Some(b"HdrS"), "not a kernel for this kind of machine");
    let sectors = match file.get(0x1f1) {
        None | Some(0) => 4,
        Some(sectors) => usize::from(*sectors),
    };
    let begin = (sectors + 1) * 512 + usize::try_from(word(0x248)?)?;
    let end = begin + usize::try_from(word(0x24c)?)?;
    let bytes = file.get(begin..end).filter(|bytes| bytes.len() > 10).context("a kernel that ends early")?;
    // The last four bytes are not the packer's: they say how large the kernel is.
    let unpacked_bytes = word(end - 4)?;
    let unpacker = match bytes {
        [0xfd, b'7', b'z', b'X', b'Z', 0, ..] => ["xz", "-dc", "--single-stream"],
        [0x28, 0xb5, 0x2f, 0xfd, ..] => ["zstd", "-d", "-cq"],
        _ => bail!("a kernel that is neither packed by xz nor by zstd"),
    };
    Ok(Packed { bytes: &bytes[..bytes.len() - 4], unpacker, unpacked_bytes })
}

fn unpack_kernel(from: &Path, to: &Path) -> Result<()> {
    let file = fs::read(from).with_context(|| format!("cannot read {}", from.display()))?;
    let packed = packed(&file)?;
    let part = to.with_extension("packed");
    fs::write(&part, packed.bytes).with_context(|| format!("cannot write {}", part.display()))?;
    let [program, arguments @ ..] = packed.unpacker;
    let mut child = Command::new(program)
        .args(arguments)
        .stdin(File::open(&part)?)
        .stdout(File::create(to).with_context(|| format!("cannot create {}", to.display()))?)
        .stderr(Stdio::null())
        .spawn()
        .with_context(|| format!("cannot start {program}"))?;
    let Some(status) = deadline::wait(&mut child, UNPACK)? else {
        deadline::kill_group(&mut child);
        bail!("{program} did not unpack the kernel within {} s", UNPACK.as_secs());
    };
    fs::remove_file(&part)?;
    let length = fs::metadata(to)?.len();
    ensure!(
        status.success() && length == u64::from(packed.unpacked_bytes),
        "{program} unpacked {length} bytes of a kernel of {} ({status})",
        packed.unpacked_bytes
    );
    Ok(())
}

/// Makes an image of the programs that machines see as /opt/oarlock, in place of the former: a machine that
/// runs keeps that one.
pub(super) fn programs(paths: &Paths, dir: &Path) -> Result<()> {
    let staged = dir.join("programs");
    root::remove(&staged)?;
    fs::create_dir_all(&staged).with_context(|| format!("cannot create {}", staged.display()))?;
    let mut bytes = 0;
    for program in ["oarlock", "oarlock-lab"] {
        let source = paths.release(program);
        bytes += fs::copy(&source, staged.join(program))
            .with_context(|| format!("cannot copy {}\nhint: cargo build --release", source.display()))?;
    }
    let (image, new) = (dir.join("programs.ext4"), dir.join("programs.new"));
    root::remove(&new)?;
    let size = format!("{}M", bytes / 1_000_000 * 11 / 10 + 8);
    let mut make = Command::new("mke2fs");
    make.args(["-q", "-t", "ext4", "-O", "^has_journal", "-m", "0", "-d"]).arg(&staged).arg(&new).arg(size);
    deadline::check(&mut make, "cannot make the image of the programs", UNPACK)?;
    fs::rename(&new, &image).context("cannot put the image of the programs in place")?;
    root::remove(&staged)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn kernel(packed: &[u8], unpacked_bytes: u32) -> Vec<u8> {
        let mut file = vec![0; 3 * 512 + 16];
        file[0x1f1] = 2;
        file[0x202..0x206].copy_from_slice(b"HdrS");
        file[0x248..0x24c].copy_from_slice(&16_u32.to_le_bytes());
        file[0x24c..0x250].copy_from_slice(&(u32::try_from(packed.len()).unwrap() + 4).to_le_bytes());
        file.extend_from_slice(packed);
        file.extend_from_slice(&unpacked_bytes.to_le_bytes());
        file.extend_from_slice(b"what follows");
        file
    }

    #[test]
    fn the_packed_kernel_is_found_and_its_size_told_apart() {
        let xz = *b"\xfd7zXZ\0and more";
        let found = kernel(&xz, 77);
        let found = packed(&found).unwrap();
        assert_eq!((found.bytes, found.unpacked_bytes, found.unpacker[0]), (&xz[..], 77, "xz"));
        let zstd = kernel(b"\x28\xb5\x2f\xfdand more", 78);
        assert_eq!(packed(&zstd).unwrap().unpacker[0], "zstd");
    }

    #[test]
    fn what_is_no_kernel_is_refused() {
        assert!(packed(b"short").is_err());
        assert!(packed(&kernel(b"unknown packer", 1)).is_err());
        let mut cut = kernel(b"\xfd7zXZ\0and more", 77);
        cut.truncate(3 * 512 + 20);
        assert!(packed(&cut).is_err());
        let mut far = kernel(b"\xfd7zXZ\0and more", 77);
        far[0x248..0x24c].copy_from_slice(&u32::MAX.to_le_bytes());
        assert!(packed(&far).is_err());
    }
}
