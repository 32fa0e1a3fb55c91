//! What a machine is and has.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use thiserror::Error;

/// Prints the facts of the machine it runs on; changes nothing.
pub const SCRIPT: &str = include_str!("facts.sh");

/// A file as it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct File {
    /// Its permissions, in octal.
    pub mode: String,
    /// Its owner's name.
    pub owner: String,
    /// Its group's name.
    pub group: String,
    /// What is in it.
    pub content: Vec<u8>,
}

impl File {
    /// As text, what is none replaced.
    #[must_use]
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.content).into_owned()
    }
}

/// Whose a database server is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Server {
    /// None runs.
    Down,
    /// The system's own.
    Running,
    /// One that oarlock started.
    Ours,
}

/// A PostgreSQL cluster in Debian's layout.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PgCluster {
    /// Major version.
    pub version: String,
    /// Its name.
    pub name: String,
    /// TCP port.
    pub port: u16,
    /// What runs on it.
    pub server: Server,
    /// Whether oarlock has marked the data as a copy of its own.
    pub marked: bool,
    /// Size of its data in KiB; `None` where there are none.
    pub data_kib: Option<u64>,
    /// Free space beside them, in KiB.
    pub free_kib: u64,
    /// Databases that somebody made in it; `None` when that is not known.
    pub databases: Option<u32>,
    /// Directory of the data.
    pub data_dir: String,
}

impl PgCluster {
    /// Directory of its configuration.
    #[must_use]
    pub fn conf_dir(&self) -> String {
        format!("/etc/postgresql/{}/{}", self.version, self.name)
    }
}

/// Everything the planner wants to know of one machine.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Facts {
    /// Number of the user that commands there run as.
    pub uid: Option<u32>,
    /// Its own name.
    pub host: String,
    /// Whether systemd is its service manager.
    pub systemd: bool,
    /// Whether packages can be installed with apt.
    pub apt: bool,
    /// Version of oarlock there.
    pub oarlock: Option<String>,
    /// Whether it has the key of a node.
    pub joined: bool,
    /// Its addresses.
    pub addresses: BTreeSet<IpAddr>,
    /// Versions of PostgreSQL's server that are installed.
    pub postgresql: BTreeSet<String>,
    /// Database clusters.
    pub clusters: Vec<PgCluster>,
    /// Whether OAR's server is installed.
    pub oar_server: bool,
    /// Whether one runs that oarlock did not start.
    pub almighty_foreign: bool,
    /// Whether the system starts one at boot.
    pub oar_at_boot: bool,
    /// Files, by their paths.
    pub files: BTreeMap<String, File>,
}

/// Why facts cannot be used.
#[derive(Debug, Error, PartialEq, Eq)]
pub enum FactsError {
    /// The script did not come to its end.
    #[error("the list of facts ends early")]
    Cut,
    /// A line that the script does not print.
    #[error("cannot read the fact \"{0}\"")]
    Line(String),
}

impl Facts {
    /// Reads what [`SCRIPT`] printed. Lines before the first fact (a greeting of the shell) are passed over.
    ///
    /// # Errors
    /// When it is cut short or not what the script prints.
    pub fn parse(text: &str) -> Result<Facts, FactsError> {
        let mut facts = Facts::default();
        let lines = text.lines().skip_while(|line| !line.starts_with("uid "));
        let mut ended = false;
        for line in lines {
            let (name, rest) = line.split_once(' ').unwrap_or((line, ""));
            ended = name == "end";
            let taken = facts.take(name, rest);
            taken.ok_or_else(|| FactsError::Line(line.chars().take(60).collect()))?;
        }
        if ended { Ok(facts) } else { Err(FactsError::Cut) }
    }

    fn take(&mut self, name: &str, rest: &str) -> Option<()> {
        match name {
            "uid" => self.uid = Some(rest.parse().ok()?),
            "host" => self.host = rest.to_owned(),
            "systemd" => self.systemd = true,
            "apt" => self.apt = true,
            "oarlock" => self.oarlock = Some(rest.to_owned()),
            "joined" => self.joined = true,
            "address" => {
                self.addresses.insert(rest.split('/').next()?.parse().ok()?);
            }
            "postgresql" => {
                self.postgresql.insert(rest.to_owned());
            }
            "cluster" => self.clusters.push(cluster(rest)?),
            "databases" => {
                let [version, name, count] = words(rest)?;
                let cluster = self.clusters.iter_mut().find(|c| c.version == version && c.name == name)?;
                cluster.databases = count.parse().ok();
            }
            "file" => {
                let [mode, owner, group, path, content] = words(rest)?;
                let content = STANDARD.decode(content).ok()?;
                let file = File { mode: mode.to_owned(), owner: owner.to_owned(), group: group.to_owned(), content };
                self.files.insert(path.to_owned(), file);
            }
            "oar-server" => self.oar_server = true,
            "almighty" => self.almighty_foreign |= rest == "running",
            "oar-boot" => self.oar_at_boot = true,
            "oar-masked" => self.oar_at_boot = false,
            "end" => {}
            _ => return None,
        }
        Some(())
    }

    /// A file's text; `None` where there is none.
    #[must_use]
    pub fn text(&self, path: &str) -> Option<String> {
        self.files.get(path).map(File::text)
    }
}

/// An empty file has no fifth word.
fn words<const N: usize>(rest: &str) -> Option<[&str; N]> {
    let mut words: Vec<&str> = rest.splitn(N, ' ').collect();
    if words.len() + 1 == N {
        words.push("");
    }
    words.try_into().ok()
}

fn cluster(rest: &str) -> Option<PgCluster> {
    let [version, name, port, state, marked, kib, free, data_dir] = words(rest)?;
    Some(PgCluster {
        version: version.to_owned(),
        name: name.to_owned(),
        port: port.parse().ok()?,
        server: match state {
            "down" => Server::Down,
            "running" => Server::Running,
            "ours" => Server::Ours,
            _ => return None,
        },
        marked: marked == "yes",
        data_kib: if kib == "absent" { None } else { Some(kib.parse().ok()?) },
        free_kib: free.parse().ok()?,
        databases: None,
        data_dir: data_dir.to_owned(),
    })
}
