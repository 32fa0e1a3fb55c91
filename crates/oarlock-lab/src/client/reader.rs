//! One reader: what can be seen of each writer's rows, again and again.

use super::log::Log;
use super::session::{Session, Target};
use crate::history::{Line, Read, Stamp};
use anyhow::{Context, Result, bail};
use std::time::Duration;
use tokio::sync::watch;
use tokio::time::sleep;

/// Time between two reads, which go through all rows of the run.
const PAUSE: Duration = Duration::from_millis(50);

/// Reads until told to stop, over one connection, which it replaces when it breaks. A read that
/// fails says nothing and is left out. Fails only if its log cannot be written.
pub async fn read(reader: u32, run: String, target: Target, log: Log, mut stop: watch::Receiver<bool>) -> Result<()> {
    let run = run.replace('\'', "''");
    let sql = format!("SELECT writer, max(id) FROM bench.rows WHERE run = '{run}' GROUP BY writer");
    let mut session = None;
    while !*stop.borrow() {
        if session.as_ref().is_none_or(Session::is_closed) {
            session = Session::open(&target).await.ok();
        }
        if let Some(open) = &mut session {
            let begun = Stamp::now();
            match open.run(&sql).await {
                Ok(answer) => {
                    let newest = newest(&answer.rows)?;
                    log.write(&Line::Read(Read { reader, begun, done: Stamp::now(), newest }))?;
                }
                Err(_) => session = None,
            }
        }
        tokio::select! {
            () = sleep(PAUSE) => {}
            _ = stop.changed() => {}
        }
    }
    Ok(())
}

fn newest(rows: &[Vec<Option<String>>]) -> Result<Vec<(u32, i64)>> {
    let pair = |row: &Vec<Option<String>>| {
        let [Some(writer), Some(id)] = &row[..] else { bail!("a row of bench.rows without writer or id") };
        Ok((writer.parse().context("a writer's number")?, id.parse().context("a row's id")?))
    };
    rows.iter().map(pair).collect()
}
