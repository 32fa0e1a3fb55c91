//! Processes for the resource agents, started and ended by the sentinel.

use std::path::{Path, PathBuf};
use std::time::Duration;

use oarlock_core::resource;
use oarlock_core::sentinel::{Command, Exit, Guard, Notice, Refusal, Reply, Request};

use super::client::{SentinelError, SentinelHandle};
use crate::agents::launcher::{self, Ended, LaunchError, Launcher, SpawnRequest};

/// How long the sentinel may take. It gives killed processes a second before it reports what
/// remains, and a program on a slow disk may take that long to be executed.
const DEADLINE: Duration = Duration::from_secs(5);

/// Launches for one group, whose epochs its guards count.
#[derive(Clone)]
pub struct SentinelLauncher {
    sentinel: SentinelHandle,
    group: String,
}

impl SentinelLauncher {
    /// For the resources of `group`.
    #[must_use]
    pub fn new(sentinel: SentinelHandle, group: String) -> Self {
        Self { sentinel, group }
    }

    /// The notice as agents know it, if it is about the end of a main process.
    #[must_use]
    pub fn exit(notice: &Notice) -> Option<launcher::Exit> {
        let Notice::Exited { name, pid, exit } = notice else {
            return None;
        };
        let ended = match *exit {
            Exit::Code(code) => Ended::Code(code),
            Exit::Signal(signal) => Ended::Signal(signal),
            Exit::Unknown => Ended::Unknown,
        };
        Some(launcher::Exit { name: name.clone(), pid: *pid, ended })
    }

    fn guard(&self, guard: resource::Guard) -> Guard {
        Guard { group: self.group.clone(), generation: guard.generation, epoch: guard.epoch }
    }

    async fn ask(&self, request: Request) -> Result<Reply, LaunchError> {
        match self.sentinel.request(request, DEADLINE).await {
            Ok(Reply::Refused(refusal)) => Err(refused(&refusal)),
            Ok(Reply::Failed { reason }) => Err(LaunchError::Failed { reason }),
            Ok(reply) => Ok(reply),
            Err(error) => Err(LaunchError::Failed { reason: error.to_string() }),
        }
    }

    async fn done(&self, request: Request) -> Result<(), LaunchError> {
        match self.ask(request).await? {
            Reply::Done => Ok(()),
            _ => Err(wrong_reply()),
        }
    }
}

impl Launcher for SentinelLauncher {
    async fn spawn(&self, request: SpawnRequest) -> Result<u32, LaunchError> {
        let log = text(&request.log)?;
        let command = Command {
            argv: request.argv,
            env: request.env,
            uid: Some(request.uid),
            gid: Some(request.gid),
            groups: request.groups,
            cwd: Some(text(&request.cwd)?),
            stdout: Some(log.clone()),
            stderr: Some(log),
            ..Command::default()
        };
        let guard = request.guard.map(|guard| self.guard(guard));
        match self.ask(Request::Spawn { name: request.name, command: Box::new(command), guard }).await? {
            Reply::Spawned { pid } => Ok(pid),
            _ => Err(wrong_reply()),
        }
    }

    async fn running(&self, name: &str) -> Result<Option<u32>, LaunchError> {
        let welcome = self.sentinel.hello(DEADLINE).await;
        let welcome = welcome.map_err(|error| LaunchError::Failed { reason: error.to_string() })?;
        let service = welcome.services.iter().find(|service| service.name == name);
        Ok(service.and_then(|service| service.process()).map(|process| process.pid))
    }

    async fn kill_group(&self, name: &str) -> Result<(), LaunchError> {
        match self.ask(Request::KillGroup { name: name.into() }).await? {
            Reply::Killed { remaining } if remaining.is_empty() => Ok(()),
            Reply::Killed { remaining } => {
                let left: Vec<String> = remaining.iter().map(|left| format!("{} ({})", left.pid, left.state)).collect();
                Err(LaunchError::Failed { reason: format!("of {name} survive SIGKILL: {}", left.join(", ")) })
            }
            _ => Err(wrong_reply()),
        }
    }

    async fn signal(&self, name: &str, signal: i32) -> Result<(), LaunchError> {
        self.done(Request::Signal { name: name.into(), signal }).await
    }

    async fn promote(
        &self,
        name: &str,
        trigger_file: PathBuf,
        signal: i32,
        guard: resource::Guard,
    ) -> Result<(), LaunchError> {
        let pid = self.running(name).await?;
        let pid = pid.ok_or_else(|| LaunchError::Failed { reason: format!("{name} does not run") })?;
        let trigger_file = text(&trigger_file)?;
        self.done(Request::Promote { name: name.into(), pid, trigger_file, signal, guard: self.guard(guard) }).await
    }

    async fn mark_guarded(&self, name: &str, guard: Option<resource::Guard>) -> Result<(), LaunchError> {
        let name = name.to_owned();
        self.done(match guard {
            Some(guard) => Request::Guarded { name, guard: self.guard(guard) },
            None => Request::Unguarded { name },
        })
        .await
    }
}

/// No right, as opposed to no luck.
fn refused(refusal: &Refusal) -> LaunchError {
    let reason = refusal.to_string();
    match refusal {
        Refusal::Lapsed { .. }
        | Refusal::Generation { .. }
        | Refusal::NoLease { .. }
        | Refusal::Released { .. }
        | Refusal::Leaving => LaunchError::Refused { reason },
        _ => LaunchError::Failed { reason },
    }
}

fn wrong_reply() -> LaunchError {
    LaunchError::Failed { reason: SentinelError::WrongReply.to_string() }
}

fn text(path: &Path) -> Result<String, LaunchError> {
    let text = path.to_str().map(str::to_owned);
    text.ok_or_else(|| LaunchError::Failed { reason: format!("path {} is not UTF-8", path.display()) })
}
