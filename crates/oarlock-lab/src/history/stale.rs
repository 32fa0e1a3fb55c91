//! Reads that did not see what had been acknowledged before they began.

use super::record::{History, Read, row_id};
use std::collections::BTreeMap;

/// A read that came too late for a row that it does not show.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Stale {
    /// Which reader.
    pub reader: u32,
    /// Whose row is missing.
    pub writer: u32,
    /// The newest row of that writer that had been acknowledged when the read began.
    pub acked: i64,
    /// The newest one that it showed, if any.
    pub shown: Option<i64>,
}

/// Every stale read through the service: who owns the address must show whatever anybody acknowledged
/// before. What a server shows that was asked by name may be old.
///
/// A writer numbers its rows upwards and writes one at a time, so its newest row stands for all before.
pub fn stale(history: &History) -> Vec<Stale> {
    let mut acked: BTreeMap<u32, Vec<(i64, i64)>> = BTreeMap::new();
    for attempt in history.acked() {
        acked.entry(attempt.writer).or_default().push((attempt.done.mono_us, attempt.id));
    }
    acked.values_mut().for_each(|rows| rows.sort_unstable());
    let found = |read: &Read, writer: u32, rows: &[(i64, i64)]| {
        let before = rows.partition_point(|(done_us, _)| *done_us <= read.begun.mono_us);
        let newest = rows.get(before.checked_sub(1)?)?.1;
        let shown = read.newest.iter().find(|(of, _)| *of == writer).map(|(_, id)| *id);
        let stale = shown.unwrap_or(row_id(writer, 0)) < newest;
        stale.then_some(Stale { reader: read.reader, writer, acked: newest, shown })
    };
    let of_read = |read| acked.iter().filter_map(move |(writer, rows)| found(read, *writer, rows));
    history.reads.iter().filter(|read| read.server.is_none()).flat_map(of_read).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::history::{Attempt, Outcome, Stamp, Start};

    fn at(us: i64) -> Stamp {
        Stamp { wall_us: us, mono_us: us }
    }

    #[test]
    fn a_read_must_show_what_was_acknowledged_before_it_began() {
        let attempt = |id, done| Attempt {
            id,
            writer: 0,
            outcome: Outcome::Acked,
            begun: at(done - 5),
            sent: Some(at(done - 5)),
            done: at(done),
            error: None,
        };
        let read = |begun, newest: &[(u32, i64)]| Read {
            reader: 7,
            session: 0,
            server: None,
            standby: false,
            begun: at(begun),
            done: at(begun + 1),
            newest: newest.to_vec(),
        };
        let history = History {
            start: Start { run: "r".into(), host: "oar".into(), writers: 1, at: at(0) },
            attempts: vec![attempt(1, 10), attempt(2, 20)],
            reads: vec![read(5, &[]), read(15, &[(0, 1)]), read(19, &[(0, 2)]), read(25, &[(0, 1)]), read(26, &[])],
            idle: Vec::new(),
            end: None,
        };
        let found: Vec<_> = stale(&history).iter().map(|stale| (stale.acked, stale.shown)).collect();
        assert_eq!(found, [(2, Some(1)), (2, None)]);
    }
}
