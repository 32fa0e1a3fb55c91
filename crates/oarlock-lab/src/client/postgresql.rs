//! One connection to PostgreSQL, and what its answers are worth.

use super::session::{Answer, Failure, Target};
use crate::history::Outcome;
use anyhow::{Context, Result};
use std::future::poll_fn;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::ready;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpStream, UnixStream};
use tokio::task::JoinHandle;
use tokio_postgres::error::{DbError, Severity};
use tokio_postgres::{AsyncMessage, Client, Connection, NoTls, SimpleQueryMessage};

/// An open connection. Dropping it closes it at once.
pub struct Postgresql {
    client: Client,
    warning: Arc<Mutex<Option<String>>>,
    driver: JoinHandle<String>,
}

impl Drop for Postgresql {
    fn drop(&mut self) {
        self.driver.abort();
    }
}

impl Postgresql {
    /// Connects and logs in.
    pub async fn connect(target: &Target) -> Result<Postgresql> {
        if Path::new(&target.host).is_absolute() {
            let path = format!("{}/.s.PGSQL.{}", target.host, target.port());
            let stream = UnixStream::connect(&path).await;
            return Postgresql::log_in(target, stream.with_context(|| path)?).await;
        }
        let stream = TcpStream::connect((target.host.as_str(), target.port())).await;
        let stream = stream.with_context(|| format!("{}:{}", target.host, target.port()))?;
        stream.set_nodelay(true).context("set TCP_NODELAY")?;
        Postgresql::log_in(target, stream).await
    }

    async fn log_in<S>(target: &Target, stream: S) -> Result<Postgresql>
    where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let mut config = tokio_postgres::Config::new();
        config.user(&target.user).password(&target.password).dbname(&target.dbname).application_name("oarlock-lab");
        let (client, connection) = config.connect_raw(stream, NoTls).await.context("log in")?;
        let warning = Arc::new(Mutex::new(None));
        Ok(Postgresql { client, driver: tokio::spawn(drive(connection, warning.clone())), warning })
    }

    /// Whether the connection is known to be gone.
    pub fn is_closed(&self) -> bool {
        self.client.is_closed()
    }

    /// Waits until the connection is gone, and says why.
    pub async fn lost(&mut self) -> String {
        match (&mut self.driver).await {
            Ok(reason) => reason,
            Err(error) => error.to_string(),
        }
    }

    /// Runs one statement. The simple protocol is used because there the server reports success only
    /// after the commit, and one round trip is all there is.
    pub async fn run(&self, sql: &str) -> Result<Answer, Failure> {
        self.take_warning();
        let result = self.client.simple_query(sql).await;
        let warning = self.take_warning();
        match result {
            Ok(messages) => Ok(Answer { count: completed_rows(&messages), rows: texts(&messages), warning }),
            Err(error) => Err(failure(&error, warning)),
        }
    }

    fn take_warning(&self) -> Option<String> {
        let mut warning = self.warning.lock().unwrap_or_else(PoisonError::into_inner);
        warning.take()
    }
}

/// Moves the connection's bytes and keeps the last warning. Returns why it ended.
///
/// Messages are handed on in the order of the wire: a warning sent before a statement's end is
/// kept before the statement's result can be seen.
async fn drive<S>(
    mut connection: Connection<S, tokio_postgres::tls::NoTlsStream>,
    warning: Arc<Mutex<Option<String>>>,
) -> String
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let ended = poll_fn(|cx| {
        loop {
            match ready!(connection.poll_message(cx)) {
                Some(Ok(AsyncMessage::Notice(notice))) if is_warning(&notice) => {
                    let mut kept = warning.lock().unwrap_or_else(PoisonError::into_inner);
                    *kept = Some(notice.message().to_owned());
                }
                Some(Ok(_)) => {}
                Some(Err(error)) => return std::task::Poll::Ready(describe(&error)),
                None => return std::task::Poll::Ready("closed".to_owned()),
            }
        }
    });
    ended.await
}

fn is_warning(notice: &DbError) -> bool {
    notice.parsed_severity() == Some(Severity::Warning)
}

fn completed_rows(messages: &[SimpleQueryMessage]) -> u64 {
    let counts = messages.iter().map(|m| match m {
        SimpleQueryMessage::CommandComplete(rows) => *rows,
        _ => 0,
    });
    counts.sum()
}

fn texts(messages: &[SimpleQueryMessage]) -> Vec<Vec<Option<String>>> {
    let row = |message: &SimpleQueryMessage| match message {
        SimpleQueryMessage::Row(row) => Some((0..row.len()).map(|at| row.get(at).map(str::to_owned)).collect()),
        _ => None,
    };
    messages.iter().filter_map(row).collect()
}

/// Judges a failed statement. Only a plain ERROR means that nothing was committed: a FATAL one
/// can come from a session that is ended while its commit, already visible, awaits the standby.
fn failure(error: &tokio_postgres::Error, warning: Option<String>) -> Failure {
    let severity = error.as_db_error().and_then(DbError::parsed_severity);
    let outcome = match (severity, &warning) {
        (Some(Severity::Error), None) => Outcome::Refused,
        _ => Outcome::Unknown,
    };
    let reason = match warning {
        Some(warning) => format!("{}; warning: {warning}", describe(error)),
        None => describe(error),
    };
    Failure { outcome, reason }
}

/// An error with its causes, in one line.
fn describe(error: &tokio_postgres::Error) -> String {
    match error.as_db_error() {
        Some(db) => format!("{} {}: {}", db.severity(), db.code().code(), db.message()),
        None => {
            let cause = std::error::Error::source(error);
            cause.map_or_else(|| error.to_string(), |cause| format!("{error}: {cause}"))
        }
    }
}
