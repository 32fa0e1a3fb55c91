//! OAR's database, as its modules reach it: by the name and with the role of `oar.conf`.

use super::conf::DatabaseAccess;
use super::decide::{Deletion, JobId, Stuck};
use crate::agents::service::describe;
use std::future::Future;
use std::time::Duration;
use thiserror::Error;
use tokio::task::JoinHandle;
use tokio_postgres::{Client, Config, NoTls};

/// How long anything asked of the database may take.
const DEADLINE: Duration = Duration::from_secs(3);
/// More stuck jobs than any server had at work.
const MAX_JOBS: i64 = 1000;
/// More running jobs than are asked after.
const MAX_RUNNING: i64 = 20_000;

/// Why the database did not answer.
#[derive(Debug, Error)]
pub(super) enum DatabaseError {
    /// It said no, or is not there.
    #[error("oar's database: {0}")]
    Failed(String),
    /// It said nothing.
    #[error("oar's database did not answer within {} ms", DEADLINE.as_millis())]
    Silent,
}

/// A connection.
pub(super) struct Database {
    client: Client,
    connection: JoinHandle<()>,
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
    pub async fn open(access: &DatabaseAccess) -> Result<Database, DatabaseError> {
        let mut config = Config::new();
        config.host(&access.host).port(access.port).dbname(&access.name).user(&access.user);
        config.password(&access.password).application_name("oarlock").connect_timeout(DEADLINE);
        let (client, connection) = within(config.connect(NoTls)).await?;
        let connection = tokio::spawn(async move {
            if let Err(error) = connection.await {
                tracing::debug!(%error, "connection to oar's database");
            }
        });
        Ok(Database { client, connection })
    }

    /// For how long no scheduler pass has begun, in seconds; `None` before the first ever.
    pub async fn pass_age_s(&self) -> Result<Option<i64>, DatabaseError> {
        let query = "SELECT extract(epoch FROM now())::int8 - \
            (SELECT max(start_time) FROM gantt_jobs_predictions WHERE moldable_job_id = 0)";
        let row = within(self.client.query_one(query, &[])).await?;
        row.try_get(0).map_err(|error| failed(&error))
    }

    /// Jobs in a state that only a server at work ends.
    pub async fn stuck_jobs(&self) -> Result<Vec<StuckJob>, DatabaseError> {
        let query = "SELECT job.job_id::int8, job.state::text, job.exit_code::int4, secret.challenge::text, \
                extract(epoch FROM now())::int8 - (SELECT max(log.date_start) FROM job_state_logs log \
                    WHERE log.job_id = job.job_id AND log.job_state = job.state AND log.date_stop = 0) \
            FROM jobs job LEFT JOIN challenges secret ON secret.job_id = job.job_id \
            WHERE job.state IN ('Launching', 'Finishing') ORDER BY job.job_id LIMIT $1";
        let rows = within(self.client.query(query, &[&MAX_JOBS])).await?;
        let read = |row: &tokio_postgres::Row| {
            let state: &str = row.try_get(1)?;
            Ok(StuckJob {
                job: row.try_get(0)?,
                stuck: if state == "Launching" { Stuck::Launching } else { Stuck::Finishing },
                exit_code: row.try_get(2)?,
                challenge: row.try_get(3)?,
                for_s: row.try_get(4)?,
            })
        };
        rows.iter().map(read).collect::<Result<_, _>>().map_err(|error| failed(&error))
    }

    /// Jobs that run, or have ended without the server having heard of it.
    pub async fn running_jobs(&self) -> Result<Vec<JobId>, DatabaseError> {
        let query = "SELECT job_id::int8 FROM jobs WHERE state = 'Running' ORDER BY job_id LIMIT $1";
        let rows = within(self.client.query(query, &[&MAX_RUNNING])).await?;
        rows.iter().map(|row| row.try_get(0)).collect::<Result<_, _>>().map_err(|error| failed(&error))
    }

    /// What else is known of a job.
    pub async fn circumstances(&self, job: JobId) -> Result<Circumstances, DatabaseError> {
        let query = "SELECT EXISTS (SELECT 1 FROM event_logs WHERE job_id = $1 AND to_check = 'YES'), \
            EXISTS (SELECT 1 FROM jobs WHERE resubmit_job_id = $1), \
            (SELECT max(frag_state)::text FROM frag_jobs WHERE frag_id_job = $1)";
        let row = within(self.client.query_one(&typed(query), &[&job])).await?;
        let read = || -> Result<Circumstances, tokio_postgres::Error> {
            let deletion = match row.try_get::<_, Option<&str>>(2)? {
                None => Deletion::None,
                Some("LEON_EXTERMINATE") => Deletion::Exterminating,
                Some(_) => Deletion::Asked,
            };
            Ok(Circumstances { event_pending: row.try_get(0)?, replaced: row.try_get(1)?, deletion })
        };
        read().map_err(|error| failed(&error))
    }

    /// Where the first process of a job runs: OAR takes the first of its nodes, by name.
    pub async fn place(&self, job: JobId) -> Result<Place, DatabaseError> {
        let query = "SELECT type::text FROM job_types WHERE job_id = $1";
        let types = within(self.client.query(&typed(query), &[&job])).await?;
        let types: Vec<&str> = types.iter().filter_map(|row| row.try_get(0).ok()).collect();
        let is = |name: &str| types.iter().any(|kind| kind.split('=').next().unwrap_or_default().trim() == name);
        let query = "SELECT resource.network_address::text FROM resources resource \
            JOIN assigned_resources assigned ON assigned.resource_id = resource.resource_id \
            JOIN moldable_job_descriptions shape ON shape.moldable_id = assigned.moldable_job_id \
            WHERE shape.moldable_job_id = $1 AND assigned.assigned_resource_index = 'CURRENT' \
                AND shape.moldable_index = 'CURRENT' AND resource.type = 'default' \
                AND resource.network_address <> '' \
            ORDER BY resource.network_address LIMIT 1";
        let node = within(self.client.query_opt(&typed(query), &[&job])).await?;
        match node {
            Some(_) if is("cosystem") => Ok(Place::Cosystem),
            None => Ok(Place::Cosystem),
            Some(_) if is("deploy") => Ok(Place::Deploy),
            Some(row) => row.try_get(0).map(Place::Node).map_err(|error| failed(&error)),
        }
    }

    /// Gives a job that was being launched back to the scheduler; false when it is in another state by now.
    pub async fn relaunch(&self, job: JobId) -> Result<bool, DatabaseError> {
        let update = "UPDATE jobs SET state = 'toLaunch' WHERE job_id = $1::int8 AND state = 'Launching'";
        Ok(within(self.client.execute(update, &[&job])).await? == 1)
    }

    /// Takes a job that was being finished back to running; false when it is in another state by now.
    pub async fn run_again(&self, job: JobId) -> Result<bool, DatabaseError> {
        let update = "UPDATE jobs SET state = 'Running', stop_time = 0 WHERE job_id = $1::int8 AND state = 'Finishing'";
        Ok(within(self.client.execute(update, &[&job])).await? == 1)
    }
}

impl Drop for Database {
    fn drop(&mut self) {
        self.connection.abort();
    }
}

/// The tables disagree on the type of a job's number.
fn typed(query: &str) -> String {
    query.replace("$1", "$1::int8")
}

async fn within<T>(asked: impl Future<Output = Result<T, tokio_postgres::Error>>) -> Result<T, DatabaseError> {
    match tokio::time::timeout(DEADLINE, asked).await {
        Ok(answer) => answer.map_err(|error| failed(&error)),
        Err(_) => Err(DatabaseError::Silent),
    }
}

fn failed(error: &tokio_postgres::Error) -> DatabaseError {
    DatabaseError::Failed(describe(error))
}
