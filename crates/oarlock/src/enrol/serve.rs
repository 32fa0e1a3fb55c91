//! The first machine's end: hands each node its bundle, once, while the invitation stands.

use super::bundle::{Bundle, BundleFile};
use super::channel::{Channel, ChannelError};
use super::invitation::{Invitation, InvitationError, Joined};
use super::{INVITATION_FILE, KEY_FILE, SECRETS_DIR, TOKEN_LIFETIME, directory, now_s, with_causes};
use serde::{Deserialize, Serialize};
use std::collections::{HashMap, HashSet};
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};

/// Between two looks whether somebody is invited, and between two tries to bind.
const LOOK_INTERVAL: Duration = Duration::from_secs(2);
/// A connection must be over within this.
const CONNECTION_DEADLINE: Duration = Duration::from_secs(10);
/// Connections at a time.
const CONNECTIONS_MAX: usize = 8;
/// Wrong tokens from one address before it is no longer listened to …
const STRIKES_MAX: u32 = 5;
/// … for this long.
const STRIKE_LIFETIME: Duration = Duration::from_secs(60);
/// Addresses whose strikes are remembered.
const STRIKERS_MAX: usize = 256;
/// Largest secret file that is handed out, in bytes.
const SECRET_FILE_MAX_BYTES: u64 = 64 * 1024;
/// Most secret files.
const SECRET_FILES_MAX: usize = 16;

/// From the joining machine.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) enum Ask {
    /// "I am this node."
    Bundle {
        /// Its name.
        node: String,
    },
    /// "Everything is on my disk."
    Stored,
}

/// From the inviting machine.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) enum Tell {
    /// What makes a machine this node.
    Bundle(Bundle),
    /// The token is too old.
    Expired {
        /// Since when, in seconds since 1970.
        since_s: u64,
    },
    /// No such node is invited.
    Unknown {
        /// Who is.
        invited: Vec<String>,
    },
    /// That node has joined already.
    Taken {
        /// From where.
        from: String,
        /// When, in seconds since 1970.
        at_s: u64,
    },
    /// Another machine is just joining under that name, or this machine cannot read its own files.
    NotNow {
        /// In words.
        reason: String,
    },
    /// The key is forgotten here.
    Done,
}

/// Serves the invitation beside `config` on the given addresses of this machine, whenever there is
/// one. Never returns; dropping it ends everything it began.
pub async fn serve_invitations(config: PathBuf, addresses: Vec<IpAddr>) {
    let desk = Arc::new(Desk { config, busy: Mutex::default(), strikes: Mutex::default() });
    loop {
        if let Some(port) = desk.open_port() {
            let mut listeners = JoinSet::new();
            for address in &addresses {
                listeners.spawn(listen(Arc::clone(&desk), SocketAddr::new(*address, port)));
            }
            while desk.open_port() == Some(port) {
                sleep(LOOK_INTERVAL).await;
            }
        }
        sleep(LOOK_INTERVAL).await;
    }
}

async fn listen(desk: Arc<Desk>, address: SocketAddr) {
    let listener = loop {
        match TcpListener::bind(address).await {
            Ok(listener) => break listener,
            Err(error) => tracing::debug!("invitations: cannot listen on {address}: {error}"),
        }
        sleep(LOOK_INTERVAL).await;
    };
    let mut serving = JoinSet::new();
    loop {
        while serving.try_join_next().is_some() {}
        match listener.accept().await {
            Ok((stream, peer)) if serving.len() < CONNECTIONS_MAX && desk.listens_to(peer.ip()) => {
                let desk = Arc::clone(&desk);
                serving.spawn(async move {
                    match timeout(CONNECTION_DEADLINE, desk.serve(stream, peer.ip())).await {
                        Ok(Ok(())) => {}
                        Ok(Err(error)) => tracing::warn!("invitations: {}: {}", peer.ip(), with_causes(&error)),
                        Err(_) => tracing::warn!("invitations: {} took too long", peer.ip()),
                    }
                });
            }
            Ok(_) => {}
            Err(error) => {
                tracing::warn!("invitations: cannot accept a connection: {error}");
                sleep(LOOK_INTERVAL).await;
            }
        }
    }
}

/// Why a node did not get its bundle.
#[derive(Debug, thiserror::Error)]
enum ServeError {
    /// The other end.
    #[error("not served")]
    Channel(#[from] ChannelError),
    /// Our own files.
    #[error("cannot read or write the invitation")]
    Invitation(#[from] InvitationError),
    /// Another time.
    #[error("what this machine keeps cannot be used")]
    Files(#[from] io::Error),
}

/// What is common to all connections.
struct Desk {
    config: PathBuf,
    /// Nodes that are being served.
    busy: Mutex<HashSet<String>>,
    /// Wrong tokens by address, and the last time.
    strikes: Mutex<HashMap<IpAddr, (u32, Instant)>>,
}

impl Desk {
    fn invitation_path(&self) -> PathBuf {
        directory(&self.config).join(INVITATION_FILE)
    }

    /// The port to listen on, while anybody may still join or be told that it is too late.
    fn open_port(&self) -> Option<u16> {
        match Invitation::load(&self.invitation_path()) {
            Ok(Some(invitation)) => {
                let long_gone = invitation.expires_s + TOKEN_LIFETIME.as_secs() < now_s();
                (!long_gone).then_some(invitation.port)
            }
            Ok(None) => None,
            Err(error) => {
                tracing::warn!("{}", with_causes(&error));
                None
            }
        }
    }

    fn listens_to(&self, address: IpAddr) -> bool {
        let mut strikes = locked(&self.strikes);
        strikes.retain(|_, (_, last)| last.elapsed() < STRIKE_LIFETIME);
        strikes.get(&address).is_none_or(|(count, _)| *count < STRIKES_MAX)
    }

    fn strike(&self, address: IpAddr) {
        let mut strikes = locked(&self.strikes);
        if strikes.len() < STRIKERS_MAX || strikes.contains_key(&address) {
            let (count, last) = strikes.entry(address).or_insert((0, Instant::now()));
            (*count, *last) = (*count + 1, Instant::now());
        }
    }

    async fn serve(self: &Arc<Self>, stream: TcpStream, from: IpAddr) -> Result<(), ServeError> {
        let path = self.invitation_path();
        let load = move || Invitation::load(&path);
        let Some(invitation) = blocking(load).await?? else { return Ok(()) };
        let Some(secret) = invitation.secret() else { return Ok(()) };
        let mut channel = match Channel::accept(stream, &secret).await {
            Err(error @ ChannelError::Foreign(_)) => {
                self.strike(from);
                return Err(error.into());
            }
            other => other?,
        };
        let Ask::Bundle { node } = channel.receive().await? else { return Ok(()) };
        let Some(busy) = Busy::begin(Arc::clone(self), &node) else {
            let reason = format!("another machine is joining as \"{node}\" at this moment");
            return Ok(channel.send(&Tell::NotNow { reason }).await?);
        };
        let answer = answer(&invitation, &node, &self.config).await;
        channel.send(&answer).await?;
        if !matches!(answer, Tell::Bundle(_)) {
            return Ok(());
        }
        let Ask::Stored = channel.receive().await? else { return Ok(()) };
        let (path, name) = (self.invitation_path(), node.clone());
        let forget = move || forget(&path, name, from);
        blocking(forget).await??;
        tracing::info!("invitations: node \"{node}\" has joined from {from}");
        drop(busy);
        Ok(channel.send(&Tell::Done).await?)
    }
}

/// Marks a node as being served until dropped.
struct Busy {
    desk: Arc<Desk>,
    node: String,
}

impl Busy {
    fn begin(desk: Arc<Desk>, node: &str) -> Option<Busy> {
        let free = locked(&desk.busy).insert(node.to_owned());
        free.then(|| Busy { desk, node: node.to_owned() })
    }
}

impl Drop for Busy {
    fn drop(&mut self) {
        locked(&self.desk.busy).remove(&self.node);
    }
}

async fn answer(invitation: &Invitation, node: &str, config: &Path) -> Tell {
    if invitation.expires_s <= now_s() {
        return Tell::Expired { since_s: invitation.expires_s };
    }
    if let Some(joined) = invitation.joined.iter().find(|joined| joined.name == node) {
        return Tell::Taken { from: joined.from.clone(), at_s: joined.at_s };
    }
    let Some(invited) = invitation.nodes.iter().find(|invited| invited.name == node) else {
        return Tell::Unknown { invited: invitation.nodes.iter().map(|invited| invited.name.clone()).collect() };
    };
    let (node, key, config) = (invited.name.clone(), invited.key.clone(), config.to_owned());
    match blocking(move || bundle(node, key, &config)).await {
        Ok(Ok(bundle)) => Tell::Bundle(bundle),
        Ok(Err(error)) | Err(error) => {
            tracing::error!("invitations: cannot put the files together: {error}");
            Tell::NotNow { reason: format!("the inviting machine cannot read its own files: {error}") }
        }
    }
}

/// Everything a node needs: the secrets, its key, and last the configuration.
fn bundle(node: String, key: String, config: &Path) -> io::Result<Bundle> {
    let mut files = Vec::new();
    let secrets = directory(config).join(SECRETS_DIR);
    let mut entries: Vec<PathBuf> = match std::fs::read_dir(&secrets) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Vec::new(),
        other => other?.take(SECRET_FILES_MAX).map(|entry| Ok(entry?.path())).collect::<io::Result<_>>()?,
    };
    entries.sort();
    for path in entries {
        let Some(name) = path.file_name().and_then(|name| name.to_str()) else { continue };
        if !path.is_file() {
            continue;
        }
        let mut content = Vec::new();
        io::Read::read_to_end(&mut io::Read::take(std::fs::File::open(&path)?, SECRET_FILE_MAX_BYTES), &mut content)?;
        files.push(BundleFile { path: format!("{SECRETS_DIR}/{name}"), public: false, content });
    }
    files.push(BundleFile { path: KEY_FILE.to_owned(), public: false, content: key.into_bytes() });
    let text = std::fs::read(config)?;
    files.push(BundleFile { path: super::CONFIG_FILE.to_owned(), public: true, content: text });
    Ok(Bundle { node, files })
}

fn forget(path: &Path, node: String, from: IpAddr) -> Result<(), InvitationError> {
    // Read again: another node may have joined meanwhile.
    let Some(mut invitation) = Invitation::load(path)? else { return Ok(()) };
    invitation.nodes.retain(|invited| invited.name != node);
    invitation.joined.push(Joined { name: node, from: from.to_string(), at_s: now_s() });
    invitation.save(path)
}

/// Off the agent's thread: a slow disk must not delay its heartbeat.
async fn blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> io::Result<T> {
    tokio::task::spawn_blocking(work).await.map_err(io::Error::other)
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // What is inside stays sound whatever a panicking task did.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
