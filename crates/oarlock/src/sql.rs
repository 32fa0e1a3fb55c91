//! A client's connection to a database of either engine, for the few statements that are the same
//! to both: text in, text out. Deadlines are the caller's: a connection that missed one is dropped.

use mysql_async::prelude::Queryable;
use mysql_async::{Conn, Opts, OptsBuilder, Value};
use std::future::poll_fn;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;
use tokio::task::JoinHandle;
use tokio_postgres::{AsyncMessage, Client, Config, NoTls, SimpleQueryMessage};

/// What MariaDB takes unless told otherwise, in bytes; said here so that it need not be asked.
const PACKET_MAX_BYTES: usize = 16 * 1024 * 1024;
/// How long MariaDB keeps a connection that says nothing unless told otherwise, in seconds.
const IDLE_MAX_S: usize = 28_800;

/// A database engine.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Engine {
    /// PostgreSQL.
    Postgresql,
    /// MariaDB, or what speaks as it does.
    Mariadb,
}

/// Where a database is, and as whom to connect.
#[derive(Clone, PartialEq, Eq)]
pub struct Access {
    /// Its engine.
    pub engine: Engine,
    /// Host name or address.
    pub host: String,
    /// TCP port.
    pub port: u16,
    /// Name of the database.
    pub name: String,
    /// Role, or account.
    pub user: String,
    /// Its password.
    pub password: String,
}

/// How to connect, in the words of the engine's own library.
#[derive(Clone, Debug)]
pub enum Target {
    /// To PostgreSQL.
    Postgresql(Box<Config>),
    /// To MariaDB.
    Mariadb(Box<Opts>),
}

/// Why a statement, or a connection, failed.
#[derive(Debug, thiserror::Error)]
pub enum SqlError {
    /// PostgreSQL said no, or is not there.
    #[error(transparent)]
    Postgresql(#[from] tokio_postgres::Error),
    /// MariaDB said no, or is not there.
    #[error(transparent)]
    Mariadb(#[from] mysql_async::Error),
    /// The text does not say how to connect.
    #[error("not a connection: {0}")]
    Target(String),
}

/// What a statement gave.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Answer {
    /// Its rows; a column is `None` where it is NULL.
    pub rows: Vec<Vec<Option<String>>>,
    /// How many rows it changed, or returned.
    pub count: u64,
    /// Whether the server warned: PostgreSQL does when the wait for a standby was cancelled.
    pub warned: bool,
}

/// An open connection.
pub struct Connection(Inner);

enum Inner {
    Postgresql { client: Client, warned: Arc<AtomicBool>, driver: JoinHandle<()> },
    Mariadb(Box<Conn>),
}

impl Access {
    /// How to connect. `application` is the name that PostgreSQL shows.
    pub fn target(&self, application: &str, connect: Duration) -> Target {
        match self.engine {
            Engine::Postgresql => {
                let mut config = Config::new();
                config.host(&self.host).port(self.port).dbname(&self.name).user(&self.user);
                config.password(&self.password).application_name(application).connect_timeout(connect);
                Target::Postgresql(Box::new(config))
            }
            Engine::Mariadb => {
                let options = OptsBuilder::default().ip_or_hostname(&self.host).tcp_port(self.port);
                let options = options.db_name(Some(&self.name)).user(Some(&self.user)).pass(Some(&self.password));
                Target::Mariadb(Box::new(usual(options)))
            }
        }
    }
}

impl Target {
    /// Reads what a person wrote: `mysql://USER:PASSWORD@HOST:PORT/DATABASE`, or a connection string
    /// of PostgreSQL.
    pub fn parse(text: &str) -> Result<Target, SqlError> {
        if let Some(rest) = text.strip_prefix("mariadb://").or_else(|| text.strip_prefix("mysql://")) {
            let options = Opts::from_url(&format!("mysql://{rest}"));
            let options = options.map_err(|error| SqlError::Target(error.to_string()))?;
            return Ok(Target::Mariadb(Box::new(usual(OptsBuilder::from_opts(options)))));
        }
        let config = text.parse::<Config>()?;
        Ok(Target::Postgresql(Box::new(config)))
    }

    /// Connects. The wait for that is the caller's to end.
    pub async fn connect(&self) -> Result<Connection, SqlError> {
        match self {
            Target::Postgresql(config) => {
                let (client, mut connection) = config.connect(NoTls).await?;
                let warned = Arc::new(AtomicBool::new(false));
                let seen = Arc::clone(&warned);
                let driver = tokio::spawn(async move {
                    while let Some(Ok(message)) = poll_fn(|context| connection.poll_message(context)).await {
                        if let AsyncMessage::Notice(_) = message {
                            seen.store(true, Ordering::Relaxed);
                        }
                    }
                });
                Ok(Connection(Inner::Postgresql { client, warned, driver }))
            }
            Target::Mariadb(options) => {
                let connection = Conn::new(options.as_ref().clone()).await?;
                Ok(Connection(Inner::Mariadb(Box::new(connection))))
            }
        }
    }
}

/// Never over another socket than the one that was named; nothing is asked before our statement.
fn usual(options: OptsBuilder) -> Opts {
    options
        .prefer_socket(false)
        .max_allowed_packet(Some(PACKET_MAX_BYTES))
        .wait_timeout(Some(IDLE_MAX_S))
        .stmt_cache_size(0)
        .tcp_nodelay(true)
        .into()
}

impl Connection {
    /// Its engine.
    pub fn engine(&self) -> Engine {
        match &self.0 {
            Inner::Postgresql { .. } => Engine::Postgresql,
            Inner::Mariadb(_) => Engine::Mariadb,
        }
    }

    /// Runs one statement.
    pub async fn run(&mut self, sql: &str) -> Result<Answer, SqlError> {
        match &mut self.0 {
            Inner::Postgresql { client, warned, .. } => {
                warned.store(false, Ordering::Relaxed);
                let messages = client.simple_query(sql).await?;
                let mut answer = Answer { warned: warned.load(Ordering::Relaxed), ..Answer::default() };
                for message in messages {
                    match message {
                        SimpleQueryMessage::Row(row) => {
                            answer.rows.push((0..row.len()).map(|column| row.get(column).map(str::to_owned)).collect());
                        }
                        SimpleQueryMessage::CommandComplete(count) => answer.count = count,
                        _ => {}
                    }
                }
                Ok(answer)
            }
            Inner::Mariadb(connection) => {
                let mut result = connection.query_iter(sql).await?;
                let changed = result.affected_rows();
                let rows: Vec<mysql_async::Row> = result.collect().await?;
                result.drop_result().await?;
                let rows: Vec<Vec<Option<String>>> =
                    rows.into_iter().map(|row| row.unwrap().into_iter().map(text).collect()).collect();
                let count = if rows.is_empty() { changed } else { u64::try_from(rows.len()).unwrap_or(u64::MAX) };
                Ok(Answer { rows, count, warned: false })
            }
        }
    }
}

impl Drop for Connection {
    fn drop(&mut self) {
        if let Inner::Postgresql { driver, .. } = &self.0 {
            driver.abort();
        }
    }
}

impl SqlError {
    /// What the server said of itself, by its code: `SQLSTATE` of PostgreSQL, a number of MariaDB. `None`
    /// when it said nothing: it is not there, or the connection broke.
    pub fn code(&self) -> Option<String> {
        match self {
            SqlError::Postgresql(error) => error.as_db_error().map(|error| error.code().code().to_owned()),
            SqlError::Mariadb(mysql_async::Error::Server(error)) => Some(error.code.to_string()),
            SqlError::Mariadb(_) | SqlError::Target(_) => None,
        }
    }

    /// Whether the database is only not there now: it cannot be reached or breaks off, begins or ends, lets nobody in
    /// (yet), or is not a primary (yet). Anything else it would refuse again.
    pub fn is_passing(&self) -> bool {
        // PostgreSQL: ending, crashed, starting up, too many connections; closed to clients; not yet a primary.
        // MariaDB: too many connections, ending, closed to clients (two forms), not yet a primary.
        const NOT_NOW: [&str; 11] =
            ["57P01", "57P02", "57P03", "53300", "28000", "25006", "1040", "1053", "1184", "1927", "1290"];
        match self.code() {
            Some(code) => NOT_NOW.contains(&code.as_str()),
            None => !matches!(self, SqlError::Target(_)),
        }
    }

    /// In words, for a person.
    pub fn in_words(&self) -> String {
        match self {
            SqlError::Postgresql(error) => crate::agents::service::describe(error),
            SqlError::Mariadb(mysql_async::Error::Server(error)) => error.message.clone(),
            SqlError::Mariadb(error) => crate::causes::with_causes(error),
            SqlError::Target(_) => self.to_string(),
        }
    }
}

/// A value of MariaDB's text protocol.
fn text(value: Value) -> Option<String> {
    match value {
        Value::Bytes(bytes) => Some(String::from_utf8_lossy(&bytes).into_owned()),
        Value::Int(number) => Some(number.to_string()),
        Value::UInt(number) => Some(number.to_string()),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_ways_of_writing_a_connection_are_read() {
        let maria = Target::parse("mysql://bench:secret@10.0.0.100:3307/bench").unwrap();
        let Target::Mariadb(options) = maria else { panic!("not MariaDB") };
        assert_eq!((options.ip_or_hostname(), options.tcp_port()), ("10.0.0.100", 3307));
        assert!(!options.prefer_socket());
        assert!(matches!(Target::parse("mariadb://a@b/c"), Ok(Target::Mariadb(_))));
        assert!(matches!(Target::parse("host=a user=b dbname=c"), Ok(Target::Postgresql(_))));
        assert!(Target::parse("nonsense").is_err());
        assert!(Target::parse("mysql://").is_err());
    }
}
