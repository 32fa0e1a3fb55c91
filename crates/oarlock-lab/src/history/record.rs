//! The lines of a client's log, and reading them back.

use anyhow::{Context, Result, bail};
use serde::{Deserialize, Serialize};
use std::path::Path;

/// How many rows one writer may number before its ids would reach the next writer's.
const IDS_PER_WRITER: i64 = 1 << 40;

/// The id of row `seq` (from 1) of writer `writer` (from 0), unique within a run.
pub fn row_id(writer: u32, seq: i64) -> i64 {
    i64::from(writer) * IDS_PER_WRITER + seq
}

/// One instant on both clocks. Differences are taken on the monotonic one, which all hosts of
/// the lab share with the machine that runs them; the real-time one is for people.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Stamp {
    /// CLOCK_REALTIME, microseconds since 1970.
    pub wall_us: i64,
    /// CLOCK_MONOTONIC, microseconds.
    pub mono_us: i64,
}

impl Stamp {
    /// The present instant.
    pub fn now() -> Stamp {
        use rustix::time::{ClockId, clock_gettime};
        let us = |t: rustix::time::Timespec| t.tv_sec * 1_000_000 + t.tv_nsec / 1_000;
        Stamp { wall_us: us(clock_gettime(ClockId::Realtime)), mono_us: us(clock_gettime(ClockId::Monotonic)) }
    }

    /// The instant `ms` milliseconds later (earlier if negative), on both clocks.
    pub fn shifted_ms(self, ms: i64) -> Stamp {
        Stamp { wall_us: self.wall_us + ms * 1_000, mono_us: self.mono_us + ms * 1_000 }
    }

    /// Milliseconds from `earlier` to this instant, on the monotonic clock.
    pub fn ms_since(&self, earlier: Stamp) -> f64 {
        (self.mono_us - earlier.mono_us) as f64 / 1_000.0
    }
}

/// What a client may believe about one attempt to write a row.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Outcome {
    /// Cleanly acknowledged: the row must be there for ever.
    Acked,
    /// Certainly not written: never sent, or rejected by the server before its commit.
    Refused,
    /// Sent, and no clean answer: the row may or may not be there.
    Unknown,
}

/// One attempt to write one row.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Attempt {
    /// The row's id, never used for a second attempt.
    pub id: i64,
    /// Which of the client's writers made it, from 0.
    pub writer: u32,
    /// How it ended.
    pub outcome: Outcome,
    /// When it began; where a connection had to be made first, before that.
    pub begun: Stamp,
    /// When the statement was handed to the connection; absent if it never was.
    pub sent: Option<Stamp>,
    /// When its outcome was known.
    pub done: Stamp,
    /// Why it was not acknowledged.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
}

/// The first line of a log: who wrote it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Start {
    /// Tells this client's rows from those of other clients in the same table.
    pub run: String,
    /// Host name or socket directory the client wrote to.
    pub host: String,
    /// How many writers it ran.
    pub writers: u32,
    /// When the client began.
    pub at: Stamp,
}

/// What befell one of the client's idle connections.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum IdleEvent {
    /// Connected, at the start or again after a loss.
    Opened,
    /// The connection broke and the client noticed without sending anything.
    Lost,
    /// At the end: it still answers.
    Alive,
    /// At the end: it looked open, and was found broken as soon as it was used.
    Late,
    /// At the end: it looks open, and does not answer.
    Hung,
}

/// A change of one idle connection.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct IdleChange {
    /// Which idle connection, from 0.
    pub connection: u32,
    /// What happened.
    pub event: IdleEvent,
    /// When.
    pub at: Stamp,
    /// Why, for a loss.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
}

/// What one read showed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Read {
    /// Which of the client's readers, from 0.
    pub reader: u32,
    /// Which of that reader's connections, from 0.
    #[serde(default)]
    pub session: u32,
    /// The server that it asks by name; absent for a reader of the service.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub server: Option<String>,
    /// Whether a standby answered, by its own words. Not known of a read that showed nothing.
    #[serde(default)]
    pub standby: bool,
    /// When it was sent.
    pub begun: Stamp,
    /// When its answer was there.
    pub done: Stamp,
    /// Each writer that had rows, with its newest.
    pub newest: Vec<(u32, i64)>,
}

/// One line of a log, as JSON.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "line", rename_all = "snake_case")]
pub enum Line {
    /// The first line.
    Start(Start),
    /// One per attempt, in the order in which they ended.
    Attempt(Attempt),
    /// One per read that was answered.
    Read(Read),
    /// One per change of an idle connection.
    Idle(IdleChange),
    /// The last line of a client that was stopped, not killed.
    End {
        /// When the client stopped.
        at: Stamp,
    },
}

/// A client's whole log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct History {
    /// Who wrote it.
    pub start: Start,
    /// Every attempt, in the order in which they ended.
    pub attempts: Vec<Attempt>,
    /// What reads showed.
    pub reads: Vec<Read>,
    /// What befell the idle connections.
    pub idle: Vec<IdleChange>,
    /// When the client stopped; absent if it was killed, or still runs.
    pub end: Option<Stamp>,
}

impl History {
    /// Reads a log from a file; see [`History::parse`].
    pub fn read(path: &Path) -> Result<History> {
        let text = std::fs::read_to_string(path).with_context(|| format!("read {}", path.display()))?;
        History::parse(&text).with_context(|| format!("client log {}", path.display()))
    }

    /// Reads a log. A last line without its newline is a client killed while it wrote, and is
    /// left out; anything else that is no line of a log is an error, because a log that is
    /// partly misread could hide a lost row.
    pub fn parse(text: &str) -> Result<History> {
        let whole = &text[..text.rfind('\n').map_or(0, |at| at + 1)];
        let mut lines = whole.lines().enumerate();
        let start = match lines.next().map(|(_, l)| serde_json::from_str(l)) {
            Some(Ok(Line::Start(start))) => start,
            Some(_) => bail!("line 1 is not a start line"),
            None => bail!("empty, not even a start line"),
        };
        let mut history = History { start, attempts: Vec::new(), reads: Vec::new(), idle: Vec::new(), end: None };
        for (index, text) in lines {
            let line = serde_json::from_str(text).with_context(|| format!("line {}", index + 1))?;
            match line {
                Line::Start(_) => bail!("line {}: a second start line", index + 1),
                Line::Attempt(attempt) => history.attempts.push(attempt),
                Line::Read(read) => history.reads.push(read),
                Line::Idle(change) => history.idle.push(change),
                Line::End { at } => history.end = Some(at),
            }
        }
        Ok(history)
    }

    /// The acknowledged attempts, in the order of their acknowledgements.
    pub fn acked(&self) -> impl Iterator<Item = &Attempt> {
        self.attempts.iter().filter(|a| a.outcome == Outcome::Acked)
    }

    /// The last instant the log speaks of.
    pub fn last_instant(&self) -> Stamp {
        let attempt = self.attempts.last().map(|a| a.done);
        self.end.or(attempt).unwrap_or(self.start.at)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LOG: &str = concat!(
        r#"{"line":"start","run":"r","host":"oar","writers":1,"at":{"wall_us":10,"mono_us":0}}"#,
        "\n",
        r#"{"line":"attempt","id":1,"writer":0,"outcome":"acked","begun":{"wall_us":11,"mono_us":1},"sent":{"wall_us":12,"mono_us":2},"done":{"wall_us":13,"mono_us":3}}"#,
        "\n",
        r#"{"line":"attempt","id":2,"writer":0,"outcome":"refused","begun":{"wall_us":14,"mono_us":4},"sent":null,"done":{"wall_us":15,"mono_us":5},"error":"connect"}"#,
        "\n",
        r#"{"line":"read","reader":0,"session":2,"standby":false,"begun":{"wall_us":16,"mono_us":6},"done":{"wall_us":17,"mono_us":7},"newest":[[0,1]]}"#,
        "\n",
    );

    #[test]
    fn reads_its_own_lines() {
        let history = History::parse(LOG).unwrap();
        assert_eq!(history.start.run, "r");
        assert_eq!(history.attempts.len(), 2);
        assert_eq!(history.reads[0].newest, [(0, 1)]);
        assert_eq!(history.attempts[1].error.as_deref(), Some("connect"));
        assert_eq!(history.end, None);
        assert_eq!(history.acked().map(|a| a.id).collect::<Vec<_>>(), [1]);
        assert_eq!(history.last_instant().mono_us, 5);
    }

    #[test]
    fn leaves_out_a_torn_last_line_only() {
        let torn = format!("{LOG}{{\"line\":\"att");
        assert_eq!(History::parse(&torn).unwrap().attempts.len(), 2);
        let garbled = format!("{LOG}nonsense\n");
        let error = format!("{:#}", History::parse(&garbled).unwrap_err());
        assert!(error.starts_with("line 5: "), "{error}");
        assert!(History::parse("").is_err());
    }

    #[test]
    fn lines_survive_a_round_trip() {
        for line in LOG.lines() {
            let parsed: Line = serde_json::from_str(line).unwrap();
            assert_eq!(serde_json::to_string(&parsed).unwrap(), line);
        }
    }

    #[test]
    fn writers_never_share_an_id() {
        assert_eq!(row_id(0, 1), 1);
        assert_eq!(row_id(1, 1), 1_099_511_627_777);
        assert!(row_id(1, 1) > row_id(0, IDS_PER_WRITER - 1));
    }
}
