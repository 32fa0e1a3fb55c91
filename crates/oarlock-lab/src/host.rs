//! One lab host: power, and commands inside it.

use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, bail};

use crate::cgroup::{self, Hierarchy};
use crate::deadline::{self, Outcome, kill_group, output};
use crate::layout::{PREFIX_LENGTH, Spec};
use crate::paths::Paths;
use crate::process::Process;
use crate::state::Engine;
use crate::{disk, net, vm};

const START: &str = include_str!("../assets/start-host.sh");
/// Namespaces of a host.
const NAMESPACES: [&str; 6] = ["--mount", "--uts", "--ipc", "--net", "--pid", "--cgroup"];
/// Where programs are found in a host.
pub(crate) const PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
/// How long the kernel may take to end all processes of a host.
const KILL: Duration = Duration::from_secs(10);

/// What power-on needs to know beside the host itself.
#[derive(Debug)]
pub(crate) struct Machine<'a> {
    pub paths: &'a Paths,
    pub root: &'a Path,
    /// Layers of packages over it, the uppermost first.
    pub packages: &'a [PathBuf],
    pub hierarchies: &'a [Hierarchy],
    pub wires: Process,
    /// The engine whose hosts have disks of their own; `None` when none has.
    pub disks: Option<Engine>,
}

/// Starts `spec` with its cables plugged in but without carrier; returns its pid 1 and its
/// real-time budget in microseconds per period.
pub(crate) fn power_on(machine: &Machine<'_>, spec: &Spec) -> Result<(Process, u32)> {
    let dir = machine.paths.host(spec.name);
    for sub in ["upper/etc/lab", "work", "mnt"] {
        fs::create_dir_all(dir.join(sub)).with_context(|| format!("cannot create {}", dir.display()))?;
    }
    fs::write(dir.join("upper/etc/hostname"), format!("{}\n", spec.name))?;
    let kind = serde_json::to_string(&spec.kind)?;
    fs::write(dir.join("upper/etc/lab").join(format!("kind.{}", kind.trim_matches('"'))), "")?;
    let lab = machine.paths.lab_id();
    // A power-off that was interrupted may have left its cables.
    net::remove(machine.wires, spec)?;
    let realtime = cgroup::create(machine.hierarchies, &lab, spec.name)?;
    let mut child = start(machine, spec, &dir)?;
    let started = (|| {
        let mut line = String::new();
        let stdout = child.stdout.take().context("no pipe from the host")?;
        BufReader::new(stdout).read_line(&mut line)?;
        let pid: i32 = line.trim().parse().map_err(|_| {
            let log = fs::read_to_string(dir.join("start.log")).unwrap_or_default();
            anyhow::anyhow!("its file system could not be made:\n{}", log.trim())
        })?;
        let process = Process::of(pid)?;
        net::plug(machine.wires, spec, pid)?;
        let mut stdin = child.stdin.take().context("no pipe to the host")?;
        stdin.write_all(b"plugged\n")?;
        Ok(process)
    })();
    let process = started.inspect_err(|_: &anyhow::Error| kill_group(&mut child));
    Ok((process.with_context(|| format!("cannot power on {}", spec.name))?, realtime))
}

fn start(machine: &Machine<'_>, spec: &Spec, dir: &Path) -> Result<Child> {
    let log = fs::File::create(dir.join("start.log"))?;
    let mut unshare = vec!["setsid", "unshare", "--fork", "--kill-child"];
    unshare.extend(NAMESPACES);
    unshare.extend(["sh", "-c", START, "start-host", spec.name]);
    let names: Vec<&str> = machine.hierarchies.iter().map(|h| h.name.as_str()).collect();
    let layer = machine.paths.layer();
    let lowers = [layer.as_path()].into_iter().chain(machine.packages.iter().map(PathBuf::as_path));
    let lowers: Vec<String> = lowers.chain([machine.root]).map(|path| path.display().to_string()).collect();
    let lower = lowers.join(":");
    let disks = machine.disks.map(|engine| disk::prepare(dir, spec, engine)).transpose()?;
    let mut command = cgroup::join(machine.hierarchies, &machine.paths.lab_id(), spec.name);
    command
        .args(unshare)
        .arg(dir)
        .arg(lower)
        .arg(machine.paths.bin())
        .arg(machine.paths.home())
        .args(spec.links().iter().map(|link| format!("{link}={}/{PREFIX_LENGTH}", spec.address(*link))))
        .env("HIERARCHIES", names.join(" "))
        .env("DISKS", disks.unwrap_or_default())
        .current_dir("/")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(log);
    command.spawn().with_context(|| format!("cannot start {}", spec.name))
}

/// Cuts the power: cables first, then every process in one instant, then what the kernel kept. A disk that
/// stands still goes on just before, or the kernel would keep those who wait for it.
pub(crate) fn power_off(machine: &Machine<'_>, hosts: &[(&Spec, Process)]) -> Result<()> {
    for (spec, _) in hosts {
        net::unplug(machine.wires, spec)?;
    }
    for (spec, process) in hosts {
        if machine.disks.is_some() {
            disk::thaw_all(*process);
        }
        process.kill(KILL).with_context(|| format!("cannot power off {}", spec.name))?;
    }
    for (spec, _) in hosts {
        net::remove(machine.wires, spec)?;
        cgroup::remove(machine.hierarchies, &machine.paths.lab_id(), Some(spec.name), KILL)?;
        if machine.disks.is_some() {
            disk::await_release(&[machine.paths.host(spec.name)], KILL)?;
        }
    }
    Ok(())
}

/// How commands get into a host.
#[derive(Debug, Clone)]
pub(crate) enum Door {
    /// Into the namespaces of its pid 1 and its control groups.
    Namespaces { process: Process, lab: String, hierarchies: Vec<Hierarchy> },
    /// By the agent in a virtual machine, over the control's network.
    Machine(vm::Door),
}

/// A powered host, ready to run commands in.
#[derive(Debug, Clone)]
pub struct Host {
    pub(crate) spec: &'static Spec,
    pub(crate) door: Door,
}

impl Host {
    /// Its name.
    #[must_use]
    pub fn name(&self) -> &'static str {
        self.spec.name
    }

    /// What it is and how it is wired.
    #[must_use]
    pub fn spec(&self) -> &'static Spec {
        self.spec
    }

    /// A command line that runs `argv` inside the host as root, in its control groups, with a
    /// clean environment.
    #[must_use]
    pub fn command<S: AsRef<std::ffi::OsStr>>(&self, argv: &[S]) -> Command {
        let mut command = match &self.door {
            Door::Namespaces { process, lab, hierarchies } => {
                let mut command = cgroup::join(hierarchies, lab, self.spec.name);
                command.arg("nsenter").arg(format!("--target={}", process.pid)).args(NAMESPACES).arg("--");
                command
            }
            Door::Machine(door) => door.command(),
        };
        command.args(argv);
        let term = std::env::var_os("TERM").unwrap_or_else(|| "dumb".into());
        command.env_clear().env("PATH", PATH).env("HOME", "/root").env("LANG", "C.UTF-8").env("TERM", term);
        command
    }

    /// Runs `argv` inside the host as root until it ends; killed when `deadline` passes.
    pub fn exec(&self, argv: &[&str], deadline: Duration) -> Result<Outcome> {
        self.exec_with_input(argv, None, deadline)
    }

    /// Like [`Host::exec`], with `input` on the command's standard input.
    pub fn exec_with_input(&self, argv: &[&str], input: Option<&str>, deadline: Duration) -> Result<Outcome> {
        output(&mut self.command(argv), input, deadline)
            .with_context(|| format!("on {}: {}", self.spec.name, argv.join(" ")))
    }

    /// Runs `argv` inside the host and returns its standard output; an error unless it succeeds.
    pub fn run(&self, argv: &[&str], deadline: Duration) -> Result<String> {
        self.exec(argv, deadline)?.ok().with_context(|| format!("on {}: {}", self.spec.name, argv.join(" ")))
    }

    /// Runs a shell command line inside the host as `user`, with that user's home.
    pub fn run_as(&self, user: &str, script: &str, deadline: Duration) -> Result<String> {
        self.run(&["runuser", "-l", user, "-c", script], deadline)
    }

    /// Starts `argv` inside the host and leaves it running; its output goes to `out`.
    pub fn spawn(&self, argv: &[&str], out: Stdio) -> Result<Running> {
        let mut command = self.command(argv);
        command.process_group(0).stdin(Stdio::null()).stdout(out).stderr(Stdio::inherit());
        let child =
            command.spawn().with_context(|| format!("cannot start {} on {}", argv.join(" "), self.spec.name))?;
        Ok(Running { child, passes_signals: matches!(self.door, Door::Machine(_)) })
    }

    /// For commands that answer at once: an emulated machine beside compilers takes its time all the same.
    fn quick(&self) -> Duration {
        match self.door {
            Door::Namespaces { .. } => Duration::from_secs(5),
            Door::Machine(_) => Duration::from_secs(30),
        }
    }

    /// Sends `signal` (`KILL`, `STOP`, …) to a process by its pid inside the host.
    pub fn signal(&self, pid: i32, signal: &str) -> Result<()> {
        self.run(&["kill", "-s", signal, &pid.to_string()], self.quick()).map(drop)
    }

    /// Pids inside the host of the processes whose command line matches the extended regular
    /// expression `pattern`.
    pub fn pids(&self, pattern: &str) -> Result<Vec<i32>> {
        let outcome = self.exec(&["pgrep", "-f", "--", pattern], self.quick())?;
        if outcome.status.code() == Some(1) {
            return Ok(Vec::new());
        }
        outcome.ok()?.lines().map(|line| line.parse().context("pgrep printed no pid")).collect()
    }
}

/// A command that runs inside a host; killed when dropped.
#[derive(Debug)]
pub struct Running {
    child: Child,
    /// Whether a signal to the child itself reaches the command.
    passes_signals: bool,
}

impl Running {
    /// Its pipes and its pid on the machine.
    pub fn child(&mut self) -> &mut Child {
        &mut self.child
    }

    /// Waits for its end; an error (and it is killed) when `deadline` passes.
    pub fn wait(&mut self, deadline: Duration) -> Result<ExitStatus> {
        match deadline::wait(&mut self.child, deadline)? {
            Some(status) => Ok(status),
            None => {
                kill_group(&mut self.child);
                bail!("a command in a host did not end within {} ms", deadline.as_millis())
            }
        }
    }

    /// Asks it to end with SIGTERM and waits; an error (and it is killed) when `deadline` passes.
    pub fn stop(&mut self, deadline: Duration) -> Result<ExitStatus> {
        let pid = self.child.id();
        let told = if self.passes_signals {
            pid.to_string()
        } else {
            // The child itself is the nsenter that waits for the command and passes on how it ended.
            fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).unwrap_or_default()
        };
        for child in told.split_whitespace().filter_map(|pid| pid.parse().ok()) {
            // It may have ended by itself.
            let _ = rustix::process::Pid::from_raw(child)
                .map(|pid| rustix::process::kill_process(pid, rustix::process::Signal::TERM));
        }
        self.wait(deadline)
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // Once reaped, its pid may be somebody else's.
        if matches!(self.child.try_wait(), Ok(None)) {
            kill_group(&mut self.child);
        }
    }
}
