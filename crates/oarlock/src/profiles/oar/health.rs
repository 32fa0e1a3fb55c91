//! How the health of an OAR server is seen: its processes, its database, and that it schedules.
//! Never a connection to its port: helpers of a dead server keep accepting.

use super::conf::{ConfError, OarConf};
use super::database::{Database, DatabaseError};
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
/// For how long a database of another group may be away. Its own takeover takes seconds; after this the fault may
/// be on this side, where a restart, or another node, would help.
const AWAY_LIMIT: Duration = Duration::from_secs(300);

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
    /// Since when it has been away.
    away: Option<Instant>,
}

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
enum LookError {
    #[error(transparent)]
    Conf(#[from] ConfError),
    #[error(transparent)]
    Database(#[from] DatabaseError),
}

impl Progress {
    pub fn new(conf_file: PathBuf, database_elsewhere: bool) -> Progress {
        Progress { conf_file, database_elsewhere, seen: Mutex::new(None) }
    }

    /// For how long this main process could have made a pass.
    fn known_for(&self, main: u32) -> Duration {
        self.note(main, |seen| (seen.answered, seen.away) = (true, None)).since.elapsed()
    }

    /// Whether this error is borne: a database elsewhere that has answered is not there now, and has not been for
    /// no more than [`AWAY_LIMIT`]. What it would refuse again, as a wrong password or a table that is missing, is not.
    fn bears(&self, main: u32, error: &LookError) -> bool {
        let passing = matches!(error, LookError::Database(error) if error.is_passing());
        let mut borne = false;
        self.note(main, |seen| {
            if self.database_elsewhere && seen.answered && passing {
                let now = Instant::now();
                borne = seen.away.get_or_insert(now).elapsed() < AWAY_LIMIT;
                seen.since = now;
            }
        });
        borne
    }

    fn note(&self, main: u32, change: impl FnOnce(&mut Seen)) -> Seen {
        let mut kept = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        let known = kept.filter(|seen| seen.main == main);
        let mut seen = known.unwrap_or_else(|| Seen { main, since: Instant::now(), answered: false, away: None });
        change(&mut seen);
        *kept = Some(seen);
        seen
    }

    async fn pass_age_s(&self) -> Result<Option<i64>, LookError> {
        let conf = OarConf::read(&self.conf_file).await?;
        let database = Database::open(&conf.database()?).await?;
        Ok(database.pass_age_s().await?)
    }
}

impl Custom for Progress {
    fn look(&self, main: Option<u32>) -> Boxed<'_, Result<(), String>> {
        Box::pin(async move {
            let main = main.ok_or("the server has no main process")?;
            let age_s = match self.pass_age_s().await {
                Ok(age_s) => age_s,
                Err(error) if self.bears(main, &error) => {
                    tracing::debug!(reason = with_causes(&error), "oar's database is away; its server is left alone");
                    return Ok(());
                }
                Err(error) => return Err(with_causes(&error)),
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

    fn failed(passing: bool) -> LookError {
        DatabaseError::Failed { said: "no".into(), passing }.into()
    }

    #[test]
    fn a_database_elsewhere_is_borne_once_it_has_answered() {
        for (elsewhere, answered, borne) in [(true, true, true), (true, false, false), (false, true, false)] {
            let progress = Progress::new("/no/such/oar.conf".into(), elsewhere);
            if answered {
                progress.known_for(1);
            }
            assert_eq!(progress.bears(1, &DatabaseError::Silent.into()), borne, "{elsewhere} {answered}");
            assert_eq!(progress.bears(1, &failed(true)), borne, "{elsewhere} {answered}");
            assert!(!progress.bears(2, &failed(true)), "another server has to show that it can reach it");
        }
    }

    #[tokio::test]
    async fn what_would_be_refused_again_is_not_borne() {
        let progress = Progress::new("/no/such/oar.conf".into(), true);
        progress.known_for(1);
        assert!(!progress.bears(1, &failed(false)), "permission denied, no such table");
        let strange = DatabaseError::Strange { what: "the age of the last pass", found: "\"x\"".into() };
        assert!(!progress.bears(1, &strange.into()));
        assert!(progress.look(Some(1)).await.is_err(), "a configuration that is gone");
    }

    #[test]
    fn an_absence_is_borne_for_minutes() {
        let progress = Progress::new("/no/such/oar.conf".into(), true);
        progress.known_for(1);
        let ago = |time: Duration| Instant::now().checked_sub(time);
        for (away, borne) in [(AWAY_LIMIT - Duration::from_secs(60), true), (AWAY_LIMIT, false)] {
            progress.note(1, |seen| seen.away = ago(away));
            assert_eq!(progress.bears(1, &failed(true)), borne, "{away:?}");
        }
        // An answer ends it.
        progress.known_for(1);
        assert!(progress.bears(1, &failed(true)));
    }

    #[test]
    fn the_time_of_an_absence_is_not_held_against_the_server() {
        let hour_ago = Instant::now().checked_sub(Duration::from_secs(3600)).unwrap();
        let progress = Progress::new("/no/such/oar.conf".into(), true);
        progress.note(1, |seen| seen.since = hour_ago);
        assert!(progress.known_for(1) >= Duration::from_secs(3600));
        progress.note(1, |seen| seen.answered = true);
        assert!(progress.bears(1, &failed(true)));
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
