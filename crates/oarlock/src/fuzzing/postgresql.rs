//! What PostgreSQL and its tools tell, and what the agent reads back of its own files.

use super::{Meaning, Outcome, choice, chosen, read, text};
use crate::agents::postgresql::access::{absolute_references, headline, parse_state};
use crate::agents::postgresql::conf;
use crate::agents::postgresql::control::{self, format_lsn, parse_lsn};
use crate::agents::postgresql::copy;
use crate::agents::postgresql::divergent::History;
use crate::agents::postgresql::names::epoch_of;
use crate::agents::postgresql::wal::{Log, Tail};
use std::path::Path;

/// The output of `pg_controldata`.
pub fn controldata(bytes: &[u8]) -> Outcome {
    control::parse(&text(bytes)).map_err(|error| error.in_words()).and_then(read)
}

/// The output of `pg_waldump`, with the position it is asked about in the first eight bytes.
pub fn waldump(bytes: &[u8]) -> Outcome {
    let (from, rest) = bytes.split_first_chunk().ok_or("no position")?;
    let log = Log { dir: "/".into(), timeline: 3, segment: 1 << 24, page: 8192 };
    let from = oarlock_core::resource::database::Position(u64::from_le_bytes(*from));
    match log.judge(&text(rest), from, false, "") {
        Tail::Unread(reason) => Err(reason),
        seen => read(seen),
    }
}

/// A timeline's history file; the first byte is the timeline.
pub fn history(bytes: &[u8]) -> Outcome {
    let (current, rest) = choice(bytes);
    let history = History::parse(&text(rest), current.into()).map_err(|error| error.in_words())?;
    let lines = history.past.iter().map(|(number, end)| format!("{number}\t{}\n", format_lsn(*end)));
    chosen(current, Ok(Meaning::Encoded(lines.collect::<String>().into_bytes())))
}

/// Positions, and files of our own that are read back.
pub fn generated(bytes: &[u8]) -> Outcome {
    let (first, rest) = choice(bytes);
    let given = text(rest);
    let again = match first % 6 {
        0 => format_lsn(parse_lsn(&given).ok_or("not a position")?),
        1 => {
            let (dynamic, generation) = conf::parse(&given).ok_or("no generated configuration")?;
            conf::text(Path::new("/etc/user.conf"), &dynamic, generation)
        }
        2 => {
            let (clients, generation) = parse_state(&given).ok_or("no generated access file")?;
            headline(clients, generation)
        }
        3 => format!("{}\nnode n", copy::parse(&given, "n").ok_or("no copy of this node")?),
        4 => return read((epoch_of(&given), absolute_references(&given, Path::new("/d")))),
        _ => {
            let kept = conf::without_overrides(&given).ok_or("nothing is overridden")?;
            assert_eq!(conf::without_overrides(&kept), None);
            return read(kept);
        }
    };
    chosen(first, Ok(Meaning::Encoded(again.into_bytes())))
}
