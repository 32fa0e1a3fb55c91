//! After a start: makes the server look around at once, then takes care of jobs that the run
//! before it left between two states.

use super::conf::OarConf;
use super::database::{Database, Place, StuckJob};
use super::decide::{Decision, Evidence, JobId, Oarexec, Stuck, decide};
use super::{node, notify, processes};
use crate::agents::user::SystemUser;
use crate::causes::with_causes;
use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::time::Duration;
use tokio::sync::mpsc;
use tokio::time::Instant;

/// When jobs are looked at, in seconds after the start: soon, because a stuck job holds its nodes,
/// and again while something may still settle by itself.
const ROUNDS_AT_S: [u64; 9] = [0, 2, 5, 15, 30, 60, 120, 300, 600];
/// The user that OAR works as.
pub(super) const OAR_USER: &str = "oar";

/// The work after one start.
struct Repair<'a> {
    conf: OarConf,
    port: u16,
    user: SystemUser,
    main: Option<u32>,
    started: Instant,
    notes: &'a mpsc::UnboundedSender<String>,
}

/// What one round did.
#[derive(Default)]
struct Round {
    /// Something was changed: the server must look.
    changed: bool,
    /// Jobs to look at again, with what to tell if nothing changes.
    waiting: BTreeMap<JobId, String>,
}

/// Ends when nothing is left to do, at the latest after ten minutes.
pub(super) async fn after_start(conf_file: &Path, main: Option<u32>, notes: &mpsc::UnboundedSender<String>) {
    match Repair::prepare(conf_file, main, notes).await {
        Ok(repair) => {
            tokio::join!(repair.hear_the_ended(), repair.work());
        }
        Err(reason) => note(notes, format!("jobs of the run before were not looked at: {reason}")),
    }
}

impl<'a> Repair<'a> {
    async fn prepare(
        conf_file: &Path,
        main: Option<u32>,
        notes: &'a mpsc::UnboundedSender<String>,
    ) -> Result<Self, String> {
        let started = Instant::now();
        let conf = OarConf::read(conf_file).await.map_err(|error| with_causes(&error))?;
        let port = conf.server_port().map_err(|error| with_causes(&error))?;
        if let Err(error) = notify::send_when_up(port, notify::LOOK).await {
            tracing::warn!(%error, "the oar server cannot be told to look around");
        }
        let user = SystemUser::lookup(OAR_USER).await.map_err(|error| with_causes(&error))?;
        Ok(Repair { conf, port, user, main, started, notes })
    }

    async fn work(&self) {
        let mut told = BTreeSet::new();
        let mut waiting = BTreeMap::new();
        for at_s in ROUNDS_AT_S {
            tokio::time::sleep_until(self.started + Duration::from_secs(at_s)).await;
            match self.round(&mut told).await {
                Ok(round) => {
                    if round.changed {
                        self.send(notify::LOOK).await;
                    }
                    // The second round sees what was written by a commit still under way in the first.
                    if !round.changed && round.waiting.is_empty() && at_s > 0 {
                        return;
                    }
                    waiting = round.waiting;
                }
                Err(reason) => tracing::warn!(reason, "cannot look at oar's jobs"),
            }
        }
        for text in waiting.into_values() {
            note(self.notes, text);
        }
    }

    /// A job that ended while nobody listened, or told a server that died of it, tells again now.
    async fn hear_the_ended(&self) {
        let hosts = match self.hosts_of_running().await {
            Ok(hosts) => hosts,
            Err(reason) => return tracing::warn!(reason, "jobs that ended meanwhile report late"),
        };
        for (node, reason) in node::wake(hosts, &self.conf.ssh_command(), &self.user).await {
            tracing::warn!(node, reason, "jobs that ended there meanwhile report late");
        }
    }

    async fn hosts_of_running(&self) -> Result<BTreeSet<String>, String> {
        let access = self.conf.database().map_err(|error| with_causes(&error))?;
        let database = Database::open(&access).await.map_err(|error| with_causes(&error))?;
        let mut hosts = BTreeSet::new();
        for job in database.running_jobs().await.map_err(|error| with_causes(&error))? {
            let place = database.place(job).await.map_err(|error| with_causes(&error))?;
            hosts.extend(self.host(place));
        }
        Ok(hosts)
    }

    async fn round(&self, told: &mut BTreeSet<JobId>) -> Result<Round, String> {
        let access = self.conf.database().map_err(|error| with_causes(&error))?;
        let database = Database::open(&access).await.map_err(|error| with_causes(&error))?;
        // The order matters: a helper that ended between these looks has changed the job's state or
        // written an event by the time that is looked at; every change below checks the state again.
        let ours = self.started.elapsed();
        let mut jobs = database.stuck_jobs().await.map_err(|error| with_causes(&error))?;
        jobs.retain(|job| is_before(job, ours));
        if jobs.is_empty() {
            return Ok(Round::default());
        }
        let at_work = self.main.map(|main| processes::jobs_at_work(&processes::tree(main))).unwrap_or_default();
        let oarexecs = self.ask_nodes(&database, &jobs).await?;
        let mut round = Round::default();
        for job in jobs {
            let oarexec = oarexecs.get(&job.job).cloned();
            let at_work = at_work.contains(&job.job);
            let evidence = self.evidence(&database, job, oarexec, at_work).await?;
            self.carry_out(&database, &evidence, &mut round, told).await?;
        }
        Ok(round)
    }

    async fn ask_nodes(&self, database: &Database, jobs: &[StuckJob]) -> Result<BTreeMap<JobId, Oarexec>, String> {
        let mut places = BTreeMap::new();
        for job in jobs.iter().filter(|job| job.stuck == Stuck::Launching) {
            let place = database.place(job.job).await.map_err(|error| with_causes(&error))?;
            if let Some(host) = self.host(place) {
                places.insert(job.job, (host, job.for_s));
            }
        }
        let hosts = places.values().map(|(host, _)| host.clone()).collect();
        let asked = Instant::now();
        let answers = node::ask(hosts, &self.conf.ssh_command(), &self.user).await;
        // A node says for how long it has been up later than the database said for how long the job
        // has been launched; both count in whole seconds.
        let later_s = i64::try_from(asked.elapsed().as_secs()).unwrap_or(i64::MAX).saturating_add(2);
        let judged = |(job, (host, for_s)): (JobId, (String, Option<i64>))| {
            let launching_s = for_s.map(|for_s| for_s.saturating_add(later_s));
            (job, node::oarexec(&answers, &host, job, launching_s))
        };
        Ok(places.into_iter().map(judged).collect())
    }

    fn host(&self, place: Place) -> Option<String> {
        match place {
            Place::Node(node) => Some(node),
            Place::Deploy => self.conf.frontend("DEPLOY_HOSTNAME").map(str::to_owned),
            Place::Cosystem => self.conf.frontend("COSYSTEM_HOSTNAME").map(str::to_owned),
        }
    }

    async fn evidence(
        &self,
        database: &Database,
        job: StuckJob,
        oarexec: Option<Oarexec>,
        at_work: bool,
    ) -> Result<Evidence, String> {
        let around = database.circumstances(job.job).await.map_err(|error| with_causes(&error))?;
        let not_asked = || Oarexec::Unknown { reason: "its node is not known".to_owned() };
        Ok(Evidence {
            job: job.job,
            stuck: job.stuck,
            at_work,
            event_pending: around.event_pending,
            deletion: around.deletion,
            replaced: around.replaced,
            exit_code: job.exit_code,
            challenge: job.challenge,
            oarexec: oarexec.unwrap_or_else(not_asked),
        })
    }

    async fn carry_out(
        &self,
        database: &Database,
        evidence: &Evidence,
        round: &mut Round,
        told: &mut BTreeSet<JobId>,
    ) -> Result<(), String> {
        let job = evidence.job;
        let Evidence { stuck, at_work, event_pending, deletion, oarexec, .. } = evidence;
        tracing::debug!(job, ?stuck, at_work, event_pending, ?deletion, ?oarexec, "looked at a job");
        match decide(evidence) {
            Decision::Leave => {}
            Decision::Wait(text) => {
                // An event is looked at when the server is told to look.
                round.changed |= evidence.event_pending;
                round.waiting.insert(job, text);
            }
            Decision::Tell(text) => {
                if told.insert(job) {
                    note(self.notes, text);
                }
            }
            Decision::Relaunch => {
                if database.relaunch(job).await.map_err(|error| with_causes(&error))? {
                    note(self.notes, format!("job {job} was being launched and runs nowhere: launched again"));
                    round.changed = true;
                }
            }
            Decision::Send(message) => {
                self.send(&message).await;
                round.waiting.insert(job, format!("{evidence}: its end was asked for again and did not come"));
            }
            Decision::FinishAgain(message) => {
                if database.run_again(job).await.map_err(|error| with_causes(&error))? {
                    note(self.notes, format!("job {job} had ended and was not cleaned up after: done again"));
                    // Taken back to running, it depends on this message: a moment of deafness must not cost it.
                    if let Err(error) = notify::send_when_up(self.port, &message).await {
                        tracing::warn!(%error, "the oar server does not take a message");
                    }
                    round.waiting.insert(job, format!("{evidence}: its end was repeated and did not come"));
                }
            }
        }
        Ok(())
    }

    async fn send(&self, message: &str) {
        if let Err(error) = notify::send(self.port, message).await {
            tracing::warn!(%error, "the oar server does not take a message");
        }
    }
}

/// True unless the job surely came into its state under this server, which had been up for `ours`
/// when the database was asked. (The database counts in whole seconds.)
fn is_before(job: &StuckJob, ours: Duration) -> bool {
    let ours_s = i64::try_from(ours.as_secs()).unwrap_or(i64::MAX);
    job.for_s.is_none_or(|for_s| for_s >= ours_s)
}

fn note(notes: &mpsc::UnboundedSender<String>, text: String) {
    tracing::warn!("{text}");
    // Nobody listens when the agent ends; the log has it.
    let _ = notes.send(text);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_jobs_of_the_run_before_are_looked_at() {
        let job = |for_s| StuckJob { job: 1, stuck: Stuck::Launching, for_s, exit_code: None, challenge: None };
        let ours = Duration::from_millis(7900);
        assert!(is_before(&job(Some(8)), ours));
        assert!(is_before(&job(Some(7)), ours), "in doubt the evidence decides");
        assert!(!is_before(&job(Some(6)), ours));
        assert!(is_before(&job(None), ours), "not logged");
    }
}
