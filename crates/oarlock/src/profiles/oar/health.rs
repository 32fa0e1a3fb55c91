//! How the health of an OAR server is seen: its processes, its database, and that it schedules.
//! Never a connection to its port: helpers of a dead server keep accepting.

use super::conf::OarConf;
use super::database::Database;
use super::processes;
use crate::agents::service::{Boxed, Custom};
use crate::causes::with_causes;
use std::path::PathBuf;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

/// The server schedules at least once a minute; a pass takes a while.
const PASS_LIMIT: Duration = Duration::from_secs(90);
/// A module may keep the server from scheduling, for instance while it waits for dead nodes.
const MODULE_LIMIT: Duration = Duration::from_secs(900);

/// Its main process and the helper that listens are there.
pub(super) struct Helpers;

impl Custom for Helpers {
    fn look(&self, main: Option<u32>) -> Boxed<'_, Result<(), String>> {
        Box::pin(async move {
            let main = main.ok_or("the server has no main process")?;
            processes::judge(main, &processes::near(main))
        })
    }

    fn name(&self) -> &'static str {
        "oar's processes"
    }
}

/// The database answers where OAR's modules look for it, and scheduler passes begin.
pub(super) struct Progress {
    conf_file: PathBuf,
    /// The main process and when it was first looked at.
    seen: Mutex<Option<(u32, Instant)>>,
}

impl Progress {
    pub fn new(conf_file: PathBuf) -> Progress {
        Progress { conf_file, seen: Mutex::new(None) }
    }

    /// For how long this main process has been looked at.
    fn known_for(&self, main: u32) -> Duration {
        let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        match *seen {
            Some((known, since)) if known == main => since.elapsed(),
            _ => {
                *seen = Some((main, Instant::now()));
                Duration::ZERO
            }
        }
    }
}

impl Custom for Progress {
    fn look(&self, main: Option<u32>) -> Boxed<'_, Result<(), String>> {
        Box::pin(async move {
            let main = main.ok_or("the server has no main process")?;
            let conf = OarConf::read(&self.conf_file).await.map_err(|error| with_causes(&error))?;
            let access = conf.database().map_err(|error| with_causes(&error))?;
            let database = Database::open(&access).await.map_err(|error| with_causes(&error))?;
            let age_s = database.pass_age_s().await.map_err(|error| with_causes(&error))?;
            let age = age_s.map(|age_s| Duration::from_secs(age_s.max(0).unsigned_abs()));
            let busy = processes::waits_for_module(main, &processes::near(main));
            judge(age, self.known_for(main), busy)
        })
    }

    fn name(&self) -> &'static str {
        "oar's progress"
    }
}

/// `age` of the last pass; `known_for`: how long this server has had to make one; `busy`: it waits
/// for a module.
fn judge(age: Option<Duration>, known_for: Duration, busy: bool) -> Result<(), String> {
    let limit = if busy { MODULE_LIMIT } else { PASS_LIMIT };
    // Passes of a server before this one do not count against it.
    let idle = age.unwrap_or(Duration::MAX).min(known_for);
    if idle <= limit {
        return Ok(());
    }
    let what = if busy { "a module hangs" } else { "no module runs" };
    Err(format!("no scheduler pass for {} s and {what}", idle.as_secs()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_server_that_does_not_schedule_is_not_well() {
        let s = Duration::from_secs;
        for (age, known_for, busy, expected) in [
            (Some(s(5)), s(3600), false, Ok(())),
            (Some(s(90)), s(3600), false, Ok(())),
            (Some(s(91)), s(3600), false, Err("no scheduler pass for 91 s and no module runs")),
            (Some(s(91)), s(3600), true, Ok(())),
            (Some(s(901)), s(3600), true, Err("no scheduler pass for 901 s and a module hangs")),
            (Some(s(7200)), s(10), false, Ok(())),
            (None, s(10), false, Ok(())),
            (None, s(100), false, Err("no scheduler pass for 100 s and no module runs")),
        ] {
            assert_eq!(judge(age, known_for, busy), expected.map_err(str::to_owned), "{age:?} {known_for:?} {busy}");
        }
    }

    #[tokio::test]
    async fn a_missing_configuration_is_named() {
        let progress = Progress::new("/no/such/oar.conf".into());
        assert_eq!(
            progress.look(Some(1)).await,
            Err("cannot read /no/such/oar.conf: No such file or directory (os error 2)".into())
        );
        assert!(Helpers.look(None).await.is_err());
    }
}
