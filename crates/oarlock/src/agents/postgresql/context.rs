//! What the agent's tasks share: the settings, the launcher, and what is known of the server.

use super::access::Clients;
use super::conf::Dynamic;
use super::error::{PgError, Result};
use super::files::Owned;
use super::session::Kept;
use super::settings::{Member, PgSettings};
use crate::agents::launcher::{Ended, Exit, Launcher};
use oarlock_core::ids::NodeId;
use oarlock_core::resource::database::{DataObservation, Position, Running};
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::sync::{Notify, mpsc, watch};

/// Where the server process is in its life.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub(super) enum Phase {
    /// No server of ours runs.
    #[default]
    Down,
    /// A command of ours starts it and waits for it; its end is that command's failure.
    Starting,
    /// It runs; its end is unexpected.
    Up,
    /// A command of ours ends it.
    Stopping,
}

/// What is known of the server.
#[derive(Clone, Debug)]
pub(super) struct Server {
    pub phase: Phase,
    pub pid: u32,
    /// What it was when last looked at, or told to be.
    pub running: Running,
    /// What of its configuration is known to be in force.
    pub in_force: Option<Dynamic>,
    /// Of the configuration file written last.
    pub generation: u64,
    /// What its access file says.
    pub clients: Clients,
    pub access_generation: u64,
    /// The epoch under whose name standbys count.
    pub epoch: u64,
    /// Standby: whom it was told to follow, and that primary's epoch.
    pub following: Option<(NodeId, u64)>,
    /// Clients were shut out for a hand-over that failed: let them in once every member has
    /// flushed this far.
    pub reopen_at: Option<Position>,
    /// Where in the log this run began.
    pub log_offset: u64,
}

/// Shared by the tasks of one agent.
pub(super) struct Context<L> {
    pub settings: PgSettings,
    pub launcher: L,
    pub events: mpsc::Sender<DataObservation>,
    /// Makes the monitor look at once.
    pub look: Notify,
    /// Held while a generated file is written and taken over: one change at a time.
    pub changing: tokio::sync::Mutex<()>,
    members: Mutex<Vec<Member>>,
    server: Mutex<Server>,
    /// Open sessions, so that nobody has to wait for one when milliseconds count.
    kept: Mutex<Kept>,
    exits: watch::Sender<BTreeMap<String, Exit>>,
}

pub(super) type Shared<L> = Arc<Context<L>>;

impl<L: Launcher> Context<L> {
    pub fn new(settings: PgSettings, launcher: L, events: mpsc::Sender<DataObservation>) -> Shared<L> {
        let server = Server {
            phase: Phase::Down,
            pid: 0,
            running: Running::Standby,
            in_force: None,
            generation: 0,
            clients: Clients::Closed,
            access_generation: 0,
            epoch: 0,
            following: None,
            reopen_at: None,
            log_offset: 0,
        };
        let members = Mutex::new(settings.members.clone());
        let exits = watch::Sender::new(BTreeMap::new());
        Arc::new(Context {
            settings,
            launcher,
            events,
            look: Notify::new(),
            changing: tokio::sync::Mutex::new(()),
            members,
            server: Mutex::new(server),
            kept: Mutex::default(),
            exits,
        })
    }

    /// The server's state; never held across an await.
    pub fn server(&self) -> MutexGuard<'_, Server> {
        self.server.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub fn kept(&self) -> MutexGuard<'_, Kept> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub fn members(&self) -> Vec<Member> {
        self.members.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    pub fn set_members(&self, members: Vec<Member>) {
        *self.members.lock().unwrap_or_else(PoisonError::into_inner) = members;
    }

    pub fn member(&self, id: NodeId) -> Result<Member> {
        let found = self.members().into_iter().find(|member| member.id == id);
        found.ok_or_else(|| PgError::other(format!("node {id} holds no copy of {}", self.settings.name)))
    }

    /// Tells the core something; an owner that is gone does not matter.
    pub async fn tell(&self, observation: DataObservation) {
        let _ = self.events.send(observation).await;
    }

    pub async fn note(&self, text: String) {
        tracing::info!(resource = self.settings.name, "{text}");
        self.tell(DataObservation::Note { text }).await;
    }

    /// A process has ended: wakes whoever waits for that.
    pub fn exited(&self, exit: Exit) {
        self.exits.send_modify(|exits| {
            exits.insert(exit.name.clone(), exit);
        });
    }

    /// Waits until process `pid` of `name` has ended.
    pub async fn wait_exit(&self, name: &str, pid: u32) -> Ended {
        let mut exits = self.exits.subscribe();
        let ended = |exits: &BTreeMap<String, Exit>| exits.get(name).is_some_and(|exit| exit.pid == pid);
        match exits.wait_for(ended).await {
            Ok(exits) => exits.get(name).map_or(Ended::Unknown, |exit| exit.ended),
            // The sender lives in self.
            Err(_) => Ended::Unknown,
        }
    }

    /// [`Context::wait_exit`] with a deadline; `None` when it still runs.
    pub async fn wait_exit_within(&self, name: &str, pid: u32, after: Duration) -> Option<Ended> {
        tokio::time::timeout(after, self.wait_exit(name, pid)).await.ok()
    }

    /// A file of our run directory.
    pub fn run_file(&self, name: &str) -> PathBuf {
        self.settings.run_dir.join(name)
    }

    /// For files that only the server's user reads.
    pub fn private(&self) -> Owned<'_> {
        Owned { user: &self.settings.user, mode: 0o600 }
    }
}
