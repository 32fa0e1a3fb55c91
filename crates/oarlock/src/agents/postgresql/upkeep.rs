//! What a running server needs from time to time: its catalogue and our settings in order, and the
//! administrator's changes to the access files taken over.

use super::access;
use super::conf::REPLAY_LIMITS;
use super::context::{Context, Phase, Shared};
use super::error::Result;
use super::files;
use super::session::{Commits, Session};
use crate::agents::launcher::Launcher;
use oarlock_core::resource::database::{DataObservation, Running};
use std::time::{Duration, Instant};

/// Between two rounds.
const ROUND: Duration = Duration::from_secs(2);
/// Before a new server's first round, and after one that failed.
const SOON: Duration = Duration::from_millis(200);
/// A standby that has not streamed for so long tries less often.
const DEAF: Duration = Duration::from_secs(30);
/// What seldom changes is looked at this often.
const SELDOM: Duration = Duration::from_secs(60);

/// Goes its rounds until the task is aborted.
pub(super) async fn keep<L: Launcher>(context: Shared<L>) {
    let mut upkeep = Upkeep { session: None, provisioned: None, kept_good: None, deaf_since: None };
    loop {
        let pause = match context.server().phase {
            Phase::Up => ROUND,
            _ => SOON,
        };
        let done = if pause == ROUND { upkeep.round(&context).await } else { Ok(()) };
        let pause = match done {
            Ok(()) => pause,
            Err(error) => {
                tracing::warn!(resource = context.settings.name, "upkeep: {}", error.in_words());
                upkeep.session = None;
                SOON
            }
        };
        tokio::time::sleep(pause).await;
    }
}

struct Upkeep {
    session: Option<Session>,
    /// When the role was last seen in order, on a primary.
    provisioned: Option<Instant>,
    kept_good: Option<Instant>,
    /// Since when a standby has not streamed.
    deaf_since: Option<Instant>,
}

impl Upkeep {
    async fn round<L: Launcher>(&mut self, context: &Shared<L>) -> Result<()> {
        let session = match self.session.take() {
            Some(session) => session,
            None => Session::open(&context.settings, Commits::Local).await?,
        };
        let due = |last: &Option<Instant>| last.is_none_or(|last| last.elapsed() > SELDOM);
        if context.server().running == Running::Primary {
            if due(&self.provisioned) {
                context.provision(&session).await?;
                self.provisioned = Some(Instant::now());
            }
        } else {
            self.provisioned = None;
            context.restart_if_paused(&session).await?;
            self.choose_retry(context, &session).await?;
        }
        context.defend(&session).await?;
        if due(&self.kept_good) {
            context.keep_good_configuration(&session).await?;
            self.kept_good = Some(Instant::now());
        }
        context.refresh_access().await?;
        self.session = Some(session);
        Ok(())
    }

    /// A standby whose upstream is long gone tries less often.
    async fn choose_retry<L: Launcher>(&mut self, context: &Shared<L>, session: &Session) -> Result<()> {
        let sql = "select count(*) from pg_stat_wal_receiver where status = 'streaming'";
        if session.value(sql, context.settings.timing.statement).await? != "0" {
            self.deaf_since = None;
            return Ok(());
        }
        let since = *self.deaf_since.get_or_insert_with(Instant::now);
        let in_force = context.server().in_force.clone();
        match in_force {
            Some(ours) if since.elapsed() > DEAF => {
                let patient = ours.clone().trying(true);
                if patient == ours { Ok(()) } else { context.apply_over(session, &ours, &patient).await }
            }
            _ => Ok(()),
        }
    }
}

impl<L: Launcher> Context<L> {
    /// Takes over what the administrator changed in the access files. They may lie on a disk that
    /// hangs: read on a thread of their own.
    async fn refresh_access(&self) -> Result<()> {
        let (clients, generation) = {
            let server = self.server();
            (server.clients, server.access_generation)
        };
        let (settings, members) = (self.settings.clone(), self.members());
        let read = move || {
            let hba = access::hba(&settings, &members, clients, generation)?;
            let ident = access::ident(&settings, &super::prepare::own_user()?)?;
            let written = |name: &str| files::read_optional(&settings.run_dir.join(name));
            let same = written("pg_hba.conf")?.as_deref() == Some(&hba);
            Ok((same && written("pg_ident.conf")?.as_deref() == Some(&ident), ident))
        };
        let (same, ident) = files::blocking("read the access files", self.settings.timing.tool, read).await?;
        let _one_at_a_time = self.changing.lock().await;
        if same || self.server().access_generation != generation {
            return Ok(());
        }
        files::replace(&self.run_file("pg_ident.conf"), ident.as_bytes(), self.private())?;
        self.change_clients(clients).await?;
        self.note("took over the changed access files".to_owned()).await;
        Ok(())
    }

    /// A standby whose primary was given higher limits stops replaying, and could not be promoted:
    /// it must be started anew with higher ones, which is done by saying that it ended.
    async fn restart_if_paused(&self, session: &Session) -> Result<()> {
        let after = self.settings.timing.statement;
        if session.value("select pg_get_wal_replay_pause_state()", after).await? != "paused" {
            return Ok(());
        }
        let limits = self.control().await?.limits;
        for name in REPLAY_LIMITS {
            let own: u64 =
                session.value(&format!("select current_setting('{name}')"), after).await?.parse().unwrap_or(0);
            let least = limits.get(name).copied().unwrap_or(0);
            if own < least {
                let reason = format!("replay stopped: the primary has {name} = {least}, this standby {own}");
                self.kill().await?;
                self.tell(DataObservation::Exited { reason }).await;
                break;
            }
        }
        Ok(())
    }
}
