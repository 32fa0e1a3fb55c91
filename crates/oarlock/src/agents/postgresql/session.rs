//! Our own connections to the local server: over the Unix socket of our run directory, as our own
//! role, known to the server by the agent's user (peer). Every step has a deadline; a connection
//! that missed one is of no more use and must be dropped.

use super::context::Context;
use super::error::{PgError, Result};
use super::settings::PgSettings;
use crate::agents::launcher::Launcher;
use std::future::poll_fn;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Poll, ready};
use std::time::Duration;
use tokio::net::UnixStream;
use tokio::task::JoinHandle;
use tokio::time::timeout;
use tokio_postgres::error::Severity;
use tokio_postgres::{AsyncMessage, Client, Connection, NoTls, SimpleQueryMessage, SimpleQueryRow};

/// The agent's role in the database.
pub(super) const AGENT_ROLE: &str = "oarlock";
/// The role that copies and follows.
pub(super) const REPLICATION_ROLE: &str = "oarlock_replication";

/// What the commits of a session wait for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Commits {
    /// Only for the local disk: our own work never hangs on a standby.
    Local,
    /// For whom a client's commits wait.
    AsClients,
}

/// An open connection. Dropping it closes it at once.
pub(super) struct Session {
    client: Client,
    warning: Arc<Mutex<Option<String>>>,
    driver: JoinHandle<()>,
}

/// The first column of the first row; an error when there is none.
fn first_value(sql: &str, rows: &[SimpleQueryRow]) -> Result<String> {
    let value = rows.first().and_then(|row| row.get(0));
    value.map(str::to_owned).ok_or_else(|| PgError::other(format!("{sql}: no value")))
}

impl Drop for Session {
    fn drop(&mut self) {
        self.driver.abort();
    }
}

impl Session {
    /// Connects as our own role.
    pub async fn open(settings: &PgSettings, commits: Commits) -> Result<Session> {
        Session::open_as(settings, AGENT_ROLE, &settings.database, commits).await
    }

    /// Connects as `role` to `database`.
    pub async fn open_as(settings: &PgSettings, role: &str, database: &str, commits: Commits) -> Result<Session> {
        let after = settings.timing.statement;
        match timeout(after, Session::connect(settings, role, database, commits)).await {
            Ok(session) => session,
            Err(_) => Err(PgError::Timeout { what: "connection to the server".to_owned(), after }),
        }
    }

    async fn connect(settings: &PgSettings, role: &str, database: &str, commits: Commits) -> Result<Session> {
        let path = settings.run_dir.join(format!(".s.PGSQL.{}", settings.port));
        let stream = UnixStream::connect(&path).await.map_err(PgError::io("connect to", &path))?;
        let commits = match commits {
            Commits::Local => "local",
            Commits::AsClients => "on",
        };
        // Whatever the configuration or the database says, our sessions behave the same, and what
        // they do many times a second fills no log.
        let options = format!(
            "-c synchronous_commit={commits} -c search_path=pg_catalog -c statement_timeout=0 -c lock_timeout=0 \
             -c client_min_messages=warning -c default_transaction_read_only=off \
             -c default_transaction_isolation=read\\ committed -c log_statement=none \
             -c log_min_duration_statement=-1 -c log_duration=off -c lc_messages=C \
             -c standard_conforming_strings=on"
        );
        let mut config = tokio_postgres::Config::new();
        config.user(role).dbname(database).application_name("oarlock").options(&options);
        let (client, connection) = config.connect_raw(stream, NoTls).await.map_err(sql_error("connect"))?;
        let warning = Arc::new(Mutex::new(None));
        let driver = tokio::spawn(drive(connection, warning.clone()));
        Ok(Session { client, warning, driver })
    }

    /// Whether the connection is known to be gone.
    pub fn is_closed(&self) -> bool {
        self.client.is_closed()
    }

    /// Runs statements and returns their rows; all of them are one transaction.
    pub async fn rows(&self, sql: &str, after: Duration) -> Result<Vec<SimpleQueryRow>> {
        self.take_warning();
        let rows = self.ask(sql, after).await?;
        // A commit whose wait was cancelled says success and warns: that is no success.
        match self.take_warning() {
            Some(warning) => Err(PgError::other(format!("{sql}: {warning}"))),
            None => Ok(rows),
        }
    }

    async fn ask(&self, sql: &str, after: Duration) -> Result<Vec<SimpleQueryRow>> {
        let messages = match timeout(after, self.client.simple_query(sql)).await {
            Ok(result) => result.map_err(sql_error(sql))?,
            Err(_) => return Err(PgError::Timeout { what: sql.to_owned(), after }),
        };
        let row = |message| match message {
            SimpleQueryMessage::Row(row) => Some(row),
            _ => None,
        };
        Ok(messages.into_iter().filter_map(row).collect())
    }

    /// Runs statements that return nothing of interest.
    pub async fn run(&self, sql: &str, after: Duration) -> Result<()> {
        self.rows(sql, after).await.map(drop)
    }

    /// The first column of the first row; an error when there is none.
    pub async fn value(&self, sql: &str, after: Duration) -> Result<String> {
        first_value(sql, &self.rows(sql, after).await?)
    }

    /// As [`Session::value`], for statements that end other sessions: the server warns of one that
    /// has just ended by itself.
    pub async fn value_of_ending(&self, sql: &str, after: Duration) -> Result<String> {
        let rows = self.ask(sql, after).await?;
        self.take_warning();
        first_value(sql, &rows)
    }
    fn take_warning(&self) -> Option<String> {
        self.warning.lock().unwrap_or_else(PoisonError::into_inner).take()
    }
}

/// A session whose commits wait as a client's do.
pub(super) struct Probe {
    pub session: Session,
    /// Its server process.
    pub backend: String,
}

impl Probe {
    async fn open(settings: &PgSettings) -> Result<Probe> {
        let session = Session::open(settings, Commits::AsClients).await?;
        let backend = session.value("select pg_backend_pid()", settings.timing.statement).await?;
        Ok(Probe { session, backend })
    }
}

/// Sessions held open. Who needs one takes it, and gives it back if it did its work.
#[derive(Default)]
pub(super) struct Kept {
    pub session: Option<Session>,
    pub probe: Option<Probe>,
}

impl<L: Launcher> Context<L> {
    /// A session whose commits are local: a kept one, else a new one.
    pub async fn session(&self) -> Result<Session> {
        let kept = self.kept().session.take();
        match kept.filter(|session| !session.is_closed()) {
            Some(session) => Ok(session),
            None => Session::open(&self.settings, Commits::Local).await,
        }
    }

    /// A session whose commits wait as a client's do: a kept one, else a new one.
    pub async fn probe(&self) -> Result<Probe> {
        let kept = self.kept().probe.take();
        match kept.filter(|probe| !probe.session.is_closed()) {
            Some(probe) => Ok(probe),
            None => Probe::open(&self.settings).await,
        }
    }

    /// Opens what is not held open.
    pub async fn warm_up(&self) -> Result<()> {
        if self.kept().session.is_none() {
            let session = self.session().await?;
            self.kept().session = Some(session);
        }
        if self.kept().probe.is_none() {
            let probe = self.probe().await?;
            self.kept().probe = Some(probe);
        }
        Ok(())
    }
}

fn sql_error(what: &str) -> impl FnOnce(tokio_postgres::Error) -> PgError {
    move |source| PgError::Sql { what: what.to_owned(), source: Box::new(source) }
}

/// Moves the connection's bytes and keeps the last warning. Messages come in the order of the
/// wire: a warning sent before a statement's end is kept before its result can be seen.
async fn drive(
    mut connection: Connection<UnixStream, tokio_postgres::tls::NoTlsStream>,
    warning: Arc<Mutex<Option<String>>>,
) {
    poll_fn(|cx| {
        loop {
            match ready!(connection.poll_message(cx)) {
                Some(Ok(AsyncMessage::Notice(notice))) if notice.parsed_severity() == Some(Severity::Warning) => {
                    let mut kept = warning.lock().unwrap_or_else(PoisonError::into_inner);
                    *kept = Some(notice.message().to_owned());
                }
                Some(Ok(_)) => {}
                Some(Err(_)) | None => return Poll::Ready(()),
            }
        }
    })
    .await;
}

/// A text as an SQL string.
pub(super) fn literal(text: &str) -> String {
    format!("'{}'", text.replace('\'', "''"))
}

/// A text as an SQL name.
pub(super) fn identifier(text: &str) -> String {
    format!("\"{}\"", text.replace('"', "\"\""))
}
