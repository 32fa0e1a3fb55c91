//! Pacemaker's `crm_simulate`, taken out of Debian's packages into the target directory: nothing is
//! installed.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, bail};

use crate::deadline::{check, output};
use crate::paths::Paths;

/// How long apt may take for one step.
const APT: Duration = Duration::from_secs(120);
/// How long one question may take: it is a matter of milliseconds on a quiet machine.
const ASK: Duration = Duration::from_secs(20);
/// Whose program it is.
const PACKAGE: &str = "pacemaker-cli-utils";
/// Where it is in there.
const PROGRAM: &str = "usr/sbin/crm_simulate";

/// A program that runs.
pub struct Simulator {
    root: PathBuf,
    libraries: String,
    scratch: PathBuf,
}

/// The program, fetched before if need be.
///
/// # Errors
/// When the packages cannot be had, or what is in them does not run here.
pub fn simulator() -> Result<Simulator> {
    let home = Paths::find()?.target.join("pacemaker");
    let root = home.join("root");
    if !root.join(PROGRAM).is_file() {
        fetch(&home, &root)?;
    }
    let scratch = home.join(format!("scratch-{}", std::process::id()));
    fs::create_dir_all(&scratch).with_context(|| format!("cannot make {}", scratch.display()))?;
    let simulator = Simulator { libraries: libraries(&root), root, scratch };
    let version = output(simulator.command().arg("--version"), None, ASK)?;
    if !version.status.success() {
        bail!("it does not run here: {}", version.stderr.trim());
    }
    Ok(simulator)
}

impl Simulator {
    fn command(&self) -> Command {
        let mut command = Command::new(self.root.join(PROGRAM));
        // Its working copy of the input would go to a directory of the installed Pacemaker.
        command.env("LD_LIBRARY_PATH", &self.libraries).env("CIB_shadow_dir", &self.scratch);
        command.current_dir(&self.scratch);
        command
    }

    /// What Pacemaker would do, in its XML form.
    pub fn ask(&self, input: &str) -> Result<String> {
        let mut command = self.command();
        let answer = self.scratch.join("answer.xml");
        // To a file: whatever is in it when the program has ended is all of it.
        command.args(["--run", "--xml-pipe", "--output-as=xml", "--output-to"]).arg(&answer);
        let ended = output(&mut command, Some(input), ASK)?;
        let text = fs::read_to_string(&answer);
        for left in fs::read_dir(&self.scratch).into_iter().flatten().flatten() {
            // Nothing depends on it: the answer, and a copy of the input.
            let _ = fs::remove_file(left.path());
        }
        ended.ok().with_context(|| format!("crm_simulate fails on:\n{input}"))?;
        text.with_context(|| format!("cannot read {}", answer.display()))
    }
}

impl Drop for Simulator {
    fn drop(&mut self) {
        // Nobody else uses it.
        let _ = fs::remove_dir_all(&self.scratch);
    }
}

/// Downloads the package and the libraries it needs that this machine has not, and unpacks them.
fn fetch(home: &Path, root: &Path) -> Result<()> {
    let packages = home.join("packages");
    // Half of an earlier attempt is worth nothing.
    let _ = fs::remove_dir_all(home);
    fs::create_dir_all(&packages).with_context(|| format!("cannot make {}", packages.display()))?;
    let wanted = missing()?;
    let mut download = Command::new("apt-get");
    download.args(["--quiet", "download"]).args(&wanted).current_dir(&packages);
    check(&mut download, "cannot download Debian's packages", APT)?;
    let unpacked = home.join("unpacking");
    for entry in fs::read_dir(&packages)?.flatten() {
        let mut unpack = Command::new("dpkg");
        unpack.arg("--extract").arg(entry.path()).arg(&unpacked);
        check(&mut unpack, "cannot unpack a package", APT)?;
    }
    fs::rename(&unpacked, root).with_context(|| format!("cannot rename {}", unpacked.display()))
}

/// The package and those of its libraries, near and far, that are not installed here.
fn missing() -> Result<BTreeSet<String>> {
    let mut wanted = BTreeSet::from([PACKAGE.to_owned()]);
    let mut asked = wanted.clone();
    while !asked.is_empty() {
        let mut depends = Command::new("apt-cache");
        depends.arg("depends").args(&asked);
        let answer = check(&mut depends, "cannot ask apt for dependencies", APT)?;
        let names = answer.lines().filter_map(|line| line.trim_start().strip_prefix("Depends: "));
        let new: BTreeSet<String> =
            names.filter(|name| name.starts_with("lib") && !wanted.contains(*name)).map(str::to_owned).collect();
        asked = new.into_iter().filter(|name| !is_installed(name)).collect();
        wanted.extend(asked.iter().cloned());
    }
    Ok(wanted)
}

fn is_installed(package: &str) -> bool {
    let mut query = Command::new("dpkg-query");
    query.args(["--show", "--showformat=${db:Status-Status}", package]);
    output(&mut query, None, APT).is_ok_and(|answer| answer.stdout == "installed")
}

/// Where shared libraries are in an unpacked root, as a search path.
fn libraries(root: &Path) -> String {
    let top = root.join("usr/lib");
    let below = fs::read_dir(&top).into_iter().flatten().flatten().map(|entry| entry.path());
    let triplets = below.filter(|path| path.is_dir() && path.to_string_lossy().contains("-linux-gnu"));
    let all: Vec<String> = [top.clone()].into_iter().chain(triplets).map(|path| path.display().to_string()).collect();
    all.join(":")
}
