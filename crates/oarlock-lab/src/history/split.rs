//! Whether two nodes acknowledged writes side by side.

use super::record::{Attempt, History, Stamp};
use serde::{Deserialize, Serialize};

/// A handover of the writes from one node to another, as direct writers to each node saw it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Handover {
    /// The node that acknowledged before.
    pub from: String,
    /// The node that acknowledged after.
    pub to: String,
    /// When the first row that `to` acknowledged was sent.
    pub at: Stamp,
}

/// The handovers that happened between the nodes of these histories, each a client that wrote
/// directly to the named node.
///
/// The acknowledged rows are put in the order in which they were *sent*: an old owner may still
/// deliver an acknowledgement late, for a row that its successor holds. Two nodes that
/// acknowledge side by side show as handovers to and fro, more than there were changes of the
/// committed ownership.
pub fn handovers(nodes: &[(&str, &History)]) -> Vec<Handover> {
    let sent = |a: &Attempt| a.sent.unwrap_or(a.begun);
    let mut acks: Vec<(Stamp, &str)> = Vec::new();
    for (node, history) in nodes {
        acks.extend(history.acked().map(|a| (sent(a), *node)));
    }
    acks.sort_by_key(|(at, _)| at.mono_us);
    let changes = acks.windows(2).filter(|pair| pair[0].1 != pair[1].1);
    changes.map(|pair| Handover { from: pair[0].1.to_owned(), to: pair[1].1.to_owned(), at: pair[1].0 }).collect()
}

#[cfg(test)]
mod tests {
    use super::super::record::{Outcome, Start};
    use super::*;

    fn at(us: i64) -> Stamp {
        Stamp { wall_us: us, mono_us: us }
    }

    /// A direct client with acknowledged rows (sent, acknowledged).
    fn history(rows: &[(i64, i64)]) -> History {
        let attempt = |(index, (sent, done)): (usize, &(i64, i64))| Attempt {
            id: index as i64 + 1,
            writer: 0,
            outcome: Outcome::Acked,
            begun: at(*sent),
            sent: Some(at(*sent)),
            done: at(*done),
            error: None,
        };
        History {
            start: Start { run: "r".into(), host: "h".into(), writers: 1, at: at(0) },
            attempts: rows.iter().enumerate().map(attempt).collect(),
            reads: Vec::new(),
            idle: Vec::new(),
            end: None,
        }
    }

    fn between(a: &[(i64, i64)], b: &[(i64, i64)]) -> Vec<(String, String, i64)> {
        let found = handovers(&[("a", &history(a)), ("b", &history(b))]);
        found.into_iter().map(|h| (h.from, h.to, h.at.mono_us)).collect()
    }

    fn handover(from: &str, to: &str, at_us: i64) -> (String, String, i64) {
        (from.to_owned(), to.to_owned(), at_us)
    }

    #[test]
    fn one_takeover_is_one_handover() {
        assert_eq!(between(&[(1, 2), (3, 4)], &[(10, 11), (12, 13)]), [handover("a", "b", 10)]);
    }

    #[test]
    fn a_late_acknowledgement_of_the_old_owner_is_harmless() {
        assert_eq!(between(&[(1, 2), (3, 50)], &[(10, 11), (12, 13)]), [handover("a", "b", 10)]);
    }

    #[test]
    fn two_owners_show_as_to_and_fro() {
        let found = between(&[(1, 2), (11, 12)], &[(10, 13), (14, 15)]);
        assert_eq!(found, [handover("a", "b", 10), handover("b", "a", 11), handover("a", "b", 14)]);
    }

    #[test]
    fn one_owner_throughout_is_no_handover() {
        assert_eq!(between(&[(1, 2), (3, 4)], &[]), []);
        assert_eq!(between(&[], &[]), []);
    }
}
