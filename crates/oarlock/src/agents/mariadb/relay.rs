//! What a standby has received and not yet applied. It was confirmed to the primary: it must never
//! be thrown away.
//!
//! Starting replication anew does just that: with global transaction numbers the server empties the
//! relay log whenever both of its threads were stopped, also when only the applying one is started.
//! So the rest is applied first: of a server that has just started by naming file and offset, which
//! keeps the log; of one that runs by letting it finish.

use super::binlog::{self, GtidList};
use super::conf::{RELAY_LOG, server_id};
use super::context::Context;
use super::error::{MariaError, Result};
use super::inspect::io;
use super::progress::Progress;
use super::session::{Session, literal, named, text};
use crate::agents::launcher::Launcher;
use crate::agents::postgresql::files;
use mysql_async::Row;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// Between two looks at a standby that is about to finish.
const LOOK: Duration = Duration::from_millis(3);
/// How the server says that nothing is left to apply.
const ALL_READ: &str = "Slave has read all relay log";

impl<L: Launcher> Context<L> {
    /// The one row of the replication's state; `None` when none was ever configured.
    pub async fn replica_status(&self, session: &mut Session) -> Result<Option<Row>> {
        let rows = session.rows("show slave status", self.settings.timing.statement).await?;
        Ok(rows.into_iter().next())
    }

    /// How far this standby's data are.
    pub async fn progress(&self, session: &mut Session) -> Result<Progress> {
        let sql = "select @@global.gtid_slave_pos, @@global.gtid_binlog_state";
        let rows = session.rows(sql, self.settings.timing.statement).await?;
        let list = |column| GtidList::parse(&rows.first().and_then(|row| text(row, column)).unwrap_or_default());
        Ok(Progress::new(server_id(self.settings.node, None), &list(0)?, &list(1)?))
    }

    /// Cuts off what was torn when the server, or the machine, ended: half an event, which was never
    /// confirmed and on which the server would stop. Nothing runs.
    pub async fn mend_relay_log(&self) -> Result<()> {
        let index = self.relay_index();
        let mend = move || Ok(cut_all_torn(&index));
        for text in files::blocking("read the relay log", self.settings.timing.start, mend).await?? {
            self.note(text).await;
        }
        Ok(())
    }

    /// Applies what lies in the relay log while replication is stopped.
    pub async fn apply_leftovers(&self, session: &mut Session, deadline: Instant) -> Result<()> {
        let progress = self.progress(session).await?;
        let Some((file, offset)) = self.unapplied(&progress).await? else { return Ok(()) };
        let after = self.settings.timing.statement;
        let change =
            format!("change master to master_use_gtid=no, relay_log_file={}, relay_log_pos={offset}", literal(&file));
        session.run(&change, after).await?;
        if !progress.errant.is_empty() {
            // Their numbers are taken. What was confirmed goes before the order of numbers.
            session.run("set global gtid_strict_mode=OFF", after).await?;
        }
        session.run("start slave sql_thread", after).await?;
        let applied = self.apply_all(session, deadline).await;
        session.run("stop slave", left(deadline)).await?;
        session.run("set global gtid_strict_mode=ON", after).await?;
        applied?;
        self.require_all_applied(session).await
    }

    /// Nothing whole may be left in the relay log that is not in the data.
    async fn require_all_applied(&self, session: &mut Session) -> Result<()> {
        let progress = self.progress(session).await?;
        match self.unapplied(&progress).await? {
            None => Ok(()),
            Some((file, offset)) => {
                Err(MariaError::Unapplied { said: format!("{file} from byte {offset} on was left out") })
            }
        }
    }

    /// File and offset of the first transaction that was received whole and is not in the data.
    async fn unapplied(&self, progress: &Progress) -> Result<Option<(String, u64)>> {
        let (index, progress) = (self.relay_index(), progress.clone());
        let search = move || Ok(first_after(&binlog::files(&index)?, &progress));
        files::blocking("read the relay log", self.settings.timing.start, search).await?
    }

    fn relay_index(&self) -> PathBuf {
        self.settings.data_dir.join(format!("{RELAY_LOG}.index"))
    }

    /// Waits until the applying thread has nothing left; nothing more is received.
    async fn apply_all(&self, session: &mut Session, deadline: Instant) -> Result<()> {
        loop {
            let Some(status) = self.replica_status(session).await? else { return Ok(()) };
            let field = |name: &str| named(&status, name).unwrap_or_default();
            if field("Slave_SQL_Running") != "Yes" {
                return Err(MariaError::Unapplied { said: field("Last_SQL_Error") });
            }
            // The thread's own word alone is of the moment before it learns that something came.
            let all_read = field("Slave_SQL_Running_State").starts_with(ALL_READ);
            let received = GtidList::parse(&field("Gtid_IO_Pos"))?;
            if all_read && self.progress(session).await?.has_all(&received) {
                return Ok(());
            }
            if Instant::now() > deadline {
                let what = format!("the rest of the relay log ({})", field("Slave_SQL_Running_State"));
                return Err(MariaError::Timeout { what, after: self.settings.timing.promote });
            }
            tokio::time::sleep(LOOK).await;
        }
    }

    /// Receives nothing more, applies what was received, and stops. Nothing is thrown away.
    pub async fn finish_replication(&self, session: &mut Session, deadline: Instant) -> Result<()> {
        let Some(status) = self.replica_status(session).await? else { return Ok(()) };
        self.end_receiver(session, left(deadline)).await?;
        if named(&status, "Slave_SQL_Running").as_deref() != Some("Yes") {
            session.run("stop slave", left(deadline)).await?;
            return self.apply_leftovers(session, deadline).await;
        }
        self.apply_all(session, deadline).await?;
        session.run("stop slave", left(deadline)).await?;
        self.require_all_applied(session).await
    }
}

fn left(deadline: Instant) -> Duration {
    deadline.saturating_duration_since(Instant::now())
}

fn first_after(files: &[PathBuf], progress: &Progress) -> Result<Option<(String, u64)>> {
    // One that is listed and not there was applied and removed.
    for file in files.iter().filter(|file| file.exists()) {
        let mut first = None;
        binlog::transactions(file, |seen| {
            if seen.whole && first.is_none() && !progress.has(&seen.gtid) {
                first = Some(seen.offset);
            }
        })?;
        if let Some(offset) = first {
            // The server puts its own directory before the name.
            let name = file.file_name().unwrap_or_default().to_string_lossy().into_owned();
            return Ok(Some((name, offset)));
        }
    }
    Ok(None)
}

fn cut_all_torn(index: &Path) -> Result<Vec<String>> {
    let mut told = Vec::new();
    for file in binlog::files(index)? {
        told.extend(cut_torn(&file)?);
    }
    Ok(told)
}

fn cut_torn(path: &Path) -> Result<Option<String>> {
    if !path.exists() {
        return Ok(None);
    }
    let sound = binlog::transactions(path, |_| {})?;
    let file = fs::OpenOptions::new().write(true).open(path).map_err(io("open", path))?;
    let length = file.metadata().map_err(io("look at", path))?.len();
    if sound == 0 || sound >= length {
        return Ok(None);
    }
    file.set_len(sound).and_then(|()| file.sync_all()).map_err(io("shorten", path))?;
    Ok(Some(format!("{} bytes of half an event cut off the end of {}", length - sound, path.display())))
}
