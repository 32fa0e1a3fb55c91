//! What a running server is to be: follow, promote, open to clients, hand over.

use super::access::Clients;
use super::conf::Dynamic;
use super::context::{Context, Phase};
use super::error::{PgError, Result};
use super::names;
use super::prepare::Start;
use super::session::Session;
use crate::agents::launcher::Launcher;
use oarlock_core::ids::NodeId;
use oarlock_core::resource::Guard;
use oarlock_core::resource::database::{Position, Running};
use std::time::{Duration, Instant};

/// The postmaster looks for the trigger file on this signal (versions 12 to 17 and on).
const SIGUSR1: i32 = 10;

/// Ends the sessions of a standby's readers.
const END_READERS: &str = "select count(pg_terminate_backend(pid)) from pg_stat_activity \
    where backend_type = 'client backend' and usename is distinct from 'oarlock'";

/// Between two looks at a recovery that is about to end.
const LOOK: Duration = Duration::from_millis(3);

impl<L: Launcher> Context<L> {
    /// Starts as a standby, or points a running one at its upstream.
    pub async fn follow(&self, upstream: NodeId, epoch: u64) -> Result<()> {
        self.server().following = Some((upstream, epoch));
        let connection = self.connection(upstream, epoch)?;
        if self.server().phase != Phase::Up {
            return self.start(Start::Standby, connection, None).await;
        }
        if self.server().running == Running::Primary {
            return Err(PgError::other("a primary runs here: it must be stopped and rewound before it follows"));
        }
        let session = self.session().await?;
        self.apply(&session, &Dynamic::new(names::NOBODY, &connection)).await?;
        self.kept().session = Some(session);
        Ok(())
    }

    /// Follows over the links that are best now; a command that says something else meanwhile goes before.
    pub async fn reconnect(&self) -> Result<()> {
        let (running, following, former) = {
            let server = self.server();
            (server.running, server.following, server.in_force.clone())
        };
        let (Running::Standby, Some((upstream, epoch)), Some(former)) = (running, following, former) else {
            return Ok(());
        };
        let wanted = Dynamic::new(names::NOBODY, &self.connection(upstream, epoch)?);
        let session = self.session().await?;
        self.apply_over(&session, &former, &wanted).await
    }

    /// How this node's standby reaches its upstream, over the link that is best now.
    fn connection(&self, upstream: NodeId, epoch: u64) -> Result<String> {
        let application = names::application_name(&self.member(self.settings.node)?, epoch);
        Ok(names::connection(&self.settings, &self.member(upstream)?, &application))
    }

    /// Starts as the primary. One that runs already (adopted) is brought into the same state.
    pub async fn start_primary(&self, guard: Guard) -> Result<()> {
        if self.server().phase != Phase::Up {
            return self.start(Start::Primary, String::new(), Some(guard)).await;
        }
        if self.server().running == Running::Standby {
            return Err(PgError::other("a standby runs here: it must be promoted"));
        }
        let name = &self.settings.name;
        let marked = self.launcher.mark_guarded(name, Some(guard)).await;
        marked.map_err(PgError::launch(format!("put {name} under the guard")))?;
        self.set_clients(Clients::Closed).await?;
        let session = self.session().await?;
        self.apply(&session, &Dynamic::new(names::NOBODY, "")).await?;
        self.kept().session = Some(session);
        self.server().epoch = guard.epoch;
        Ok(())
    }

    /// Makes the running standby the primary; its `synchronous_standby_names` was preset.
    pub async fn promote(&self, guard: Guard) -> Result<()> {
        self.require_up()?;
        let name = &self.settings.name;
        let after = self.settings.timing.statement;
        // Open before, so that the end of recovery is seen at once.
        let session = self.session().await?;
        let trigger = self.settings.data_dir.join("promote");
        let start = Instant::now();
        self.launcher.promote(name, trigger, SIGUSR1, guard).await.map_err(PgError::launch("promote"))?;
        self.server().epoch = guard.epoch;
        let mut nudged = start;
        while session.value("select pg_is_in_recovery()", after).await? == "t" {
            if start.elapsed() > self.settings.timing.promote {
                let after = self.settings.timing.promote;
                return Err(PgError::Timeout { what: "promotion".to_owned(), after });
            }
            // A standby that just failed to reach its upstream sleeps before it looks for more WAL,
            // also when it has seen the trigger. Any signal ends that sleep.
            if nudged.elapsed() > NUDGE {
                nudged = Instant::now();
                self.signal_reload().await?;
            }
            tokio::time::sleep(LOOK).await;
        }
        self.server().running = Running::Primary;
        self.kept().session = Some(session);
        // Readers of the standby: what a primary shows is decided anew. What they wrote in these
        // milliseconds waits for a name that nobody bears.
        let readers = self.server().clients == Clients::Open;
        if readers {
            self.set_clients(Clients::Closed).await?;
            self.session().await?.value_of_ending(END_READERS, after).await?;
        }
        tracing::info!(resource = name, ms = start.elapsed().as_millis() as u64, "promoted");
        Ok(())
    }

    /// Lets clients in.
    pub async fn open(&self) -> Result<()> {
        self.require_up()?;
        self.set_clients(Clients::Open).await?;
        self.server().reopen_at = None;
        Ok(())
    }

    /// Planned stop with everything on `standby` (PROTOCOL §5.3).
    pub async fn hand_over(&self, standby: NodeId) -> Result<()> {
        self.require_up()?;
        let name = names::application_name(&self.member(standby)?, self.server().epoch);
        let session = self.session().await?;
        // The one at shutdown, during which nobody is served, is then short.
        session.run("checkpoint", CHECKPOINT).await?;
        self.wait_close(&session, &name).await?;
        let deadline = Instant::now() + self.settings.timing.hand_over;
        self.server().reopen_at = None;
        self.set_clients(Clients::Closed).await?;
        let handed = self.drain(&session, &name, deadline).await;
        if handed.is_err() {
            // What a client saw here last may not be on the standby yet: in again only when it is.
            self.server().reopen_at = Some(self.insert_position(&session).await?);
            self.look.notify_one();
            return handed;
        }
        drop(session);
        self.stop().await
    }

    /// A standby that is not close costs nobody anything if it is found out while clients are still
    /// served. One that has just changed to another link is given the time to come back.
    async fn wait_close(&self, session: &Session, name: &str) -> Result<()> {
        let deadline = Instant::now() + self.settings.timing.hand_over;
        loop {
            let position = self.insert_position(session).await?;
            let behind = self.flushed(session, name).await?.map(|flushed| position.0.saturating_sub(flushed.0));
            match behind {
                Some(behind) if behind <= CLOSE => return Ok(()),
                _ if Instant::now() < deadline => tokio::time::sleep(LOOK).await,
                Some(behind) => return Err(PgError::other(format!("standby {name} is {behind} bytes behind"))),
                None => return Err(PgError::other(format!("standby {name} does not stream"))),
            }
        }
    }

    /// Ends the clients' sessions and waits until the standby has flushed all there is.
    async fn drain(&self, session: &Session, name: &str, deadline: Instant) -> Result<()> {
        let after = self.settings.timing.statement;
        // A commit that waits is left to its standby: ended, it would be visible but not there.
        let end = "select count(*), count(*) filter (where wait_event is distinct from 'SyncRep' \
                   and pg_terminate_backend(pid)) from pg_stat_activity \
                   where backend_type = 'client backend' and usename is distinct from 'oarlock'";
        while session.value_of_ending(end, after).await? != "0" {
            self.drain_pause(deadline, "clients' last commits").await?;
        }
        loop {
            let position = self.insert_position(session).await?;
            if self.flushed(session, name).await? >= Some(position) {
                return Ok(());
            }
            self.drain_pause(deadline, "the standby").await?;
        }
    }

    async fn drain_pause(&self, deadline: Instant, what: &str) -> Result<()> {
        if Instant::now() > deadline {
            return Err(PgError::Timeout { what: what.to_owned(), after: self.settings.timing.hand_over });
        }
        tokio::time::sleep(LOOK).await;
        Ok(())
    }

    /// Lets clients in again after a hand-over that failed, once `flushed` allows it.
    pub async fn reopen(&self, flushed: Position) -> Result<()> {
        let _one_at_a_time = self.changing.lock().await;
        let due = self.server().reopen_at.is_some_and(|position| flushed >= position);
        if due {
            self.change_clients(Clients::Open).await?;
            self.server().reopen_at = None;
            self.note("clients let in again after a hand-over that failed".to_owned()).await;
        }
        Ok(())
    }
}

/// Between two signals to a recovery that is about to end.
const NUDGE: Duration = Duration::from_millis(15);

/// How long the checkpoint before a hand-over may take.
const CHECKPOINT: Duration = Duration::from_secs(120);

/// How far behind a standby may be for a hand-over to begin, in bytes.
const CLOSE: u64 = 16 * 1024 * 1024;
