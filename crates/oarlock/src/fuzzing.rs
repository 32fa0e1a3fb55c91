//! The door through which fuzzing reaches the decoders of the shell. No program of ours uses it.
//!
//! Every decoder here has one form: it is given bytes and either says in words why they are none
//! of its, or gives what it understood, as bytes that mean the same where it can write them
//! ([`Meaning::Encoded`]) and as text for people where it only reads.

mod machine;
mod network;
mod postgresql;

use crate::config;
use crate::control::{Request, Response, frame};
use crate::enrol::Invitation;
use crate::enrol::bundle::checked;
use crate::enrol::serve::{Ask, Tell};
use crate::enrol::token::{Token, hash};
use crate::keys::{PrivateKey, PublicKey};
use crate::runtime::envelope::Envelope;
use crate::store::format;
use crate::store::{Owner, StoreId};
use serde::Serialize;
use serde::de::DeserializeOwned;
use std::fmt::Debug;
use std::fmt::Display;

pub use machine::{oar, proc_files};
pub use network::{bundle, chunks, datagram, frames, handshake};
pub use postgresql::{controldata, generated, history, waldump};

/// What a decoder understood.
#[derive(Debug, PartialEq, Eq)]
pub enum Meaning {
    /// Written again by its encoder: decoded once more it must give the same.
    Encoded(Vec<u8>),
    /// What there is no encoder for.
    Read(String),
}

/// What becomes of bytes; the error is in words.
pub type Outcome = Result<Meaning, String>;

fn words(error: impl Display) -> String {
    error.to_string()
}

fn read(value: impl Debug) -> Outcome {
    Ok(Meaning::Read(format!("{value:?}")))
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// A first byte that chooses among decoders, and the rest.
fn choice(bytes: &[u8]) -> (u8, &[u8]) {
    bytes.split_first().map_or((0, bytes), |(first, rest)| (*first, rest))
}

/// The same choice before what a decoder wrote.
fn chosen(first: u8, outcome: Outcome) -> Outcome {
    outcome.map(|meaning| match meaning {
        Meaning::Encoded(bytes) => Meaning::Encoded([&[first], bytes.as_slice()].concat()),
        read => read,
    })
}

fn postcard_of<T: Serialize + DeserializeOwned>(bytes: &[u8]) -> Outcome {
    let value: T = postcard::from_bytes(bytes).map_err(words)?;
    postcard::to_stdvec(&value).map(Meaning::Encoded).map_err(words)
}

fn json_of<T: Serialize + DeserializeOwned>(bytes: &[u8]) -> Outcome {
    let value: T = frame::decode(bytes).map_err(words)?;
    serde_json::to_vec(&value).map(Meaning::Encoded).map_err(words)
}

/// A message of another agent, after the transport has authenticated it.
pub fn envelope(bytes: &[u8]) -> Outcome {
    Envelope::decode(bytes).map_err(words)?.encode().map(Meaning::Encoded).map_err(words)
}

/// What comes over the control socket: a frame's length, a request, an answer.
pub fn control(bytes: &[u8]) -> Outcome {
    let (first, rest) = choice(bytes);
    chosen(
        first,
        match (first % 3, rest.first_chunk()) {
            (0, _) => json_of::<Request>(rest),
            (1, _) => json_of::<Response>(rest),
            (_, Some(length)) => read(frame::body_length(*length, frame::REQUEST_MAX_BYTES).map_err(words)?),
            (_, None) => Err("no length".to_owned()),
        },
    )
}

/// The configuration file. All its problems must be told, each with a line that exists.
pub fn configuration(bytes: &[u8]) -> Outcome {
    let text = text(bytes);
    let last = u32::try_from(text.split('\n').count()).unwrap_or(u32::MAX);
    match config::parse("oarlock.toml", &text) {
        Ok(settings) => read(settings),
        Err(problems) => {
            let told = problems.list().iter();
            let placed = told.clone().all(|problem| (1..=last).contains(&problem.line) && !problem.text.is_empty());
            assert!(placed && problems.has_errors(), "{problems:?}");
            Err(problems.to_string())
        }
    }
}

/// A token as it is typed for `join`, or its content with a check that fits; and keys.
pub fn token(bytes: &[u8]) -> Outcome {
    let (first, rest) = choice(bytes);
    let typed = text(rest);
    let again = match first % 4 {
        0 => typed.parse::<Token>().map_err(words)?.to_string(),
        1 => {
            let sealed = [rest, &hash(b"oarlock token check", rest)[..4]].concat();
            let token = Token::from_bytes(&sealed).map_err(words)?.to_string();
            let once_more = token.parse::<Token>().map(|token| token.to_string());
            // Longer than `init` ever makes them, it is refused as typed.
            assert!(once_more.as_ref() == Ok(&token) || token.len() > 400, "{token}");
            return Ok(Meaning::Read(token));
        }
        2 => typed.parse::<PublicKey>().map_err(words)?.to_string(),
        _ => PrivateKey::from_text(&typed).map_err(words)?.file_text(),
    };
    chosen(first, Ok(Meaning::Encoded(again.into_bytes())))
}

/// What the two ends say while a machine joins, and the file of who is invited.
pub fn join(bytes: &[u8]) -> Outcome {
    let (first, rest) = choice(bytes);
    chosen(
        first,
        match first % 3 {
            0 => postcard_of::<Ask>(rest),
            1 => {
                if let Ok(Tell::Bundle(bundle)) = postcard::from_bytes(rest) {
                    let outside = |path: &str| path.starts_with('/') || path.split('/').any(|part| part == "..");
                    let escapes = bundle.files.iter().any(|file| checked(&file.path).is_ok() && outside(&file.path));
                    assert!(!escapes, "{bundle:?}");
                }
                postcard_of::<Tell>(rest)
            }
            _ => {
                let invitation: Invitation = toml::from_str(&text(rest)).map_err(words)?;
                let _ = invitation.secret();
                toml::to_string(&invitation).map(|text| Meaning::Encoded(text.into_bytes())).map_err(words)
            }
        },
    )
}

/// The files of a voter's memory, each part on its own: slot, mark, identity.
pub fn memory(bytes: &[u8]) -> Outcome {
    let (first, rest) = choice(bytes);
    let store = StoreId([7; 16]);
    let encoded = |bytes: Vec<u8>| chosen(first, Ok(Meaning::Encoded(bytes)));
    match first % 4 {
        0 => {
            let slot = format::decode_slot(store, rest).ok_or("not a slot")?;
            encoded(format::encode_slot(store, slot.generation, &slot.record).0)
        }
        1 => encoded(format::encode_mark(store, format::decode_mark(store, rest).ok_or("not a mark")?)),
        2 => {
            let (stage, id, owner) = format::decode_identity(&text(rest)).ok_or("not an identity")?;
            encoded(format::encode_identity(stage, id, &owner).into_bytes())
        }
        _ => {
            let owner = Owner { cluster: text(rest), node: "n".to_owned() };
            let (slot, _) = format::encode_slot(store, u64::from(first), rest);
            let back = format::decode_slot(store, &slot);
            assert!(back.as_ref().is_some_and(|slot| slot.record == rest), "{back:?}");
            let damaged = slot.split_last().and_then(|(_, cut)| format::decode_slot(store, cut));
            assert_eq!(damaged, None);
            let identity = format::encode_identity(format::Stage::Ready, store, &owner);
            let known = format::decode_identity(&identity);
            // Such names are refused in a configuration.
            assert!(known.is_some() || owner.cluster.contains(['\n', '\r']), "{identity:?}");
            read(known)
        }
    }
}
