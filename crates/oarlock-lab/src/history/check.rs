//! The rows a database holds against the rows it acknowledged.

use super::record::{History, Outcome, row_id};
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};

/// How often each id of a run stands in the table.
pub type Rows = BTreeMap<i64, u64>;

/// What a comparison of a history with the table found. Every list is of row ids, ascending.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Verdict {
    /// Attempts in the log.
    pub attempts: usize,
    /// Attempts that were cleanly acknowledged.
    pub acked: usize,
    /// Attempts that were certainly not written.
    pub refused: usize,
    /// Attempts that may or may not have been written.
    pub unknown: usize,
    /// Of the unknown ones, those that are in the table.
    pub unknown_present: usize,
    /// Acknowledged and not in the table. Must be empty.
    pub lost: Vec<i64>,
    /// In the table more than once. Must be empty.
    pub doubled: Vec<i64>,
    /// In the table and never attempted. Must be empty.
    pub unexpected: Vec<i64>,
    /// Refused, and in the table all the same. Must be empty.
    pub refused_present: Vec<i64>,
}

impl Verdict {
    /// Whether every acknowledged row is there once, and nothing that should not be.
    pub fn clean(&self) -> bool {
        self.lost.is_empty() && self.doubled.is_empty() && self.unexpected.is_empty() && self.refused_present.is_empty()
    }
}

impl std::fmt::Display for Verdict {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(
            f,
            "{} acknowledged, {} refused, {} unknown ({} of them present): {} lost, {} doubled, \
             {} unexpected, {} refused but present",
            self.acked,
            self.refused,
            self.unknown,
            self.unknown_present,
            self.lost.len(),
            self.doubled.len(),
            self.unexpected.len(),
            self.refused_present.len()
        )
    }
}

/// Compares a client's history with the rows of its run.
///
/// A client that was killed may have sent one row per writer that it could not log; such a row,
/// the one after the writer's last logged row, is not unexpected.
pub fn check(history: &History, rows: &Rows) -> Verdict {
    let mut verdict = Verdict {
        attempts: history.attempts.len(),
        doubled: rows.iter().filter(|r| *r.1 > 1).map(|r| *r.0).collect(),
        ..Verdict::default()
    };
    for attempt in &history.attempts {
        let present = rows.contains_key(&attempt.id);
        match attempt.outcome {
            Outcome::Acked => {
                verdict.acked += 1;
                if !present {
                    verdict.lost.push(attempt.id);
                }
            }
            Outcome::Refused => {
                verdict.refused += 1;
                if present {
                    verdict.refused_present.push(attempt.id);
                }
            }
            Outcome::Unknown => {
                verdict.unknown += 1;
                verdict.unknown_present += usize::from(present);
            }
        }
    }
    verdict.lost.sort_unstable();
    verdict.refused_present.sort_unstable();
    let mut known: BTreeSet<i64> = history.attempts.iter().map(|a| a.id).collect();
    if history.end.is_none() {
        known.extend(in_flight(history));
    }
    let unexpected = rows.keys().filter(|id| !known.contains(id));
    verdict.unexpected = unexpected.copied().collect();
    verdict
}

/// The one row per writer that may have been sent and not logged.
fn in_flight(history: &History) -> Vec<i64> {
    let writers = 0..history.start.writers;
    let after_last = |writer| {
        let of_writer = history.attempts.iter().filter(|a| a.writer == writer);
        let last = of_writer.map(|a| a.id).max();
        last.unwrap_or(row_id(writer, 0)) + 1
    };
    writers.map(after_last).collect()
}

#[cfg(test)]
mod tests {
    use super::super::record::{Attempt, Stamp, Start};
    use super::*;

    fn at(us: i64) -> Stamp {
        Stamp { wall_us: us, mono_us: us }
    }

    /// A client of one writer that attempted rows 1, 2, 3, … with these outcomes, and stopped.
    fn history(outcomes: &[Outcome]) -> History {
        let attempt = |(index, outcome): (usize, &Outcome)| Attempt {
            id: index as i64 + 1,
            writer: 0,
            outcome: *outcome,
            begun: at(0),
            sent: Some(at(0)),
            done: at(0),
            error: None,
        };
        History {
            start: Start { run: "r".into(), host: "oar".into(), writers: 1, at: at(0) },
            attempts: outcomes.iter().enumerate().map(attempt).collect(),
            reads: Vec::new(),
            idle: Vec::new(),
            end: Some(at(1)),
        }
    }

    use Outcome::{Acked, Refused, Unknown};

    #[test]
    fn all_there_is_clean() {
        let rows = Rows::from([(1, 1), (2, 1), (3, 1)]);
        let verdict = check(&history(&[Acked, Acked, Acked]), &rows);
        let expected = Verdict { attempts: 3, acked: 3, ..Verdict::default() };
        assert_eq!(verdict, expected);
        assert!(verdict.clean());
    }

    #[test]
    fn a_lost_row_is_caught() {
        let rows = Rows::from([(1, 1), (3, 1)]);
        let verdict = check(&history(&[Acked, Acked, Acked]), &rows);
        assert_eq!(verdict.lost, [2]);
        assert!(!verdict.clean());
    }

    #[test]
    fn everything_lost_is_caught() {
        let verdict = check(&history(&[Acked, Acked]), &Rows::new());
        assert_eq!(verdict.lost, [1, 2]);
        assert!(!verdict.clean());
    }

    #[test]
    fn a_doubled_row_is_caught() {
        let rows = Rows::from([(1, 1), (2, 2)]);
        let verdict = check(&history(&[Acked, Acked]), &rows);
        assert_eq!(verdict.doubled, [2]);
        assert!(!verdict.clean());
    }

    #[test]
    fn a_doubled_unknown_row_is_caught() {
        let rows = Rows::from([(1, 3)]);
        let verdict = check(&history(&[Unknown]), &rows);
        assert_eq!(verdict.doubled, [1]);
        assert!(!verdict.clean());
    }

    #[test]
    fn an_unknown_row_may_be_there_or_not() {
        let rows = Rows::from([(1, 1)]);
        let verdict = check(&history(&[Unknown, Unknown]), &rows);
        assert_eq!((verdict.unknown, verdict.unknown_present), (2, 1));
        assert!(verdict.clean());
    }

    #[test]
    fn a_refused_row_must_not_be_there() {
        let verdict = check(&history(&[Refused, Refused]), &Rows::from([(2, 1)]));
        assert_eq!(verdict.refused_present, [2]);
        assert!(!verdict.clean());
    }

    #[test]
    fn a_row_nobody_wrote_is_caught() {
        let rows = Rows::from([(1, 1), (2, 1)]);
        let verdict = check(&history(&[Acked]), &rows);
        assert_eq!(verdict.unexpected, [2]);
        assert!(!verdict.clean());
    }

    #[test]
    fn a_killed_client_may_have_one_row_in_flight_per_writer() {
        let mut killed = history(&[Acked]);
        killed.end = None;
        killed.start.writers = 2;
        let second_writers_first = row_id(1, 1);
        let rows = Rows::from([(1, 1), (2, 1), (3, 1), (second_writers_first, 1)]);
        assert_eq!(check(&killed, &rows).unexpected, [3]);
    }

    #[test]
    fn a_verdict_reads_as_one_line() {
        let verdict = check(&history(&[Acked, Acked, Unknown]), &Rows::from([(1, 1)]));
        assert_eq!(
            verdict.to_string(),
            "2 acknowledged, 0 refused, 1 unknown (0 of them present): 1 lost, 0 doubled, \
             0 unexpected, 0 refused but present"
        );
    }
}
