//! The PostgreSQL agent: one copy of the database on this node.
//!
//! It runs `postgres` itself, with files of its own that include the administrator's, and carries
//! out one command of the core at a time. Every wait has a deadline; nothing here blocks the
//! runtime's thread. What is imposed on the server, and why: docs/internals/postgresql.md.

pub(crate) mod access;
mod account;
mod agent;
pub(crate) mod conf;
mod context;
pub(crate) mod control;
pub(crate) mod copy;
pub(crate) mod divergent;
pub(crate) mod error;
pub(super) mod files;
mod guard;
mod inspect;
pub(super) mod layout;
mod monitor;
pub(crate) mod names;
mod prepare;
mod probe;
mod program;
mod provision;
mod reload;
mod rewind;
mod role;
mod scram;
mod server;
mod session;
mod settings;
mod source;
mod upkeep;
pub(crate) mod wal;

use super::launcher::{Exit, Launcher};
use oarlock_core::resource::database::{DataCommand, DataObservation};
pub use settings::{Member, PgSettings, PgTiming, ServerUser, UserFiles, debian_bin_dir};
use tokio::sync::mpsc;

/// The agent's task.
pub struct PgAgent;

/// What is sent to the agent's task.
#[derive(Debug)]
enum Message {
    Command(DataCommand),
    Exited(Exit),
    Members(Vec<Member>),
}

/// The way to a running agent. The agent ends when the last handle is dropped; its server does not.
#[derive(Clone, Debug)]
pub struct PgHandle {
    messages: mpsc::UnboundedSender<Message>,
}

impl PgAgent {
    /// Starts the agent on the current runtime. It does nothing before its first command.
    pub fn spawn(settings: PgSettings, launcher: impl Launcher, events: mpsc::Sender<DataObservation>) -> PgHandle {
        let (messages, inbox) = mpsc::unbounded_channel();
        let context = context::Context::new(settings, launcher, events);
        tokio::spawn(agent::Agent::new(context).run(inbox));
        PgHandle { messages }
    }
}

impl PgHandle {
    /// Gives a command. The answer comes as an observation.
    pub fn send(&self, command: DataCommand) {
        let _ = self.messages.send(Message::Command(command));
    }

    /// Routes the notice that a process ended; names that are not this resource's are ignored.
    pub fn exited(&self, exit: Exit) {
        let _ = self.messages.send(Message::Exited(exit));
    }

    /// The members changed, or the order in which their links are best used: a standby whose
    /// upstream is better reached over another link reconnects at once.
    pub fn set_members(&self, members: Vec<Member>) {
        let _ = self.messages.send(Message::Members(members));
    }
}
