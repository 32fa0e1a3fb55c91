//! One writer: a row, its outcome, the next row.

use super::log::Log;
use super::session::{Session, Target};
use crate::history::{Attempt, Line, Outcome, Stamp, row_id};
use anyhow::Result;
use std::time::Duration;
use tokio::sync::watch;
use tokio::time::{Instant, sleep_until};

/// How fast a writer goes: both times lie between when two attempts are due.
#[derive(Debug, Clone, Copy)]
pub struct Pace {
    /// After a row that was acknowledged.
    pub interval: Duration,
    /// After one that was not.
    pub retry: Duration,
}

/// Writes rows one after the other over one connection, which it replaces when it breaks.
pub struct Writer {
    number: u32,
    run: String,
    target: Target,
    pace: Pace,
    log: Log,
    session: Option<Session>,
}

impl Writer {
    /// A writer that has not connected yet. `run` must hold no quote character.
    pub fn new(number: u32, run: &str, target: Target, pace: Pace, log: Log) -> Writer {
        Writer { number, run: run.replace('\'', "''"), target, pace, log, session: None }
    }

    /// Writes rows until told to stop. Fails only if its log cannot be written.
    pub async fn run(mut self, mut stop: watch::Receiver<bool>) -> Result<()> {
        let mut seq = 0;
        let mut due = Instant::now();
        while !*stop.borrow() {
            seq += 1;
            let attempt = self.attempt(row_id(self.number, seq)).await;
            let pause = match attempt.outcome {
                Outcome::Acked => self.pace.interval,
                Outcome::Refused | Outcome::Unknown => self.pace.retry,
            };
            self.log.write(&Line::Attempt(attempt))?;
            // Counted from when it was due, so that late wake-ups do not slow the pace; from now
            // after a long attempt, so that none are made up for.
            due = (due + pause).max(Instant::now());
            tokio::select! {
                () = sleep_until(due) => {}
                _ = stop.changed() => {}
            }
        }
        Ok(())
    }

    async fn attempt(&mut self, id: i64) -> Attempt {
        let begun = Stamp::now();
        let mut sent = None;
        let (outcome, error) = match self.write(id, &mut sent).await {
            Ok(()) => (Outcome::Acked, None),
            Err((outcome, reason)) => (outcome, Some(reason)),
        };
        Attempt { id, writer: self.number, outcome, begun, sent, done: Stamp::now(), error }
    }

    /// Writes one row, over a new connection if there is none. `sent` is set just before the
    /// statement is handed over.
    async fn write(&mut self, id: i64, sent: &mut Option<Stamp>) -> Result<(), (Outcome, String)> {
        let mut session = match self.session.take() {
            Some(session) if !session.is_closed() => session,
            _ => {
                Session::open(&self.target).await.map_err(|error| (Outcome::Refused, format!("connect: {error:#}")))?
            }
        };
        let at = Stamp::now();
        *sent = Some(at);
        let sql = format!(
            "INSERT INTO bench.rows (run, id, writer, sent_us) VALUES ('{}', {id}, {}, {})",
            self.run, self.number, at.wall_us
        );
        let result = session.run(&sql).await;
        match result {
            Ok(answer) => {
                self.session = Some(session);
                match (answer.count, answer.warning) {
                    (1, None) => Ok(()),
                    (1, Some(warning)) => Err((Outcome::Unknown, format!("warning: {warning}"))),
                    (rows, _) => Err((Outcome::Unknown, format!("{rows} rows inserted, not 1"))),
                }
            }
            Err(failure) => {
                if failure.outcome == Outcome::Refused {
                    self.session = Some(session);
                }
                Err((failure.outcome, failure.reason))
            }
        }
    }
}
