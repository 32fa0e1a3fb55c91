//! Whom commits wait for, and the proof that it is so (PROTOCOL §5.5, §6.1).
//!
//! The server's replication stays semi-synchronous at all times, so that a standby that connects
//! confirms what it gets. ON: a commit waits for that without end. OFF: for a millisecond, and for
//! nobody when nobody is there. The proof of ON is a commit of ours that was confirmed: as a
//! receiver writes what it gets in order, it then has all that was committed before.

use super::accounts::{account, node_of};
use super::binlog::GtidList;
use super::context::Context;
use super::error::{MariaError, Result};
use super::processes::{self, Process};
use super::session::{Commits, Session, text};
use crate::agents::launcher::Launcher;
use oarlock_core::ids::NodeId;
use oarlock_core::resource::database::{Position, Running};
use std::time::{Duration, Instant};

/// A commit of ours that goes to the standby as a client's does.
const MARK: &str = "update oarlock.mark set n = n + 1 where id = 1";
pub(super) const SWITCH_ON: &str = "set global rpl_semi_sync_master_enabled=ON";
/// Between two looks at the server.
const LOOK: Duration = Duration::from_millis(2);
/// The server hears a standby that has just connected only after its next look for new ones, which it takes once a
/// second (10.11.19: a first confirmation came after up to 1.0 s).
const FIRST_CONFIRMATION: Duration = Duration::from_secs(3);
/// How long switching off may take where the server does not wait for what never comes; else about a millisecond.
const OFF_TAKES: Duration = Duration::from_millis(50);

/// A standby's receiver, as the primary sees it.
pub(super) struct Receiver {
    pub node: NodeId,
    /// It has been sent all there is, or nearly.
    pub near: bool,
}

impl Receiver {
    /// From the session that serves it.
    pub fn of(process: &Process, epoch: u64) -> Option<Receiver> {
        let node = node_of(&process.user, epoch).filter(|_| process.sends())?;
        Some(Receiver { node, near: process.state.contains("has sent all binlog") })
    }
}

/// What the server counts of commits that wait.
pub(super) struct Count {
    on: bool,
    /// Replicas, whoever's, that may confirm.
    pub confirming: u64,
    /// Confirmations heard, needed or not.
    heard: u64,
    pub confirmed: u64,
    pub unconfirmed: u64,
}

impl<L: Launcher> Context<L> {
    /// Commits wait for every one of `members`, for none when empty; returns the position that is
    /// covered by the proof.
    pub async fn set_guard(&self, members: &[NodeId], epoch: u64) -> Result<Position> {
        self.require_up()?;
        if self.server().running != Running::Primary {
            return Err(MariaError::other("a standby has no guard to set"));
        }
        let _one_at_a_time = self.changing.lock().await;
        if self.server().epoch != epoch {
            self.provision(&mut self.session().await?, epoch).await?;
            self.server().epoch = epoch;
        }
        let deadline = Instant::now() + self.settings.timing.guard;
        let position = match members {
            [] => {
                let position = self.guard_off(deadline).await?;
                self.forget_lost().await;
                position
            }
            [member] => self.guard_on(*member, epoch, deadline).await?,
            _ => {
                let what = format!("commits cannot wait for {} standbys, only for one", members.len());
                return Err(MariaError::with_hint(what, "keep the group of a mariadb resource to two nodes"));
            }
        };
        self.look.notify_one();
        Ok(Position(position))
    }

    async fn guard_off(&self, deadline: Instant) -> Result<u64> {
        let after = self.settings.timing.statement;
        let mut session = self.session().await?;
        {
            let mut server = self.server();
            server.guard_on = false;
            server.guard_changes += 1;
        }
        for sql in ["set global rpl_semi_sync_master_timeout=1", "set global rpl_semi_sync_master_wait_no_slave=OFF"] {
            session.run(sql, after).await?;
        }
        // Lets go whoever waits; a standby that is connected goes on confirming.
        let helped = self.switch_off(&mut session).await?;
        session.run(SWITCH_ON, after).await?;
        let anew = Instant::now() + self.settings.timing.guard / 2;
        self.commit_mark(if helped { deadline.max(anew) } else { deadline }).await
    }

    /// Switches semi-synchronous replication off, which lets go whoever waits, and returns whether the standby had to
    /// be cut off for that: 10.11.19 now and then (5 of 193 runs of a test beside compilers) misses its own call to stop
    /// hearing confirmations, and waits for one more, which nobody sends any more, holding up whatever else is to be set.
    pub async fn switch_off(&self, session: &mut Session) -> Result<bool> {
        // Given up in the middle, it would be done some time later, over whatever was set since.
        let off = session.run("set global rpl_semi_sync_master_enabled=OFF", self.settings.timing.tool);
        tokio::pin!(off);
        tokio::select! {
            done = &mut off => return done.map(|()| false),
            () = tokio::time::sleep(OFF_TAKES) => {}
        }
        tracing::warn!(
            resource = self.settings.name,
            "the server waits for a confirmation before it stops hearing any"
        );
        self.cut_off(&mut self.session().await?, &[]).await?;
        off.await.map(|()| true)
    }

    async fn guard_on(&self, member: NodeId, epoch: u64, deadline: Instant) -> Result<u64> {
        let was_on = self.server().guard_on;
        // First see that it is there at all: a guard that cannot be proven need not stall anyone.
        self.wait_for_receiver(member, epoch, deadline).await?;
        let mut session = self.session().await?;
        if !was_on {
            if let Err(error) = self.hear_first(&mut session).await {
                // One that connected while nothing was to be confirmed never confirms anything.
                self.cut_off(&mut session, &[]).await?;
                return Err(error);
            }
            // By itself the server waits again only when the standby has caught up with the very last commit, which
            // under a steady load it may never be seen to; switched on anew, it waits at once.
            if self.switch_off(&mut session).await? {
                session.run(SWITCH_ON, self.settings.timing.statement).await?;
                return Err(MariaError::other(
                    "the server did not stop hearing confirmations until its standby was cut off",
                ));
            }
        }
        self.wait_for_ever(&mut session).await?;
        let deadline = deadline.max(Instant::now() + self.settings.timing.guard / 2);
        let proof = self.prove_on(&mut session, deadline).await;
        if proof.is_err() {
            self.cut_off(&mut self.session().await?, &[]).await?;
            if !was_on {
                // Never weaker than before; but clients must not wait for an attempt that failed.
                self.guard_off(Instant::now() + self.settings.timing.guard).await?;
            }
        }
        proof
    }

    /// Waits until the server hears the standby confirm, while no commit waits for that yet: otherwise the first ones
    /// would.
    async fn hear_first(&self, session: &mut Session) -> Result<()> {
        let deadline = Instant::now() + FIRST_CONFIRMATION;
        let before = self.count(session).await?.heard;
        loop {
            self.commit_mark(deadline).await?;
            if self.count(session).await?.heard > before {
                return Ok(());
            }
            self.pause(deadline, "a first confirmation of the standby").await?;
            // Each try is a commit of its own.
            tokio::time::sleep(LOOK * 10).await;
        }
    }

    async fn prove_on(&self, session: &mut Session, deadline: Instant) -> Result<u64> {
        // After a time without it the server waits again only once the standby has caught up.
        while !self.count(session).await?.on {
            self.pause(deadline, "a standby that has caught up").await?;
        }
        loop {
            match self.confirm(deadline).await {
                // A client's commit that had begun under the former guard may have been counted beside ours.
                Err(MariaError::Unconfirmed) => self.pause(deadline, "a commit that is confirmed").await?,
                proof => return proof,
            }
        }
    }

    /// What the server counts now.
    pub async fn count(&self, session: &mut Session) -> Result<Count> {
        let rows = session.rows("show global status like 'rpl_semi_sync_master%'", self.settings.timing.statement);
        let rows = rows.await?;
        let value = |name: &str| {
            let row = rows.iter().find(|row| text(row, 0).is_some_and(|found| found.eq_ignore_ascii_case(name)));
            row.and_then(|row| text(row, 1)).unwrap_or_default()
        };
        let number = |name: &str| value(name).parse().unwrap_or(0);
        Ok(Count {
            on: value("rpl_semi_sync_master_status") == "ON",
            confirming: number("rpl_semi_sync_master_clients"),
            heard: number("rpl_semi_sync_master_get_ack"),
            confirmed: number("rpl_semi_sync_master_yes_tx"),
            unconfirmed: number("rpl_semi_sync_master_no_tx"),
        })
    }

    /// Whether the server waits as it was told to; what is wrong, if it does not.
    pub async fn guard_problem(&self, session: &mut Session) -> Result<Option<String>> {
        let on = self.count(session).await?.on;
        let wanted = self.server().guard_on && self.server().running == Running::Primary;
        Ok((wanted && !on).then(|| "commits are acknowledged without the standby".to_owned()))
    }

    /// Commits a mark as a client would, sees that the standby has confirmed it, and remembers that it has
    /// all that was committed before: returns the mark's number.
    pub async fn confirm(&self, deadline: Instant) -> Result<u64> {
        let change = {
            let server = self.server();
            server.guard_on.then_some(server.guard_changes)
        };
        let mut session = self.session().await?;
        let before = self.count(&mut session).await?;
        let position = self.commit_mark(deadline).await?;
        let after = self.count(&mut session).await?;
        session.close().await;
        if before.confirming.max(after.confirming) > 1 {
            return Err(MariaError::with_hint(
                "another replica confirms commits beside the standby",
                "set rpl_semi_sync_slave_enabled=OFF on every other replica of this database",
            ));
        }
        if !before.on || !after.on || after.unconfirmed != before.unconfirmed || after.confirmed <= before.confirmed {
            return Err(MariaError::Unconfirmed);
        }
        let mut server = self.server();
        // The guard was ON all the time, or the commit proves nothing.
        if change.is_none() || !server.guard_on || Some(server.guard_changes) != change {
            return Err(MariaError::other("the guard changed during its proof"));
        }
        server.confirmed = server.confirmed.max(position);
        Ok(position)
    }

    async fn commit_mark(&self, deadline: Instant) -> Result<u64> {
        let mut session = Session::open(&self.settings, Commits::AsClients).await?;
        session.run(MARK, deadline.saturating_duration_since(Instant::now())).await?;
        let own = session.value("select @@last_gtid", self.settings.timing.statement).await?;
        session.close().await;
        Ok(GtidList::parse(&own)?.position())
    }

    /// Waits until the standby on `node` receives and is near.
    pub async fn wait_for_receiver(&self, node: NodeId, epoch: u64, deadline: Instant) -> Result<()> {
        let mut session = self.session().await?;
        loop {
            let processes = processes::list(&mut session, self.settings.timing.statement).await?;
            let mut receivers = processes.iter().filter_map(|process| Receiver::of(process, epoch));
            if receivers.any(|receiver| receiver.node == node && receiver.near) {
                return Ok(());
            }
            self.pause(deadline, &format!("standby {} close behind", account(node, epoch))).await?;
        }
    }

    async fn pause(&self, deadline: Instant, what: &str) -> Result<()> {
        if Instant::now() > deadline {
            return Err(MariaError::Timeout { what: what.to_owned(), after: self.settings.timing.guard });
        }
        tokio::time::sleep(LOOK).await;
        Ok(())
    }
}
