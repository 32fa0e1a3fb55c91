//! Servers whose disk takes longer, for the line that shows what the disk has to do with it.

use crate::deadline::check;
use crate::layout::Part;
use crate::matrix::bed::Bed;
use anyhow::{Context, Result, ensure};
use std::process::{Command, Stdio};
use std::time::Duration;

const SOURCE: &str = include_str!("../../../assets/slow-sync.c");
const LIBRARY: &str = "/usr/local/lib/slow-sync.so";
const COMMAND: Duration = Duration::from_secs(30);
const WHOLE: Duration = Duration::from_secs(90);

/// Makes every fdatasync and fsync of the database's servers take so much longer, or not any more with 0.
/// Their power goes off and on for that, one after the other.
pub fn set(bed: &Bed, delay_ms: u32) -> Result<()> {
    let servers = bed.database_servers();
    if delay_ms == 0 {
        for server in &servers {
            bed.shell(server, &format!("rm -f /etc/ld.so.preload {LIBRARY}"), COMMAND)?;
        }
    } else {
        let library = compile(bed, delay_ms)?;
        for server in &servers {
            let file = std::fs::File::open(&library).with_context(|| format!("open {}", library.display()))?;
            let mut write = bed.host(server)?.command(&["sh", "-c", &format!("cat >{LIBRARY}")]);
            let written = write.stdin(Stdio::from(file)).status().context("copy a library into a host")?;
            ensure!(written.success(), "copying {LIBRARY} to {server}: {written}");
            bed.shell(server, &format!("echo {LIBRARY} >/etc/ld.so.preload"), COMMAND)?;
        }
    }
    restart(bed)?;
    servers.iter().try_for_each(|server| prove(bed, server, delay_ms))
}

fn compile(bed: &Bed, delay_ms: u32) -> Result<std::path::PathBuf> {
    let dir = bed.lab.paths().target.join("lab");
    let (source, library) = (dir.join("slow-sync.c"), dir.join("slow-sync.so"));
    std::fs::write(&source, SOURCE).with_context(|| format!("write {}", source.display()))?;
    let mut compiler = Command::new("cc");
    compiler.args(["-shared", "-fPIC", "-O2", &format!("-DDELAY_MS={delay_ms}"), "-o"]).arg(&library).arg(&source);
    check(&mut compiler, "compile the library that slows disks down", COMMAND)?;
    Ok(library)
}

/// Every process of both servers begins anew; the group ends where it was not.
fn restart(bed: &Bed) -> Result<()> {
    let owner = bed.owner(Part::Database)?;
    for server in [bed.peer(&owner)?, &owner] {
        bed.lab.poweroff(&[server])?;
        bed.lab.poweron(&[server])?;
        bed.until_whole(WHOLE)?;
    }
    Ok(())
}

/// A disk that should be slow and is not would give a figure of nothing.
fn prove(bed: &Bed, server: &str, delay_ms: u32) -> Result<()> {
    let script = "begin=$(date +%s%N); dd if=/dev/zero of=/var/tmp/probe bs=8k count=1 conv=fdatasync status=none; \
        end=$(date +%s%N); rm /var/tmp/probe; echo $(((end - begin) / 1000))";
    let said = bed.shell(server, script, COMMAND)?;
    let us: u32 = said.trim().parse().with_context(|| format!("time of a write on {server}: {said:?}"))?;
    ensure!(us >= delay_ms * 1_000, "a write on {server} took {us} us, and {delay_ms} ms were added to it");
    Ok(())
}
