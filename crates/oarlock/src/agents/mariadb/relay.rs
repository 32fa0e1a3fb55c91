//! What a standby has received and not yet applied. It was confirmed to the primary: it must never
//! be thrown away.
//!
//! Starting replication anew does just that: with global transaction numbers the server empties the
//! relay log whenever both of its threads were stopped, also when only the applying one is started.
//! So the rest is applied first: of a server that has just started by naming file and offset, which
//! keeps the log; of one that runs by letting it finish.

use super::binlog::{self, GtidList};
use super::conf::RELAY_LOG;
use super::context::Context;
use super::error::{MariaError, Result};
use super::session::{Session, literal, named};
use crate::agents::launcher::Launcher;
use crate::agents::postgresql::files;
use mysql_async::Row;
use std::path::PathBuf;
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

    /// Applies what lies in the relay log of a server that has just started and does not follow.
    pub async fn apply_leftovers(&self, session: &mut Session) -> Result<()> {
        let after = self.settings.timing.statement;
        let applied = self.applied(session).await?;
        let index = self.settings.data_dir.join(format!("{RELAY_LOG}.index"));
        let search = move || Ok(first_after(&binlog::files(&index)?, applied));
        let found = files::blocking("read the relay log", self.settings.timing.start, search).await??;
        let Some((file, offset)) = found else { return Ok(()) };
        let change =
            format!("change master to master_use_gtid=no, relay_log_file={}, relay_log_pos={offset}", literal(&file));
        session.run(&change, after).await?;
        session.run("start slave sql_thread", after).await?;
        self.apply_all(session, Instant::now() + self.settings.timing.start).await?;
        session.run("stop slave", after).await?;
        let now = self.applied(session).await?;
        tracing::info!(resource = self.settings.name, "applied what was received before: {applied} to {now}");
        Ok(())
    }

    /// The highest transaction that is in this copy's data.
    pub async fn applied(&self, session: &mut Session) -> Result<u64> {
        let after = self.settings.timing.statement;
        let replicated = session.value("select @@global.gtid_slave_pos", after).await?;
        let logged = session.value("select @@global.gtid_binlog_pos", after).await?;
        Ok(GtidList::parse(&replicated)?.position().max(GtidList::parse(&logged)?.position()))
    }

    /// Waits until the applying thread has nothing left; nothing more is received.
    pub async fn apply_all(&self, session: &mut Session, deadline: Instant) -> Result<()> {
        loop {
            let Some(status) = self.replica_status(session).await? else { return Ok(()) };
            let field = |name: &str| named(&status, name).unwrap_or_default();
            if field("Slave_SQL_Running") != "Yes" {
                let said = field("Last_SQL_Error");
                return Err(MariaError::with_hint(
                    format!("what was received cannot be applied: {said}"),
                    "this copy must be replaced, unless it is the only one left",
                ));
            }
            if field("Slave_SQL_Running_State").starts_with(ALL_READ) {
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
        let after = self.settings.timing.statement;
        let Some(status) = self.replica_status(session).await? else { return Ok(()) };
        session.run("stop slave io_thread", after).await?;
        if named(&status, "Slave_SQL_Running").as_deref() == Some("Yes") {
            self.apply_all(session, deadline).await?;
        } else {
            self.apply_leftovers(session).await?;
        }
        session.run("stop slave", after).await
    }
}

/// File and offset of the first transaction above `applied`.
fn first_after(files: &[PathBuf], applied: u64) -> Result<Option<(String, u64)>> {
    for file in files {
        let mut first = None;
        binlog::transactions(file, |gtid, offset| {
            if gtid.domain == 0 && gtid.sequence > applied && first.is_none() {
                first = Some(offset);
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
