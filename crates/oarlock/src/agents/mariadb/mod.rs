//! The MariaDB agent: one copy of the database on this node.
//!
//! It runs `mariadbd` itself, with a configuration file of its own, and carries out one command of
//! the core at a time. Copies are kept equal by GTID replication, semi-synchronous with AFTER_SYNC;
//! no commit is acknowledged before the standby has it on its disk, however long that takes, unless
//! the core has ordered otherwise. What is imposed on the server, and why: docs/internals/mariadb.md.

mod accounts;
mod agent;
mod binlog;
mod conf;
mod context;
mod donor;
mod error;
mod guard;
mod inspect;
mod monitor;
mod probe;
mod processes;
mod program;
mod progress;
mod receiver;
mod rejoin;
mod relay;
mod role;
mod senders;
mod server;
mod session;
mod settings;
mod tail;
mod upkeep;

use super::launcher::{Exit, Launcher};
use oarlock_core::resource::database::{DataCommand, DataObservation};
pub use settings::{MariaMember, MariaSettings};
use tokio::sync::mpsc;

/// The agent's task.
pub struct MariaAgent;

/// What is sent to the agent's task.
#[derive(Debug)]
enum Message {
    Command(DataCommand),
    Exited(Exit),
    Members(Vec<MariaMember>),
}

/// The way to a running agent. The agent ends when the last handle is dropped; its server does not.
#[derive(Clone, Debug)]
pub struct MariaHandle {
    messages: mpsc::UnboundedSender<Message>,
}

impl MariaAgent {
    /// Starts the agent on the current runtime. It does nothing before its first command, but lets
    /// the other members copy a primary.
    pub fn spawn(
        settings: MariaSettings,
        launcher: impl Launcher,
        events: mpsc::Sender<DataObservation>,
    ) -> MariaHandle {
        let (messages, inbox) = mpsc::unbounded_channel();
        let context = context::Context::new(settings, launcher, events);
        tokio::spawn(agent::Agent::new(context).run(inbox));
        MariaHandle { messages }
    }
}

impl MariaHandle {
    /// Gives a command. The answer comes as an observation.
    pub fn send(&self, command: DataCommand) {
        let _ = self.messages.send(Message::Command(command));
    }

    /// Routes the notice that a process ended; names that are not this resource's are ignored.
    pub fn exited(&self, exit: Exit) {
        let _ = self.messages.send(Message::Exited(exit));
    }

    /// The members changed, or the order in which their links are best used. A standby takes the
    /// new order over when it is told to follow next.
    pub fn set_members(&self, members: Vec<MariaMember>) {
        let _ = self.messages.send(Message::Members(members));
    }
}
