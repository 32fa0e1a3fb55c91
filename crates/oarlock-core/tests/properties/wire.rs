//! What travels and what is saved: encoded and decoded it is the same, and no bytes make us panic.

use super::any;
use oarlock_core::consensus::{Frame, Log, LogEntry, Snapshot};
use oarlock_core::durable::Durable;
use oarlock_core::entry::Entry;
use oarlock_core::ids::VoterId;
use oarlock_core::message::{Message, Promise, Renew, Report};
use oarlock_core::request::{Answer, Request};
use oarlock_core::sentinel::{FromSentinel, Record, ToSentinel};
use oarlock_core::state::State;
use oarlock_core::status::Status;
use oarlock_core::time::Span;
use proptest::collection::{btree_map, vec};
use proptest::option;
use proptest::prelude::*;
use serde::Serialize;
use serde::de::DeserializeOwned;
use std::fmt::Debug;
use std::sync::Arc;

fn renew() -> impl Strategy<Value = Renew> {
    let fields = (any::<[u64; 6]>(), any::<bool>());
    fields.prop_map(|([incarnation, generation, voters_version, sequence, lease, beacon], firm)| Renew {
        incarnation,
        generation,
        voters_version,
        sequence,
        lease: Span(lease),
        firm,
        beacon,
    })
}

fn promise() -> impl Strategy<Value = Promise> {
    (any::node(), any::<u64>(), any::<u64>()).prop_map(|(node, generation, voters_version)| Promise {
        node,
        generation,
        voters_version,
    })
}

fn log_entry() -> impl Strategy<Value = LogEntry> {
    (any::<u64>(), any::<u64>(), any::<u8>(), vec(any::<u8>(), 0..20)).prop_map(|(index, term, kind, data)| LogEntry {
        index,
        term,
        kind,
        data,
    })
}

fn snapshot() -> impl Strategy<Value = Snapshot> {
    (any::<u64>(), any::<u64>(), vec(any::<u8>(), 0..5), vec(any::<u8>(), 0..5), vec(any::<u8>(), 0..20))
        .prop_map(|(index, term, voters, learners, data)| Snapshot { index, term, voters, learners, data })
}

/// A frame's fields are its own affair: made from bytes of the same form.
fn frame() -> impl Strategy<Value = Frame> {
    let head = (any::<[u8; 2]>(), any::<[u64; 3]>(), vec(log_entry(), 0..4), any::<[u64; 2]>());
    let tail =
        (option::of(snapshot()), any::<u64>(), any::<bool>(), any::<u64>(), vec(any::<u8>(), 0..9), any::<i64>());
    (head, tail).prop_map(|form| {
        let bytes = postcard::to_stdvec(&form).expect("encodes");
        postcard::from_bytes(&bytes).expect("a frame")
    })
}

fn message() -> impl Strategy<Value = Message> {
    prop_oneof![
        renew().prop_map(Message::Renew),
        renew().prop_map(Message::Acked),
        any::<[u64; 2]>().prop_map(|[generation, above]| Message::Refused { generation, above }),
        promise().prop_map(Message::PromiseWanted),
        promise().prop_map(Message::Promised),
        any::<[u64; 3]>().prop_map(|[nonce, applied, voter]| Message::Beacon { nonce, applied, voter: VoterId(voter) }),
        any::<[u64; 2]>().prop_map(|[nonce, voter]| Message::Enrol { nonce, voter: VoterId(voter) }),
        (any::node(), any::<[u64; 2]>()).prop_map(|(node, [from, to])| Message::Disown {
            node,
            from: VoterId(from),
            to: VoterId(to)
        }),
        any::<[u64; 4]>().prop_map(|[nonce, generation, incarnation, above]| Message::WantAlive {
            nonce,
            generation,
            incarnation,
            above
        }),
        any::entry().prop_map(|entry| Message::Propose(Box::new(entry))),
        (any::<[u64; 2]>(), frame()).prop_map(|([from, to], frame)| Message::Raft {
            from: VoterId(from),
            to: VoterId(to),
            frame: Box::new(frame)
        }),
        any::report().prop_map(Message::Report),
    ]
}

fn durable() -> impl Strategy<Value = Durable> {
    let promised = btree_map(any::node(), any::<(u64, u64)>(), 0..4);
    (any::node(), any::state(), any::<[u64; 5]>(), vec(log_entry(), 0..4), promised, any::<u64>()).prop_map(
        |(me, state, [term, vote, commit, base_index, base_term], entries, promised, lease_max)| Durable {
            me,
            voter: VoterId(term),
            log: Log { state: Arc::new(state), term, vote, commit, base_index, base_term, entries },
            promised,
            lease_max: Span(lease_max),
        },
    )
}

fn survives<T: Serialize + DeserializeOwned + PartialEq + Debug>(what: &T) -> Result<(), TestCaseError> {
    let bytes = postcard::to_stdvec(what).expect("encodes");
    let decoded: T = postcard::from_bytes(&bytes).map_err(|error| TestCaseError::fail(error.to_string()))?;
    prop_assert_eq!(&decoded, what);
    Ok(())
}

/// Bytes that are such a thing stand for it; bytes that are not are refused, without a panic.
fn is_harmless<T: Serialize + DeserializeOwned + PartialEq + Debug>(bytes: &[u8]) -> Result<(), TestCaseError> {
    postcard::from_bytes::<T>(bytes).map_or(Ok(()), |decoded| survives(&decoded))
}

fn are_harmless(bytes: &[u8]) -> Result<(), TestCaseError> {
    is_harmless::<Message>(bytes)?;
    is_harmless::<Frame>(bytes)?;
    is_harmless::<Entry>(bytes)?;
    is_harmless::<Report>(bytes)?;
    is_harmless::<State>(bytes)?;
    is_harmless::<Durable>(bytes)?;
    is_harmless::<Request>(bytes)?;
    is_harmless::<Answer>(bytes)?;
    is_harmless::<Status>(bytes)?;
    is_harmless::<ToSentinel>(bytes)?;
    is_harmless::<FromSentinel>(bytes)?;
    is_harmless::<Record>(bytes)
}

/// A valid encoding with a few bytes changed and its end cut off.
fn damaged(mut bytes: Vec<u8>, changes: &[(usize, u8)], cut: usize) -> Vec<u8> {
    let length = bytes.len().max(1);
    for (at, to) in changes {
        if let Some(byte) = bytes.get_mut(at % length) {
            *byte = *to;
        }
    }
    bytes.truncate(bytes.len() - cut.min(bytes.len()));
    bytes
}

fn damage() -> impl Strategy<Value = (Vec<(usize, u8)>, usize)> {
    (vec((any::<usize>(), any::<u8>()), 0..4), 0_usize..6)
}

proptest! {
    #![proptest_config(crate::cases(500))]

    #[test]
    fn messages_survive(message in message()) {
        survives(&message)?;
    }

    #[test]
    fn entries_survive(entry in any::entry()) {
        survives(&entry)?;
    }

    #[test]
    fn what_a_voter_saves_survives(durable in durable()) {
        let bytes = durable.encode().expect("encodes");
        prop_assert_eq!(Durable::decode(&bytes).expect("decodes"), durable);
    }

    #[test]
    fn any_bytes_are_harmless(bytes in vec(any::<u8>(), 0..200)) {
        are_harmless(&bytes)?;
    }

    #[test]
    fn damaged_bytes_are_harmless(message in message(), durable in durable(), (changes, cut) in damage()) {
        are_harmless(&damaged(postcard::to_stdvec(&message).expect("encodes"), &changes, cut))?;
        are_harmless(&damaged(durable.encode().expect("encodes"), &changes, cut))?;
    }
}

/// Lengths that promise more than there is must not be believed.
#[test]
fn a_huge_length_is_refused() {
    let mut bytes = postcard::to_stdvec(&Message::Report(Report::default())).expect("encodes");
    bytes.truncate(bytes.len() - 1);
    bytes.extend([0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x7f]);
    assert!(postcard::from_bytes::<Message>(&bytes).is_err());
}
