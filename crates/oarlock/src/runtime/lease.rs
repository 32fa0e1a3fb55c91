//! Tells the sentinel of generations and deadlines, in order, and the loop that it heard.

use super::Inner;
use crate::sentinel::SentinelHandle;
use oarlock_core::sentinel::{Reply, Request};
use oarlock_core::time::Mono;
use std::time::Duration;
use tokio::sync::mpsc;

/// The sentinel answers from memory.
const ANSWER_DEADLINE: Duration = Duration::from_millis(500);

/// One thing to tell.
#[derive(Debug)]
pub enum Step {
    /// The lease of this generation lasts until then.
    Arm {
        /// The generation.
        generation: u64,
        /// The deadline.
        deadline: Mono,
        /// Nothing older than this may be acted on.
        floor_index: u64,
    },
    /// An epoch of a group was given back.
    Released {
        /// The group.
        group: String,
        /// The epoch.
        epoch: u64,
        /// As above.
        floor_index: u64,
    },
}

/// Tells one step after the other until the loop is gone.
pub async fn tell(sentinel: SentinelHandle, mut steps: mpsc::UnboundedReceiver<Step>, inner: mpsc::Sender<Inner>) {
    let mut known_generation = 0;
    let mut known_floor = 0;
    while let Some(step) = steps.recv().await {
        match step {
            Step::Arm { generation, deadline, floor_index } => {
                if generation != known_generation && ask(&sentinel, Request::NewGeneration { generation }).await {
                    known_generation = generation;
                }
                if floor_index > known_floor
                    && ask(&sentinel, Request::Floor { applied_index: floor_index, released: None }).await
                {
                    known_floor = floor_index;
                }
                if ask(&sentinel, Request::Lease { generation, deadline_us: deadline.0 }).await
                    && inner.send(Inner::LeaseArmed(generation)).await.is_err()
                {
                    return;
                }
            }
            Step::Released { group, epoch, floor_index } => {
                ask(&sentinel, Request::Floor { applied_index: floor_index, released: Some((group, epoch)) }).await;
            }
        }
    }
}

async fn ask(sentinel: &SentinelHandle, request: Request) -> bool {
    match sentinel.request(request, ANSWER_DEADLINE).await {
        Ok(Reply::Done | Reply::LeaseArmed { .. }) => true,
        Ok(Reply::Refused(refusal)) => {
            tracing::warn!("sentinel: {refusal}");
            false
        }
        Ok(other) => {
            tracing::error!("the sentinel answered with {other:?}");
            false
        }
        Err(error) => {
            tracing::error!("{}", crate::causes::with_causes(&error));
            false
        }
    }
}
