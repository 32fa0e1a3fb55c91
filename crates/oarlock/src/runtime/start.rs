//! Brings the agent up under its sentinel.

use super::events::EventLog;
use super::grants::Grants;
use super::memory::Memory;
use super::resources::{Resources, Surroundings};
use super::{Connected, Ended, Inputs, Node, clock, config_file, incarnation, lease};
use crate::causes::with_causes;
use crate::cli::AgentOptions;
use crate::config::{self, ConfigError, NodeSettings, Settings};
use crate::control::{ControlServer, Operators, socket_path};
use crate::keys::{KeyError, PrivateKey};
use crate::sentinel::{Patience, SentinelError, SentinelHandle};
use crate::store;
use crate::transport::{LinkTiming, LocalNode, Peer, Transport};
use anyhow::{Context, anyhow};
use oarlock_core::Core;
use oarlock_core::durable::Durable;
use oarlock_core::event::{Boot, Held, Loaded};
use oarlock_core::sentinel::{Reply, Request, Welcome};
use oarlock_core::time::Mono;
use std::collections::BTreeMap;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::time::Duration;
use tokio::sync::{mpsc, watch};

/// What a sentinel may be silent for before the configuration has told the lease.
const HELLO_PATIENCE: Duration = Duration::from_secs(1);
/// What threads that wait for a disk may take to end with us: almost nothing, for in between nobody
/// holds the deadline.
const SHUTDOWN: Duration = Duration::from_millis(5);
/// The sentinel's stop budget is a fraction of a second; a process that hangs in the kernel takes longer.
const SILENCE_DEADLINE: Duration = Duration::from_secs(10);
/// Reports of tasks that wait for the loop.
const WAITING: usize = 1024;

/// What does not get better by trying again.
#[derive(Debug, thiserror::Error)]
pub enum Misconfigured {
    /// The configuration is wrong.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// The key is missing or wrong.
    #[error(transparent)]
    Key(#[from] KeyError),
    /// The configuration is for other machines.
    #[error("no [[node]] of {} has the public key of this machine", path.display())]
    Stranger {
        /// The configuration.
        path: PathBuf,
    },
}

/// Runs the agent until its sentinel is gone, or it is to start anew.
///
/// # Errors
/// When it cannot start: configuration ([`Misconfigured`]), key, store, sockets.
pub fn run(options: &AgentOptions, sentinel: OwnedFd) -> anyhow::Result<Ended> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .max_blocking_threads(8)
        .thread_stack_size(256 * 1024)
        .build()
        .context("cannot start the runtime")?;
    let served = runtime.block_on(serve(options, sentinel));
    runtime.shutdown_timeout(SHUTDOWN);
    served
}

async fn serve(options: &AgentOptions, sentinel: OwnedFd) -> anyhow::Result<Ended> {
    let (sentinel, notices) = SentinelHandle::new(sentinel).context("cannot use the socket to the sentinel")?;
    let welcome = match silent_if_lapsed(&sentinel).await {
        Ok(welcome) => welcome,
        // Killed for its silence, or dead.
        Err(Unsettled::Sentinel(SentinelError::Timeout { .. } | SentinelError::Gone)) => {
            return Ok(Ended::SentinelGone);
        }
        Err(error) => return Err(error.into()),
    };
    let (settings, key, me) = identify(&options.config)?;
    let owner = store::Owner { cluster: settings.cluster.clone(), node: me.name.clone() };
    let memory = Memory::new(&options.state_dir, &crate::enrol::directory(&options.config));
    let (store, loaded) = memory.open(&owner)?;
    let mut kept = incarnation::Kept::read(&options.run_dir);
    let boot = boot(&settings, &me, &welcome, loaded, &mut kept)?;

    let transport = bind(&settings, &me, key)?;
    let (inner, inner_queue) = mpsc::channel(WAITING);
    let (leases, steps) = mpsc::unbounded_channel();
    tokio::spawn(lease::Teller::new(sentinel.clone(), &settings.timing, inner.clone()).tell(steps));
    let connected = Connected::default();
    let (config_texts, newest) = watch::channel(settings.text.clone());
    tokio::spawn(config_file::keep(options.config.clone(), newest, inner.clone()));
    let around = Surroundings {
        me: me.id,
        sentinel: sentinel.clone(),
        inner,
        connected: connected.clone(),
        config_dir: crate::enrol::directory(&options.config),
        run_dir: options.run_dir.clone(),
        log_dir: std::path::PathBuf::from("/var/log/oarlock"),
    };
    std::fs::create_dir_all(&around.log_dir).context("cannot make /var/log/oarlock")?;
    let resources = Resources::start(&settings, &around).await.map_err(anyhow::Error::msg)?;
    let control = ControlServer::bind(&socket_path(&options.run_dir), Operators::from_system())
        .context("cannot open the control socket")?;
    let (calls, call_queue) = mpsc::channel(64);
    tokio::spawn(control.run(calls));

    tokio::spawn(crate::enrol::serve_invitations(options.config.clone(), me.links.clone()));
    let mut log = EventLog::new(me.name.clone());
    log.add(&format!("agent of {} started, version {}", me.name, env!("CARGO_PKG_VERSION")));
    crate::notify::ready(&format!("node {} of cluster {}", me.name, settings.cluster));
    let mut node = Node {
        core: Core::new(boot, clock::now()),
        grants: Grants::start(&sentinel, &settings, &me, welcome.platform.realtime),
        started_with: settings.clone(),
        settings,
        config_path: options.config.clone(),
        transport,
        store,
        sentinel,
        leases,
        resources,
        config_texts,
        connected,
        log,
        calls: BTreeMap::new(),
        next_call: 0,
        platform: welcome.platform,
        incarnation: kept,
        clock_offsets: BTreeMap::new(),
        leave_call: None,
        asking: None,
        restart_at: None,
        restart_call: None,
        memory,
        renounced: false,
    };
    // As a task of its own: waking the task that the runtime was entered with takes a system call each time.
    let inputs = Inputs { notices, inner: inner_queue, calls: call_queue };
    tokio::spawn(async move { node.serve(inputs).await }).await.context("the agent's loop failed")
}

/// The configuration, and which of its nodes this machine is.
fn identify(config: &Path) -> Result<(Settings, PrivateKey, NodeSettings), Misconfigured> {
    let settings = config::load(config)?;
    let key = PrivateKey::read(&crate::enrol::directory(config).join("node.key"))?;
    let me = settings.node_by_key(&key.public()).cloned();
    let me = me.ok_or_else(|| Misconfigured::Stranger { path: config.to_owned() })?;
    Ok((settings, key, me))
}

/// What the sentinel knows. After a lapse: once everything that was guarded is gone, since the next
/// incarnation means just that.
async fn silent_if_lapsed(sentinel: &SentinelHandle) -> Result<Welcome, Unsettled> {
    let end = tokio::time::Instant::now() + SILENCE_DEADLINE;
    loop {
        let patience = Patience::of_lease(HELLO_PATIENCE * 3);
        let Reply::Welcome(welcome) = sentinel.insist(Request::Hello, patience).await? else {
            return Err(SentinelError::WrongReply.into());
        };
        let guarded = welcome.services.iter().any(|service| service.guard.is_some() && service.is_alive())
            || welcome.addresses.iter().any(|address| address.guard.is_some());
        let lapsed = welcome.generation > 0 && welcome.lapsed_generation >= welcome.generation;
        if !(lapsed && guarded) {
            return Ok(*welcome);
        }
        if tokio::time::Instant::now() > end {
            return Err(Unsettled::Left);
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

/// Why an agent cannot begin under its sentinel.
#[derive(Debug, thiserror::Error)]
enum Unsettled {
    #[error("cannot begin under the sentinel")]
    Sentinel(#[from] SentinelError),
    #[error("what the lapsed lease guarded is still there: the sentinel goes on removing it")]
    Left,
}

fn bind(settings: &Settings, me: &NodeSettings, key: PrivateKey) -> anyhow::Result<Transport> {
    let heartbeat_ms = settings.timing.heartbeat.as_ms().max(1);
    let timing = LinkTiming {
        probe_ms: heartbeat_ms * 2,
        down_after_ms: settings.timing.lease.as_ms(),
        retry_ms: heartbeat_ms.min(20),
    };
    let peers = settings.nodes.iter().filter(|node| node.id != me.id).map(|node| Peer {
        id: node.id.0,
        name: node.name.clone(),
        public_key: node.key,
        links: node.links.clone(),
    });
    let local = LocalNode { name: me.name.clone(), private_key: key, links: me.links.clone(), port: settings.port };
    Ok(Transport::bind(&local, &settings.cluster, peers.collect(), timing)?)
}

fn boot(
    settings: &Settings,
    me: &NodeSettings,
    welcome: &Welcome,
    loaded: store::Loaded,
    kept: &mut incarnation::Kept,
) -> anyhow::Result<Boot> {
    let durable = match loaded {
        store::Loaded::Fresh => Loaded::Fresh,
        store::Loaded::Doubtful { reason } => Loaded::Doubtful { reason },
        store::Loaded::Intact(bytes) => match Durable::decode(&bytes) {
            Ok(durable) => Loaded::Intact(Box::new(durable)),
            Err(error) => Loaded::Doubtful { reason: format!("the state is of no known form: {error}") },
        },
    };
    let generation = match &durable {
        Loaded::Intact(durable) => durable.log.state.config.generation,
        _ => 1,
    };
    let random = random()?;
    let former = kept.incarnation().filter(|_| !welcome.fresh);
    let held = former.zip(welcome.deadline_us).map(|(incarnation, deadline_us)| Held {
        incarnation,
        generation: welcome.generation,
        deadline: Mono(deadline_us),
        lapsed: welcome.lapsed_generation >= welcome.generation,
        floor_index: welcome.floor_index,
        released: welcome.released.clone(),
    });
    // A lease that lapsed leaves no deadline behind, but its incarnation is spent all the same.
    let spent = former.filter(|_| held.is_none()).map(|incarnation| Held {
        incarnation,
        generation: welcome.generation,
        deadline: Mono(0),
        lapsed: true,
        floor_index: welcome.floor_index,
        released: welcome.released.clone(),
    });
    Ok(Boot {
        me: me.id,
        incarnation: random.max(1),
        held: held.or(spent),
        durable,
        config: settings.core(generation),
        seed: random,
    })
}

fn random() -> anyhow::Result<u64> {
    let mut bytes = [0; 8];
    crate::keys::random_bytes(&mut bytes).map_err(|error| anyhow!(with_causes(&error)))?;
    Ok(u64::from_le_bytes(bytes))
}
