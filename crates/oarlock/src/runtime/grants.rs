//! What machines grant their agents, as people want to know it: ours, and as the others say of theirs. And which hardware
//! watchdog our sentinel is to keep.

use crate::config::{NodeSettings, Settings};
use crate::sentinel::{SentinelError, SentinelHandle};
use oarlock_core::ids::NodeId;
use oarlock_core::sentinel::{Request, Watchdog};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

/// How often the sentinel is asked how its watchdog is: one that was busy may be free.
const ASK_EVERY: Duration = Duration::from_secs(5);
/// The sentinel answers from memory; that it answers at all is seen to elsewhere.
const DEADLINE: Duration = Duration::from_secs(5);

/// What a machine grants.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Granted {
    /// Real-time scheduling.
    pub realtime: bool,
    /// A hardware watchdog.
    pub watchdog: bool,
}

/// What is known of all machines.
#[derive(Debug)]
pub(super) struct Grants {
    me: NodeId,
    realtime: bool,
    /// Our sentinel keeps a watchdog.
    watchdog: Arc<AtomicBool>,
    others: BTreeMap<u8, Granted>,
}

impl Grants {
    /// Tells the sentinel which watchdog it is to keep, and asks from time to time whether it can.
    pub(super) fn start(sentinel: &SentinelHandle, settings: &Settings, me: &NodeSettings, realtime: bool) -> Grants {
        let watchdog = Arc::<AtomicBool>::default();
        tokio::spawn(keep(sentinel.clone(), wanted(settings, me), Arc::clone(&watchdog)));
        Grants { me: me.id, realtime, watchdog, others: BTreeMap::new() }
    }

    /// What another node says of itself.
    pub(super) fn told(&mut self, from: u8, granted: Granted) {
        self.others.insert(from, granted);
    }

    /// What is known of a node; nothing is granted where nothing is known.
    pub(super) fn of(&self, node: NodeId) -> Granted {
        if node == self.me {
            return Granted { realtime: self.realtime, watchdog: self.watchdog.load(Ordering::Relaxed) };
        }
        self.others.get(&node.0).copied().unwrap_or_default()
    }

    /// What our machine grants.
    pub(super) fn own(&self) -> Granted {
        self.of(self.me)
    }
}

/// The watchdog of node `me`; a witness has nothing that must be stopped.
fn wanted(settings: &Settings, me: &NodeSettings) -> Option<Watchdog> {
    let watchdog = settings.watchdog.as_ref().filter(|_| !me.witness)?;
    Some(Watchdog { device: watchdog.device.clone(), timeout_us: watchdog.timeout.0, fresh_us: watchdog.fresh.0 })
}

/// Tells the sentinel, and keeps in `works` whether it can, until the sentinel is gone.
async fn keep(sentinel: SentinelHandle, watchdog: Option<Watchdog>, works: Arc<AtomicBool>) {
    while let Err(error) = sentinel.request(Request::Watch { watchdog: watchdog.clone() }, DEADLINE).await {
        if matches!(error, SentinelError::Gone) {
            return;
        }
        tokio::time::sleep(ASK_EVERY).await;
    }
    while watchdog.is_some() {
        match sentinel.hello(DEADLINE).await {
            Ok(welcome) => works.store(welcome.platform.watchdog, Ordering::Relaxed),
            Err(SentinelError::Gone) => return,
            // The next answer tells.
            Err(_) => {}
        }
        tokio::time::sleep(ASK_EVERY).await;
    }
}
