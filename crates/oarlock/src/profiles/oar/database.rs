//! OAR's database, as its modules reach it: by the name and with the role of `oar.conf`, on either
//! engine.

use super::decide::{Deletion, JobId, Stuck};
use crate::sql::{Access, Answer, Connection, Engine, SqlError};
use std::future::Future;
use std::time::Duration;
use thiserror::Error;
use tokio::sync::Mutex;

/// How long anything asked of the database may take.
const DEADLINE: Duration = Duration::from_secs(3);
/// More stuck jobs than any server had at work.
const MAX_JOBS: u32 = 1000;
/// More running jobs than are asked after.
const MAX_RUNNING: u32 = 20_000;

/// Why the database did not answer.
#[derive(Debug, Error)]
pub(super) enum DatabaseError {
    /// It said no, or is not there.
    #[error("oar's database: {said}")]
    Failed {
        /// In words.
        said: String,
        /// It is only not there now: see [`SqlError::is_passing`].
        passing: bool,
    },
    /// It said nothing.
    #[error("oar's database did not answer within {} ms", DEADLINE.as_millis())]
    Silent,
    /// It said something else than what was asked.
    #[error("oar's database: {what} is {found}")]
    Strange {
        /// What was asked for.
        what: &'static str,
        /// What came.
        found: String,
    },
}

impl DatabaseError {
    /// Whether the database is only not there now.
    pub fn is_passing(&self) -> bool {
        match self {
            DatabaseError::Failed { passing, .. } => *passing,
            DatabaseError::Silent => true,
            DatabaseError::Strange { .. } => false,
        }
    }
}

/// A connection.
pub(super) struct Database {
    connection: Mutex<Connection>,
    /// The database's own clock, in seconds, as an expression.
    now_s: &'static str,
}

/// A job that may be left for ever.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct StuckJob {
    /// Its number.
    pub job: JobId,
    /// Its state.
    pub stuck: Stuck,
    /// For how long it has been in it, in seconds, by the database's clock; `None` when not logged.
    pub for_s: Option<i64>,
    /// The exit code of its script.
    pub exit_code: Option<i32>,
    /// The secret of its messages.
    pub challenge: Option<String>,
}

/// What else OAR knows of a job.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Circumstances {
    /// As in the evidence.
    pub event_pending: bool,
    /// As in the evidence.
    pub deletion: Deletion,
    /// As in the evidence.
    pub replaced: bool,
}

/// Where the first process of a job runs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Place {
    /// On this compute node.
    Node(String),
    /// On the host that deploys nodes.
    Deploy,
    /// On the host for jobs without a node of their own.
    Cosystem,
}

impl Database {
    /// Connects; within three seconds.
    pub async fn open(access: &Access) -> Result<Database, DatabaseError> {
        let target = access.target("oarlock", DEADLINE);
        let connection = within(target.connect()).await?;
        let now_s = match connection.engine() {
            Engine::Postgresql => "CAST(extract(epoch FROM now()) AS bigint)",
            Engine::Mariadb => "unix_timestamp()",
        };
        Ok(Database { connection: Mutex::new(connection), now_s })
    }

    async fn ask(&self, sql: &str) -> Result<Answer, DatabaseError> {
        within(self.connection.lock().await.run(sql)).await
    }

    /// For how long no scheduler pass has begun, in seconds; `None` before the first ever.
    pub async fn pass_age_s(&self) -> Result<Option<i64>, DatabaseError> {
        let query = format!(
            "SELECT {} - (SELECT max(start_time) FROM gantt_jobs_predictions WHERE moldable_job_id = 0)",
            self.now_s
        );
        let answer = self.ask(&query).await?;
        optional("the age of the last pass", answer.rows.first().and_then(|row| column(row, 0)))
    }

    /// Jobs in a state that only a server at work ends.
    pub async fn stuck_jobs(&self) -> Result<Vec<StuckJob>, DatabaseError> {
        let query = format!(
            "SELECT job.job_id, job.state, job.exit_code, secret.challenge, \
                {} - (SELECT max(log.date_start) FROM job_state_logs log \
                    WHERE log.job_id = job.job_id AND log.job_state = job.state AND log.date_stop = 0) \
            FROM jobs job LEFT JOIN challenges secret ON secret.job_id = job.job_id \
            WHERE job.state IN ('Launching', 'Finishing') ORDER BY job.job_id LIMIT {MAX_JOBS}",
            self.now_s
        );
        let read = |row: &Vec<Option<String>>| {
            Ok(StuckJob {
                job: needed("the number of a job", column(row, 0))?,
                stuck: if column(row, 1) == Some("Launching") { Stuck::Launching } else { Stuck::Finishing },
                exit_code: optional("the exit code of a job", column(row, 2))?,
                challenge: column(row, 3).map(str::to_owned),
                for_s: optional("the age of a job's state", column(row, 4))?,
            })
        };
        self.ask(&query).await?.rows.iter().map(read).collect()
    }

    /// Jobs that run, or have ended without the server having heard of it.
    pub async fn running_jobs(&self) -> Result<Vec<JobId>, DatabaseError> {
        let query = format!("SELECT job_id FROM jobs WHERE state = 'Running' ORDER BY job_id LIMIT {MAX_RUNNING}");
        let rows = self.ask(&query).await?.rows;
        rows.iter().map(|row| needed("the number of a job", column(row, 0))).collect()
    }

    /// What else is known of a job.
    pub async fn circumstances(&self, job: JobId) -> Result<Circumstances, DatabaseError> {
        let query = format!(
            "SELECT (SELECT count(*) FROM event_logs WHERE job_id = {job} AND to_check = 'YES'), \
                (SELECT count(*) FROM jobs WHERE resubmit_job_id = {job}), \
                (SELECT max(frag_state) FROM frag_jobs WHERE frag_id_job = {job})"
        );
        let rows = self.ask(&query).await?.rows;
        let row = rows.first().map(Vec::as_slice).unwrap_or_default();
        let is_any = |at| needed::<i64>("a count", column(row, at)).map(|count| count > 0);
        let deletion = match column(row, 2) {
            None => Deletion::None,
            Some("LEON_EXTERMINATE") => Deletion::Exterminating,
            Some(_) => Deletion::Asked,
        };
        Ok(Circumstances { event_pending: is_any(0)?, replaced: is_any(1)?, deletion })
    }

    /// Where the first process of a job runs: OAR takes the first of its nodes, by name.
    pub async fn place(&self, job: JobId) -> Result<Place, DatabaseError> {
        let types = self.ask(&format!("SELECT type FROM job_types WHERE job_id = {job}")).await?.rows;
        let types: Vec<&str> = types.iter().filter_map(|row| column(row, 0)).collect();
        let is = |name: &str| types.iter().any(|kind| kind.split('=').next().unwrap_or_default().trim() == name);
        let query = format!(
            "SELECT resource.network_address FROM resources resource \
            JOIN assigned_resources assigned ON assigned.resource_id = resource.resource_id \
            JOIN moldable_job_descriptions shape ON shape.moldable_id = assigned.moldable_job_id \
            WHERE shape.moldable_job_id = {job} AND assigned.assigned_resource_index = 'CURRENT' \
                AND shape.moldable_index = 'CURRENT' AND resource.type = 'default' \
                AND resource.network_address <> '' \
            ORDER BY resource.network_address LIMIT 1"
        );
        let rows = self.ask(&query).await?.rows;
        match rows.first().and_then(|row| column(row, 0)) {
            Some(_) if is("cosystem") => Ok(Place::Cosystem),
            None => Ok(Place::Cosystem),
            Some(_) if is("deploy") => Ok(Place::Deploy),
            Some(node) => Ok(Place::Node(node.to_owned())),
        }
    }

    /// Gives a job that was being launched back to the scheduler; false when it is in another state by now.
    pub async fn relaunch(&self, job: JobId) -> Result<bool, DatabaseError> {
        let update = format!("UPDATE jobs SET state = 'toLaunch' WHERE job_id = {job} AND state = 'Launching'");
        Ok(self.ask(&update).await?.count == 1)
    }

    /// Takes a job that was being finished back to running; false when it is in another state by now.
    pub async fn run_again(&self, job: JobId) -> Result<bool, DatabaseError> {
        let update =
            format!("UPDATE jobs SET state = 'Running', stop_time = 0 WHERE job_id = {job} AND state = 'Finishing'");
        Ok(self.ask(&update).await?.count == 1)
    }

    /// The `sql_mode` that sessions of OAR have; `None` on an engine without one.
    pub async fn sql_mode(&self) -> Result<Option<String>, DatabaseError> {
        if self.connection.lock().await.engine() == Engine::Postgresql {
            return Ok(None);
        }
        let rows = self.ask("SELECT @@session.sql_mode").await?.rows;
        Ok(rows.first().and_then(|row| column(row, 0)).map(str::to_owned))
    }
}

fn column(row: &[Option<String>], at: usize) -> Option<&str> {
    row.get(at)?.as_deref()
}

fn optional<T: std::str::FromStr>(what: &'static str, found: Option<&str>) -> Result<Option<T>, DatabaseError> {
    let parse = |text: &str| text.parse().map_err(|_| DatabaseError::Strange { what, found: format!("\"{text}\"") });
    found.map(parse).transpose()
}

fn needed<T: std::str::FromStr>(what: &'static str, found: Option<&str>) -> Result<T, DatabaseError> {
    optional(what, found)?.ok_or_else(|| DatabaseError::Strange { what, found: "missing".to_owned() })
}

async fn within<T>(asked: impl Future<Output = Result<T, SqlError>>) -> Result<T, DatabaseError> {
    match tokio::time::timeout(DEADLINE, asked).await {
        Ok(answer) => answer.map_err(|error| {
            let passing = error.is_passing();
            DatabaseError::Failed { said: error.in_words(), passing }
        }),
        Err(_) => Err(DatabaseError::Silent),
    }
}
