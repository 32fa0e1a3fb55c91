//! One connection to the database, and what its answers are worth, whatever its engine.

use super::mariadb::Mariadb;
use super::postgresql::Postgresql;
use crate::history::Outcome;
use crate::state::Engine;
use anyhow::{Result, anyhow};
use std::time::Duration;
use tokio::time::timeout;

/// Where and as whom to connect, and how long to wait.
#[derive(Debug, Clone, clap::Args)]
pub struct Target {
    /// The database's engine.
    #[arg(long, value_enum, default_value = "postgresql")]
    pub engine: Engine,
    /// Host name or address; of PostgreSQL also the directory of a Unix socket.
    #[arg(long, default_value = "oar")]
    pub host: String,
    /// Port of the service; the engine's own if absent.
    #[arg(long)]
    pub port: Option<u16>,
    /// Database.
    #[arg(long, default_value = "bench")]
    pub dbname: String,
    /// Role.
    #[arg(long, default_value = "bench")]
    pub user: String,
    /// The role's password.
    #[arg(long, default_value = "bench")]
    pub password: String,
    /// Longest wait for a connection, log-in included, in milliseconds.
    #[arg(long, default_value_t = 1000)]
    pub connect_timeout_ms: u64,
    /// Longest wait for a statement's answer, in milliseconds. Longer than any takeover: it is the
    /// cluster that must free a client that hangs on the dead owner, not the client's own patience.
    #[arg(long, default_value_t = 10_000)]
    pub statement_timeout_ms: u64,
}

impl Target {
    /// Port of the service.
    pub fn port(&self) -> u16 {
        self.port.unwrap_or_else(|| self.engine.port())
    }
}

/// What came of a statement.
#[derive(Debug)]
pub struct Answer {
    /// How many rows it changed or returned, as the server counts them.
    pub count: u64,
    /// What it returned, as text; None is NULL.
    pub rows: Vec<Vec<Option<String>>>,
    /// A warning that the server sent along with its success.
    pub warning: Option<String>,
}

/// Why a statement got no success.
#[derive(Debug)]
pub struct Failure {
    /// Refused or unknown.
    pub outcome: Outcome,
    /// In words.
    pub reason: String,
}

/// An open connection. Dropping it closes it at once, whatever is under way on it.
pub struct Session {
    inner: Inner,
    statement_timeout: Duration,
}

enum Inner {
    Postgresql(Postgresql),
    Mariadb(Box<Mariadb>),
}

impl Session {
    /// Connects and logs in, all within the target's connect deadline.
    pub async fn open(target: &Target) -> Result<Session> {
        let deadline = Duration::from_millis(target.connect_timeout_ms);
        let connect = async {
            Ok(match target.engine {
                Engine::Postgresql => Inner::Postgresql(Postgresql::connect(target).await?),
                Engine::Mariadb => Inner::Mariadb(Box::new(Mariadb::connect(target).await?)),
            })
        };
        match timeout(deadline, connect).await {
            Ok(inner) => {
                let statement_timeout = Duration::from_millis(target.statement_timeout_ms);
                inner.map(|inner| Session { inner, statement_timeout })
            }
            Err(_) => Err(anyhow!("no connection in {} ms", target.connect_timeout_ms)),
        }
    }

    /// Whether the connection is known to be gone.
    pub fn is_closed(&self) -> bool {
        match &self.inner {
            Inner::Postgresql(session) => session.is_closed(),
            Inner::Mariadb(session) => session.is_closed(),
        }
    }

    /// Waits until the connection is gone, and says why.
    pub async fn lost(&mut self) -> String {
        match &mut self.inner {
            Inner::Postgresql(session) => session.lost().await,
            Inner::Mariadb(session) => session.lost().await,
        }
    }

    /// Runs one statement within the statement deadline. After a failure with an unknown outcome the
    /// session is of no more use and must be dropped.
    pub async fn run(&mut self, sql: &str) -> Result<Answer, Failure> {
        let after = self.statement_timeout;
        let answer = async {
            match &mut self.inner {
                Inner::Postgresql(session) => session.run(sql).await,
                Inner::Mariadb(session) => session.run(sql).await,
            }
        };
        timeout(after, answer).await.unwrap_or_else(|_| {
            Err(Failure { outcome: Outcome::Unknown, reason: format!("no answer in {} ms", after.as_millis()) })
        })
    }
}
