//! Ending the thread that receives, also when the primary it receives from is dead or frozen.

use super::context::Context;
use super::error::Result;
use super::session::Session;
use crate::agents::launcher::Launcher;
use crate::network::{End, destroy_connections};
use std::net::SocketAddr;
use std::time::Duration;

/// A primary that lives has been told within this.
const FIRST: Duration = Duration::from_millis(15);
/// Between two resets.
const AGAIN: Duration = Duration::from_millis(10);

impl<L: Launcher> Context<L> {
    /// Ends the receiving thread. The server has it tell its primary over a connection of its own, which
    /// takes two seconds when that is dead (seen on 10.11.19; its shortest limit is one): those connections are
    /// reset until the thread has ended. What was received stays.
    pub(super) async fn end_receiver(&self, session: &mut Session, after: Duration) -> Result<()> {
        let primaries: Vec<SocketAddr> = self
            .members()
            .iter()
            .filter(|member| member.id != self.settings.node)
            .flat_map(|member| member.links.iter().map(|link| SocketAddr::new(*link, member.port)))
            .collect();
        let resetting = async {
            tokio::time::sleep(FIRST).await;
            loop {
                let primaries = primaries.clone();
                let reset = move || {
                    primaries.into_iter().try_for_each(|primary| destroy_connections(End::Service(primary)).map(drop))
                };
                if let Ok(Err(error)) = tokio::task::spawn_blocking(reset).await {
                    tracing::debug!(%error, "connections to the former primary are not reset");
                    std::future::pending::<()>().await;
                }
                tokio::time::sleep(AGAIN).await;
            }
        };
        tokio::select! {
            ended = session.run("stop slave io_thread", after) => ended,
            () = resetting => Ok(()),
        }
    }
}
