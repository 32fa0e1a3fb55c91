//! Tells the sentinel of generations and deadlines, in order, and the loop that it heard.
//!
//! Two waits belong together here. The core renews no lease while an answer is missing for more than
//! one heartbeat (PROTOCOL, rule 1), so a slow sentinel costs renewals and nothing else: its answer
//! still counts when it comes. A sentinel that is silent for a third of the lease is stopped or hangs
//! and is replaced ([`SentinelHandle::insist`]).

use super::Inner;
use crate::process::clock::boot_us;
use crate::sentinel::{Patience, SentinelError, SentinelHandle};
use oarlock_core::config::Timing;
use oarlock_core::ids::GroupId;
use oarlock_core::sentinel::{Reply, Request};
use oarlock_core::time::Mono;
use std::time::Duration;
use tokio::sync::mpsc;

/// How often a sentinel is looked after that holds no lease.
const IDLE: Duration = Duration::from_secs(1);

/// One thing to tell.
#[derive(Debug)]
pub enum Step {
    /// The lease of this generation lasts until then.
    Arm {
        /// The generation.
        generation: u64,
        /// The deadline.
        deadline: Mono,
        /// It takes the place of a later one.
        shortens: bool,
        /// Nothing older than this may be acted on.
        floor_index: u64,
    },
    /// An epoch of a group is given up: nothing may start under it any more.
    Seal {
        /// The group.
        group: GroupId,
        /// Its name, by which the sentinel knows it.
        name: String,
        /// The epoch.
        epoch: u64,
    },
    /// This much of the log was acted on.
    Floor {
        /// Up to where.
        floor_index: u64,
    },
    /// The cluster keeps other times from now on.
    Timing(Timing),
    /// All before this is told: the loop may end, for the agent to start anew.
    Restart,
}

/// Who tells.
pub struct Teller {
    sentinel: SentinelHandle,
    inner: mpsc::Sender<Inner>,
    heartbeat: Duration,
    patience: Patience,
    generation: u64,
    floor_index: u64,
    /// What the sentinel holds, on its clock.
    deadline: Mono,
}

impl Teller {
    /// Has told nothing yet.
    pub fn new(sentinel: SentinelHandle, timing: &Timing, inner: mpsc::Sender<Inner>) -> Teller {
        let (heartbeat, patience) = waits(timing);
        Teller { sentinel, inner, heartbeat, patience, generation: 0, floor_index: 0, deadline: Mono(0) }
    }

    /// Tells one step after the other until the loop is gone.
    pub async fn tell(mut self, mut steps: mpsc::UnboundedReceiver<Step>) {
        loop {
            // A lease that nobody renews any more must be watched to its end all the same.
            let held = boot_us() < self.deadline.0;
            let pause = if held { self.heartbeat * 2 } else { IDLE };
            let told = match tokio::time::timeout(pause, steps.recv()).await {
                Ok(Some(step)) => self.step(step).await,
                Ok(None) => return,
                Err(_elapsed) => self.ask(Request::Hello).await.map(drop),
            };
            if told.is_none() {
                // Killed for its silence, or dead: the loop is told by the end of the notices. One that
                // cannot die yet is tried again.
                tokio::time::sleep(self.heartbeat).await;
            }
        }
    }

    /// `None`: the sentinel does not answer.
    async fn step(&mut self, step: Step) -> Option<()> {
        match step {
            Step::Arm { generation, deadline, shortens, floor_index } => {
                if generation != self.generation && self.ask(Request::NewGeneration { generation }).await? {
                    self.generation = generation;
                }
                self.raise_floor(floor_index).await?;
                let deadline_us = deadline.0;
                let (request, armed) = match shortens {
                    true => (Request::Shorten { generation, deadline_us }, Inner::LeaseShortened),
                    false => (Request::Lease { generation, deadline_us }, Inner::LeaseArmed(generation)),
                };
                if self.ask(request).await? {
                    self.deadline = deadline;
                    let _ = self.inner.send(armed).await;
                }
            }
            Step::Seal { group, name, epoch } => {
                let request = Request::Floor { applied_index: self.floor_index, released: Some((name, epoch)) };
                let refused = self.hear(request).await?.err();
                let _ = self.inner.send(Inner::Sealed { group, epoch, refused }).await;
            }
            Step::Floor { floor_index } => self.raise_floor(floor_index).await?,
            Step::Restart => {
                let _ = self.inner.send(Inner::Restart).await;
            }
            Step::Timing(timing) => (self.heartbeat, self.patience) = waits(&timing),
        }
        Some(())
    }

    async fn raise_floor(&mut self, floor_index: u64) -> Option<()> {
        let floor = Request::Floor { applied_index: floor_index, released: None };
        if floor_index > self.floor_index && self.ask(floor).await? {
            self.floor_index = floor_index;
        }
        Some(())
    }

    /// Whether it was done.
    async fn ask(&self, request: Request) -> Option<bool> {
        Some(self.hear(request).await?.is_ok())
    }

    /// That it was done, or why not.
    async fn hear(&self, request: Request) -> Option<Result<(), String>> {
        match self.sentinel.insist(request, self.patience).await {
            Ok(Reply::Done | Reply::LeaseArmed { .. } | Reply::Welcome(_)) => Some(Ok(())),
            Ok(Reply::Refused(refusal)) => {
                tracing::warn!("sentinel: {refusal}");
                Some(Err(refusal.to_string()))
            }
            Ok(other) => {
                tracing::error!("the sentinel answered with {other:?}");
                Some(Err("an answer that does not fit".to_owned()))
            }
            Err(SentinelError::Frame(error)) => {
                tracing::error!("{}", crate::causes::with_causes(&error));
                Some(Err(error.to_string()))
            }
            Err(error) => {
                tracing::error!("{}", crate::causes::with_causes(&error));
                None
            }
        }
    }
}

fn waits(timing: &Timing) -> (Duration, Patience) {
    let span = |span: oarlock_core::time::Span| Duration::from_micros(span.0);
    (span(timing.heartbeat), Patience::of_lease(span(timing.lease)))
}
