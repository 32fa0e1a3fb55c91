//! One reader: what can be seen of each writer's rows, again and again.

use super::log::Log;
use super::session::{Session, Target};
use crate::history::{Line, Read, Stamp};
use anyhow::{Context, Result};
use std::time::Duration;
use tokio::sync::watch;
use tokio::time::sleep;
use tokio_postgres::SimpleQueryMessage;

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
        if let Some(open) = &session {
            let begun = Stamp::now();
            match open.run(&sql).await {
                Ok(answer) => {
                    let newest = newest(&answer.messages)?;
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

fn newest(messages: &[SimpleQueryMessage]) -> Result<Vec<(u32, i64)>> {
    let rows = messages.iter().filter_map(|message| match message {
        SimpleQueryMessage::Row(row) => Some(row),
        _ => None,
    });
    let pair = |row: &tokio_postgres::SimpleQueryRow| {
        let (writer, id) = row.get(0).zip(row.get(1)).context("a row of bench.rows without writer or id")?;
        anyhow::Ok((writer.parse().context("a writer's number")?, id.parse().context("a row's id")?))
    };
    rows.map(pair).collect()
}
