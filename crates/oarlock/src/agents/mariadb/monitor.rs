//! The regular look at a running server, and the marks by which the standby's progress is known.

use super::binlog::GtidList;
use super::context::{Context, Phase, Shared};
use super::error::{MariaError, Result};
use super::guard::Receiver;
use super::probe::Board;
use super::processes::{self, Process};
use super::session::{Session, named};
use crate::agents::launcher::Launcher;
use oarlock_core::resource::database::{DataObservation, DataStandby, DataStatus, Position, Running};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// A report is due after this even when nothing changed.
const AT_LEAST_EVERY: Duration = Duration::from_millis(500);
/// A mark that is not confirmed within this is given up; it still waits in the server.
const MARK_DEADLINE: Duration = Duration::from_secs(60);
/// A receiver that was seen connected so often in a row is.
const STEADY: u32 = 3;

/// Looks at the server until the task is aborted.
pub(super) async fn watch<L: Launcher>(context: Shared<L>, board: Arc<Board>) {
    let mut monitor = Monitor::default();
    loop {
        tokio::select! {
            () = context.look.notified() => {}
            () = tokio::time::sleep(context.settings.timing.status) => {}
        }
        if context.server().phase != Phase::Up {
            continue;
        }
        // A server that hangs must not keep us from saying so.
        let seen = tokio::time::timeout(AT_LEAST_EVERY, monitor.look(&context)).await;
        match seen {
            Ok(Ok(status)) => monitor.last = Some(status),
            Ok(Err(_)) | Err(_) => monitor.session = None,
        }
        monitor.report(&context, &board).await;
    }
}

/// While commits wait for a standby: has it everything? Asks by a commit of our own, whenever there
/// is something that it has not confirmed.
pub(super) async fn mark<L: Launcher>(context: Shared<L>) {
    loop {
        context.mark.notified().await;
        if context.server().guard_on && context.confirm(Instant::now() + MARK_DEADLINE).await.is_ok() {
            context.look.notify_one();
        }
        // One that fails at once must not be tried at once.
        tokio::time::sleep(context.settings.timing.status).await;
    }
}

#[derive(Default)]
struct Monitor {
    session: Option<Session>,
    /// Since when commits wait and none was confirmed. A mark of ours counts too: the server lets one
    /// wait for the standby, and all later ones wait for that one.
    waiting: Option<Instant>,
    /// How many were confirmed, or let go, at the last look.
    answered: u64,
    /// Looks in a row that saw the receiver connected.
    streamed: u32,
    last: Option<DataStatus>,
    told: Option<(Instant, DataStatus)>,
    /// The last problem that was told.
    noted: String,
}

impl Monitor {
    async fn look<L: Launcher>(&mut self, context: &Shared<L>) -> Result<DataStatus> {
        let mut session = match self.session.take() {
            Some(session) => session,
            None => context.session().await?,
        };
        let running = context.server().running;
        let status = match running {
            Running::Primary => self.look_at_primary(context, &mut session).await?,
            Running::Standby => self.look_at_standby(context, &mut session).await?,
        };
        self.session = Some(session);
        Ok(status)
    }

    async fn look_at_primary<L: Launcher>(
        &mut self,
        context: &Context<L>,
        session: &mut Session,
    ) -> Result<DataStatus> {
        let (epoch, guard_on, confirmed) = {
            let server = context.server();
            (server.epoch, server.guard_on, server.confirmed)
        };
        let after = context.settings.timing.statement;
        let position = context.position(session).await?;
        let processes = processes::list(session, after).await?;
        let count = context.count(session).await?;
        let now = Instant::now();
        let mut standbys: Vec<DataStandby> = Vec::new();
        for receiver in processes.iter().filter_map(|process| Receiver::of(process, epoch)) {
            // While nobody waits for it nothing is known of its disk. That it was sent all
            // makes it a candidate; the proof of a guard then lies above what is said here.
            let flushed = if guard_on || !receiver.near { confirmed } else { position.saturating_sub(1) };
            let flushed = Position(flushed.max(confirmed));
            standbys.push(DataStandby { node: receiver.node, flushed, streaming: true });
        }
        let answered = count.confirmed + count.unconfirmed;
        let waited = self.waiting.filter(|_| answered == self.answered);
        self.waiting = processes.iter().any(Process::waits).then(|| waited.unwrap_or(now));
        self.answered = answered;
        standbys.sort_by_key(|standby| (standby.node, standby.flushed));
        standbys.reverse();
        standbys.dedup_by_key(|standby| standby.node);
        if guard_on && confirmed < position && !standbys.is_empty() {
            context.mark.notify_one();
        }
        Ok(DataStatus {
            running: Running::Primary,
            position: Position(position),
            streaming: true,
            standbys,
            waiting_ms: self
                .waiting
                .map_or(0, |since| u64::try_from(now.duration_since(since).as_millis()).unwrap_or(0)),
            sick: None,
        })
    }

    async fn look_at_standby<L: Launcher>(
        &mut self,
        context: &Context<L>,
        session: &mut Session,
    ) -> Result<DataStatus> {
        let Some(status) = context.replica_status(session).await? else {
            return Err(MariaError::other("a standby that was never told whom to follow"));
        };
        let field = |name: &str| named(&status, name).unwrap_or_default();
        let streams = field("Slave_IO_Running") == "Yes" && field("Slave_SQL_Running") == "Yes";
        self.streamed = if streams { self.streamed.saturating_add(1) } else { 0 };
        let received = GtidList::parse(&field("Gtid_IO_Pos"))?.position();
        self.tell_problem(context, &[field("Last_SQL_Error"), field("Last_IO_Error")]).await;
        Ok(DataStatus {
            running: Running::Standby,
            position: Position(received),
            streaming: self.streamed >= STEADY,
            standbys: Vec::new(),
            waiting_ms: 0,
            sick: None,
        })
    }

    /// What keeps a standby from following, said once.
    async fn tell_problem<L: Launcher>(&mut self, context: &Context<L>, said: &[String]) {
        let said = said.iter().find(|text| !text.is_empty()).cloned().unwrap_or_default();
        // Attempts are counted in the text of a connection that fails.
        let problem = said.split(" - retry-time").next().unwrap_or_default().to_owned();
        if problem != self.noted && !problem.is_empty() {
            context.note(format!("the standby does not follow: {problem}")).await;
        }
        self.noted = problem;
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
            context.tell(DataObservation::Status(status)).await;
        }
        if let Err(error) = context.reopen().await {
            tracing::warn!(resource = context.settings.name, "let clients in again: {}", error.in_words());
        }
    }
}

/// What is told of a server that never answered.
fn blank(running: Running) -> Option<DataStatus> {
    Some(DataStatus {
        running,
        position: Position(0),
        streaming: running == Running::Primary,
        standbys: Vec::new(),
        waiting_ms: 0,
        sick: None,
    })
}
