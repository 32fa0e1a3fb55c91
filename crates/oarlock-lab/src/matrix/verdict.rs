//! What every case demands, whatever its fault.

use super::trial::Traces;
use crate::history::{Gap, History, IdleEvent, Stamp, handovers, outage_around};
use crate::plot::Mark;

/// An ordinary commit on a busy machine of two cores may take this long, milliseconds: wake-ups
/// were seen to be late by up to 65 ms there. A shorter gap is no outage.
pub const NOISE_MS: f64 = 150.0;

/// How many handovers a message lists.
const LISTED: usize = 4;

/// What a case demands of the outage, from its first mark until the cluster was whole again.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Outage {
    /// Measured and published.
    Any,
    /// None: no gap longer than the noise.
    Unnoticed,
    /// At most so many milliseconds.
    AtMost(f64),
    /// At most the lease and so many milliseconds.
    LeasePlus(f64),
}

impl Outage {
    /// The longest outage that is allowed, milliseconds.
    pub fn limit_ms(self, lease_ms: f64) -> Option<f64> {
        match self {
            Outage::Any => None,
            Outage::Unnoticed => Some(NOISE_MS),
            Outage::AtMost(ms) => Some(ms),
            Outage::LeasePlus(ms) => Some(lease_ms + ms),
        }
    }
}

/// What a case demands of the ownership between its begin and the healing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ownership {
    /// Another node owns the group afterwards.
    Moves,
    /// The same node owns it afterwards.
    Stays,
    /// Either.
    Any,
}

/// The outage of each mark: the longest gap from it to the next mark, or to `end`. None if the
/// log does not reach so far.
pub fn outages<'a>(history: &History, marks: &'a [Mark], end: Stamp) -> Vec<(&'a Mark, Option<Gap>)> {
    let ends = marks.iter().skip(1).map(|m| m.at).chain([end]);
    marks.iter().zip(ends).map(|(mark, until)| (mark, outage_around(history, mark.at, until))).collect()
}

/// What is wrong with the traces of any trial, in words.
pub fn wrong(traces: &Traces) -> Vec<String> {
    let mut wrong = traces.wrong_rows.clone();
    let nodes: Vec<(&str, &History)> = traces.direct.iter().map(|(n, h)| (n.as_str(), h)).collect();
    let handovers = handovers(&nodes);
    if handovers.len() as u64 > traces.changes {
        let first = handovers.iter().take(LISTED).map(|h| format!("{} -> {}", h.from, h.to));
        let first = first.collect::<Vec<_>>().join(", ");
        let more = if handovers.len() > LISTED { ", …" } else { "" };
        wrong.push(format!(
            "writes acknowledged side by side: changes of who acknowledges {} ({first}{more}), of the owner {}",
            handovers.len(),
            traces.changes
        ));
    }
    let hung = traces.users.idle.iter().filter(|i| i.event == IdleEvent::Hung).count();
    if hung > 0 {
        wrong.push(format!("{hung} idle connections hang"));
    }
    wrong
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::history::{Attempt, IdleChange, Outcome, Start};

    fn at_ms(ms: i64) -> Stamp {
        Stamp { wall_us: ms * 1_000, mono_us: ms * 1_000 }
    }

    fn history(acks_ms: &[i64]) -> History {
        let attempt = |(index, ms): (usize, &i64)| Attempt {
            id: index as i64 + 1,
            writer: 0,
            outcome: Outcome::Acked,
            begun: at_ms(*ms),
            sent: Some(at_ms(*ms)),
            done: at_ms(*ms),
            error: None,
        };
        History {
            start: Start { run: "r".into(), host: "oar".into(), writers: 1, at: at_ms(0) },
            attempts: acks_ms.iter().enumerate().map(attempt).collect(),
            reads: Vec::new(),
            idle: Vec::new(),
            end: Some(at_ms(10_000)),
        }
    }

    fn traces(direct: &[(&str, &[i64])], changes: u64) -> Traces {
        Traces {
            users: history(&[1]),
            direct: direct.iter().map(|(n, acks)| ((*n).to_owned(), history(acks))).collect(),
            wrong_rows: Vec::new(),
            lost: 0,
            changes,
        }
    }

    #[test]
    fn each_mark_has_its_own_outage() {
        let mark = |ms, label: &str| Mark { at: at_ms(ms), label: label.into() };
        let marks = [mark(105, "off"), mark(700, "on")];
        let history = history(&[100, 450, 460, 710, 800, 2_000]);
        let found = outages(&history, &marks, at_ms(800));
        let found: Vec<(&str, f64)> =
            found.iter().map(|(mark, gap)| (mark.label.as_str(), gap.unwrap().ms())).collect();
        assert_eq!(found, [("off", 350.0), ("on", 250.0)]);
    }

    #[test]
    fn two_acknowledging_nodes_are_wrong() {
        let both: [(&str, &[i64]); 2] = [("server1", &[1, 3]), ("server2", &[2, 4])];
        assert_eq!(
            wrong(&traces(&both, 1)),
            [
                "writes acknowledged side by side: changes of who acknowledges 3 (server1 -> server2, server2 -> server1, \
              server1 -> server2), of the owner 1"
            ]
        );
        let takeover: [(&str, &[i64]); 2] = [("server1", &[1, 2]), ("server2", &[3, 4])];
        assert_eq!(wrong(&traces(&takeover, 1)), Vec::<String>::new());
        assert_eq!(wrong(&traces(&takeover, 0)).len(), 1);
    }

    #[test]
    fn lost_rows_and_hung_connections_are_wrong() {
        let mut bad = traces(&[], 0);
        bad.wrong_rows.push("r: 1 lost".into());
        bad.users.idle.push(IdleChange { connection: 0, event: IdleEvent::Hung, at: at_ms(1), error: None });
        assert_eq!(wrong(&bad), ["r: 1 lost", "1 idle connections hang"]);
    }

    #[test]
    fn limits_follow_the_lease() {
        assert_eq!(Outage::LeasePlus(300.0).limit_ms(250.0), Some(550.0));
        assert_eq!(Outage::AtMost(300.0).limit_ms(250.0), Some(300.0));
        assert_eq!(Outage::Unnoticed.limit_ms(250.0), Some(150.0));
        assert_eq!(Outage::Any.limit_ms(250.0), None);
    }
}
