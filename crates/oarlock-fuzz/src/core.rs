//! Decoders of the core: what a voter has saved, what agent and sentinel tell each other, and what
//! a voter makes of messages that are well formed and senseless.

use oarlock::fuzzing::{Meaning, Outcome};
use oarlock_core::Rules;
use oarlock_core::config::{Config, NodeConfig, Timing};
use oarlock_core::durable::Durable;
use oarlock_core::entry::Entry;
use oarlock_core::ids::NodeId;
use oarlock_core::lease::{Holder, Voter};
use oarlock_core::message::Message;
use oarlock_core::sentinel::{FromSentinel, Record, ToSentinel};
use oarlock_core::state::State;
use oarlock_core::time::{Mono, Span};
use serde::Serialize;
use serde::de::DeserializeOwned;
use std::collections::BTreeMap;

/// Reads with the decoder that the first byte chooses, and writes again.
fn postcard_of<T: Serialize + DeserializeOwned>(first: u8, rest: &[u8]) -> Outcome {
    let value: T = postcard::from_bytes(rest).map_err(|error| error.to_string())?;
    let again = postcard::to_stdvec(&value).map_err(|error| error.to_string())?;
    Ok(Meaning::Encoded([&[first], again.as_slice()].concat()))
}

fn choice(bytes: &[u8]) -> (u8, &[u8]) {
    bytes.split_first().map_or((0, bytes), |(first, rest)| (*first, rest))
}

/// The record of a voter's memory, one entry of its log, the whole state of a snapshot.
pub fn voter_state(bytes: &[u8]) -> Outcome {
    let (first, rest) = choice(bytes);
    match first % 3 {
        0 => postcard_of::<Durable>(first, rest),
        1 => {
            if let Ok(entry) = postcard::from_bytes::<Entry>(rest) {
                let mut state = begin();
                state.apply(&entry);
                state.apply(&entry);
            }
            postcard_of::<Entry>(first, rest)
        }
        _ => postcard_of::<State>(first, rest),
    }
}

/// Both directions of the socket between agent and sentinel, and the sentinel's record on file.
pub fn sentinel(bytes: &[u8]) -> Outcome {
    let (first, rest) = choice(bytes);
    match first % 3 {
        0 => postcard_of::<ToSentinel>(first, rest),
        1 => postcard_of::<FromSentinel>(first, rest),
        _ => {
            let record: Record = serde_json::from_slice(rest).map_err(|error| error.to_string())?;
            let again = serde_json::to_vec(&record).map_err(|error| error.to_string())?;
            Ok(Meaning::Encoded([&[first], again.as_slice()].concat()))
        }
    }
}

/// A voter and a holder that are told, one after the other, whatever the messages say.
pub fn voter(bytes: &[u8]) -> Outcome {
    let state = begin();
    let timing = state.config.timing;
    let mut voter = Voter::new(Mono(0), timing.lease, BTreeMap::new());
    let mut holder = Holder::new(1);
    holder.begin(1);
    let (mut now, mut rest, mut heard) = (Mono(0), bytes, 0);
    while let Some((wait, after)) = rest.split_first() {
        now += Span::from_ms(u64::from(*wait));
        let (message, after) = postcard::take_from_bytes::<Message>(after).map_err(|error| error.to_string())?;
        rest = after;
        heard += 1;
        let _ = holder.renew(now, &state.voters, timing.lease, timing.heartbeat);
        match &message {
            Message::Renew(renew) => {
                let reply = voter.on_renew(now, NodeId(2), renew, &state);
                voter.saved(voter.lease_max());
                let _ = (reply, voter.shorten(now, timing.lease), voter.on_renew(now, NodeId(2), renew, &state));
            }
            Message::Acked(renew) => drop(holder.acknowledged(NodeId(2), renew, &state.voters)),
            Message::PromiseWanted(wish) | Message::Promised(wish) => {
                let _ = voter.promise(now, wish, &state, Rules::default());
            }
            _ => {}
        }
        holder.expire(now);
    }
    Ok(Meaning::Read(format!("{heard} {:?}", holder.deadline())))
}

fn begin() -> State {
    let node = |id| NodeConfig { id: NodeId(id), name: format!("n{id}"), witness: id == 3 };
    let mut state = State::begin(Config {
        generation: 1,
        text: "".into(),
        cluster: "c".into(),
        timing: Timing::FAST,
        nodes: (1..=3).map(node).collect(),
        groups: Vec::new(),
    });
    for id in 1..=3 {
        state.apply(&Entry::Alive { node: NodeId(id), from: 0, to: 1, incarnation: 1 });
    }
    state
}
