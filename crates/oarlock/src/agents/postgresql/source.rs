//! Questions to the primary that is to be copied or followed: over TLS with the replication role,
//! by `psql`, which comes with the server and speaks the replication protocol.

use super::account::{self, Account};
use super::context::Context;
use super::control::{self, Control};
use super::divergent::{self, Fork, History};
use super::error::{PgError, Result};
use super::files;
use super::names;
use super::session::REPLICATION_ROLE;
use crate::agents::launcher::Launcher;
use oarlock_core::ids::NodeId;
use std::path::Path;
use std::time::{Duration, Instant};

/// How long a primary may take to let us in: it may be opening at this moment.
const PATIENCE: Duration = Duration::from_secs(10);
/// Between two attempts.
const RETRY: Duration = Duration::from_millis(300);
/// A checkpoint of the source, at full speed.
const CHECKPOINT: Duration = Duration::from_secs(600);

/// The primary that is to be copied.
#[derive(Clone, Debug)]
pub(super) struct Source {
    /// Connection string, without a database.
    pub connection: String,
    /// Its database cluster's identifier.
    pub system: u64,
    /// Its timelines.
    pub history: History,
}

/// What a copy has that its primary has not.
#[derive(Clone, Debug)]
pub(super) struct Divergence {
    pub fork: Fork,
    /// The records after the fork.
    pub account: Account,
}

impl<L: Launcher> Context<L> {
    /// Makes the acquaintance of the primary on `from`.
    pub async fn source(&self, from: NodeId) -> Result<Source> {
        self.prepare_run_dir()?;
        let connection = names::connection(&self.settings, &self.member(from)?, "oarlock");
        let start = Instant::now();
        let identity = loop {
            match self.replication_query(&connection, "IDENTIFY_SYSTEM").await {
                Ok(identity) => break identity,
                Err(error) if start.elapsed() > PATIENCE => {
                    let name = self.member(from)?.name;
                    let what = format!("no answer from the primary on {name}: {}", error.in_words());
                    let hint = format!("is the role {REPLICATION_ROLE} let in there, and are the secrets the same?");
                    return Err(PgError::with_hint(what, hint));
                }
                Err(_) => tokio::time::sleep(RETRY).await,
            }
        };
        let mut fields = identity.trim().split('|');
        let mut number = || fields.next().and_then(|field| field.parse::<u64>().ok());
        let (Some(system), Some(timeline)) = (number(), number()) else {
            return Err(PgError::other(format!("the primary's identity: \"{}\"", identity.trim())));
        };
        let timeline = u32::try_from(timeline).unwrap_or(0);
        let past = match timeline {
            0 | 1 => String::new(),
            _ => self.replication_query(&connection, &format!("TIMELINE_HISTORY {timeline}")).await?,
        };
        // The first line begins with the file's name.
        let past = past.split_once('|').map_or("", |(_, content)| content);
        Ok(Source { connection, system, history: History::parse(past, timeline) })
    }

    async fn replication_query(&self, connection: &str, query: &str) -> Result<String> {
        let target = format!("{connection} replication='true'");
        self.run_program("psql", &["-XAtq", "-F", "|", "-d", &target, "-c", query], PATIENCE).await
    }

    /// A rewind reads the source's timeline from its control file, which a promotion alone does
    /// not bring up to date (version 15).
    pub async fn checkpoint_source(&self, source: &Source) -> Result<()> {
        let target = format!("{} dbname='{}'", source.connection, self.settings.database);
        self.run_program("psql", &["-XAtq", "-d", &target, "-c", "CHECKPOINT"], CHECKPOINT).await.map(drop)
    }

    /// Compares our copy's history with the source's; `None`: the source goes on where we are.
    pub async fn divergence(&self, control: &Control, source: &Source) -> Result<Option<Divergence>> {
        if control.system != source.system {
            return Err(PgError::with_hint(
                format!("this copy is of database cluster {}, the primary's is {}", control.system, source.system),
                "the two were never one; move the directory away to have it cloned",
            ));
        }
        let timeline = control.timeline.max(control.min_recovery_timeline);
        let wal = self.settings.data_dir.join("pg_wal");
        let after = self.settings.timing.start;
        let history = wal.join(format!("{timeline:08X}.history"));
        let read = move || files::read_optional(&history);
        let past = files::blocking("read the history", after, read).await?.unwrap_or_default();
        let own = History::parse(&past, timeline);
        let Some(fork) = divergent::fork(&own, &source.history) else { return Ok(None) };
        let start = control::format_lsn(fork.position);
        let mut text = String::new();
        // Ours from the fork on, the forked one and its own successors.
        let later = own.past.iter().map(|(number, _)| *number).chain([timeline]);
        for number in later.skip_while(|number| *number != fork.timeline) {
            text.push_str(&self.records(&wal, number, &start).await?);
        }
        Ok((!text.is_empty()).then(|| Divergence { fork, account: Account::read(text) }))
    }

    /// The records of a timeline from a position on, empty when there are none.
    async fn records(&self, wal: &Path, timeline: u32, start: &str) -> Result<String> {
        let (dir, timeline, lines) = (wal.display().to_string(), timeline.to_string(), account::LINES.to_string());
        // Ends with an error at the end of the log, always; what counts is what it found before.
        let args = ["-p", &dir, "-t", &timeline, "-s", start, "-n", &lines];
        self.run_to_end("pg_waldump", &args, self.settings.timing.start).await
    }
}
