//! One look at a service. Each is given its deadline by whoever calls it.

use super::{Boxed, ServiceSettings, command};
use std::fmt;
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_postgres::NoTls;

/// How much of an HTTP answer is read at most, in bytes: its status line is at the beginning.
const ANSWER_BYTES: u64 = 4096;

/// What is tried.
#[derive(Clone)]
pub enum Probe {
    /// A command that ends with exit code 0.
    Command(Vec<String>),
    /// A TCP connection to `host:port`.
    Tcp(String),
    /// A page.
    Http(Http),
    /// A query.
    Sql(Sql),
    /// A profile's own.
    Custom(Arc<dyn Custom>),
}

/// A profile's own way to look at its service.
pub trait Custom: Send + Sync {
    /// `main` is the main process, if the service is supervised. `Err` says in words what is wrong.
    fn look(&self, main: Option<u32>) -> Boxed<'_, Result<(), String>>;
    /// In words, what is looked at.
    fn name(&self) -> &'static str;
}

/// A page that must answer a plain GET with a status of 200 to 399.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Http {
    /// Where to connect to, `host:port`.
    pub authority: String,
    /// From the slash on.
    pub path: String,
}

impl Http {
    /// Reads `http://host[:port][/path]`; `None` for anything else.
    pub fn parse(url: &str) -> Option<Http> {
        let rest = url.strip_prefix("http://")?;
        let (host, path) = rest.split_at(rest.find('/').unwrap_or(rest.len()));
        let good = |text: &str| text.bytes().all(|byte| byte.is_ascii_graphic());
        if host.is_empty() || !good(host) || !good(path) || host.contains('@') {
            return None;
        }
        let (name, port) = match host.rsplit_once(':') {
            // The colons of an IPv6 address are within brackets.
            Some((name, port)) if !port.ends_with(']') => (name, port.parse::<u16>().ok()?),
            _ => (host, 80),
        };
        let path = if path.is_empty() { "/".to_owned() } else { path.to_owned() };
        Some(Http { authority: format!("{name}:{port}"), path })
    }
}

/// A query that must succeed.
#[derive(Clone, PartialEq, Eq)]
pub struct Sql {
    /// A connection string of PostgreSQL: `host=… port=… user=… password=… dbname=…`.
    pub connection: String,
    /// The query.
    pub query: String,
}

impl fmt::Debug for Sql {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // The connection string may hold a password.
        f.debug_struct("Sql").field("query", &self.query).finish_non_exhaustive()
    }
}

impl fmt::Debug for Probe {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self}")
    }
}

impl fmt::Display for Probe {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Probe::Command(argv) => write!(f, "command {}", argv.first().map_or("", String::as_str)),
            Probe::Tcp(address) => write!(f, "connection to {address}"),
            Probe::Http(http) => write!(f, "page http://{}{}", http.authority, http.path),
            Probe::Sql(sql) => write!(f, "query \"{}\"", sql.query),
            Probe::Custom(custom) => f.write_str(custom.name()),
        }
    }
}

impl Probe {
    /// Looks once. `Err` says in words what is wrong, without naming the probe.
    pub(super) async fn look(
        &self,
        settings: &ServiceSettings,
        main: Option<u32>,
        deadline: Duration,
    ) -> Result<(), String> {
        let looked = async {
            match self {
                Probe::Command(argv) => command::run(argv, &settings.user, &settings.env, deadline).await?.check("it"),
                Probe::Tcp(address) => connect(address).await.map(drop),
                Probe::Http(page) => get(page).await,
                Probe::Sql(sql) => query(sql).await,
                Probe::Custom(custom) => custom.look(main).await,
            }
        };
        let late = || format!("no answer within {} ms", deadline.as_millis());
        tokio::time::timeout(deadline, looked).await.unwrap_or_else(|_| Err(late()))
    }
}

async fn connect(address: &str) -> Result<TcpStream, String> {
    TcpStream::connect(address).await.map_err(|error| format!("cannot connect: {error}"))
}

async fn get(page: &Http) -> Result<(), String> {
    let mut stream = connect(&page.authority).await?;
    let request = format!(
        "GET {} HTTP/1.0\r\nHost: {}\r\nUser-Agent: oarlock\r\nConnection: close\r\n\r\n",
        page.path, page.authority
    );
    stream.write_all(request.as_bytes()).await.map_err(|error| format!("cannot send: {error}"))?;
    let mut answer = Vec::new();
    // A server that closes without reading everything may reset: what has arrived counts.
    let read = stream.take(ANSWER_BYTES).read_to_end(&mut answer).await;
    match status(&answer) {
        Some(200..=399) => Ok(()),
        Some(code) => Err(format!("status {code}")),
        None => Err(read.err().map_or_else(|| "no HTTP answer".to_owned(), |error| format!("cannot receive: {error}"))),
    }
}

/// The status of an HTTP answer.
fn status(answer: &[u8]) -> Option<u16> {
    let line = answer.split(|byte| *byte == b'\n').next()?;
    let mut words = std::str::from_utf8(line).ok()?.split_whitespace();
    words.next().filter(|version| version.starts_with("HTTP/"))?;
    words.next()?.parse().ok()
}

async fn query(sql: &Sql) -> Result<(), String> {
    let (client, connection) =
        tokio_postgres::connect(&sql.connection, NoTls).await.map_err(|error| describe(&error))?;
    tokio::select! {
        answer = client.simple_query(&sql.query) => answer.map(drop).map_err(|error| describe(&error)),
        ended = connection => Err(ended.err().map_or_else(|| "connection closed".to_owned(), |error| describe(&error))),
    }
}

/// The library's errors keep what the server said in their cause.
pub(crate) fn describe(error: &tokio_postgres::Error) -> String {
    match error.as_db_error() {
        Some(server) => server.message().to_owned(),
        None => std::error::Error::source(error).map_or_else(|| error.to_string(), |cause| format!("{error}: {cause}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn urls_are_read() {
        let http = |authority: &str, path: &str| Some(Http { authority: authority.into(), path: path.into() });
        assert_eq!(Http::parse("http://oar"), http("oar:80", "/"));
        assert_eq!(Http::parse("http://oar:8080/a?b=c"), http("oar:8080", "/a?b=c"));
        assert_eq!(Http::parse("http://[fd00::1]/x"), http("[fd00::1]:80", "/x"));
        assert_eq!(Http::parse("http://[fd00::1]:81"), http("[fd00::1]:81", "/"));
        for bad in ["https://oar/", "http://", "http://oar:http/", "http://oar/a\r\nb", "http://u:p@oar/"] {
            assert_eq!(Http::parse(bad), None, "{bad}");
        }
    }

    #[test]
    fn the_status_of_an_answer_is_read() {
        assert_eq!(status(b"HTTP/1.1 204 No Content\r\nServer: x\r\n\r\n"), Some(204));
        assert_eq!(status(b"HTTP/1.1 503\r\n"), Some(503));
        assert_eq!(status(b"SSH-2.0-OpenSSH 9\r\n"), None);
        assert_eq!(status(b""), None);
    }

    #[test]
    fn a_password_is_not_shown() {
        let sql = Sql { connection: "host=x password=secret".into(), query: "select 1".into() };
        assert!(!format!("{sql:?} {:?}", Probe::Sql(sql.clone())).contains("secret"));
    }
}
