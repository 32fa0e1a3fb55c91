//! Reading `oar.conf` as OAR's own programs do.
//!
//! Two kinds of programs read it: those in Perl by a pattern, and shell scripts by sourcing it.
//! The pattern counts here, because the server and its modules are in Perl; where the shell would
//! read something else, [`OarConf::shell_differs`] says so.

use crate::sql::{Access, Engine};
use std::collections::BTreeMap;
use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;
use thiserror::Error;

/// A hung disk must not keep a check waiting.
const READ_DEADLINE: Duration = Duration::from_secs(1);
/// Longer than any configuration of OAR, in bytes.
const MAX_BYTES: usize = 1 << 20;

/// A configuration of OAR.
#[derive(Clone, PartialEq, Eq)]
pub struct OarConf {
    values: BTreeMap<String, String>,
    shell_differs: Vec<String>,
}

impl fmt::Debug for OarConf {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // The values hold passwords.
        f.debug_struct("OarConf").field("keys", &self.values.len()).finish_non_exhaustive()
    }
}

/// Why a configuration of OAR cannot be used.
#[derive(Debug, Error)]
pub enum ConfError {
    /// The file cannot be read.
    #[error("cannot read {}", file.display())]
    Read {
        /// Which.
        file: PathBuf,
        /// The system's answer.
        #[source]
        source: io::Error,
    },
    /// A value is missing or makes no sense.
    #[error("{key} is {found} in the configuration of oar; hint: {hint}")]
    Value {
        /// Its name.
        key: &'static str,
        /// `missing`, or the value.
        found: String,
        /// What would do.
        hint: &'static str,
    },
}

impl OarConf {
    /// Reads a file; within a second.
    pub async fn read(file: &Path) -> Result<OarConf, ConfError> {
        let path = file.to_owned();
        let read = tokio::task::spawn_blocking(move || std::fs::read(path));
        let failed = |source| ConfError::Read { file: file.to_owned(), source };
        let bytes = match tokio::time::timeout(READ_DEADLINE, read).await {
            Ok(Ok(bytes)) => bytes.map_err(failed)?,
            Ok(Err(error)) => return Err(failed(io::Error::other(error))),
            Err(_) => return Err(failed(io::ErrorKind::TimedOut.into())),
        };
        if bytes.len() > MAX_BYTES {
            return Err(failed(io::ErrorKind::FileTooLarge.into()));
        }
        Ok(OarConf::parse(&String::from_utf8_lossy(&bytes)))
    }

    /// Never fails: lines that are no assignment are ignored, as OAR ignores them.
    pub fn parse(text: &str) -> OarConf {
        let mut conf = OarConf { values: BTreeMap::new(), shell_differs: Vec::new() };
        for line in text.lines() {
            let Some((key, value)) = assignment(line) else { continue };
            conf.shell_differs.retain(|other| other != key);
            if shell_value(line).as_deref() != Some(value) && !(is_empty(value) && shell_value(line).is_some()) {
                conf.shell_differs.push(key.to_owned());
            }
            conf.values.insert(key.to_owned(), value.to_owned());
        }
        conf
    }

    /// A value as OAR's modules see it; `None` when it is not set or empty. (To them `KEY=""` is
    /// two quotation marks; nobody can mean that.)
    pub fn get(&self, key: &str) -> Option<&str> {
        self.values.get(key).map(String::as_str).filter(|value| !is_empty(value))
    }

    /// Keys that OAR's shell scripts read differently from its Perl programs.
    pub fn shell_differs(&self) -> &[String] {
        &self.shell_differs
    }

    /// Whether jobs survive the end of the server.
    pub fn detaches_jobs(&self) -> bool {
        self.get("DETACH_JOB_FROM_SERVER").is_some_and(|value| value.trim() == "1")
    }

    /// Where the server listens.
    pub fn server_port(&self) -> Result<u16, ConfError> {
        self.port("SERVER_PORT", None)
    }

    /// How the server reaches compute nodes: program and arguments, without the node.
    pub fn ssh_command(&self) -> Vec<String> {
        let command = self.get("OPENSSH_CMD").unwrap_or("ssh");
        command.split_whitespace().map(str::to_owned).collect()
    }

    /// Where the first process of a job runs that has no node of its own: `COSYSTEM_HOSTNAME`, or
    /// `DEPLOY_HOSTNAME`; the server itself where these are not set.
    pub fn frontend(&self, key: &str) -> Option<&str> {
        self.get(key).or_else(|| self.get("SERVER_HOSTNAME")).map(str::trim)
    }

    /// The engine of the database.
    pub fn engine(&self) -> Result<Engine, ConfError> {
        let hint = "Pg for PostgreSQL, mysql for MariaDB";
        match self.text("DB_TYPE", hint)? {
            "Pg" | "psql" => Ok(Engine::Postgresql),
            "mysql" => Ok(Engine::Mariadb),
            other => Err(ConfError::Value { key: "DB_TYPE", found: format!("\"{other}\""), hint }),
        }
    }

    /// How to connect to the database.
    pub fn database(&self) -> Result<Access, ConfError> {
        let engine = self.engine()?;
        let custom = match engine {
            Engine::Postgresql => 5432,
            Engine::Mariadb => 3306,
        };
        Ok(Access {
            engine,
            host: self.text("DB_HOSTNAME", "the name or address of the service")?.to_owned(),
            port: self.port("DB_PORT", Some(custom))?,
            name: self.text("DB_BASE_NAME", "oar")?.to_owned(),
            user: self.text("DB_BASE_LOGIN", "oar")?.to_owned(),
            password: self.get("DB_BASE_PASSWD").unwrap_or_default().to_owned(),
        })
    }

    fn text(&self, key: &'static str, hint: &'static str) -> Result<&str, ConfError> {
        let missing = || ConfError::Value { key, found: "missing".to_owned(), hint };
        self.get(key).map(str::trim).ok_or_else(missing)
    }

    fn port(&self, key: &'static str, default: Option<u16>) -> Result<u16, ConfError> {
        let hint = "a TCP port, 1 to 65535";
        match (self.get(key), default) {
            (None, Some(port)) => Ok(port),
            (None, None) => Err(ConfError::Value { key, found: "missing".to_owned(), hint }),
            (Some(text), _) => match text.trim().parse() {
                Ok(port) if port > 0 => Ok(port),
                Ok(_) | Err(_) => Err(ConfError::Value { key, found: format!("\"{text}\""), hint }),
            },
        }
    }
}

/// The key and value that OAR's Perl modules see: everything up to a `#`, even one within quotation
/// marks; one pair of quotation marks around at least one character is taken off.
fn assignment(line: &str) -> Option<(&str, &str)> {
    let line = line.split('#').next().unwrap_or_default();
    let (key, value) = line.split_once('=')?;
    let (key, value) = (key.trim(), value.trim_start());
    if key.is_empty() || key.contains(char::is_whitespace) {
        return None;
    }
    let trimmed = value.trim_end();
    let unquoted = ['"', '\''].into_iter().find_map(|quote| trimmed.strip_prefix(quote)?.strip_suffix(quote));
    Some((key, unquoted.filter(|inner| !inner.is_empty()).unwrap_or(value)))
}

fn is_empty(value: &str) -> bool {
    matches!(value.trim(), "" | "\"\"" | "''")
}

/// What a shell makes of a line: `None` when it is no assignment to it.
fn shell_value(line: &str) -> Option<String> {
    let line = line.trim_start();
    let (key, rest) = line.split_once('=')?;
    if key.is_empty() || !key.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_') {
        return None;
    }
    let (mut value, mut quote) = (String::new(), None);
    let mut characters = rest.chars();
    while let Some(character) = characters.next() {
        match (quote, character) {
            (None, '"' | '\'') => quote = Some(character),
            (Some(open), character) if open == character => quote = None,
            (None, character) if character.is_whitespace() => return ends(characters.as_str()).then_some(value),
            (None, ';' | '&' | '|') => return None,
            (None | Some('"'), '$' | '`') => return None,
            (None | Some('"'), '\\') => value.push(characters.next()?),
            (_, character) => value.push(character),
        }
    }
    quote.is_none().then_some(value)
}

/// True when nothing but a comment follows: `KEY=a b` would be a command with a variable.
fn ends(rest: &str) -> bool {
    let rest = rest.trim_start();
    rest.is_empty() || rest.starts_with('#')
}

#[cfg(test)]
mod tests {
    use super::*;

    fn get(text: &str) -> Option<String> {
        OarConf::parse(text).get("KEY").map(str::to_owned)
    }

    #[test]
    fn values_are_read_as_oar_reads_them() {
        for (text, expected) in [
            ("KEY=\"a b\"", Some("a b")),
            ("KEY='a b'", Some("a b")),
            ("  KEY = value", Some("value")),
            ("KEY=\"a\"   # comment", Some("a")),
            ("KEY=\"/usr/bin/ssh -p 6667 -e none\"", Some("/usr/bin/ssh -p 6667 -e none")),
            ("KEY=\"it's\"", Some("it's")),
            ("KEY=\"say \"hi\"\"", Some("say \"hi\"")),
            ("KEY=a=b", Some("a=b")),
            ("KEY=1\nKEY=2", Some("2")),
            ("#KEY=1", None),
            ("export KEY=1", None),
            ("KEY", None),
            ("KEY=", None),
            ("KEY=\"\"", None),
            ("KEY=''  # empty", None),
            ("KEY=\"unfinished", Some("\"unfinished")),
            ("KEY=\"pass#word\"", Some("\"pass")),
        ] {
            assert_eq!(get(text).as_deref(), expected, "{text}");
        }
    }

    #[test]
    fn what_the_shell_reads_differently_is_named() {
        let differs = |text| !OarConf::parse(text).shell_differs().is_empty();
        for same in ["KEY=\"a b\"", "KEY=a", "KEY=''", "KEY=\"\"", "KEY=\"a\" # note", "KEY=\"a\\\"\"\nKEY=b"] {
            assert!(!differs(same), "{same}");
        }
        for different in ["KEY=\"pass#word\"", "KEY = a", "KEY=a b", "KEY=\"a$b\"", "KEY=a;b", "KEY=\"a\\\\b\""] {
            assert!(differs(different), "{different}");
        }
    }

    const SHIPPED: &str = "DB_TYPE=\"Pg\"\nDB_HOSTNAME=\"oar\"\nDB_PORT=\"5432\"\nDB_BASE_NAME=\"oar\"\n\
        DB_BASE_LOGIN=\"oar\"\nDB_BASE_PASSWD=\"\"\nSERVER_HOSTNAME=\"oar\"\nSERVER_PORT=\"6666\"\n\
        DETACH_JOB_FROM_SERVER=\"1\"\nOPENSSH_CMD=\"/usr/bin/ssh -p 6667 -e none\"\n";

    #[test]
    fn a_shipped_configuration_is_understood() {
        let conf = OarConf::parse(SHIPPED);
        let database = conf.database().unwrap();
        assert_eq!((database.host.as_str(), database.port, database.password.as_str()), ("oar", 5432, ""));
        assert_eq!(conf.server_port().unwrap(), 6666);
        assert!(conf.detaches_jobs());
        assert_eq!(conf.ssh_command(), ["/usr/bin/ssh", "-p", "6667", "-e", "none"]);
        assert_eq!(conf.frontend("COSYSTEM_HOSTNAME"), Some("oar"));
    }

    #[test]
    fn each_engine_has_its_port() {
        let access = |text: &str| OarConf::parse(text).database().unwrap();
        let maria = SHIPPED.replace("\"Pg\"", "\"mysql\"").replace("DB_PORT=\"5432\"\n", "");
        assert_eq!((access(&maria).engine, access(&maria).port), (Engine::Mariadb, 3306));
        assert_eq!((access(SHIPPED).engine, access(SHIPPED).port), (Engine::Postgresql, 5432));
    }

    #[test]
    fn what_is_wrong_is_named() {
        let error = OarConf::parse("DB_TYPE=\"oracle\"").database().err().unwrap();
        let expected = "DB_TYPE is \"oracle\" in the configuration of oar; hint: Pg for PostgreSQL, mysql for MariaDB";
        assert_eq!(error.to_string(), expected);
        let error = OarConf::parse("SERVER_PORT=\"0\"").server_port().unwrap_err();
        let expected = "SERVER_PORT is \"0\" in the configuration of oar; hint: a TCP port, 1 to 65535";
        assert_eq!(error.to_string(), expected);
        assert!(!OarConf::parse("DETACH_JOB_FROM_SERVER=0").detaches_jobs());
        assert!(!OarConf::parse("").detaches_jobs());
    }

    #[test]
    fn passwords_are_not_shown() {
        assert!(!format!("{:?}", OarConf::parse("DB_BASE_PASSWD=secret")).contains("secret"));
    }
}
