//! What is remembered of a running lab between two commands.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use rustix::fs::{FlockOperation, flock};
use serde::{Deserialize, Serialize};

use crate::layout::Layout;
use crate::net::Block;
use crate::paths::{Paths, write_atomically};
use crate::process::Process;
use crate::suite::Suite;

/// The database engine of a lab.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, clap::ValueEnum, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Engine {
    /// The suite's PostgreSQL.
    #[default]
    Postgresql,
    /// The suite's MariaDB.
    Mariadb,
}

impl Engine {
    /// The TCP port of the database behind the service address.
    #[must_use]
    pub fn port(self) -> u16 {
        match self {
            Self::Postgresql => 5432,
            Self::Mariadb => 3306,
        }
    }

    /// As on the command line.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Postgresql => "postgresql",
            Self::Mariadb => "mariadb",
        }
    }

    /// As people call it.
    #[must_use]
    pub fn title(self) -> &'static str {
        match self {
            Self::Postgresql => "PostgreSQL",
            Self::Mariadb => "MariaDB",
        }
    }
}

/// The timing preset the cluster in the lab is created with.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, clap::ValueEnum, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Timing {
    /// Takeover within half a second.
    Fast,
    /// The product's default.
    #[default]
    Balanced,
}

impl std::fmt::Display for Timing {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Fast => "fast",
            Self::Balanced => "balanced",
        })
    }
}

/// How a lab was asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Shape {
    /// Its hosts.
    pub layout: Layout,
    /// Its database engine.
    pub db: Engine,
    /// The cluster's timing preset.
    pub timing: Timing,
    /// The hosts' Debian release.
    pub suite: Suite,
    /// Whether database and agents have disks of their own.
    #[serde(default)]
    pub disks: bool,
}

/// A running lab.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct State {
    /// How it was asked for.
    pub shape: Shape,
    /// The Debian root below every host.
    pub root: PathBuf,
    /// Layers of packages over it, the uppermost first.
    #[serde(default)]
    pub packages: Vec<PathBuf>,
    /// The process that holds the bridges' network namespace.
    pub wires: Process,
    /// Pid 1 of every host that is powered on.
    pub hosts: BTreeMap<String, Process>,
    /// Real-time budget of each powered host in microseconds per 100 ms; 0 when none was granted.
    pub realtime_us: BTreeMap<String, u32>,
    /// What does not pass the cables now. Survives a power-off, as a pulled cable would.
    pub blocks: BTreeSet<Block>,
}

impl State {
    fn file(paths: &Paths) -> PathBuf {
        paths.run.join("lab.json")
    }

    /// The running lab's state; `None` when no lab is up.
    pub fn load(paths: &Paths) -> Result<Option<Self>> {
        let file = Self::file(paths);
        let text = match fs::read_to_string(&file) {
            Ok(text) => text,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
            Err(error) => {
                return Err(error).with_context(|| format!("cannot read {}", file.display()));
            }
        };
        let state = serde_json::from_str(&text)
            .with_context(|| format!("{} is not a lab's state\nhint: cargo xtask lab down", file.display()))?;
        Ok(Some(state))
    }

    /// Writes the state for the next command.
    pub fn save(&self, paths: &Paths) -> Result<()> {
        write_atomically(&Self::file(paths), &serde_json::to_string_pretty(self)?)
    }
}

/// Takes the lock file at `path`; waits for another holder until `deadline`.
pub fn lock(path: &Path, deadline: Duration) -> Result<File> {
    let file = File::create(path).with_context(|| format!("cannot open {}", path.display()))?;
    let end = Instant::now() + deadline;
    while let Err(error) = flock(&file, FlockOperation::NonBlockingLockExclusive) {
        if error != rustix::io::Errno::WOULDBLOCK && error != rustix::io::Errno::INTR {
            return Err(error).with_context(|| format!("cannot lock {}", path.display()));
        }
        if Instant::now() >= end {
            bail!("another command has held {} for {} s", path.display(), deadline.as_secs());
        }
        thread::sleep(Duration::from_millis(5));
    }
    Ok(file)
}
