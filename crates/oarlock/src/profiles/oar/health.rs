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
    /// Its database moves without this server, which survives that and would not be helped by a restart.
    database_elsewhere: bool,
    seen: Mutex<Option<Seen>>,
}

/// What is known of a main process.
#[derive(Clone, Copy)]
struct Seen {
    main: u32,
    /// Since when it could have made a pass: its first look, or the end of an absence of the database.
    since: Instant,
    /// The database has answered in its time: that it does not now is no fault of the configuration.
    answered: bool,
}

impl Progress {
    pub fn new(conf_file: PathBuf, database_elsewhere: bool) -> Progress {
        Progress { conf_file, database_elsewhere, seen: Mutex::new(None) }
    }

    /// For how long this main process could have made a pass.
    fn known_for(&self, main: u32) -> Duration {
        self.note(main, |seen| seen.answered = true).since.elapsed()
    }

    /// Whether a database that does not answer is borne.
    fn bears(&self, main: u32) -> bool {
        let borne = |seen: &Seen| self.database_elsewhere && seen.answered;
        borne(&self.note(main, |seen| {
            if borne(seen) {
                seen.since = Instant::now();
            }
        }))
    }

    fn note(&self, main: u32, change: impl FnOnce(&mut Seen)) -> Seen {
        let mut kept = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        let known = kept.filter(|seen| seen.main == main);
        let mut seen = known.unwrap_or_else(|| Seen { main, since: Instant::now(), answered: false });
        change(&mut seen);
        *kept = Some(seen);
        seen
    }

    async fn pass_age_s(&self) -> Result<Option<i64>, String> {
        let conf = OarConf::read(&self.conf_file).await.map_err(|error| with_causes(&error))?;
        let access = conf.database().map_err(|error| with_causes(&error))?;
        let database = Database::open(&access).await.map_err(|error| with_causes(&error))?;
        database.pass_age_s().await.map_err(|error| with_causes(&error))
    }
}

impl Custom for Progress {
    fn look(&self, main: Option<u32>) -> Boxed<'_, Result<(), String>> {
        Box::pin(async move {
            let main = main.ok_or("the server has no main process")?;
            let age_s = match self.pass_age_s().await {
                Ok(age_s) => age_s,
                Err(reason) if self.bears(main) => {
                    tracing::debug!(reason, "oar's database is away; its server is left alone");
                    return Ok(());
                }
                Err(reason) => return Err(reason),
            };
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
    async fn a_database_elsewhere_is_borne_once_it_has_answered() {
        for (elsewhere, answered, borne) in [(true, true, true), (true, false, false), (false, true, false)] {
            // Nothing can be asked here, as when the database is away.
            let progress = Progress::new("/no/such/oar.conf".into(), elsewhere);
            if answered {
                progress.known_for(1);
            }
            assert_eq!(progress.look(Some(1)).await.is_ok(), borne, "{elsewhere} {answered}");
            assert!(progress.look(Some(2)).await.is_err(), "another server has to show that it can reach it");
        }
    }

    #[test]
    fn the_time_of_an_absence_is_not_held_against_the_server() {
        let hour_ago = Instant::now().checked_sub(Duration::from_secs(3600)).unwrap();
        let progress = Progress::new("/no/such/oar.conf".into(), true);
        progress.note(1, |seen| seen.since = hour_ago);
        assert!(progress.known_for(1) >= Duration::from_secs(3600));
        assert!(progress.bears(1));
        assert_eq!(judge(Some(Duration::from_secs(3600)), progress.known_for(1), false), Ok(()));
    }

    #[tokio::test]
    async fn a_missing_configuration_is_named() {
        let progress = Progress::new("/no/such/oar.conf".into(), true);
        assert_eq!(
            progress.look(Some(1)).await,
            Err("cannot read /no/such/oar.conf: No such file or directory (os error 2)".into())
        );
        assert!(Helpers.look(None).await.is_err());
    }
}
