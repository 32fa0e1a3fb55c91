//! The timeline as it happens: the cluster's own events, and what the writer notices.

use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::path::PathBuf;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use serde::Deserialize;

use crate::history::{Line, Outcome, Stamp};
use crate::lab::Lab;
use crate::product::{self, ClusterStatus};

/// How often the files are read; the times printed are those written in them.
const LOOK: Duration = Duration::from_millis(20);
/// How often the cluster is asked whether the event is over.
const ASK: Duration = Duration::from_millis(100);
/// A writer that waited longer than this says so when it goes on, milliseconds.
const NOTABLE_MS: f64 = 100.0;

/// One line of `oarlock events --json`.
#[derive(Deserialize)]
struct EventLine {
    time_ms: i64,
    node: String,
    text: String,
}

/// Prints what the cluster and the writer say, each line with its distance from the event.
pub struct Timeline {
    events: Tail,
    client: Tail,
    last_ack: Option<Stamp>,
    failing: bool,
}

impl Timeline {
    /// Follows the two files from where they end now.
    pub fn new(events: PathBuf, client: PathBuf) -> Self {
        Self { events: Tail::new(events), client: Tail::new(client), last_ack: None, failing: false }
    }

    /// Prints until `lacking` finds nothing in the cluster's status; an error at the deadline.
    pub fn follow(
        &mut self,
        lab: &Lab,
        zero: Stamp,
        deadline: Duration,
        lacking: &dyn Fn(&ClusterStatus) -> Option<String>,
    ) -> Result<()> {
        let end = Instant::now() + deadline;
        loop {
            self.follow_until(zero, Instant::now() + ASK)?;
            let found = match product::status(lab) {
                Ok(status) => lacking(&status),
                Err(error) => Some(format!("{error:#}")),
            };
            match found {
                None => return Ok(()),
                Some(what) if Instant::now() >= end => bail!("after {} s: {what}", deadline.as_secs()),
                Some(_) => {}
            }
        }
    }

    /// Prints what comes until `end`.
    pub fn follow_until(&mut self, zero: Stamp, end: Instant) -> Result<()> {
        while Instant::now() < end {
            self.look(zero)?;
            thread::sleep(LOOK);
        }
        Ok(())
    }

    fn look(&mut self, zero: Stamp) -> Result<()> {
        for line in self.events.lines()? {
            let event: EventLine = serde_json::from_str(&line).with_context(|| format!("an event: {line}"))?;
            print(event.time_ms as f64 - zero.wall_us as f64 / 1_000.0, &format!("{}: {}", event.node, event.text));
        }
        for line in self.client.lines()? {
            let Line::Attempt(attempt) = serde_json::from_str(&line).context("the client's log")? else { continue };
            if attempt.outcome == Outcome::Acked {
                let waited = self.last_ack.map_or(0.0, |last| attempt.done.ms_since(last));
                if waited >= NOTABLE_MS && attempt.done.ms_since(zero) > 0.0 {
                    print(attempt.done.ms_since(zero), &format!("writer: first acknowledged row after {waited:.0} ms"));
                }
                self.last_ack = Some(attempt.done);
                self.failing = false;
            } else if !self.failing && attempt.done.ms_since(zero) > 0.0 {
                self.failing = true;
                let why = attempt.error.unwrap_or_default();
                print(attempt.done.ms_since(zero), &format!("writer: not acknowledged: {why}"));
            }
        }
        Ok(())
    }
}

fn print(ms: f64, text: &str) {
    println!("  {:>+8.3} s  {text}", ms / 1_000.0);
}

/// The lines that are added to a file.
struct Tail {
    path: PathBuf,
    offset: u64,
    partial: Vec<u8>,
}

impl Tail {
    fn new(path: PathBuf) -> Self {
        let offset = path.metadata().map_or(0, |metadata| metadata.len());
        Self { path, offset, partial: Vec::new() }
    }

    /// The whole lines since the last call. Starting in the middle of a line drops its rest.
    fn lines(&mut self) -> Result<Vec<String>> {
        let mut file = File::open(&self.path).with_context(|| format!("cannot read {}", self.path.display()))?;
        file.seek(SeekFrom::Start(self.offset))?;
        self.offset += file.read_to_end(&mut self.partial)? as u64;
        let whole = self.partial.iter().rposition(|byte| *byte == b'\n').map_or(0, |at| at + 1);
        let whole: Vec<u8> = self.partial.drain(..whole).collect();
        let whole = String::from_utf8_lossy(&whole);
        Ok(whole.lines().filter(|line| line.starts_with('{') && line.ends_with('}')).map(str::to_owned).collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;

    #[test]
    fn a_tail_gives_whole_lines_once() {
        let dir = std::env::temp_dir().join(format!("oarlock-tail-{}", std::process::id()));
        std::fs::create_dir_all(&dir).unwrap();
        let path = dir.join("log");
        std::fs::write(&path, "{\"old\":1}\n").unwrap();
        let mut tail = Tail::new(path.clone());
        let mut file = std::fs::OpenOptions::new().append(true).open(&path).unwrap();
        file.write_all(b"{\"a\":1}\n{\"b\"").unwrap();
        assert_eq!(tail.lines().unwrap(), ["{\"a\":1}"]);
        file.write_all(b":2}\n").unwrap();
        assert_eq!(tail.lines().unwrap(), ["{\"b\":2}"]);
        assert!(tail.lines().unwrap().is_empty());
        std::fs::remove_dir_all(&dir).unwrap();
    }
}
