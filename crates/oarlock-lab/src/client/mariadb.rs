//! One connection to MariaDB, and what its answers are worth.
//!
//! The library looks at its socket only while a statement is under way, and closes it when it
//! pleases. So its bytes go through a relay of ours on loopback, which sees at once that the server's end is
//! gone, and which takes both ends down when the session is dropped.

use super::session::{Answer, Failure, Target};
use crate::history::Outcome;
use anyhow::{Context, Result};
use mysql_async::prelude::Queryable;
use mysql_async::{Conn, Error, OptsBuilder, Row, Value};
use std::net::Ipv4Addr;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;

/// What MariaDB takes unless told otherwise, in bytes; said here so that it need not be asked.
const PACKET_MAX_BYTES: usize = 16 * 1024 * 1024;
/// How long MariaDB keeps a connection that says nothing unless told otherwise, in seconds.
const IDLE_MAX_S: usize = 28_800;
/// Errors of the server after which a row is certainly not there: no log-in, no such table or right, a lock
/// not got, closed to clients, read-only. Any other may come from a commit that awaited its standby.
const REFUSALS: [u16; 12] = [1040, 1044, 1045, 1049, 1142, 1146, 1184, 1205, 1213, 1290, 1698, 1836];
/// Those of them after which the connection goes on.
const GOES_ON: [u16; 6] = [1142, 1146, 1205, 1213, 1290, 1836];

/// An open connection. Dropping it closes it at once.
pub struct Mariadb {
    connection: Conn,
    relay: JoinHandle<String>,
    broken: bool,
}

impl Drop for Mariadb {
    fn drop(&mut self) {
        self.relay.abort();
    }
}

impl Mariadb {
    /// Connects and logs in.
    pub async fn connect(target: &Target) -> Result<Mariadb> {
        let far = TcpStream::connect((target.host.as_str(), target.port())).await;
        let far = far.with_context(|| format!("{}:{}", target.host, target.port()))?;
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.context("listen on loopback")?;
        let port = listener.local_addr().context("listen on loopback")?.port();
        let relay = tokio::spawn(relay(listener, far));
        let options = OptsBuilder::default()
            .ip_or_hostname(Ipv4Addr::LOCALHOST.to_string())
            .tcp_port(port)
            .user(Some(&target.user))
            .pass(Some(&target.password))
            .db_name(Some(&target.dbname))
            .prefer_socket(false)
            .tcp_nodelay(true)
            .max_allowed_packet(Some(PACKET_MAX_BYTES))
            .wait_timeout(Some(IDLE_MAX_S))
            .stmt_cache_size(0);
        match Conn::new(options).await {
            Ok(connection) => Ok(Mariadb { connection, relay, broken: false }),
            Err(error) => {
                relay.abort();
                Err(anyhow::Error::msg(describe(&error)).context("log in"))
            }
        }
    }

    /// Whether the connection is known to be gone.
    pub fn is_closed(&self) -> bool {
        self.broken || self.relay.is_finished()
    }

    /// Waits until the connection is gone, and says why.
    pub async fn lost(&mut self) -> String {
        match (&mut self.relay).await {
            Ok(reason) => reason,
            Err(error) => error.to_string(),
        }
    }

    /// Runs one statement, or several that belong together.
    pub async fn run(&mut self, sql: &str) -> Result<Answer, Failure> {
        let answer = self.ask(sql).await;
        answer.map_err(|error| {
            let code = match &error {
                Error::Server(server) => server.code,
                _ => 0,
            };
            self.broken = !GOES_ON.contains(&code);
            let outcome = if REFUSALS.contains(&code) { Outcome::Refused } else { Outcome::Unknown };
            Failure { outcome, reason: describe(&error) }
        })
    }

    async fn ask(&mut self, sql: &str) -> Result<Answer, Error> {
        let mut result = self.connection.query_iter(sql).await?;
        let changed = result.affected_rows();
        let rows: Vec<Row> = result.collect().await?;
        result.drop_result().await?;
        let rows: Vec<Vec<Option<String>>> =
            rows.into_iter().map(|row| row.unwrap().into_iter().map(text).collect()).collect();
        let count = changed.max(u64::try_from(rows.len()).unwrap_or(u64::MAX));
        Ok(Answer { count, rows, warning: None })
    }
}

/// Moves bytes between the library and the server until one end is gone; says which, and why.
async fn relay(listener: TcpListener, far: TcpStream) -> String {
    let near = match listener.accept().await {
        Ok((near, _)) => near,
        Err(error) => return error.to_string(),
    };
    drop(listener);
    let _ = (near.set_nodelay(true), far.set_nodelay(true));
    let ((mut near_in, mut near_out), (mut far_in, mut far_out)) = (near.into_split(), far.into_split());
    let up = async {
        let mut part = vec![0; 16 * 1024];
        loop {
            match near_in.read(&mut part).await {
                Ok(0) => return "closed by us".to_owned(),
                Err(error) => return error.to_string(),
                Ok(length) => match far_out.write_all(&part[..length]).await {
                    Ok(()) => {}
                    Err(error) => return error.to_string(),
                },
            }
        }
    };
    let down = async {
        let mut part = vec![0; 16 * 1024];
        loop {
            match far_in.read(&mut part).await {
                Ok(0) => return "closed".to_owned(),
                Err(error) => return error.to_string(),
                Ok(length) => match near_out.write_all(&part[..length]).await {
                    Ok(()) => {}
                    Err(error) => return error.to_string(),
                },
            }
        }
    };
    tokio::select! {
        reason = up => reason,
        reason = down => reason,
    }
}

fn text(value: Value) -> Option<String> {
    match value {
        Value::Bytes(bytes) => Some(String::from_utf8_lossy(&bytes).into_owned()),
        Value::Int(number) => Some(number.to_string()),
        Value::UInt(number) => Some(number.to_string()),
        _ => None,
    }
}

/// An error with its causes, in one line.
fn describe(error: &Error) -> String {
    match error {
        Error::Server(server) => format!("ERROR {}: {}", server.code, server.message),
        other => {
            let cause = std::error::Error::source(other);
            cause.map_or_else(|| other.to_string(), |cause| format!("{other}: {cause}"))
        }
    }
}
