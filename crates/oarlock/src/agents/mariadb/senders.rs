//! The primary's threads that send the log to standbys: ended by us, before the server has to.
//!
//! Of a standby that comes anew the server first ends the former thread. Meanwhile (10.11.19) it holds up every new
//! connection and the commits' leader, until its thread that hears confirmations looks up: when a standby confirms
//! something, which over a dead link is never, or a second is over. A session that is killed first and whose
//! connection is reset then ends without anybody waiting.

use super::context::{Context, Phase};
use super::error::Result;
use super::processes;
use super::session::Session;
use crate::agents::launcher::Launcher;
use crate::network::{End, NetworkError, destroy_connections};
use oarlock_core::resource::database::Running;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

/// Within this a session that was killed waits for the thread that hears confirmations.
const NOTICED: Duration = Duration::from_millis(5);
/// A server that answers has been asked within this; one that holds everybody up is helped without.
const ASKED: Duration = Duration::from_millis(60);

impl<L: Launcher> Context<L> {
    /// Ends the receivers of all accounts but `kept`; they connect anew if they may.
    pub async fn cut_off(&self, session: &mut Session, kept: &[String]) -> Result<()> {
        let after = self.settings.timing.statement;
        let mut ends = Vec::new();
        for process in processes::list(session, after).await? {
            if process.sends() && !kept.contains(&process.user) {
                // It may have ended by itself meanwhile.
                let _ = session.run(&format!("kill connection {}", process.id), after).await;
                ends.extend(process.peer.map(End::Service));
            }
        }
        self.reset(ends).await;
        Ok(())
    }

    /// Ends the receivers that hang on a link that is lost: while another one works they come anew over that. One
    /// that can be reached by none is left alone as long as commits wait for it: the silence may be short.
    pub async fn forget_lost(&self) {
        let (primary, guarded) = {
            let server = self.server();
            (server.phase == Phase::Up && server.running == Running::Primary, server.guard_on)
        };
        let others = self.members().into_iter().filter(|member| member.id != self.settings.node);
        let forgotten = others.filter(|member| !guarded || member.lost.len() < member.links.len());
        let lost: Vec<IpAddr> = forgotten.flat_map(|member| member.lost).collect();
        if !primary || lost.is_empty() {
            return;
        }
        match tokio::time::timeout(ASKED, self.kill_senders(&lost)).await {
            Ok(Ok(0)) => return,
            Ok(Ok(_)) => {}
            _ => tracing::debug!(resource = self.settings.name, "receivers over lost links are reset, not killed"),
        }
        let port = self.settings.port;
        self.reset(lost.into_iter().map(|from| End::Caller { from, port }).collect()).await;
    }

    /// How many there were.
    async fn kill_senders(&self, lost: &[IpAddr]) -> Result<usize> {
        let after = self.settings.timing.statement;
        let mut session = self.session().await?;
        let mut senders = processes::list(&mut session, after).await?;
        let hangs = |peer: SocketAddr| lost.contains(&peer.ip().to_canonical());
        senders.retain(|process| process.sends() && process.peer.is_some_and(hangs));
        for process in &senders {
            let _ = session.run(&format!("kill connection {}", process.id), after).await;
        }
        Ok(senders.len())
    }

    async fn reset(&self, ends: Vec<End>) {
        if ends.is_empty() {
            return;
        }
        tokio::time::sleep(NOTICED).await;
        let reset = move || ends.into_iter().try_for_each(|end| destroy_connections(end).map(drop));
        let done: std::result::Result<std::result::Result<(), NetworkError>, _> =
            tokio::task::spawn_blocking(reset).await;
        if let Ok(Err(error)) = done {
            tracing::debug!(%error, resource = self.settings.name, "receivers' connections are not reset");
        }
    }
}
