//! The agent's process: a loop that hands the core one event at a time and carries out what it
//! wants done. Nothing in the loop waits: everything slow is a task that reports back.

mod actions;
mod applying;
mod calls;
mod clock;
mod config_file;
mod databases;
pub(crate) mod envelope;
mod events;
mod grants;
mod incarnation;
mod lease;
mod memory;
mod resources;
mod start;

pub use start::{Misconfigured, run};

use crate::agents::address::Connected;
use crate::config::Settings;
use crate::control::{Call, Reply};
use crate::sentinel::SentinelHandle;
use crate::store::{Store, StoreEvent};
use crate::transport::{LinkStatus, Transport, TransportEvent};
use envelope::Envelope;
use events::EventLog;
use grants::{Granted, Grants};
use oarlock_core::ids::{GroupId, NodeId, ResourceId};
use oarlock_core::resource::Observation;
use oarlock_core::sentinel::Notice;
use oarlock_core::{Core, Event};
use resources::Resources;
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{mpsc, watch};

/// What tasks report to the loop.
#[derive(Debug)]
pub(crate) enum Inner {
    /// For the core.
    Observed(ResourceId, Observation),
    /// The sentinel holds the lease of this generation.
    LeaseArmed(u64),
    /// The sentinel holds an earlier deadline in the place of a later one.
    LeaseShortened,
    /// The sentinel has sealed this epoch of the group, or says why not.
    Sealed { group: GroupId, epoch: u64, refused: Option<String> },
    /// For the other nodes.
    Tell(Envelope),
    /// For one other node.
    Send(u8, Envelope),
    /// For people.
    Note(String),
    /// The other nodes have looked at a new configuration.
    Checked(Box<applying::Verdict>),
    /// The committed configuration is in its file.
    ConfigWritten,
    /// The sentinel knows all it must know for the agent to start anew.
    Restart,
}

/// Why the loop ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ended {
    /// The sentinel is dead: this process becomes the sentinel.
    SentinelGone,
    /// The agent is to start anew: the sentinel sees to that when this process ends.
    Restart,
}

/// The agent of one node.
pub(crate) struct Node {
    core: Core,
    settings: Settings,
    /// What everything was made from that is made once.
    started_with: Settings,
    config_path: PathBuf,
    transport: Transport,
    store: Store,
    sentinel: SentinelHandle,
    leases: mpsc::UnboundedSender<lease::Step>,
    resources: Resources,
    /// The committed configuration, to be written down.
    config_texts: watch::Sender<Arc<str>>,
    connected: Connected,
    log: EventLog,
    /// Who waits for the core's answer, and what to add to it.
    calls: BTreeMap<u64, (Reply, Option<String>)>,
    next_call: u64,
    platform: oarlock_core::sentinel::Platform,
    incarnation: incarnation::Kept,
    grants: Grants,
    clock_offsets: BTreeMap<u8, i64>,
    /// The request for the grace under which the sentinel may leave.
    leave_call: Option<u64>,
    /// The question to the other nodes that is under way.
    asking: Option<applying::Asking>,
    /// When this agent starts anew, and the request for the grace under which it does.
    restart_at: Option<tokio::time::Instant>,
    restart_call: Option<u64>,
    /// The store's place, and whether what is in it was given up: this agent ends then.
    memory: memory::Memory,
    renounced: bool,
}

/// Where things come in.
pub(crate) struct Inputs {
    notices: mpsc::Receiver<Notice>,
    inner: mpsc::Receiver<Inner>,
    calls: mpsc::Receiver<Call>,
}

/// Longest sleep of the loop: what is due is due then, whatever the core said.
const LONGEST_SLEEP: Duration = Duration::from_secs(1);
/// The sentinel answers from memory; that it answers at all is seen to elsewhere.
const HELLO_DEADLINE: Duration = Duration::from_secs(5);
/// How often nodes tell each other what only people want to know.
const GREETING_EVERY: Duration = Duration::from_secs(2);

impl Node {
    /// Serves until the sentinel is gone.
    pub(crate) async fn serve(&mut self, mut inputs: Inputs) -> Ended {
        self.drain();
        self.transport.flush();
        let mut greeting = tokio::time::interval(GREETING_EVERY);
        while !self.renounced {
            let now = clock::now();
            let pause = Duration::from_micros(self.core.wakeup().since(now).0).min(LONGEST_SLEEP);
            tokio::select! {
                biased;
                notice = inputs.notices.recv() => match notice {
                    None => return Ended::SentinelGone,
                    Some(notice) => self.noticed(notice),
                },
                event = self.transport.next() => self.transported(event),
                event = self.store.next() => self.stored(event),
                Some(inner) = inputs.inner.recv() => match inner {
                    Inner::Restart => return Ended::Restart,
                    inner => self.inner(inner),
                },
                Some(call) = inputs.calls.recv() => self.called(call),
                _ = greeting.tick() => self.greet(),
                () = moment(self.restart_at) => self.restart_due(),
                () = tokio::time::sleep(pause) => self.handle(Event::Ticked),
            }
            // What came with one wake-up is answered in one datagram.
            if !self.transport.has_more() {
                self.transport.flush();
            }
        }
        Ended::Restart
    }

    fn handle(&mut self, event: Event) {
        self.core.handle(clock::now(), event);
        self.drain();
    }

    fn inner(&mut self, inner: Inner) {
        match inner {
            Inner::Observed(resource, what) => self.handle(Event::Observed { resource, what }),
            Inner::LeaseArmed(generation) => self.handle(Event::LeaseArmed { generation }),
            Inner::LeaseShortened => self.handle(Event::LeaseShortened),
            Inner::Sealed { group, epoch, refused } => self.handle(Event::Sealed { group, epoch, refused }),
            Inner::Tell(envelope) => self.tell_all(&envelope),
            Inner::Send(to, envelope) => self.send(to, &envelope),
            Inner::Note(text) => self.note(text),
            Inner::Checked(verdict) => self.judged(*verdict),
            Inner::ConfigWritten => self.config_written(),
            Inner::Restart => {}
        }
    }

    fn transported(&mut self, event: TransportEvent) {
        match event {
            TransportEvent::Received { from, payload } => match Envelope::decode(&payload) {
                Ok(envelope) => self.received(from, envelope),
                Err(error) => tracing::warn!(from, %error, "a message that cannot be understood"),
            },
            TransportEvent::LinkChanged { peer, link, up } => {
                let name = self.name_of(peer);
                let state = if up { "up" } else { "down" };
                self.note(format!("link {link} to {name} is {state}"));
                self.resources.links_changed(&self.settings, &self.links());
                let node = self.settings.nodes.iter().find(|node| node.id.0 == peer);
                let index = node.and_then(|node| node.links.iter().position(|address| *address == link));
                if let Some(link) = index.and_then(|index| u8::try_from(index).ok()) {
                    self.handle(Event::LinkChanged { peer: NodeId(peer), link, up });
                }
            }
            TransportEvent::SessionUp { peer } => {
                tracing::info!(peer = self.name_of(peer), "met");
                self.greet();
            }
        }
    }

    fn links(&self) -> BTreeMap<NodeId, Vec<LinkStatus>> {
        let ids = self.settings.nodes.iter().map(|node| node.id);
        ids.filter(|id| *id != self.core.me()).map(|id| (id, self.transport.links(id.0))).collect()
    }

    fn received(&mut self, from: u8, envelope: Envelope) {
        match envelope {
            Envelope::Core(message) => {
                self.handle(Event::Received { from: NodeId(from), message: *message });
            }
            Envelope::Connections { address, pairs } => self.connected.set(address, pairs),
            Envelope::Check { id, text } => self.check_for(from, id, text),
            Envelope::Checked { id, problems } => self.checked_by(from, id, problems),
            Envelope::Greeting { unix_ms, realtime, watchdog } => {
                self.grants.told(from, Granted { realtime, watchdog });
                let offset =
                    i64::try_from(unix_ms).unwrap_or_default() - i64::try_from(clock::unix_ms()).unwrap_or_default();
                self.clock_offsets.insert(from, offset);
            }
        }
    }

    fn stored(&mut self, event: StoreEvent) {
        match event {
            StoreEvent::Saved { ticket } => self.handle(Event::Persisted { ticket }),
            StoreEvent::Failed { error, .. } => {
                let reason = crate::causes::with_causes(&error);
                self.handle(Event::PersistFailed { reason });
            }
            StoreEvent::Stalled { for_ms } => self.note(format!("the disk has not saved our state for {for_ms} ms")),
        }
    }

    fn noticed(&mut self, notice: Notice) {
        match notice {
            Notice::Exited { name, pid, exit } => self.resources.exited(&name, pid, exit),
            Notice::Emptied { name } => self.resources.emptied(&name),
            Notice::Lapsed { .. } => self.handle(Event::Ticked),
            Notice::Silenced { generation, took_us } => {
                let time = format!("in {}.{:03} ms", took_us / 1000, took_us % 1000);
                // One that was lost and found by asking has no time.
                self.note(format!("silenced {}", if took_us == 0 { "" } else { &time }).trim_end().to_owned());
                self.handle(Event::Lapsed { generation });
            }
            Notice::Terminate => self.terminate(),
            Notice::Missed => self.ask_again(),
            Notice::Log { line } => tracing::info!(target: "sentinel", "{line}"),
        }
    }

    /// Notices were lost. The handle compares each welcome with what was told and hands over what is
    /// missing as notices (only `Terminate` cannot be found so; the sentinel then leaves without a
    /// grace). One question is enough: a sentinel that does not answer is replaced.
    fn ask_again(&mut self) {
        self.note("notices of the sentinel were lost: asking again".to_owned());
        let sentinel = self.sentinel.clone();
        tokio::spawn(async move {
            if let Err(error) = sentinel.hello(HELLO_DEADLINE).await {
                tracing::error!("{}", crate::causes::with_causes(&error));
            }
        });
    }

    fn greet(&mut self) {
        let Granted { realtime, watchdog } = self.grants.own();
        let envelope = Envelope::Greeting { unix_ms: clock::unix_ms(), realtime, watchdog };
        self.tell_all(&envelope);
    }

    fn tell_all(&mut self, envelope: &Envelope) {
        let me = self.core.me().0;
        let peers: Vec<u8> = self.settings.nodes.iter().map(|node| node.id.0).filter(|id| *id != me).collect();
        for peer in peers {
            self.send(peer, envelope);
        }
    }

    fn send(&mut self, peer: u8, envelope: &Envelope) {
        let sent = envelope.encode().map(|bytes| self.transport.send(peer, &bytes));
        match sent {
            Ok(Ok(())) => {}
            Ok(Err(error)) => tracing::warn!(%error, "cannot send"),
            Err(error) => tracing::error!(%error, "cannot encode a message"),
        }
    }

    fn note(&mut self, text: String) {
        self.log.add(&text);
    }

    fn name_of(&self, id: u8) -> String {
        let node = self.settings.nodes.iter().find(|node| node.id.0 == id);
        node.map_or_else(|| format!("n{id}"), |node| node.name.clone())
    }
}

/// Waits until then; for ever where there is no such moment.
async fn moment(at: Option<tokio::time::Instant>) {
    match at {
        Some(at) => tokio::time::sleep_until(at).await,
        None => std::future::pending().await,
    }
}
