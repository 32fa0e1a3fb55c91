//! What the agent's tasks share: the settings, the launcher, and what is known of the server.

use super::error::{MariaError, Result};
use super::settings::{MariaMember, MariaSettings};
use crate::agents::launcher::{Ended, Exit, Launcher};
use crate::agents::postgresql::files::Owned;
use oarlock_core::ids::NodeId;
use oarlock_core::resource::database::{DataObservation, Running};
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
    /// Commits are proven to wait for the standby; counts up with each change.
    pub guard_on: bool,
    pub guard_changes: u64,
    /// Up to here the standby is proven to have everything on its disk.
    pub confirmed: u64,
    /// The epoch under whose name standbys count.
    pub epoch: u64,
    /// Whose standby it was told to be, and that primary's epoch.
    pub following: Option<(NodeId, u64)>,
    /// Clients were shut out for a hand-over that failed: let them in once the standby has
    /// confirmed this.
    pub reopen_at: Option<u64>,
    /// Where in the log this run began, in bytes.
    pub log_offset: u64,
}

/// Shared by the tasks of one agent.
pub(super) struct Context<L> {
    pub settings: MariaSettings,
    pub launcher: L,
    pub events: mpsc::Sender<DataObservation>,
    /// Held while the guard, or who is let in, changes: what looks after both must not undo a change.
    pub changing: tokio::sync::Mutex<()>,
    /// Makes the monitor look at once.
    pub look: Notify,
    /// Makes the marker try whether the standby has everything.
    pub mark: Notify,
    members: Mutex<Vec<MariaMember>>,
    server: Mutex<Server>,
    exits: watch::Sender<BTreeMap<String, Exit>>,
}

pub(super) type Shared<L> = Arc<Context<L>>;

impl<L: Launcher> Context<L> {
    pub fn new(settings: MariaSettings, launcher: L, events: mpsc::Sender<DataObservation>) -> Shared<L> {
        let server = Server {
            phase: Phase::Down,
            pid: 0,
            running: Running::Standby,
            guard_on: false,
            guard_changes: 0,
            confirmed: 0,
            epoch: 0,
            following: None,
            reopen_at: None,
            log_offset: 0,
        };
        Arc::new(Context {
            members: Mutex::new(settings.members.clone()),
            settings,
            launcher,
            events,
            changing: tokio::sync::Mutex::new(()),
            look: Notify::new(),
            mark: Notify::new(),
            server: Mutex::new(server),
            exits: watch::Sender::new(BTreeMap::new()),
        })
    }

    /// The server's state; never held across an await.
    pub fn server(&self) -> MutexGuard<'_, Server> {
        self.server.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub fn members(&self) -> Vec<MariaMember> {
        self.members.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    pub fn set_members(&self, members: Vec<MariaMember>) {
        *self.members.lock().unwrap_or_else(PoisonError::into_inner) = members;
    }

    pub fn member(&self, id: NodeId) -> Result<MariaMember> {
        let found = self.members().into_iter().find(|member| member.id == id);
        found.ok_or_else(|| MariaError::other(format!("node {id} holds no copy of {}", self.settings.name)))
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

    pub fn require_up(&self) -> Result<()> {
        match self.server().phase {
            Phase::Up => Ok(()),
            _ => Err(MariaError::other("no server of ours runs")),
        }
    }
}
