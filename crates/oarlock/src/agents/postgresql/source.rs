//! Questions to the primary that is to be copied or followed: over TLS with the replication role,
//! by `psql`, which comes with the server and speaks the replication protocol.

use super::account::Account;
use super::context::Context;
use super::control::Control;
use super::divergent::{self, Fork, History};
use super::error::{PgError, Result};
use super::files;
use super::names;
use super::session::REPLICATION_ROLE;
use super::wal::Tail;
use crate::agents::launcher::Launcher;
use oarlock_core::ids::NodeId;
use oarlock_core::resource::database::Position;
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

/// How a copy stands to its primary.
#[derive(Clone, Debug)]
pub(super) enum Relation {
    /// Both are on the same timeline.
    Same(History),
    /// The primary went on at or after the place where this copy ends.
    Behind,
    /// The copy has something of its own, or it cannot be told that it has not.
    Diverged(Divergence),
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
            match self.identity(&connection).await {
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
        let timeline =
            u32::try_from(timeline).map_err(|_| PgError::other(format!("timeline {timeline} of the primary")))?;
        let past = match timeline {
            1 => String::new(),
            _ => self.replication_query(&connection, &format!("TIMELINE_HISTORY {timeline}")).await?,
        };
        // The first line begins with the file's name.
        let past = past.split_once('|').map_or("", |(_, content)| content);
        Ok(Source { connection, system, history: History::parse(past, timeline)? })
    }

    /// What it is, once it is a primary: before that, it is still on its former timeline.
    async fn identity(&self, connection: &str) -> Result<String> {
        let target = format!("{connection} dbname='{}'", self.settings.database);
        let recovery = "select pg_is_in_recovery()";
        let recovery = self.run_program("psql", &["-XAtq", "-d", &target, "-c", recovery], PATIENCE).await?;
        if recovery.trim() != "f" {
            return Err(PgError::other("it is a standby"));
        }
        self.replication_query(connection, "IDENTIFY_SYSTEM").await
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

    /// Compares our copy with the source.
    pub async fn relation(&self, control: &Control, source: &Source) -> Result<Relation> {
        if control.system != source.system {
            return Err(PgError::with_hint(
                format!("this copy is of database cluster {}, the primary's is {}", control.system, source.system),
                "the two were never one; move the directory away to have it cloned",
            ));
        }
        let own = self.own_history(control).await?;
        let Some(fork) = divergent::fork(&own, &source.history) else { return Ok(Relation::Same(own)) };
        let divergence = self.tail(control, &own, fork).await?;
        let Divergence { account, .. } = &divergence;
        // Whoever is on a timeline of his own has diverged, whatever could be read of it.
        let behind = own.current == fork.timeline && account.text.is_empty() && account.unread.is_none();
        Ok(if behind { Relation::Behind } else { Relation::Diverged(divergence) })
    }

    async fn own_history(&self, control: &Control) -> Result<History> {
        // A promotion is in the second number at once, in the first after its first checkpoint.
        let timeline = control.timeline.max(control.min_recovery_timeline);
        let history = self.settings.data_dir.join("pg_wal").join(format!("{timeline:08X}.history"));
        let read = move || files::read_optional(&history);
        let past = files::blocking("read the history", self.settings.timing.start, read).await?;
        History::parse(past.filter(|_| timeline > 1).as_deref().unwrap_or_default(), timeline)
    }

    /// What our copy has after a fork.
    pub async fn tail(&self, control: &Control, own: &History, fork: Fork) -> Result<Divergence> {
        let (mut text, mut unread) = (String::new(), None);
        for (timeline, from) in own.after(fork) {
            if from == Position(0) {
                unread = Some(format!("no place is known from where timeline {timeline} is this copy's alone"));
                continue;
            }
            match self.wal_after(control, timeline, from).await? {
                Tail::Nothing => {}
                Tail::Records(records) => text.push_str(&records),
                Tail::Unread(reason) => unread = Some(reason),
            }
        }
        Ok(Divergence { fork, account: Account { unread, ..Account::read(text) } })
    }
}
