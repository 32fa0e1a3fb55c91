//! A client that writes rows without pause and knows exactly which were acknowledged.

use crate::sql::{Connection, SqlError, Target};
use std::collections::HashSet;
use std::time::{Duration, Instant};
use tokio::time::{sleep, timeout};

/// Between two rows, and before another try.
const PACE: Duration = Duration::from_millis(10);
/// A connection or a row that takes longer is given up, its row counted as neither.
const DEADLINE: Duration = Duration::from_secs(1);
/// For making, counting and dropping the table.
const TABLE_DEADLINE: Duration = Duration::from_secs(30);

/// What was measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Measured {
    /// Longest time between two acknowledged writes.
    pub outage: Duration,
    /// Acknowledged rows.
    pub acknowledged: Option<usize>,
    /// Those that were not there afterwards.
    pub lost: Option<usize>,
}

/// Why nothing could be measured.
#[derive(Debug, thiserror::Error)]
pub enum WriterError {
    /// The database said no.
    #[error("cannot {what}")]
    Database {
        /// What was tried.
        what: &'static str,
        /// What it said.
        #[source]
        source: SqlError,
    },
    /// It did not answer.
    #[error("cannot {what} within {} s", after.as_secs())]
    Late {
        /// What was tried.
        what: &'static str,
        /// For how long.
        after: Duration,
    },
    /// No random number for the table's name.
    #[error("cannot name a table")]
    Name(#[from] crate::keys::KeyError),
}

/// Writes rows into a table of its own.
pub struct Writer {
    target: Target,
    table: String,
    session: Option<Connection>,
    next: i64,
    acknowledged: Vec<(i64, Instant)>,
}

impl Writer {
    /// Makes the table.
    pub async fn begin(target: Target) -> Result<Writer, WriterError> {
        let mut random = [0; 8];
        crate::keys::random_bytes(&mut random)?;
        let table = format!("oarlock_drill_{:016x}", u64::from_le_bytes(random));
        let mut writer = Writer { target, table, session: None, next: 0, acknowledged: Vec::new() };
        let create = format!("create table {} (id bigint primary key)", writer.table);
        writer.run("create a table for the drill", &create).await?;
        Ok(writer)
    }

    /// Tries to write one row, then waits a little.
    pub async fn write(&mut self) {
        self.next += 1;
        let sql = format!("insert into {} values ({})", self.table, self.next);
        if timeout(DEADLINE, self.try_write(&sql)).await.ok().flatten().is_some() {
            self.acknowledged.push((self.next, Instant::now()));
        } else {
            // Whatever it waits for, this connection is not waited for again.
            self.session = None;
        }
        sleep(PACE).await;
    }

    /// `Some` only for a clean acknowledgement.
    async fn try_write(&mut self, sql: &str) -> Option<()> {
        if self.session.is_none() {
            self.session = Some(self.target.connect().await.ok()?);
        }
        let answer = self.session.as_mut()?.run(sql).await.ok()?;
        // A commit whose wait for the standby was cancelled says success and warns.
        (!answer.warned).then_some(())
    }

    /// Whether a row was acknowledged after `moment`.
    pub fn is_acknowledged_after(&self, moment: Instant) -> bool {
        self.acknowledged.last().is_some_and(|(_, at)| *at > moment)
    }

    /// Counts, and drops the table.
    pub async fn end(mut self) -> Result<Measured, WriterError> {
        let select = format!("select id from {}", self.table);
        let rows = self.run("read the rows of the drill", &select).await;
        let drop_table = format!("drop table if exists {}", self.table);
        let dropped = self.run("drop the table of the drill", &drop_table).await;
        let there: HashSet<i64> = rows?.iter().filter_map(|id| id.parse().ok()).collect();
        dropped?;
        let lost = self.acknowledged.iter().filter(|(id, _)| !there.contains(id)).count();
        Ok(Measured {
            outage: longest_gap(&self.acknowledged),
            acknowledged: Some(self.acknowledged.len()),
            lost: Some(lost),
        })
    }

    /// Runs a statement, connecting again until it succeeds or its time is over.
    async fn run(&mut self, what: &'static str, sql: &str) -> Result<Vec<String>, WriterError> {
        let began = Instant::now();
        loop {
            self.session = None;
            let attempt = async {
                let mut session = self.target.connect().await?;
                session.run(sql).await
            };
            let error = match timeout(TABLE_DEADLINE, attempt).await {
                Ok(Ok(answer)) => {
                    return Ok(answer.rows.into_iter().filter_map(|row| row.into_iter().next()?).collect());
                }
                Ok(Err(source)) => WriterError::Database { what, source },
                Err(_) => WriterError::Late { what, after: TABLE_DEADLINE },
            };
            if is_final(&error) || began.elapsed() > TABLE_DEADLINE {
                return Err(error);
            }
            sleep(PACE).await;
        }
    }
}

/// Whether trying again is useless: what the database itself refuses, unless it only says "not now".
fn is_final(error: &WriterError) -> bool {
    match error {
        WriterError::Database { source, .. } => !source.is_passing(),
        WriterError::Late { .. } | WriterError::Name(_) => false,
    }
}

fn longest_gap(acknowledged: &[(i64, Instant)]) -> Duration {
    acknowledged.windows(2).map(|pair| pair[1].1.duration_since(pair[0].1)).max().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_longest_gap_counts() {
        let start = Instant::now();
        let at = |ms| start + Duration::from_millis(ms);
        let acknowledged = [(1, at(0)), (2, at(10)), (5, at(210)), (6, at(220))];
        assert_eq!(longest_gap(&acknowledged), Duration::from_millis(200));
        assert_eq!(longest_gap(&acknowledged[..1]), Duration::ZERO);
    }
}
