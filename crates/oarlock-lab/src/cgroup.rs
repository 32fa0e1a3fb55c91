//! The control groups of a host: a subtree of its own in every hierarchy of the machine, which
//! the host sees as its whole /sys/fs/cgroup.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

/// The v1 controllers OAR's job manager uses. `memory` stays the machine's own.
const CONTROLLERS: [&str; 5] = ["cpuset", "cpu", "cpuacct", "devices", "freezer"];
/// Period of the real-time budget: short, so that a throttled agent is late by little.
pub const REALTIME_PERIOD_US: u32 = 100_000;
/// Real-time budgets tried for a host, in microseconds per period: what the machine has is
/// shared by all hosts of all labs on it.
const REALTIME_BUDGETS_US: [u32; 3] = [20_000, 10_000, 5_000];

/// Joins the control groups named before `--` and becomes the command after it.
const JOIN: &str = r#"while [ "$1" != -- ]; do echo $$ >"$1/cgroup.procs"; shift; done; shift; exec "$@""#;

/// One hierarchy of control groups on the machine.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Hierarchy {
    /// `unified` for version 2, otherwise the controller's name.
    pub name: String,
    /// Where the machine has it mounted.
    pub mount: PathBuf,
}

impl Hierarchy {
    /// The group of `host` in this hierarchy.
    #[must_use]
    pub fn group(&self, lab: &str, host: &str) -> PathBuf {
        self.mount.join(lab).join(host)
    }
}

/// The machine's hierarchies that hosts get a part of.
pub fn hierarchies() -> Result<Vec<Hierarchy>> {
    let mounts = fs::read_to_string("/proc/mounts").context("cannot read /proc/mounts")?;
    Ok(parse(&mounts))
}

fn parse(mounts: &str) -> Vec<Hierarchy> {
    let mut found: Vec<Hierarchy> = Vec::new();
    for line in mounts.lines() {
        let mut fields = line.split(' ').skip(1);
        let (Some(mount), Some(kind), Some(options)) = (fields.next(), fields.next(), fields.next()) else {
            continue;
        };
        let name = match kind {
            "cgroup2" => Some("unified"),
            // Controllers mounted together can only be mounted together again: not offered.
            "cgroup" => CONTROLLERS.into_iter().find(|c| {
                let mut all = options.split(',').filter(|o| is_controller(o));
                all.next() == Some(c) && all.next().is_none()
            }),
            _ => None,
        };
        if let Some(name) = name.filter(|name| found.iter().all(|h| h.name != *name)) {
            found.push(Hierarchy { name: name.to_owned(), mount: mount.into() });
        }
    }
    found
}

fn is_controller(option: &str) -> bool {
    let others = ["rw", "ro", "relatime", "noatime", "nosuid", "nodev", "noexec", "xattr", "clone_children"];
    !others.contains(&option) && !option.contains('=')
}

/// Makes the groups of `host`; returns its real-time budget in microseconds per period.
pub fn create(hierarchies: &[Hierarchy], lab: &str, host: &str) -> Result<u32> {
    let mut realtime = 0;
    for hierarchy in hierarchies {
        let group = hierarchy.group(lab, host);
        fs::create_dir_all(&group).with_context(|| format!("cannot create {}", group.display()))?;
        let parents = [hierarchy.mount.join(lab), group.clone()];
        match hierarchy.name.as_str() {
            "cpuset" => parents.iter().try_for_each(|dir| inherit_cpuset(dir))?,
            "cpu" => realtime = grant_realtime(&parents[0], &group),
            _ => {}
        }
    }
    Ok(realtime)
}

/// A new v1 cpuset is empty and accepts no process until it is filled.
fn inherit_cpuset(group: &Path) -> Result<()> {
    let parent = group.parent().context("a control group without a parent")?;
    for file in ["cpuset.cpus", "cpuset.mems"] {
        let target = group.join(file);
        if fs::read_to_string(&target)?.trim().is_empty() {
            let value = fs::read_to_string(parent.join(file))?;
            fs::write(&target, value).with_context(|| format!("cannot write {}", target.display()))?;
        }
    }
    Ok(())
}

/// Gives `group` real-time run time, top-down, as much of it as the machine still has.
fn grant_realtime(lab: &Path, group: &Path) -> u32 {
    let read = |dir: &Path| -> u32 {
        fs::read_to_string(dir.join("cpu.rt_runtime_us")).ok().and_then(|t| t.trim().parse().ok()).unwrap_or(0)
    };
    let write = |dir: &Path, file: &str, value: u32| fs::write(dir.join(file), value.to_string()).is_ok();
    let granted = read(group);
    if granted > 0 {
        return granted;
    }
    // The budget stays zero while the period is set, so neither order can be refused.
    if read(lab) == 0 {
        write(lab, "cpu.rt_period_us", REALTIME_PERIOD_US);
    }
    write(group, "cpu.rt_period_us", REALTIME_PERIOD_US);
    for budget in REALTIME_BUDGETS_US {
        let before = read(lab);
        if write(lab, "cpu.rt_runtime_us", before + budget) {
            if write(group, "cpu.rt_runtime_us", budget) {
                return budget;
            }
            write(lab, "cpu.rt_runtime_us", before);
        }
    }
    0
}

/// A command line that joins the control groups of `host` and becomes what is appended to it.
#[must_use]
pub fn join(hierarchies: &[Hierarchy], lab: &str, host: &str) -> Command {
    let mut command = Command::new("sh");
    command.args(["-c", JOIN, "join"]);
    command.args(hierarchies.iter().map(|h| h.group(lab, host))).arg("--");
    command
}

/// Removes the groups of `host`, or of the whole lab without `host`. Every process must have
/// ended; the kernel may still need a moment to forget it.
pub fn remove(hierarchies: &[Hierarchy], lab: &str, host: Option<&str>, deadline: Duration) -> Result<()> {
    let end = Instant::now() + deadline;
    for hierarchy in hierarchies {
        let mut top = hierarchy.mount.join(lab);
        let mut budget = 0;
        if let Some(host) = host {
            top.push(host);
            budget = fs::read_to_string(top.join("cpu.rt_runtime_us"))
                .ok()
                .and_then(|text| text.trim().parse::<u32>().ok())
                .unwrap_or(0);
        }
        while let Err(error) = remove_tree(&top) {
            if Instant::now() >= end {
                bail!("cannot remove the control group {}: {error}", top.display());
            }
            thread::sleep(Duration::from_millis(2));
        }
        give_back(&hierarchy.mount.join(lab), budget);
    }
    Ok(())
}

/// Returns a host's real-time budget, else each power-on would take one more.
fn give_back(lab: &Path, budget: u32) {
    let file = lab.join("cpu.rt_runtime_us");
    let Ok(text) = fs::read_to_string(&file) else {
        return;
    };
    let left = text.trim().parse::<u32>().unwrap_or(0).saturating_sub(budget);
    // Keeping too much is harmless: it ends with the lab.
    let _ = fs::write(file, left.to_string());
}

/// A removed group keeps its budget until its last zombie is reaped, so it is taken back before.
fn release_realtime(group: &Path) {
    let file = group.join("cpu.rt_runtime_us");
    // Zero is refused while a real-time zombie or a child with a rest is in the group.
    if file.exists() && !["0", "100", "1000"].iter().any(|us| fs::write(&file, us).is_ok()) {
        eprintln!("warning: {} keeps its real-time budget", group.display());
    }
}

fn remove_tree(group: &Path) -> std::io::Result<()> {
    let entries = match fs::read_dir(group) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(()),
        entries => entries?,
    };
    for entry in entries {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            remove_tree(&entry.path())?;
        }
    }
    release_realtime(group);
    fs::remove_dir(group)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_controllers_mounted_alone_are_offered() {
        let mounts = "tmpfs /sys/fs/cgroup tmpfs rw 0 0\n\
                      cgroup /sys/fs/cgroup/cpuset cgroup rw,relatime,cpuset 0 0\n\
                      cgroup /sys/fs/cgroup/cpu,cpuacct cgroup rw,nosuid,cpu,cpuacct 0 0\n\
                      cgroup /sys/fs/cgroup/systemd cgroup rw,relatime,name=systemd 0 0\n\
                      cgroup /sys/fs/cgroup/memory cgroup rw,relatime,memory 0 0\n\
                      cgroup2 /sys/fs/cgroup/unified cgroup2 rw,relatime 0 0\n";
        let found: Vec<String> =
            parse(mounts).into_iter().map(|h| format!("{}={}", h.name, h.mount.display())).collect();
        assert_eq!(found, ["cpuset=/sys/fs/cgroup/cpuset", "unified=/sys/fs/cgroup/unified"]);
    }
}
