//! A launcher without a sentinel, for tests: forks directly and checks no lease.

use super::{Ended, Exit, LaunchError, Launcher, SpawnRequest};
use oarlock_core::resource::Guard;
use rustix::process::{Pid, Signal, kill_process, kill_process_group, test_kill_process_group};
use std::collections::BTreeMap;
use std::fs::{self, File, OpenOptions};
use std::os::unix::process::ExitStatusExt;
use std::path::PathBuf;
use std::process::{ExitStatus, Stdio};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};
use tokio::process::Command;
use tokio::sync::mpsc;

/// How long killed processes are waited for.
const KILL_DEADLINE: Duration = Duration::from_secs(5);

/// Forks directly; remembers what runs and under which guard.
#[derive(Clone)]
pub struct DirectLauncher {
    running: Arc<Mutex<BTreeMap<String, Unit>>>,
    exits: mpsc::UnboundedSender<Exit>,
    late: Arc<AtomicBool>,
    lingering: Arc<AtomicUsize>,
}

#[derive(Clone, Copy)]
struct Unit {
    pid: u32,
    /// A start script, whose process group outlives it.
    script: bool,
    guard: Option<Guard>,
}

impl DirectLauncher {
    /// A launcher and the notices of what ended.
    pub fn new() -> (DirectLauncher, mpsc::UnboundedReceiver<Exit>) {
        let (exits, notices) = mpsc::unbounded_channel();
        (DirectLauncher { running: Arc::default(), exits, late: Arc::default(), lingering: Arc::default() }, notices)
    }

    /// The next kill is done, and told as one that was not done in time.
    pub fn let_a_kill_be_late(&self) {
        self.late.store(true, Ordering::Relaxed);
    }

    /// For so many looks there seems to be something left, as after a kill of processes that wait for a disk.
    pub fn let_linger(&self, looks: usize) {
        self.lingering.store(looks, Ordering::Relaxed);
    }

    /// How many of those looks are left.
    pub fn lingering(&self) -> usize {
        self.lingering.load(Ordering::Relaxed)
    }

    /// The guard under which `name` runs, if it runs and is exclusive.
    pub fn guard(&self, name: &str) -> Option<Guard> {
        self.units().get(name).and_then(|unit| unit.guard)
    }

    fn start(&self, request: SpawnRequest, script: bool) -> Result<u32, LaunchError> {
        if self.units().get(&request.name).is_some_and(|unit| !unit.script || group_exists(unit.pid)) {
            return Err(failed(format!("{} runs already", request.name)));
        }
        let mut child = command(&request)?.spawn().map_err(|error| failed(format!("{}: {error}", request.argv[0])))?;
        let pid = child.id().ok_or_else(|| failed("ended at once".to_owned()))?;
        self.units().insert(request.name.clone(), Unit { pid, script, guard: request.guard });
        let (launcher, name) = (self.clone(), request.name);
        tokio::spawn(async move {
            let ended = child.wait().await.map_or(Ended::Unknown, ended);
            if !script {
                kill_group_of(pid);
                launcher.units().remove(&name);
            }
            let _ = launcher.exits.send(Exit { name, pid, ended });
        });
        Ok(pid)
    }

    async fn kill_script(&self, name: &str, unit: Unit) -> Result<(), LaunchError> {
        let start = Instant::now();
        while group_exists(unit.pid) {
            kill_group_of(unit.pid);
            if start.elapsed() > KILL_DEADLINE {
                return Err(failed(format!("{name} (process group {}) survives SIGKILL", unit.pid)));
            }
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
        self.units().remove(name);
        Ok(())
    }

    fn units(&self) -> MutexGuard<'_, BTreeMap<String, Unit>> {
        self.running.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn unit(&self, name: &str) -> Result<Unit, LaunchError> {
        self.units().get(name).copied().ok_or_else(|| failed(format!("{name} does not run")))
    }

    fn send(&self, name: &str, signal: i32) -> Result<(), LaunchError> {
        let unit = self.unit(name)?;
        let signal = Signal::from_named_raw(signal).ok_or_else(|| failed(format!("no signal {signal}")))?;
        kill(unit.pid, signal).map_err(|error| failed(format!("signal {name}: {error}")))
    }
}

impl Launcher for DirectLauncher {
    async fn spawn(&self, request: SpawnRequest) -> Result<u32, LaunchError> {
        self.start(request, false)
    }

    async fn spawn_script(&self, request: SpawnRequest) -> Result<u32, LaunchError> {
        self.start(request, true)
    }

    async fn alive(&self, name: &str) -> Result<bool, LaunchError> {
        let less = |looks: usize| looks.checked_sub(1);
        if self.lingering.fetch_update(Ordering::Relaxed, Ordering::Relaxed, less).is_ok() {
            return Ok(true);
        }
        Ok(self.unit(name).is_ok_and(|unit| !unit.script || group_exists(unit.pid)))
    }

    async fn running(&self, name: &str) -> Result<Option<u32>, LaunchError> {
        Ok(self.units().get(name).map(|unit| unit.pid).filter(|pid| parent(*pid) == Some(std::process::id())))
    }

    async fn kill_group(&self, name: &str) -> Result<(), LaunchError> {
        let Ok(unit) = self.unit(name) else { return Ok(()) };
        if unit.script {
            return self.kill_script(name, unit).await;
        }
        // Stopped first, so that it starts no further children between the list and the blow.
        let _ = kill(unit.pid, Signal::STOP);
        for pid in descendants(unit.pid).into_iter().chain([unit.pid]) {
            let _ = kill(pid, Signal::KILL);
        }
        let start = Instant::now();
        while self.units().contains_key(name) {
            if start.elapsed() > KILL_DEADLINE {
                return Err(failed(format!("{name} (pid {}) survives SIGKILL", unit.pid)));
            }
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
        match self.late.swap(false, Ordering::Relaxed) {
            true => Err(failed(format!("{name} (pid {}) survives SIGKILL", unit.pid))),
            false => Ok(()),
        }
    }

    async fn signal(&self, name: &str, signal: i32) -> Result<(), LaunchError> {
        self.send(name, signal)
    }

    async fn promote(&self, name: &str, trigger: PathBuf, signal: i32, guard: Guard) -> Result<(), LaunchError> {
        self.mark_guarded(name, Some(guard)).await?;
        File::create(&trigger).map_err(|error| failed(format!("{}: {error}", trigger.display())))?;
        self.send(name, signal)
    }

    async fn mark_guarded(&self, name: &str, guard: Option<Guard>) -> Result<(), LaunchError> {
        let mut units = self.units();
        let unit = units.get_mut(name).ok_or_else(|| failed(format!("{name} does not run")))?;
        unit.guard = guard;
        Ok(())
    }
}

fn failed(reason: String) -> LaunchError {
    LaunchError::Failed { reason }
}

fn command(request: &SpawnRequest) -> Result<Command, LaunchError> {
    let (program, args) = request.argv.split_first().ok_or_else(|| failed("no program".to_owned()))?;
    let log = OpenOptions::new().create(true).append(true).open(&request.log);
    let log = log.map_err(|error| failed(format!("{}: {error}", request.log.display())))?;
    let copy = log.try_clone().map_err(|error| failed(format!("{}: {error}", request.log.display())))?;
    let mut command = Command::new(program);
    command.args(args).env_clear().envs(request.env.iter().cloned()).current_dir(&request.cwd);
    command.process_group(0).stdin(Stdio::null()).stdout(log).stderr(copy).kill_on_drop(true);
    if rustix::process::geteuid().is_root() {
        command.uid(request.uid).gid(request.gid);
    }
    Ok(command)
}

fn kill(pid: u32, signal: Signal) -> rustix::io::Result<()> {
    let pid = i32::try_from(pid).ok().and_then(Pid::from_raw).ok_or(rustix::io::Errno::SRCH)?;
    kill_process(pid, signal)
}

/// Our processes lead a process group of their own number.
fn kill_group_of(leader: u32) {
    if let Some(leader) = i32::try_from(leader).ok().and_then(Pid::from_raw) {
        let _ = kill_process_group(leader, Signal::KILL);
    }
}

fn group_exists(leader: u32) -> bool {
    let leader = i32::try_from(leader).ok().and_then(Pid::from_raw);
    leader.is_some_and(|leader| test_kill_process_group(leader).is_ok())
}

fn ended(status: ExitStatus) -> Ended {
    match (status.code(), status.signal()) {
        (Some(code), _) => Ended::Code(code),
        (None, Some(signal)) => Ended::Signal(signal),
        (None, None) => Ended::Unknown,
    }
}

/// All processes below `root`, parents first.
fn descendants(root: u32) -> Vec<u32> {
    let parents: Vec<(u32, u32)> = fs::read_dir("/proc")
        .into_iter()
        .flatten()
        .filter_map(|entry| {
            let pid = entry.ok()?.file_name().to_str()?.parse().ok()?;
            Some((pid, parent(pid)?))
        })
        .collect();
    let mut found = vec![root];
    let mut next = 0;
    while let Some(&above) = found.get(next) {
        found.extend(parents.iter().filter(|(_, parent)| *parent == above).map(|(pid, _)| *pid));
        next += 1;
    }
    found.split_off(1)
}

fn parent(pid: u32) -> Option<u32> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The program's name may contain blanks and parentheses: only what follows the last one counts.
    stat.rsplit_once(')')?.1.split_whitespace().nth(1)?.parse().ok()
}
