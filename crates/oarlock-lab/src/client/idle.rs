//! Connections that send nothing and wait to notice a loss.

use super::log::Log;
use super::session::{Session, Target};
use crate::history::{IdleChange, IdleEvent, Line, Stamp};
use anyhow::Result;
use std::time::{Duration, Instant};
use tokio::sync::watch;
use tokio::time::sleep;

/// Time between two tries to connect again.
const RETRY: Duration = Duration::from_millis(20);
/// A broken connection answers its user this soon: one round trip, on a busy machine.
const AT_ONCE: Duration = Duration::from_millis(500);

/// Holds one idle connection, opens it again when it breaks, and tells at the end whether it
/// still answers. Fails only if its log cannot be written.
pub async fn hold(connection: u32, target: Target, log: Log, mut stop: watch::Receiver<bool>) -> Result<()> {
    let record = |event, error| log.write(&Line::Idle(IdleChange { connection, event, at: Stamp::now(), error }));
    while !*stop.borrow() {
        let Ok(mut session) = Session::open(&target).await else {
            tokio::select! {
                () = sleep(RETRY) => {}
                _ = stop.changed() => {}
            }
            continue;
        };
        record(IdleEvent::Opened, None)?;
        tokio::select! {
            reason = session.lost() => record(IdleEvent::Lost, Some(reason))?,
            _ = stop.changed() => {
                let used = Instant::now();
                match session.run("SELECT 1").await {
                    Ok(_) => record(IdleEvent::Alive, None)?,
                    Err(failure) if used.elapsed() < AT_ONCE => record(IdleEvent::Late, Some(failure.reason))?,
                    Err(failure) => record(IdleEvent::Hung, Some(failure.reason))?,
                }
            }
        }
    }
    Ok(())
}
