//! Our own connections to the local server: over the Unix socket of our run directory, as the
//! administrator's account, known to the server by the agent's user. Every step has a deadline; a
//! connection that missed one is of no more use and must be dropped.

use super::error::{MariaError, Result};
use super::settings::MariaSettings;
use mysql_async::prelude::Queryable;
use mysql_async::{Conn, OptsBuilder, Row, Value};
use std::time::Duration;
use tokio::time::timeout;

/// How long a session may take to end.
const GOODBYE: Duration = Duration::from_millis(200);

/// What the commits of a session wait for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Commits {
    /// Only for the local disk: they are on no other copy, and nobody waits for them.
    Local,
    /// For whom a client's commits wait.
    AsClients,
}

/// An open connection.
pub(super) struct Session {
    connection: Conn,
}

impl Session {
    /// Connects as the administrator's account.
    pub async fn open(settings: &MariaSettings, commits: Commits) -> Result<Session> {
        let after = settings.timing.statement;
        let log = match commits {
            Commits::Local => 0,
            Commits::AsClients => 1,
        };
        // Said here so that the library need not ask; and what an administrator's configuration
        // says of sessions does not change ours.
        let options = OptsBuilder::default()
            .socket(Some(settings.socket().display().to_string()))
            .user(Some(&settings.admin))
            .max_allowed_packet(Some(16 * 1024 * 1024))
            .wait_timeout(Some(28_800))
            .stmt_cache_size(0)
            .setup(vec![format!(
                "set session sql_log_bin={log}, session sql_mode='', session autocommit=1, session tx_read_only=0"
            )]);
        match timeout(after, Conn::new(options)).await {
            Ok(Ok(connection)) => Ok(Session { connection }),
            Ok(Err(source)) => Err(MariaError::Sql { what: "connect".to_owned(), source: Box::new(source) }),
            Err(_) => Err(MariaError::Timeout { what: "connection to the server".to_owned(), after }),
        }
    }

    /// Ends the session in order; the server notes one that just goes.
    pub async fn close(self) {
        // One that does not end in time is dropped.
        let _ = timeout(GOODBYE, self.connection.disconnect()).await;
    }

    /// Runs one statement and returns its rows.
    pub async fn rows(&mut self, sql: &str, after: Duration) -> Result<Vec<Row>> {
        match timeout(after, self.connection.query(sql)).await {
            Ok(Ok(rows)) => Ok(rows),
            Ok(Err(source)) => Err(MariaError::Sql { what: sql.to_owned(), source: Box::new(source) }),
            Err(_) => Err(MariaError::Timeout { what: sql.to_owned(), after }),
        }
    }

    /// Runs one statement that returns nothing of interest.
    pub async fn run(&mut self, sql: &str, after: Duration) -> Result<()> {
        self.rows(sql, after).await.map(drop)
    }

    /// As [`Session::run`], for a statement that holds a secret: an error repeats nothing of it, nor
    /// of what the server says, which may quote it.
    pub async fn run_unseen(&mut self, what: &str, sql: &str, after: Duration) -> Result<()> {
        self.run(sql, after).await.map_err(|error| match error.code() {
            Some(code) => MariaError::other(format!("{what}: the server's error {code}")),
            None => MariaError::other(format!("{what}: no answer within {} ms", after.as_millis())),
        })
    }

    /// The first column of the first row; an error when there is none.
    pub async fn value(&mut self, sql: &str, after: Duration) -> Result<String> {
        let rows = self.rows(sql, after).await?;
        rows.first().and_then(|row| text(row, 0)).ok_or_else(|| MariaError::other(format!("{sql}: no value")))
    }
}

/// A column as text; `None` for NULL and where there is no such column.
pub(super) fn text(row: &Row, column: usize) -> Option<String> {
    match row.as_ref(column)? {
        Value::Bytes(bytes) => Some(String::from_utf8_lossy(bytes).into_owned()),
        Value::Int(number) => Some(number.to_string()),
        Value::UInt(number) => Some(number.to_string()),
        _ => None,
    }
}

/// A column of that name as text.
pub(super) fn named(row: &Row, name: &str) -> Option<String> {
    let column = row.columns_ref().iter().position(|column| column.name_str().eq_ignore_ascii_case(name))?;
    text(row, column)
}

/// A text as an SQL string.
pub(super) fn literal(text: &str) -> String {
    format!("'{}'", text.replace('\\', "\\\\").replace('\'', "''"))
}
