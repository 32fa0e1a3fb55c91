//! One reader: what can be seen of each writer's rows, again and again, through the service or on one
//! server.

use super::log::Log;
use super::session::{Session, Target};
use crate::history::{Line, Read, Stamp};
use crate::state::Engine;
use anyhow::{Context, Result, bail};
use std::time::Duration;
use tokio::sync::watch;
use tokio::time::sleep;

/// Time between two reads, which go through all rows of the run.
const PAUSE: Duration = Duration::from_millis(50);

/// What a reader reads, and where.
pub struct Reader {
    /// Its number among the client's readers.
    pub number: u32,
    /// Whose rows.
    pub run: String,
    /// Where.
    pub target: Target,
    /// Whether that is a server asked by name, and not the service.
    pub by_name: bool,
}

/// Reads until told to stop, over one connection, which it replaces when it breaks. A read that
/// fails says nothing and is left out. Fails only if its log cannot be written.
pub async fn read(whom: Reader, log: Log, mut stop: watch::Receiver<bool>) -> Result<()> {
    let Reader { number: reader, run, target, by_name } = whom;
    let run = run.replace('\'', "''");
    let standby = match target.engine {
        Engine::Postgresql => "pg_is_in_recovery()",
        Engine::Mariadb => "@@read_only",
    };
    let sql = format!("SELECT writer, max(id), {standby} FROM bench.rows WHERE run = '{run}' GROUP BY writer");
    let server = by_name.then(|| target.host.clone());
    let mut session = None;
    let mut opened = 0;
    while !*stop.borrow() {
        if session.as_ref().is_none_or(Session::is_closed) {
            session = Session::open(&target).await.ok();
            opened += u32::from(session.is_some());
        }
        if let Some(open) = &mut session {
            let begun = Stamp::now();
            match open.run(&sql).await {
                Ok(answer) => {
                    let done = Stamp::now();
                    let (newest, standby) = shown(&answer.rows)?;
                    let (session, server) = (opened - 1, server.clone());
                    log.write(&Line::Read(Read { reader, session, server, standby, begun, done, newest }))?;
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

/// Each writer's newest row, and whether a standby said so.
fn shown(rows: &[Vec<Option<String>>]) -> Result<(Vec<(u32, i64)>, bool)> {
    let mut newest = Vec::with_capacity(rows.len());
    let mut on_standby = false;
    for row in rows {
        let [Some(writer), Some(id), Some(standby)] = &row[..] else {
            bail!("a row of bench.rows without writer or id");
        };
        newest.push((writer.parse().context("a writer's number")?, id.parse().context("a row's id")?));
        on_standby |= ["t", "1"].contains(&standby.as_str());
    }
    Ok((newest, on_standby))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(fields: [&str; 3]) -> Vec<Option<String>> {
        fields.iter().map(|field| Some((*field).to_owned())).collect()
    }

    #[test]
    fn reads_what_either_engine_answers() {
        assert_eq!(shown(&[row(["0", "7", "t"]), row(["1", "9", "t"])]).unwrap(), (vec![(0, 7), (1, 9)], true));
        assert_eq!(shown(&[row(["0", "7", "1"])]).unwrap(), (vec![(0, 7)], true));
        assert_eq!(shown(&[row(["0", "7", "f"])]).unwrap(), (vec![(0, 7)], false));
        assert_eq!(shown(&[row(["0", "7", "0"])]).unwrap(), (vec![(0, 7)], false));
        assert_eq!(shown(&[]).unwrap(), (vec![], false));
        assert!(shown(&[vec![Some("0".into()), None, Some("f".into())]]).is_err());
    }
}
