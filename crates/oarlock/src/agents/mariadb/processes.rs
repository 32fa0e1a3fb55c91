//! The server's sessions. Asked for by `show processlist`: unlike `information_schema` it needs no temporary
//! table on the disk each time.

use super::error::Result;
use super::session::{Session, named};
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

/// A session of the server, or one of its own threads.
pub(super) struct Process {
    pub id: u64,
    pub user: String,
    command: String,
    /// Where a session over TCP comes from.
    pub peer: Option<SocketAddr>,
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
        let peer = peer(&field("Host"));
        Some(Process { id, user: field("User"), command: field("Command"), peer, state: field("State") })
    };
    Ok(rows.iter().filter_map(process).collect())
}

/// The server writes `ADDRESS:PORT`, also where the address has colons of its own; `localhost` for its own socket.
fn peer(host: &str) -> Option<SocketAddr> {
    let (address, port) = host.rsplit_once(':')?;
    let address: IpAddr = address.parse().ok()?;
    Some(SocketAddr::new(address, port.parse().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_peer_is_read_as_the_server_writes_it() {
        assert_eq!(peer("10.0.0.2:40000"), "10.0.0.2:40000".parse().ok());
        assert_eq!(peer("fd00::2:40000"), "[fd00::2]:40000".parse().ok());
        assert_eq!(peer("localhost"), None);
        assert_eq!(peer(""), None);
    }
}
