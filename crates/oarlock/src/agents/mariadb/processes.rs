//! The server's sessions. Asked for by `show processlist`: unlike `information_schema` it needs no temporary
//! table on the disk each time.

use super::error::Result;
use super::session::{Session, named};
use std::time::Duration;

/// A session of the server, or one of its own threads.
pub(super) struct Process {
    pub id: u64,
    pub user: String,
    command: String,
    /// What it does, in the server's words.
    pub state: String,
}

impl Process {
    /// Sends the log to a replica.
    pub fn sends(&self) -> bool {
        self.command.starts_with("Binlog Dump")
    }

    /// Waits for a standby to confirm its commit.
    pub fn waits(&self) -> bool {
        self.state.starts_with("Waiting for semi-sync ACK")
    }

    /// Of somebody who connected, and not to replicate.
    pub fn is_client(&self) -> bool {
        let own = ["system user", "event_scheduler"].contains(&self.user.as_str()) || self.user.starts_with("oarlock_");
        !own && !self.sends() && self.command != "Daemon"
    }
}

/// All of them.
pub(super) async fn list(session: &mut Session, after: Duration) -> Result<Vec<Process>> {
    let rows = session.rows("show processlist", after).await?;
    let process = |row| {
        let field = |name| named(row, name).unwrap_or_default();
        let id = field("Id").parse().ok()?;
        Some(Process { id, user: field("User"), command: field("Command"), state: field("State") })
    };
    Ok(rows.iter().filter_map(process).collect())
}
