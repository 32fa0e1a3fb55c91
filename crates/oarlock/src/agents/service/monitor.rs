//! Looking at a service again and again, with each of its checks on its own.

use super::{Check, ServiceSettings, log};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::mpsc;
use tokio::task::JoinSet;

/// How soon a check is tried again until it has passed for the first time.
const START_PACE: Duration = Duration::from_millis(50);
/// How often a service without any check is reported healthy.
const ALIVE_PACE: Duration = Duration::from_secs(1);
/// Verdicts that wait for the agent.
const VERDICTS: usize = 16;

/// What a check says of the service.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    /// It passed.
    Good,
    /// It has not passed since the start, for this reason.
    NotYet(String),
    /// It failed too often in a row; the last reason.
    Bad(String),
}

/// The checks of a running service; they end when it is dropped.
pub(super) struct Monitor {
    _tasks: JoinSet<()>,
    verdicts: mpsc::Receiver<(usize, Verdict)>,
    passed: Vec<bool>,
    /// Why the service has not started yet, as far as known.
    pub reason: String,
}

impl Monitor {
    /// Begins to look. `main` is the main process of a supervised service.
    pub fn start(settings: &Arc<ServiceSettings>, main: Option<u32>) -> Monitor {
        let (sender, verdicts) = mpsc::channel(VERDICTS);
        let mut tasks = JoinSet::new();
        for (index, check) in settings.checks.iter().cloned().enumerate() {
            tasks.spawn(watch(Arc::clone(settings), check, main, index, sender.clone()));
        }
        if settings.checks.is_empty() {
            tasks.spawn(say_alive(sender));
        }
        tasks.spawn(log::keep_bounded(settings.log.clone()));
        let passed = vec![false; settings.checks.len().max(1)];
        Monitor { _tasks: tasks, verdicts, passed, reason: "no check has ended".to_owned() }
    }

    /// The next verdict. Never ends otherwise.
    pub async fn next(&mut self) -> Verdict {
        let Some((index, verdict)) = self.verdicts.recv().await else { return std::future::pending().await };
        match &verdict {
            Verdict::Good => self.passed[index] = true,
            Verdict::NotYet(reason) | Verdict::Bad(reason) => self.reason.clone_from(reason),
        }
        verdict
    }

    /// True when every check has passed at least once.
    pub fn all_passed(&self) -> bool {
        self.passed.iter().all(|passed| *passed)
    }
}

async fn watch(
    settings: Arc<ServiceSettings>,
    check: Check,
    main: Option<u32>,
    index: usize,
    verdicts: mpsc::Sender<(usize, Verdict)>,
) {
    let (mut ever_good, mut bad) = (false, 0);
    loop {
        let looked = check.probe.look(&settings, main, check.deadline).await;
        let verdict = match looked {
            Ok(()) => {
                (ever_good, bad) = (true, 0);
                Some(Verdict::Good)
            }
            Err(reason) => {
                let reason = format!("{}: {reason}", check.probe);
                bad += 1;
                tracing::debug!(service = settings.name, bad, reason, "check failed");
                match ever_good {
                    false => Some(Verdict::NotYet(reason)),
                    true => (bad >= check.failures).then_some(Verdict::Bad(reason)),
                }
            }
        };
        if let Some(verdict) = verdict
            && verdicts.send((index, verdict)).await.is_err()
        {
            return;
        }
        tokio::time::sleep(if ever_good { check.interval } else { START_PACE.min(check.interval) }).await;
    }
}

/// The end of the main process is told by the launcher at once; nothing needs to be looked at.
async fn say_alive(verdicts: mpsc::Sender<(usize, Verdict)>) {
    while verdicts.send((0, Verdict::Good)).await.is_ok() {
        tokio::time::sleep(ALIVE_PACE).await;
    }
}
