//! The address agent: raises and lowers one service address through the sentinel, tells the
//! neighbours, and spares clients the timeouts that a moved address would cost them.

use crate::causes::with_causes;
use crate::config::AddressSettings;
use crate::network::clients::{Pair, REFUSE_FOR, Refuser, Turnover, list_connections, tickle};
use crate::network::{
    Change, ConflictWatch, End, Interface, NetworkError, Snapshot, Watcher, announce, destroy_connections,
    destroy_untold, keep_announcing,
};
use crate::sentinel::SentinelHandle;
use oarlock_core::resource::{AddressCommand, AddressObservation, Guard};
use oarlock_core::sentinel as words;
use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;

/// The sentinel answers a change of address after two netlink calls.
const ANSWER_DEADLINE: Duration = Duration::from_secs(1);
/// How often the owner looks who is connected.
const LIST_EVERY: Duration = Duration::from_millis(250);

/// How long a connection that its owner does not list any more is remembered: the list of an owner
/// that cannot reach its clients, or has just closed the door, says nothing of what they believe.
const REMEMBER: Duration = Duration::from_secs(15);

/// Who was connected to which address, as its owners told lately.
#[derive(Clone, Debug, Default)]
pub struct Connected(Arc<Mutex<BTreeMap<IpAddr, Remembered>>>);

/// Connections, and since when their owner does not list them any more.
type Remembered = BTreeMap<Pair, Option<Instant>>;

impl Connected {
    /// The owner told.
    pub fn set(&self, address: IpAddr, pairs: Vec<Pair>) {
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let known = all.entry(address).or_default();
        let now = Instant::now();
        for gone in known.values_mut() {
            gone.get_or_insert(now);
        }
        known.extend(pairs.into_iter().map(|pair| (pair, None)));
        known.retain(|_, gone| gone.is_none_or(|gone| now.duration_since(gone) < REMEMBER));
    }

    fn of(&self, address: IpAddr) -> Vec<Pair> {
        let all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        all.get(&address).map(|pairs| pairs.keys().copied().collect()).unwrap_or_default()
    }
}

/// What an address agent tells its node.
#[derive(Debug)]
pub enum AddressEvent {
    /// For the core.
    Observed(AddressObservation),
    /// For the other nodes: who is connected now.
    Connections(IpAddr, Vec<Pair>),
    /// For people.
    Note(String),
}

/// The agent of one address.
pub struct AddressAgent {
    settings: AddressSettings,
    group: String,
    sentinel: SentinelHandle,
    connected: Connected,
    /// Whether any node is heard over the address's link; a carrier alone does not tell.
    reaches: watch::Receiver<bool>,
    events: mpsc::Sender<AddressEvent>,
    raised: Option<Interface>,
    /// Announcing, tickling, watching for others: ends when the address is lowered.
    work: JoinSet<()>,
    linked: Option<bool>,
    listed: Vec<Pair>,
    turnover: Turnover,
}

impl AddressAgent {
    /// An agent that acts for `group`.
    pub fn new(
        settings: AddressSettings,
        group: String,
        sentinel: SentinelHandle,
        connected: Connected,
        reaches: watch::Receiver<bool>,
        events: mpsc::Sender<AddressEvent>,
    ) -> AddressAgent {
        AddressAgent {
            settings,
            group,
            sentinel,
            connected,
            reaches,
            events,
            raised: None,
            work: JoinSet::new(),
            linked: None,
            listed: Vec::new(),
            turnover: Turnover::default(),
        }
    }

    /// Serves until the sender of commands is gone.
    pub async fn serve(mut self, mut commands: mpsc::Receiver<AddressCommand>) {
        let watcher = Watcher::open();
        if let Err(error) = &watcher {
            self.note(format!("cannot watch the network: {error}")).await;
        }
        self.look_at_link().await;
        let mut list = tokio::time::interval(LIST_EVERY);
        list.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                biased;
                command = commands.recv() => match command {
                    Some(AddressCommand::Raise { guard }) => self.raise(guard).await,
                    Some(AddressCommand::Lower) => self.lower().await,
                    None => return,
                },
                changes = changes(watcher.as_ref().ok()) => self.network_changed(&changes).await,
                Ok(()) = self.reaches.changed() => self.network_changed(&[]).await,
                _ = list.tick(), if self.raised.is_some() => self.list().await,
            }
        }
    }

    async fn tell(&self, what: AddressObservation) {
        let _ = self.events.send(AddressEvent::Observed(what)).await;
    }

    async fn note(&self, text: String) {
        let _ = self.events.send(AddressEvent::Note(text)).await;
    }

    fn find(&self, snapshot: &Snapshot) -> Result<Interface, NetworkError> {
        let AddressSettings { address, prefix, interface, .. } = &self.settings;
        match interface {
            Some(name) => snapshot.interface(name).cloned(),
            None => snapshot.interface_for(*address, *prefix).cloned(),
        }
    }

    async fn raise(&mut self, guard: Guard) {
        match self.try_raise(guard).await {
            Ok((interface, is_new)) => {
                self.tell(AddressObservation::Up).await;
                self.make_known(&interface);
                if is_new {
                    self.work.spawn(end_untold(self.settings.address));
                }
                self.raised = Some(interface);
            }
            Err(reason) => self.tell(AddressObservation::Failed { reason }).await,
        }
    }

    /// Also tells whether it was not there before: an agent after a restart finds it raised.
    async fn try_raise(&mut self, guard: Guard) -> Result<(Interface, bool), String> {
        let snapshot = Snapshot::take().await.map_err(|error| with_causes(&error))?;
        let interface = self.find(&snapshot).map_err(|error| with_causes(&error))?;
        let guard = words::Guard { group: self.group.clone(), generation: guard.generation, epoch: guard.epoch };
        let address = self.address(&interface);
        self.ask(words::Request::AddressUp { address, guard: Some(guard) }).await?;
        Ok((interface, !snapshot.holds(self.settings.address)))
    }

    fn address(&self, interface: &Interface) -> words::Address {
        words::Address {
            interface: interface.name.clone(),
            ip: self.settings.address,
            prefix_bits: self.settings.prefix,
        }
    }

    async fn ask(&self, request: words::Request) -> Result<(), String> {
        match self.sentinel.request(request, ANSWER_DEADLINE).await {
            Ok(words::Reply::Done) => Ok(()),
            Ok(words::Reply::Refused(refusal)) => Err(refusal.to_string()),
            Ok(words::Reply::Failed { reason }) => Err(reason),
            Ok(other) => Err(format!("the sentinel answered with {other:?}")),
            Err(error) => Err(with_causes(&error)),
        }
    }

    /// Neighbours first, then the clients that hang on connections to the former owner.
    fn make_known(&mut self, interface: &Interface) {
        let ip = self.settings.address;
        self.work.abort_all();
        if let Err(error) = announce(interface, ip) {
            tracing::warn!("{}", with_causes(&error));
        }
        let announcing = interface.clone();
        self.work.spawn(async move {
            let _ = keep_announcing(announcing, ip).await;
        });
        let pairs = self.connected.of(ip);
        let name = interface.name.clone();
        self.work.spawn(async move {
            match tickle(&name, &pairs).await {
                Ok(sent) if sent > 0 => tracing::info!(clients = pairs.len(), "reset what hung on the former owner"),
                Ok(_) => {}
                Err(error) => tracing::warn!("{}", with_causes(&error)),
            }
        });
        self.work.spawn(defend(interface.clone(), ip, self.events.clone()));
    }

    async fn lower(&mut self) {
        self.work.abort_all();
        let ip = self.settings.address;
        let interface = match self.raised.take() {
            Some(interface) => Some(interface),
            // After a restart of the agent the sentinel may still hold it.
            None => Snapshot::take().await.ok().and_then(|snapshot| self.find(&snapshot).ok()),
        };
        let Some(interface) = interface else {
            return self.tell(AddressObservation::Down).await;
        };
        let refuser = Refuser::open(&interface.name, ip);
        let reset = tokio::task::spawn_blocking(move || destroy_connections(End::Local(ip))).await;
        if let Ok(Err(error)) = reset {
            tracing::warn!("{}", with_causes(&error));
        }
        match self.ask(words::Request::AddressDown { address: self.address(&interface) }).await {
            Ok(()) => self.tell(AddressObservation::Down).await,
            Err(reason) => self.tell(AddressObservation::Failed { reason }).await,
        }
        self.listed.clear();
        match refuser {
            Ok(refuser) => {
                tokio::spawn(async move {
                    let _ = refuser.run(REFUSE_FOR).await;
                });
            }
            Err(error) => tracing::warn!("{}", with_causes(&error)),
        }
    }

    async fn list(&mut self) {
        let ip = self.settings.address;
        if !self.turnover.is_due() {
            return;
        }
        let Ok(pairs) = list_connections(ip) else { return self.turnover.forget() };
        if pairs != self.listed {
            self.listed.clone_from(&pairs);
            // Also for this node: after a lapse the next owner may be the same one.
            self.connected.set(ip, pairs.clone());
            let _ = self.events.send(AddressEvent::Connections(ip, pairs)).await;
        }
    }

    async fn look_at_link(&mut self) {
        let Ok(snapshot) = Snapshot::take().await else { return };
        let carrier = self.find(&snapshot).is_ok_and(|interface| interface.up && interface.carrier);
        let up = carrier && *self.reaches.borrow_and_update();
        if self.linked != Some(up) {
            self.linked = Some(up);
            self.tell(AddressObservation::Link { up }).await;
        }
        if self.raised.is_some() && !snapshot.holds(self.settings.address) {
            self.raised = None;
            self.work.abort_all();
            let reason = "the address was taken away by somebody else".to_owned();
            self.tell(AddressObservation::Failed { reason }).await;
        }
    }

    async fn network_changed(&mut self, changes: &[Change]) {
        let before = self.linked;
        self.look_at_link().await;
        let back = before == Some(false) && self.linked == Some(true);
        let own = |change: &Change| matches!(change, Change::Address(address) if address.ip == self.settings.address);
        if back
            && !changes.iter().any(own)
            && let Some(interface) = self.raised.clone()
        {
            self.make_known(&interface);
        }
    }
}

async fn changes(watcher: Option<&Watcher>) -> Vec<Change> {
    let Some(watcher) = watcher else { return std::future::pending().await };
    match watcher.changes().await {
        Ok(changes) => changes,
        Err(error) => {
            tracing::error!("{}", with_causes(&error));
            tokio::time::sleep(Duration::from_secs(1)).await;
            vec![Change::Lost]
        }
    }
}

/// Clients of a server that was killed here when the address was taken away.
async fn end_untold(ip: IpAddr) {
    match tokio::task::spawn_blocking(move || destroy_untold(End::Local(ip))).await {
        Ok(Ok(0)) | Err(_) => {}
        Ok(Ok(ended)) => tracing::info!(ended, "reset what had hung here since the address was taken away"),
        Ok(Err(error)) => tracing::warn!("{}", with_causes(&error)),
    }
}

/// Somebody else claims the address: say so, and claim it again.
async fn defend(interface: Interface, ip: IpAddr, events: mpsc::Sender<AddressEvent>) {
    let Ok(watch) = ConflictWatch::open(&interface) else { return };
    while let Ok((address, mac)) = watch.next(|claimed| claimed == ip).await {
        // What was claimed while this machine stood still may rightly be somebody else's by now.
        if !Snapshot::take().await.is_ok_and(|snapshot| snapshot.holds(ip)) {
            return;
        }
        let text = format!("address conflict: {mac} claims {address}");
        let _ = events.send(AddressEvent::Note(text)).await;
        let _ = announce(&interface, ip);
        // One line per second is enough for a duel.
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
}
