//! The agent's task: one command at a time, the end of the server, and the watchers beside it.

use super::Message;
use super::context::{Context, Phase, Shared};
use super::error::Result;
use super::probe::{self, Board};
use super::{donor, monitor, upkeep};
use crate::agents::launcher::{Exit, Launcher};
use oarlock_core::resource::database::{DataCommand, DataObservation};
use std::collections::VecDeque;
use tokio::sync::mpsc;
use tokio::task::{JoinHandle, JoinSet};

pub(super) struct Agent<L> {
    context: Shared<L>,
    /// The command under way.
    work: Option<JoinHandle<DataObservation>>,
    /// Commands that came too early.
    waiting: VecDeque<DataCommand>,
    /// What looks after a server that is up.
    watchers: JoinSet<()>,
    /// Which one that is.
    watched: Option<u32>,
}

impl<L: Launcher> Agent<L> {
    pub fn new(context: Shared<L>) -> Agent<L> {
        Agent { context, work: None, waiting: VecDeque::new(), watchers: JoinSet::new(), watched: None }
    }

    /// Runs until all handles are gone. The server stays.
    pub async fn run(mut self, mut inbox: mpsc::UnboundedReceiver<Message>) {
        // Ends with this task.
        let mut giving = JoinSet::new();
        giving.spawn(donor::listen(self.context.clone()));
        loop {
            tokio::select! {
                message = inbox.recv() => match message {
                    Some(message) => self.receive(message).await,
                    None => break,
                },
                answer = finished(&mut self.work) => self.answered(answer).await,
            }
        }
        if let Some(work) = self.work {
            work.abort();
        }
    }

    async fn receive(&mut self, message: Message) {
        match message {
            Message::Command(DataCommand::Kill) => {
                self.interrupt().await;
                self.begin(DataCommand::Kill);
            }
            Message::Command(command) if self.work.is_some() => self.waiting.push_back(command),
            Message::Command(command) => self.begin(command),
            Message::Exited(exit) => self.exited(exit).await,
            Message::Members(members) => {
                self.context.set_members(members);
                let context = self.context.clone();
                tokio::spawn(async move {
                    context.forget_lost().await;
                    if let Err(error) = context.reconnect().await {
                        tracing::warn!(resource = context.settings.name, "other links: {}", error.in_words());
                    }
                });
            }
        }
    }

    fn begin(&mut self, command: DataCommand) {
        let context = self.context.clone();
        self.work = Some(tokio::spawn(async move { context.carry_out(command).await }));
    }

    /// Ends the command under way; it is not answered.
    async fn interrupt(&mut self) {
        self.waiting.clear();
        if let Some(work) = self.work.take() {
            work.abort();
            let _ = work.await;
        }
    }

    async fn answered(&mut self, observation: DataObservation) {
        self.work = None;
        self.watch();
        self.context.tell(observation).await;
        if let Some(command) = self.waiting.pop_front() {
            self.begin(command);
        }
    }

    /// Starts the watchers of a server that is up, and ends those of one that is not.
    fn watch(&mut self) {
        let up = {
            let server = self.context.server();
            (server.phase == Phase::Up).then_some(server.pid)
        };
        if self.watched == up {
            return;
        }
        self.watched = up;
        self.watchers = JoinSet::new();
        if up.is_some() {
            let board = Board::new();
            self.watchers.spawn(monitor::watch(self.context.clone(), board.clone()));
            self.watchers.spawn(monitor::mark(self.context.clone()));
            self.watchers.spawn(upkeep::keep(self.context.clone()));
            self.watchers.spawn(probe::probe(self.context.clone(), board));
        }
    }

    async fn exited(&mut self, exit: Exit) {
        self.context.exited(exit.clone());
        let unexpected = {
            let server = self.context.server();
            exit.name == self.context.settings.name && exit.pid == server.pid && server.phase == Phase::Up
        };
        if !unexpected {
            return;
        }
        let said = self.context.last_words();
        self.interrupt().await;
        if let Err(error) = self.context.kill().await {
            tracing::error!("{}", error.in_words());
        }
        self.context.server().phase = Phase::Down;
        self.watch();
        let reason = format!("the server ended by itself ({}): {said}", exit.ended);
        self.context.tell(DataObservation::Exited { reason }).await;
    }
}

/// The answer of the command under way; never, when there is none.
async fn finished(work: &mut Option<JoinHandle<DataObservation>>) -> DataObservation {
    match work {
        Some(handle) => handle
            .await
            .unwrap_or_else(|error| DataObservation::Failed { reason: format!("the command broke off: {error}") }),
        None => std::future::pending().await,
    }
}

impl<L: Launcher> Context<L> {
    /// Carries a command out and says how it ended.
    async fn carry_out(&self, command: DataCommand) -> DataObservation {
        let start = std::time::Instant::now();
        let name = format!("{command:?}");
        let result = self.dispatch(command).await;
        let ms = u64::try_from(start.elapsed().as_millis()).unwrap_or(u64::MAX);
        let observation = result.unwrap_or_else(|error| DataObservation::Failed { reason: error.in_words() });
        tracing::debug!(resource = self.settings.name, ms, "{name}: {observation:?}");
        observation
    }

    async fn dispatch(&self, command: DataCommand) -> Result<DataObservation> {
        match command {
            DataCommand::Inspect => return self.inspect().await.map(DataObservation::Inspected),
            DataCommand::Initialize => self.initialize().await?,
            DataCommand::Clone { from } => self.clone_from(from).await?,
            DataCommand::Rewind { from } => self.rewind(from).await?,
            DataCommand::Follow { upstream, epoch } => {
                return self.follow(upstream, epoch).await.map(|()| DataObservation::Started);
            }
            DataCommand::StartPrimary { guard } => {
                return self.start_primary(guard).await.map(|()| DataObservation::Started);
            }
            DataCommand::Promote { guard } => return self.promote(guard).await.map(|()| DataObservation::Promoted),
            DataCommand::SetGuard { members, epoch } => {
                let position = self.set_guard(&members, epoch).await?;
                return Ok(DataObservation::GuardSet { position });
            }
            DataCommand::Open => return self.open().await.map(|()| DataObservation::Opened),
            DataCommand::HandOver { standby } => {
                return self.hand_over(standby).await.map(|()| DataObservation::Stopped);
            }
            DataCommand::Kill => return self.kill().await.map(|()| DataObservation::Stopped),
            DataCommand::Stop => return self.stop().await.map(|()| DataObservation::Stopped),
        }
        self.inspect().await.map(DataObservation::Inspected)
    }
}
