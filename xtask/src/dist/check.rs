//! What happens to a machine that gets the packages: clean Debian roots, each step in turn.

use std::ffi::OsStr;
use std::io::{BufRead, BufReader};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use oarlock_lab::deadline::{kill_group, wait};
use oarlock_lab::root;
use oarlock_lab::suite::Suite;

use super::{Job, Packages};

/// Mounts a throw-away layer over a root, and runs the others there.
const ENTER: &str = include_str!("../../../packaging/check/enter.sh");
const SYSTEMCTL: &str = include_str!("../../../packaging/check/systemctl");
const COMMON: &str = include_str!("../../../packaging/check/common.sh");
const DEB: &str = include_str!("../../../packaging/check/deb.sh");
const RPM: &str = include_str!("../../../packaging/check/rpm.sh");
/// Machines with a database and OAR, joined by a network of their own.
const MACHINES: &str = include_str!("../../../packaging/check/machines.sh");
const MACHINE: &str = include_str!("../../../packaging/check/machine.sh");
const DEPLOY: &str = include_str!("../../../packaging/check/deploy.sh");
/// One course, on a busy machine.
const COURSE: Duration = Duration::from_secs(600);

/// Runs all of it; the first step that is not as it must be ends it.
pub(super) fn run(job: &Job, packages: &Packages, newer: &Packages) -> Result<()> {
    for suite in [Suite::Bookworm, Suite::Trixie] {
        let clean = root::clean(&job.paths, suite, None)?;
        course(job, &format!("{suite}, deb"), DEB, &clean, [&packages.deb, &newer.deb])?;
        let with_rpm = root::clean(&job.paths, suite, Some("rpm"))?;
        course(job, &format!("{suite}, rpm"), RPM, &with_rpm, [&packages.rpm, &newer.rpm])?;
    }
    Ok(())
}

/// Deploys the package onto machines on which OAR runs already, lets one of them die, and undeploys.
pub(super) fn deploy(job: &Job, package: &Path) -> Result<()> {
    let root = root::ensure(&job.paths, Suite::Bookworm)?;
    let arguments = [root.as_os_str(), package.as_os_str()];
    watched(job, "deploy", MACHINES, &arguments, &[SYSTEMCTL, MACHINE, DEPLOY])
}

fn course(job: &Job, name: &str, script: &str, root: &Path, packages: [&Path; 2]) -> Result<()> {
    let arguments = [root.as_os_str(), packages[0].as_os_str(), packages[1].as_os_str()];
    watched(job, name, ENTER, &arguments, &[SYSTEMCTL, COMMON, script])
}

/// Runs one script as the first process of namespaces of its own; its lines are the steps.
fn watched(job: &Job, name: &str, first: &str, arguments: &[&OsStr], texts: &[&str]) -> Result<()> {
    println!("== {name}");
    let start = Instant::now();
    let mut command = Command::new("unshare");
    command.args(["--mount", "--pid", "--fork", "--kill-child", "--uts", "--ipc", "--net", "sh", "-c", first, "first"]);
    command.args(arguments).args(texts);
    let (lines, writer) = std::io::pipe().context("cannot make a pipe")?;
    let mut child = command
        .process_group(0)
        .stdin(Stdio::null())
        .stdout(writer.try_clone()?)
        .stderr(writer)
        .spawn()
        .context("cannot start unshare")?;
    // Our copies of the writing end would keep the pipe open after the child's end.
    command.stdout(Stdio::null()).stderr(Stdio::null());
    let log = job.out.join(format!("{}.log", name.replace(", ", "-")));
    let to = log.clone();
    let reader = std::thread::spawn(move || -> Result<()> {
        let mut whole = String::new();
        for line in BufReader::new(lines).split(b'\n') {
            let line = String::from_utf8_lossy(&line?).into_owned();
            if line.starts_with("ok:") || line.starts_with("FAILED") || line.starts_with("skipped") {
                println!("{line}");
            }
            whole += &format!("{line}\n");
        }
        std::fs::write(&to, whole).with_context(|| format!("cannot write {}", to.display()))
    });
    let status = wait(&mut child, COURSE)?;
    if status.is_none() {
        kill_group(&mut child);
    }
    reader.join().map_err(|_| anyhow::anyhow!("the reader of the output ended early"))??;
    match status {
        Some(status) if status.success() => println!("ok: {name}, {:.1} s", start.elapsed().as_secs_f64()),
        Some(_) => bail!("{name}: a step failed\nhint: all that was said is in {}", log.display()),
        None => bail!("{name} did not end within {} s; see {}", COURSE.as_secs(), log.display()),
    }
    Ok(())
}
