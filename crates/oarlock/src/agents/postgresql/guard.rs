//! Whom commits wait for, and the proof that it is so (PROTOCOL §5.5).
//!
//! On a reload the checkpointer applies the switch and each walsender its own list; what a session
//! shows proves neither. So ON goes through a name that nobody bears: a commit seen waiting proves
//! the switch, walsenders without a priority have dropped their former list, and when that same
//! commit is then released, it was by the new one.

use super::conf::Dynamic;
use super::context::Context;
use super::control::parse_lsn;
use super::error::{PgError, Result};
use super::names;
use super::session::{Probe, Session, literal};
use crate::agents::launcher::Launcher;
use oarlock_core::ids::NodeId;
use oarlock_core::resource::database::{Position, Running};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

/// A commit with something to flush that touches no table and leaves nothing behind.
pub(super) const PROBE: &str = "select pg_logical_emit_message(true, 'oarlock', '')";

/// Between two looks at the server.
const LOOK: Duration = Duration::from_millis(2);

impl<L: Launcher> Context<L> {
    /// Commits wait for every one of `members`, for none when empty; returns the insert position
    /// read after the proof.
    pub async fn set_guard(&self, members: &[NodeId], epoch: u64) -> Result<Position> {
        self.require_up()?;
        if self.server().running != Running::Primary {
            return Err(PgError::other("a standby has no guard to set"));
        }
        let mut application_names = Vec::new();
        for id in members {
            application_names.push(names::application_name(&self.member(*id)?, epoch));
        }
        self.server().epoch = epoch;
        let session = self.session().await?;
        let after = self.settings.timing.guard;
        if application_names.is_empty() {
            self.guard_off(&session, after).await?;
        } else {
            self.guard_on(&session, &application_names, Instant::now() + after).await?;
        }
        let position = self.insert_position(&session).await?;
        self.kept().session = Some(session);
        self.look.notify_one();
        Ok(position)
    }

    /// Where the next record goes.
    pub async fn insert_position(&self, session: &Session) -> Result<Position> {
        let text = session.value("select pg_current_wal_insert_lsn()", self.settings.timing.statement).await?;
        parse_lsn(&text).ok_or_else(|| PgError::other(format!("position \"{text}\"")))
    }

    async fn switch(&self, session: &Session, names: &str) -> Result<()> {
        self.apply(session, &Dynamic::new(names, "")).await
    }

    async fn guard_off(&self, session: &Session, after: Duration) -> Result<()> {
        let probe = self.probe().await?;
        // If the switch has not arrived yet, the commit waits, and is released by that very switch.
        let both = tokio::try_join!(self.switch(session, ""), probe.session.run(PROBE, after));
        self.end_probe(session, probe, both.map(drop)).await
    }

    async fn guard_on(&self, session: &Session, members: &[String], deadline: Instant) -> Result<()> {
        let before = self.server().in_force.clone();
        // First see that they are there at all: a guard that cannot be proven need not stall anyone.
        self.wait_for(session, members, deadline, "streaming", |seen| seen.streams).await?;
        let names = names::wait_for_all(members);
        let result = self.prove_on(session, members, &names, deadline).await;
        if result.is_err() {
            // Never weaker than before: nobody was promised more, and clients must not wait for an
            // attempt that failed.
            let was_off = before.is_some_and(|before| before.names.is_empty());
            self.switch(session, if was_off { "" } else { &names }).await?;
        }
        result
    }

    async fn prove_on(&self, session: &Session, members: &[String], names: &str, deadline: Instant) -> Result<()> {
        let probe = self.probe().await?;
        self.switch(session, names::NOBODY).await?;
        let stuck = AtomicBool::new(false);
        let switching = async {
            self.wait_no_priority(session, deadline).await?;
            self.wait_waiting(session, &probe, deadline).await?;
            // From here on only a walsender with the new list can release it.
            stuck.store(true, Ordering::Relaxed);
            self.switch(session, names).await?;
            self.wait_for(session, members, deadline, "in sync", |seen| seen.synchronous).await?;
            // A walsender that took a new list over releases nobody before its standby's next
            // reply; a little more WAL brings one.
            session.run(PROBE, self.settings.timing.statement).await
        };
        // Both, or the first that fails.
        let both = tokio::try_join!(self.commit_until(&probe, &stuck, deadline), switching);
        self.end_probe(session, probe, both.map(drop)).await
    }

    /// Commits until one was released that had been seen waiting for nobody.
    async fn commit_until(&self, probe: &Probe, stuck: &AtomicBool, deadline: Instant) -> Result<()> {
        loop {
            probe.session.run(PROBE, deadline.saturating_duration_since(Instant::now())).await?;
            if stuck.load(Ordering::Relaxed) {
                return Ok(());
            }
            self.pause(deadline, "a probing commit that waits").await?;
        }
    }

    /// A probing commit that still waits is ended: it is nobody's write, and its becoming visible
    /// means nothing.
    async fn end_probe(&self, session: &Session, probe: Probe, result: Result<()>) -> Result<()> {
        if result.is_err() {
            let sql = format!("select pg_terminate_backend({})", probe.backend);
            session.run(&sql, self.settings.timing.statement).await?;
        } else {
            self.kept().probe = Some(probe);
        }
        result
    }

    async fn wait_waiting(&self, session: &Session, probe: &Probe, deadline: Instant) -> Result<()> {
        let sql =
            format!("select count(*) from pg_stat_activity where pid = {} and wait_event = 'SyncRep'", probe.backend);
        while session.value(&sql, self.settings.timing.statement).await? == "0" {
            self.pause(deadline, "a probing commit that waits").await?;
        }
        Ok(())
    }

    /// A walsender's priority is of its own making: zero once it has read that it counts no more.
    async fn wait_no_priority(&self, session: &Session, deadline: Instant) -> Result<()> {
        let sql = "select count(*) from pg_stat_replication where sync_priority > 0";
        while session.value(sql, self.settings.timing.statement).await? != "0" {
            self.pause(deadline, "walsenders without a priority").await?;
        }
        Ok(())
    }

    async fn wait_for(
        &self,
        session: &Session,
        members: &[String],
        deadline: Instant,
        what: &str,
        good: impl Fn(&Seen) -> bool,
    ) -> Result<()> {
        loop {
            let seen = self.see_standbys(session).await?;
            let missing = |name: &&String| !seen.iter().any(|seen| seen.name.eq_ignore_ascii_case(name) && good(seen));
            let Some(name) = members.iter().find(missing) else { return Ok(()) };
            self.pause(deadline, &format!("{name} {what}")).await?;
        }
    }

    async fn pause(&self, deadline: Instant, what: &str) -> Result<()> {
        if Instant::now() > deadline {
            return Err(PgError::Timeout { what: what.to_owned(), after: self.settings.timing.guard });
        }
        tokio::time::sleep(LOOK).await;
        Ok(())
    }

    async fn see_standbys(&self, session: &Session) -> Result<Vec<Seen>> {
        let sql = "select application_name, state, sync_priority, sync_state from pg_stat_replication";
        let rows = session.rows(sql, self.settings.timing.statement).await?;
        let seen = rows.iter().map(|row| Seen {
            name: row.get(0).unwrap_or_default().to_owned(),
            streams: row.get(1) == Some("streaming"),
            synchronous: row.get(1) == Some("streaming")
                && row.get(2).is_some_and(|priority| priority != "0")
                && row.get(3) == Some("sync"),
        });
        Ok(seen.collect())
    }

    /// How far the standby called `name` has flushed, if it streams.
    pub async fn flushed(&self, session: &Session, name: &str) -> Result<Option<Position>> {
        let sql = format!(
            "select flush_lsn from pg_stat_replication where lower(application_name) = lower({}) \
             and state = 'streaming' order by backend_start desc",
            literal(name)
        );
        let rows = session.rows(&sql, self.settings.timing.statement).await?;
        Ok(rows.first().and_then(|row| row.get(0)).and_then(parse_lsn))
    }
}

/// A connected standby.
struct Seen {
    name: String,
    streams: bool,
    synchronous: bool,
}
