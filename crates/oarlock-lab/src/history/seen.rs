//! What reads showed, wherever they read. On a standby they may be old. They must never show a row that is
//! gone in the end: what can be seen, acknowledged or not, is on every copy that may be promoted. And within
//! one connection, which lives on one server, they never go back.

use super::check::Rows;
use super::record::{History, Read};
use crate::stats::Summary;
use std::collections::{BTreeMap, BTreeSet};

/// A row that a read showed and that is not there in the end.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Gone {
    /// The row.
    pub id: i64,
    /// The server that the first read to show it asked by name; absent for a reader of the service.
    pub server: Option<String>,
    /// Whether that was a standby.
    pub standby: bool,
}

/// Every row that was seen and is gone, with the first read that showed it.
pub fn gone(history: &History, rows: &Rows) -> Vec<Gone> {
    let mut known = BTreeSet::new();
    let mut found = Vec::new();
    for read in &history.reads {
        for (_, id) in read.newest.iter().filter(|(_, id)| !rows.contains_key(id)) {
            if known.insert(*id) {
                found.push(Gone { id: *id, server: read.server.clone(), standby: read.standby });
            }
        }
    }
    found
}

/// A read that showed less than an earlier one of the same connection.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Backwards {
    /// Which reader.
    pub reader: u32,
    /// The server it asked by name; absent for a reader of the service.
    pub server: Option<String>,
    /// Whose rows went back.
    pub writer: u32,
    /// The newest row it had shown.
    pub before: i64,
    /// The newest one it shows now, if any.
    pub after: Option<i64>,
}

/// Every read that went back within its connection.
pub fn backwards(history: &History) -> Vec<Backwards> {
    let mut newest: BTreeMap<(u32, u32), BTreeMap<u32, i64>> = BTreeMap::new();
    let mut found = Vec::new();
    for read in &history.reads {
        let session = newest.entry((read.reader, read.session)).or_default();
        for (writer, before) in session.iter() {
            let after = shown(read, *writer);
            if after.is_none_or(|after| after < *before) {
                let (reader, server) = (read.reader, read.server.clone());
                found.push(Backwards { reader, server, writer: *writer, before: *before, after });
            }
        }
        session.extend(read.newest.iter().copied());
    }
    found
}

/// How old the reads of standbys were, milliseconds: since the acknowledgement of the oldest row that
/// they did not show, 0 when they showed all. None without such a read.
pub fn age_on_standbys(history: &History) -> Option<Summary> {
    let mut acked: BTreeMap<u32, Vec<(i64, i64)>> = BTreeMap::new();
    for attempt in history.acked() {
        acked.entry(attempt.writer).or_default().push((attempt.id, attempt.done.mono_us));
    }
    acked.values_mut().for_each(|rows| rows.sort_unstable());
    let age_us = |read: &Read| {
        let of_writer = acked.iter().map(|(writer, rows)| {
            let seen = shown(read, *writer).unwrap_or(i64::MIN);
            let missing = rows.get(rows.partition_point(|(id, _)| *id <= seen));
            missing.map_or(0, |(_, done_us)| (read.begun.mono_us - done_us).max(0))
        });
        of_writer.max().unwrap_or(0)
    };
    let on_standbys = history.reads.iter().filter(|read| read.standby);
    let ages: Vec<f64> = on_standbys.map(|read| age_us(read) as f64 / 1_000.0).collect();
    Summary::of(&ages)
}

fn shown(read: &Read, writer: u32) -> Option<i64> {
    read.newest.iter().find(|(of, _)| *of == writer).map(|(_, id)| *id)
}

/// What is wrong with what reads showed, in words.
pub fn wrong(history: &History, rows: &Rows) -> Vec<String> {
    let (gone, backwards) = (gone(history, rows), backwards(history));
    let gone = gone.first().map(|first| format!("{} rows were shown to readers and are gone: {first:?}", gone.len()));
    let back = backwards.first().map(|first| format!("{} reads went back: {first:?}", backwards.len()));
    gone.into_iter().chain(back).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::history::{Attempt, Outcome, Stamp, Start};

    fn at(us: i64) -> Stamp {
        Stamp { wall_us: us, mono_us: us }
    }

    /// A read of reader 7 on the standby "b": its connection, when it began, what it showed.
    fn read(session: u32, begun: i64, newest: &[(u32, i64)]) -> Read {
        Read {
            reader: 7,
            session,
            server: Some("b".to_owned()),
            standby: true,
            begun: at(begun),
            done: at(begun + 1),
            newest: newest.to_vec(),
        }
    }

    /// Rows 1, 2, 3, … of writer 0, acknowledged at these instants.
    fn history(acked: &[i64], reads: &[Read]) -> History {
        let attempt = |(index, done): (usize, &i64)| Attempt {
            id: index as i64 + 1,
            writer: 0,
            outcome: Outcome::Acked,
            begun: at(done - 5),
            sent: Some(at(done - 5)),
            done: at(*done),
            error: None,
        };
        History {
            start: Start { run: "r".into(), host: "oar".into(), writers: 1, at: at(0) },
            attempts: acked.iter().enumerate().map(attempt).collect(),
            reads: reads.to_vec(),
            idle: Vec::new(),
            end: Some(at(100)),
        }
    }

    #[test]
    fn an_old_read_on_a_standby_is_no_fault() {
        let history = history(&[10, 20], &[read(0, 25, &[]), read(0, 30, &[(0, 1)]), read(0, 40, &[(0, 2)])]);
        assert_eq!(wrong(&history, &Rows::from([(1, 1), (2, 1)])), Vec::<String>::new());
        assert_eq!(crate::history::stale(&history), []);
    }

    #[test]
    fn a_row_that_was_shown_and_is_gone_is_caught_acknowledged_or_not() {
        let seen = [read(0, 25, &[(0, 2)]), read(1, 26, &[(0, 3)]), read(2, 27, &[(0, 3)])];
        let history = history(&[10], &seen);
        let server = Some("b".to_owned());
        let of = |id| Gone { id, server: server.clone(), standby: true };
        assert_eq!(gone(&history, &Rows::from([(1, 1)])), [of(2), of(3)]);
        assert!(wrong(&history, &Rows::from([(1, 1)]))[0].starts_with("2 rows were shown"));
        assert_eq!(gone(&history, &Rows::from([(1, 1), (2, 1), (3, 1)])), []);
    }

    #[test]
    fn a_connection_never_goes_back_another_one_may() {
        let back = |reads: &[Read]| -> Vec<(i64, Option<i64>)> {
            backwards(&history(&[], reads)).iter().map(|b| (b.before, b.after)).collect()
        };
        assert_eq!(back(&[read(0, 1, &[(0, 5)]), read(0, 2, &[(0, 5)]), read(0, 3, &[(0, 6)])]), []);
        assert_eq!(back(&[read(0, 1, &[(0, 5)]), read(0, 2, &[(0, 4)])]), [(5, Some(4))]);
        assert_eq!(back(&[read(0, 1, &[(0, 5)]), read(0, 2, &[])]), [(5, None)]);
        assert_eq!(back(&[read(0, 1, &[(0, 5)]), read(1, 2, &[(0, 4)])]), []);
    }

    #[test]
    fn the_age_of_a_read_is_that_of_the_oldest_row_it_lacks() {
        let reads = [read(0, 25_000, &[(0, 2)]), read(0, 40_000, &[(0, 1)])];
        let age = age_on_standbys(&history(&[10_000, 20_000, 30_000], &reads)).unwrap();
        assert_eq!((age.n, age.min, age.max), (2, 0.0, 20.0));
        let mut elsewhere = reads[1].clone();
        elsewhere.standby = false;
        assert!(age_on_standbys(&history(&[10_000], &[elsewhere])).is_none());
    }
}
