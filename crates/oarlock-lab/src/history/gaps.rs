//! The outages a client saw: stretches of time without an acknowledgement.

use super::record::{History, Outcome, Stamp};
use serde::{Deserialize, Serialize};

/// A stretch between two successive acknowledgements.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Gap {
    /// The acknowledgement before it (or the client's start).
    pub from: Stamp,
    /// The acknowledgement that ended it, or the log's last instant.
    pub to: Stamp,
    /// Whether an acknowledgement ended it. If not, it lasted at least this long.
    pub ended: bool,
}

impl Gap {
    /// Its length in milliseconds; a lower bound if it did not end.
    pub fn ms(&self) -> f64 {
        self.to.ms_since(self.from)
    }
}

/// A stretch in which every attempt failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct RefusedSpan {
    /// When the first of the failed attempts began.
    pub from: Stamp,
    /// The next acknowledgement, or the log's last instant.
    pub to: Stamp,
    /// How many attempts failed in it.
    pub attempts: usize,
    /// Whether an acknowledgement ended it.
    pub ended: bool,
}

impl RefusedSpan {
    /// Its length in milliseconds; a lower bound if it did not end.
    pub fn ms(&self) -> f64 {
        self.to.ms_since(self.from)
    }
}

/// Every gap of the log: between successive acknowledgements of any writer, before the first,
/// and after the last.
fn gaps(history: &History) -> Vec<Gap> {
    let mut acks: Vec<Stamp> = history.acked().map(|a| a.done).collect();
    acks.sort_unstable_by_key(|s| s.mono_us);
    let mut gaps = Vec::with_capacity(acks.len() + 1);
    let mut from = history.start.at;
    for to in acks {
        gaps.push(Gap { from, to, ended: true });
        from = to;
    }
    gaps.push(Gap { from, to: history.last_instant(), ended: false });
    gaps
}

/// All gaps of at least `threshold_ms`, in the order of time.
pub fn gaps_above(history: &History, threshold_ms: f64) -> Vec<Gap> {
    let mut gaps = gaps(history);
    gaps.retain(|g| g.ms() >= threshold_ms);
    gaps
}

/// The outage of an event: the longest gap that overlaps the time from the event to `until`
/// (the next event, or when the cluster was whole again). The gap in which the event itself
/// fell counts from its beginning, which overstates by at most the client's interval.
///
/// None if the log does not reach to the event.
pub fn outage_around(history: &History, event: Stamp, until: Stamp) -> Option<Gap> {
    let overlaps = |g: &Gap| g.to.mono_us > event.mono_us && g.from.mono_us < until.mono_us;
    let gaps = gaps(history).into_iter().filter(overlaps);
    gaps.max_by_key(|g| g.to.mono_us - g.from.mono_us)
}

/// The stretches in which attempts failed, in the order of time: each from the beginning of its
/// first failed attempt to the next acknowledgement of any writer.
pub fn refused_spans(history: &History) -> Vec<RefusedSpan> {
    let mut attempts: Vec<_> = history.attempts.iter().collect();
    attempts.sort_by_key(|a| a.done.mono_us);
    let mut spans = Vec::new();
    let mut open: Option<RefusedSpan> = None;
    for attempt in attempts {
        if attempt.outcome == Outcome::Acked {
            if let Some(mut span) = open.take() {
                span.to = attempt.done;
                span.ended = true;
                spans.push(span);
            }
            continue;
        }
        let span = open.get_or_insert(RefusedSpan {
            from: attempt.begun,
            to: history.last_instant(),
            attempts: 0,
            ended: false,
        });
        span.attempts += 1;
    }
    spans.extend(open);
    spans
}

#[cfg(test)]
mod tests {
    use super::super::record::{Attempt, Start};
    use super::*;

    fn at_ms(ms: i64) -> Stamp {
        Stamp { wall_us: 1_000_000 + ms * 1_000, mono_us: ms * 1_000 }
    }

    /// A log of attempts (begun, done, outcome), times in milliseconds.
    fn history(attempts: &[(i64, i64, Outcome)], end_ms: i64) -> History {
        let attempt = |(index, (begun, done, outcome)): (usize, &(i64, i64, Outcome))| Attempt {
            id: index as i64 + 1,
            writer: 0,
            outcome: *outcome,
            begun: at_ms(*begun),
            sent: Some(at_ms(*begun)),
            done: at_ms(*done),
            error: None,
        };
        History {
            start: Start { run: "r".into(), host: "oar".into(), writers: 1, at: at_ms(0) },
            attempts: attempts.iter().enumerate().map(attempt).collect(),
            reads: Vec::new(),
            idle: Vec::new(),
            end: Some(at_ms(end_ms)),
        }
    }

    use Outcome::{Acked, Refused, Unknown};

    /// Two outages: 11 -> 352 ms with failures, 360 -> 700 ms as one slow commit.
    fn two_outages() -> History {
        history(
            &[
                (0, 1, Acked),
                (10, 11, Acked),
                (20, 300, Unknown),
                (300, 301, Refused),
                (310, 352, Acked),
                (355, 360, Acked),
                (362, 700, Acked),
            ],
            705,
        )
    }

    #[test]
    fn lists_gaps_above_a_threshold() {
        let found: Vec<(i64, i64, bool)> =
            gaps_above(&two_outages(), 50.0).iter().map(|g| (g.from.mono_us, g.to.mono_us, g.ended)).collect();
        assert_eq!(found, [(11_000, 352_000, true), (360_000, 700_000, true)]);
    }

    #[test]
    fn an_outage_belongs_to_its_event() {
        let history = two_outages();
        let outage = |event, until| outage_around(&history, at_ms(event), at_ms(until)).unwrap();
        assert_eq!(outage(15, 355).ms(), 341.0);
        assert_eq!(outage(353, 705).ms(), 340.0);
        assert_eq!(outage(15, 705).ms(), 341.0);
        assert_eq!(outage(352, 358).ms(), 8.0);
        assert_eq!(outage_around(&history, at_ms(800), at_ms(900)), None);
    }

    #[test]
    fn an_outage_without_end_says_so() {
        let history = history(&[(0, 1, Acked), (10, 400, Unknown), (400, 900, Refused)], 950);
        let outage = outage_around(&history, at_ms(10), at_ms(950)).unwrap();
        assert_eq!((outage.ms(), outage.ended), (949.0, false));
        let spans = refused_spans(&history);
        assert_eq!(spans.len(), 1);
        assert_eq!((spans[0].ms(), spans[0].attempts, spans[0].ended), (940.0, 2, false));
    }

    #[test]
    fn nothing_ever_acknowledged_is_one_gap_from_the_start() {
        let history = history(&[(0, 400, Refused)], 500);
        let found = gaps_above(&history, 0.0);
        assert_eq!(found.len(), 1);
        assert_eq!((found[0].ms(), found[0].ended), (500.0, false));
    }

    #[test]
    fn refused_time_runs_from_the_first_failure_to_the_next_acknowledgement() {
        let spans = refused_spans(&two_outages());
        assert_eq!(spans.len(), 1);
        assert_eq!((spans[0].ms(), spans[0].attempts, spans[0].ended), (332.0, 2, true));
    }

    #[test]
    fn another_writers_acknowledgement_ends_a_gap() {
        let mut history = history(&[(0, 1, Acked), (2, 90, Acked), (80, 100, Acked)], 100);
        history.attempts[1].writer = 1;
        assert_eq!(gaps_above(&history, 20.0)[0].ms(), 89.0);
    }
}
