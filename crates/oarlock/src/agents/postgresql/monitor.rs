//! The regular look at a running server.

use super::context::{Context, Phase, Shared};
use super::control::parse_lsn;
use super::error::{PgError, Result};
use super::names;
use super::probe::Board;
use super::session::{Commits, Session};
use crate::agents::launcher::Launcher;
use oarlock_core::resource::database::{DataObservation, DataStandby, DataStatus, Position, Running};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// A report is due after this even when nothing changed.
const AT_LEAST_EVERY: Duration = Duration::from_millis(500);

/// After a change every turn brings a look for so long; then all is calm, and not every one does.
const CALM_AFTER: Duration = Duration::from_secs(1);

/// A copy that left the primary's history streams for a moment at each of its vain attempts. Where they are
/// processes of their own, one whose same process was seen to stream so often really does; where one process
/// tries again and again, it asks for a timeline that it knows to have ended.
const STEADY: u32 = 3;

/// Looks at the server until the task is aborted.
pub(super) async fn watch<L: Launcher>(context: Shared<L>, board: Arc<Board>) {
    let mut monitor = Monitor {
        session: None,
        receiver: String::new(),
        streamed: 0,
        waiting: BTreeMap::new(),
        last: None,
        told: None,
        changed: Instant::now(),
    };
    loop {
        tokio::select! {
            () = context.look.notified() => monitor.changed = Instant::now(),
            () = tokio::time::sleep(monitor.pause(&context, &board)) => {}
        }
        if context.server().phase != Phase::Up {
            continue;
        }
        // A server that hangs must not keep us from saying so.
        let seen = tokio::time::timeout(AT_LEAST_EVERY, monitor.look(&context)).await;
        match seen {
            Ok(Ok(status)) => monitor.seen(status),
            Ok(Err(_)) | Err(_) => (monitor.session, monitor.changed) = (None, Instant::now()),
        }
        monitor.report(&context, &board).await;
    }
}

struct Monitor {
    session: Option<Session>,
    /// The receiver that streamed at the last look and its timeline, and how many looks in a row it was this one.
    receiver: String,
    streamed: u32,
    /// Commits that wait, and since when.
    waiting: BTreeMap<String, Instant>,
    last: Option<DataStatus>,
    told: Option<(Instant, DataStatus)>,
    /// When there was last something to see besides positions, or a look failed.
    changed: Instant,
}

const STANDBY: &str = "select 's', pg_is_in_recovery(), \
    greatest(pg_last_wal_receive_lsn(), pg_last_wal_replay_lsn()), \
    coalesce((select pid || ' ' || received_tli from pg_stat_wal_receiver where status = 'streaming'), '0')";
const PRIMARY: &str = "select 's', pg_is_in_recovery(), \
    case when pg_is_in_recovery() then pg_last_wal_replay_lsn() else pg_current_wal_insert_lsn() end, 0; \
    select 'r', application_name, state, flush_lsn, pid from pg_stat_replication order by backend_start desc, pid; \
    select 'w', pid, xact_start, '' from pg_stat_activity \
    where wait_event = 'SyncRep' and usename is distinct from 'oarlock'";

impl Monitor {
    /// Until the next look. While nothing happens a primary is looked at every other time and a standby, which nobody
    /// waits for, every fourth. A server's end comes from the kernel, a probe that fails and whoever changes something
    /// ask for a look at once; what is seen later for this, by one turn at most, is a commit that waits for a standby
    /// that hangs, and that it waits brings every look back.
    fn pause<L: Launcher>(&self, context: &Context<L>, board: &Board) -> Duration {
        let timing = &context.settings.timing;
        let (phase, running, reopens) = {
            let server = context.server();
            (server.phase, server.running, server.reopen_at.is_some())
        };
        let streams = self.last.as_ref().is_some_and(|last| last.running == running && last.streaming);
        let calm = phase == Phase::Up && !reopens && streams && self.waiting.is_empty();
        if !calm || self.changed.elapsed() < CALM_AFTER || board.is_waiting(timing.status) {
            return timing.status;
        }
        timing.status * if running == Running::Primary { 2 } else { 4 }
    }

    fn seen(&mut self, status: DataStatus) {
        let known = self.last.as_ref().is_some_and(|last| is_alike(last, &status));
        if !known {
            self.changed = Instant::now();
        }
        self.last = Some(status);
    }

    async fn look<L: Launcher>(&mut self, context: &Shared<L>) -> Result<DataStatus> {
        context.warm_up().await?;
        let session = match self.session.take() {
            Some(session) => session,
            None => Session::open(&context.settings, Commits::Local).await?,
        };
        let (running, epoch) = {
            let server = context.server();
            (server.running, server.epoch)
        };
        let sql = if running == Running::Primary { PRIMARY } else { STANDBY };
        let rows = session.rows(sql, context.settings.timing.statement).await?;
        let members = context.members();
        let now = Instant::now();
        let mut seen = None;
        let mut standbys: Vec<DataStandby> = Vec::new();
        let mut waiting = BTreeMap::new();
        let mut overtaken = Vec::new();
        for row in &rows {
            let text = |column| row.get(column).unwrap_or_default();
            match text(0) {
                "s" => seen = Some((text(1) == "t", parse_lsn(text(2)), text(3).to_owned())),
                "r" => {
                    let Some(node) = names::member_named(&members, text(1), epoch) else { continue };
                    if standbys.iter().any(|newer| newer.node == node && newer.streaming) {
                        overtaken.push(text(4).to_owned());
                        continue;
                    }
                    let flushed = parse_lsn(text(3)).unwrap_or_default();
                    standbys.push(DataStandby { node, flushed, streaming: text(2) == "streaming" });
                }
                _ => {
                    let commit = format!("{} {}", text(1), text(2));
                    let since = self.waiting.get(&commit).copied().unwrap_or(now);
                    waiting.insert(commit, since);
                }
            }
        }
        let Some((recovery, position, receiver)) = seen else {
            return Err(PgError::other("no state of the server"));
        };
        if receiver != self.receiver {
            (self.receiver, self.streamed) = (receiver, 0);
        }
        // One that gets on streams, also on its way to where its timeline has ended.
        let stands = self.last.as_ref().is_some_and(|last| Some(last.position) == position);
        self.streamed = match self.receiver.split_once(' ') {
            None => 0,
            // What its history ends with is there before it streams; later there is nothing new to know.
            Some((_, timeline)) if stands && self.streamed < STEADY && has_ended(context, timeline).await => 0,
            Some(_) => self.streamed.saturating_add(1),
        };
        standbys.sort_by_key(|standby| (standby.node, !standby.streaming));
        standbys.dedup_by_key(|standby| standby.node);
        end(&session, &overtaken, context.settings.timing.statement).await?;
        self.waiting = waiting;
        self.session = Some(session);
        let oldest = self.waiting.values().min();
        Ok(DataStatus {
            running: if recovery { Running::Standby } else { Running::Primary },
            position: position.unwrap_or_default(),
            streaming: !recovery || self.streamed >= STEADY,
            standbys,
            waiting_ms: oldest.map_or(0, |since| u64::try_from(now.duration_since(*since).as_millis()).unwrap_or(0)),
            sick: None,
        })
    }

    async fn report<L: Launcher>(&mut self, context: &Shared<L>, board: &Board) {
        let running = context.server().running;
        // During a promotion the command tells first.
        let Some(mut status) = self.last.clone().or_else(|| blank(running)).filter(|last| last.running == running)
        else {
            return;
        };
        status.sick = board.verdict(context.settings.timing.probe_deadline);
        let changed = self.told.as_ref().is_none_or(|(at, told)| at.elapsed() >= AT_LEAST_EVERY || *told != status);
        if changed {
            self.told = Some((Instant::now(), status.clone()));
            let flushed = lowest_flush(context, &status);
            context.tell(DataObservation::Status(status)).await;
            if let Some(flushed) = flushed
                && let Err(error) = context.reopen(flushed).await
            {
                tracing::warn!("let clients in again: {}", error.in_words());
            }
        }
    }
}

/// Ends senders whose standby has come back over another link. Under the same name the oldest one
/// is the one that commits wait for, until the server itself gives it up.
async fn end(session: &Session, overtaken: &[String], within: Duration) -> Result<()> {
    if overtaken.is_empty() {
        return Ok(());
    }
    tracing::info!("replication came round by another link: {} old sender(s) ended", overtaken.len());
    let sql = format!(
        "select count(pg_terminate_backend(pid)) from pg_stat_replication where pid in ({})",
        overtaken.join(",")
    );
    session.value_of_ending(&sql, within).await.map(drop)
}

/// Whether the copy knows of a timeline that follows on `timeline`: a receiver fetches what the primary's history
/// says before it asks for anything (PostgreSQL 15, `WalRcvFetchTimeLineHistoryFiles`).
async fn has_ended<L: Launcher>(context: &Shared<L>, timeline: &str) -> bool {
    let Some(next) = timeline.parse::<u32>().ok().and_then(|timeline| timeline.checked_add(1)) else { return false };
    let history = context.settings.data_dir.join(format!("pg_wal/{next:08X}.history"));
    // One that cannot be looked for is not known to stream.
    tokio::fs::try_exists(history).await.unwrap_or(true)
}

/// Whether two looks saw the same but for positions.
fn is_alike(a: &DataStatus, b: &DataStatus) -> bool {
    let links = |status: &DataStatus| -> Vec<_> {
        status.standbys.iter().map(|standby| (standby.node, standby.streaming)).collect()
    };
    (a.running, a.streaming, links(a)) == (b.running, b.streaming, links(b))
}

/// What can be said of a server that never answered.
fn blank(running: Running) -> Option<DataStatus> {
    let streaming = running == Running::Primary;
    Some(DataStatus { running, position: Position(0), streaming, standbys: Vec::new(), waiting_ms: 0, sick: None })
}

/// How far all have flushed that commits wait for; `None` when one of them is missing.
fn lowest_flush<L: Launcher>(context: &Shared<L>, status: &DataStatus) -> Option<Position> {
    let server = context.server();
    server.reopen_at?;
    let waited_for = &server.in_force.as_ref()?.names;
    if waited_for.is_empty() {
        return Some(Position(u64::MAX));
    }
    let members = context.members();
    let named = members.iter().filter(|member| {
        let quoted = format!("\"{}\"", names::application_name(member, server.epoch));
        waited_for.contains(&quoted)
    });
    let flushes = named.map(|member| {
        let found = status.standbys.iter().find(|standby| standby.node == member.id && standby.streaming);
        found.map(|standby| standby.flushed)
    });
    flushes.collect::<Option<Vec<Position>>>()?.into_iter().min()
}
