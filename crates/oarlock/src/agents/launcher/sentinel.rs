//! The launcher in service: everything is asked of the sentinel.

use super::{Ended, Exit, LaunchError, Launcher, SpawnRequest};
use crate::sentinel::SentinelHandle;
use oarlock_core::resource::Guard;
use oarlock_core::sentinel as words;
use std::path::PathBuf;
use std::time::Duration;

/// The sentinel answers from memory or after a fork; this is only a bound.
const ANSWER_DEADLINE: Duration = Duration::from_secs(1);
/// It reports what survives a kill after one second.
const KILL_DEADLINE: Duration = Duration::from_secs(3);

/// Asks the sentinel on behalf of one group of the configuration.
#[derive(Clone)]
pub struct SentinelLauncher {
    sentinel: SentinelHandle,
    group: String,
}

impl SentinelLauncher {
    /// `group` is the name that epochs are counted under.
    pub fn new(sentinel: SentinelHandle, group: String) -> SentinelLauncher {
        SentinelLauncher { sentinel, group }
    }

    fn guard(&self, guard: Guard) -> words::Guard {
        words::Guard { group: self.group.clone(), generation: guard.generation, epoch: guard.epoch }
    }

    async fn start(&self, request: SpawnRequest, keep_group: bool) -> Result<u32, LaunchError> {
        let log = text(&request.log)?;
        let command = words::Command {
            argv: request.argv,
            env: request.env,
            uid: Some(request.uid),
            gid: Some(request.gid),
            groups: request.groups,
            cwd: Some(text(&request.cwd)?),
            stdout: Some(log.clone()),
            stderr: Some(log),
            priority: words::Priority::default(),
            keep_group,
        };
        let guard = request.guard.map(|guard| self.guard(guard));
        let spawn = words::Request::Spawn { name: request.name, command: Box::new(command), guard };
        match self.ask(spawn, ANSWER_DEADLINE).await? {
            words::Reply::Spawned { pid } => Ok(pid),
            other => Err(wrong(&other)),
        }
    }

    async fn service(&self, name: &str) -> Result<Option<words::Service>, LaunchError> {
        let welcome = self.sentinel.hello(ANSWER_DEADLINE).await.map_err(|error| failed(&error))?;
        Ok(welcome.services.into_iter().find(|service| service.name == name))
    }

    async fn ask(&self, request: words::Request, deadline: Duration) -> Result<words::Reply, LaunchError> {
        match self.sentinel.request(request, deadline).await {
            Ok(words::Reply::Refused(refusal)) => Err(LaunchError::Refused { reason: refusal.to_string() }),
            Ok(words::Reply::Failed { reason }) => Err(LaunchError::Failed { reason }),
            Ok(reply) => Ok(reply),
            Err(error) => Err(failed(&error)),
        }
    }

    async fn order(&self, request: words::Request) -> Result<(), LaunchError> {
        match self.ask(request, ANSWER_DEADLINE).await? {
            words::Reply::Done => Ok(()),
            other => Err(wrong(&other)),
        }
    }
}

impl Launcher for SentinelLauncher {
    async fn spawn(&self, request: SpawnRequest) -> Result<u32, LaunchError> {
        self.start(request, false).await
    }

    async fn spawn_script(&self, request: SpawnRequest) -> Result<u32, LaunchError> {
        self.start(request, true).await
    }

    async fn alive(&self, name: &str) -> Result<bool, LaunchError> {
        Ok(self.service(name).await?.is_some_and(|service| service.is_alive()))
    }

    async fn running(&self, name: &str) -> Result<Option<u32>, LaunchError> {
        Ok(self.service(name).await?.and_then(|service| service.process()).map(|process| process.pid))
    }

    async fn kill_group(&self, name: &str) -> Result<(), LaunchError> {
        let kill = words::Request::KillGroup { name: name.to_owned() };
        match self.sentinel.request(kill, KILL_DEADLINE).await {
            Ok(words::Reply::Killed { remaining }) => survivors(name, &remaining),
            Ok(words::Reply::Refused(words::Refusal::NotRunning { .. })) => Ok(()),
            Ok(words::Reply::Refused(refusal)) => Err(LaunchError::Refused { reason: refusal.to_string() }),
            Ok(words::Reply::Failed { reason }) => Err(LaunchError::Failed { reason }),
            Ok(other) => Err(wrong(&other)),
            Err(error) => Err(failed(&error)),
        }
    }

    async fn signal(&self, name: &str, signal: i32) -> Result<(), LaunchError> {
        self.order(words::Request::Signal { name: name.to_owned(), signal }).await
    }

    async fn promote(&self, name: &str, trigger: PathBuf, signal: i32, guard: Guard) -> Result<(), LaunchError> {
        let Some(pid) = self.running(name).await? else {
            return Err(LaunchError::Failed { reason: format!("{name} does not run") });
        };
        let trigger_file = text(&trigger)?;
        let guard = self.guard(guard);
        self.order(words::Request::Promote { name: name.to_owned(), pid, trigger_file, signal, guard }).await
    }

    async fn mark_guarded(&self, name: &str, guard: Option<Guard>) -> Result<(), LaunchError> {
        let name = name.to_owned();
        self.order(match guard {
            Some(guard) => words::Request::Guarded { name, guard: self.guard(guard) },
            None => words::Request::Unguarded { name },
        })
        .await
    }
}

/// A notice of the sentinel as the agents know it.
pub fn exit(name: String, pid: u32, exit: words::Exit) -> Exit {
    let ended = match exit {
        words::Exit::Code(code) => Ended::Code(code),
        words::Exit::Signal(signal) => Ended::Signal(signal),
        words::Exit::Unknown => Ended::Unknown,
    };
    Exit { name, pid, ended }
}

/// What hangs in the kernel with SIGKILL pending does nothing any more: it counts as gone.
fn survivors(name: &str, remaining: &[words::Remaining]) -> Result<(), LaunchError> {
    if let Some(survivor) = remaining.iter().find(|process| !process.is_silent()) {
        let reason = format!("process {} of {name} survives SIGKILL in state {}", survivor.pid, survivor.state);
        return Err(LaunchError::Failed { reason });
    }
    if !remaining.is_empty() {
        tracing::error!(name, processes = remaining.len(), "killed, but stuck in the kernel until their i/o ends");
    }
    Ok(())
}

fn text(path: &std::path::Path) -> Result<String, LaunchError> {
    let text = path.to_str().map(str::to_owned);
    text.ok_or_else(|| LaunchError::Failed { reason: format!("path {} is not valid UTF-8", path.display()) })
}

fn failed(error: &crate::sentinel::SentinelError) -> LaunchError {
    LaunchError::Failed { reason: error.to_string() }
}

fn wrong(reply: &words::Reply) -> LaunchError {
    LaunchError::Failed { reason: format!("the sentinel answered with {reply:?}") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_hangs_in_the_kernel_counts_as_gone() {
        let left = |state| [words::Remaining { pid: 7, state }];
        assert_eq!(survivors("db", &[]), Ok(()));
        assert_eq!(survivors("db", &left('D')), Ok(()));
        assert_eq!(survivors("db", &left('Z')), Ok(()), "its other threads wait for a disk");
        let error = survivors("db", &left('R')).unwrap_err();
        assert_eq!(error.to_string(), "process 7 of db survives SIGKILL in state R");
    }
}
