//! Gives copies of this node's primary to the agents of the other members, over an encrypted
//! connection that only who knows the cluster's replication password can open.

use super::context::{Phase, Shared};
use super::error::{MariaError, Result};
use super::inspect;
use super::program::environment;
use crate::agents::launcher::Launcher;
use crate::agents::postgresql::error::PgError;
use crate::enrol::channel::Channel;
use crate::enrol::token::{SECRET_BYTES, hash};
use oarlock_core::resource::database::Running;
use serde::{Deserialize, Serialize};
use std::fs::OpenOptions;
use std::net::{IpAddr, SocketAddr};
use std::process::Stdio;
use std::sync::Arc;
use std::time::Duration;
use tokio::io::AsyncReadExt;
use tokio::net::{TcpListener, TcpStream};
use tokio::process::Command;
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio::time::timeout;

/// How long the other end may be silent, or a step of a copy may take.
pub(super) const SILENCE: Duration = Duration::from_secs(30);
/// Between two attempts to listen: a link's address may come later.
const RETRY: Duration = Duration::from_secs(1);
/// How many ask at a time.
const GUESTS: usize = 4;
/// Part of a copy, in bytes.
const PART: usize = 128 * 1024;

/// What another member's agent asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum Request {
    /// What the primary's history is.
    History,
    /// That, and a copy of all data.
    Copy,
}

/// What it gets.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum Reply {
    /// Nothing, and why.
    Refused(String),
    /// The primary's history.
    History(History),
    /// The next part of the copy.
    Part(Vec<u8>),
    /// The copy is complete.
    Complete,
}

/// A primary's history.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct History {
    /// The database's identifier.
    pub system: u64,
    /// The last transaction of each server that ever wrote: `gtid_binlog_state`.
    pub state: String,
    /// Something of it was never sent to anybody: only a copy of all has it.
    pub errant: bool,
}

/// What opens the connection.
pub(super) fn secret(password: &str) -> [u8; SECRET_BYTES] {
    let long = hash(b"oarlock mariadb copy", password.as_bytes());
    let mut secret = [0; SECRET_BYTES];
    secret.copy_from_slice(&long[..SECRET_BYTES]);
    secret
}

/// Listens on all of this node's links until the task is aborted.
pub(super) async fn listen<L: Launcher>(context: Shared<L>) {
    let Ok(own) = context.member(context.settings.node) else { return };
    let places = Arc::new(Semaphore::new(GUESTS));
    let mut links = JoinSet::new();
    for link in own.links {
        links.spawn(listen_on(context.clone(), link, own.copy_port, places.clone()));
    }
    while links.join_next().await.is_some() {}
}

async fn listen_on<L: Launcher>(context: Shared<L>, link: IpAddr, port: u16, places: Arc<Semaphore>) {
    let address = SocketAddr::new(link, port);
    let mut said = false;
    let listener = loop {
        match TcpListener::bind(address).await {
            Ok(listener) => break listener,
            Err(error) if !said => {
                said = true;
                context.note(format!("copies cannot be given away on {address} yet: {error}")).await;
            }
            Err(_) => {}
        }
        tokio::time::sleep(RETRY).await;
    };
    let mut guests = JoinSet::new();
    loop {
        while guests.try_join_next().is_some() {}
        let Ok(place) = places.clone().acquire_owned().await else { return };
        match listener.accept().await {
            Ok((stream, from)) => {
                let context = context.clone();
                guests.spawn(async move {
                    if let Err(error) = serve(&context, stream).await {
                        tracing::warn!("copy for {from}: {}", error.in_words());
                    }
                    drop(place);
                });
            }
            Err(_) => tokio::time::sleep(RETRY).await,
        }
    }
}

async fn serve<L: Launcher>(context: &Shared<L>, stream: TcpStream) -> Result<()> {
    let secret = secret(&context.settings.secrets.replication_password);
    let mut channel = within(Channel::accept(stream, &secret), "greeting").await?;
    let request = within(channel.receive::<Request>(), "what is asked for").await?;
    let history = match history(context).await {
        Ok(history) => history,
        Err(error) => return say(&mut channel, &Reply::Refused(error.in_words())).await,
    };
    say(&mut channel, &Reply::History(history)).await?;
    if request == Request::History {
        return Ok(());
    }
    match give(context, &mut channel).await {
        Ok(()) => say(&mut channel, &Reply::Complete).await,
        Err(error) => {
            say(&mut channel, &Reply::Refused(error.in_words())).await?;
            Err(error)
        }
    }
}

async fn say(channel: &mut Channel, reply: &Reply) -> Result<()> {
    within(channel.send(reply), "the other end to take it").await
}

/// A step of the exchange, with its deadline.
pub(super) async fn within<T>(
    step: impl Future<Output = Result<T, crate::enrol::channel::ChannelError>>,
    what: &str,
) -> Result<T> {
    match timeout(SILENCE, step).await {
        Ok(result) => result.map_err(MariaError::channel(what)),
        Err(_) => Err(MariaError::Timeout { what: what.to_owned(), after: SILENCE }),
    }
}

async fn history<L: Launcher>(context: &Shared<L>) -> Result<History> {
    let serving = {
        let server = context.server();
        server.phase == Phase::Up && server.running == Running::Primary
    };
    if !serving {
        return Err(MariaError::other("no primary runs here"));
    }
    let system = inspect::read_system(&context.settings.data_dir)?;
    let system = system.ok_or_else(|| MariaError::other("the primary's database has no identifier"))?;
    let mut session = context.session().await?;
    let state = session.value("select @@global.gtid_binlog_state", context.settings.timing.statement).await?;
    Ok(History { system, state, errant: inspect::has_errant(&context.settings.data_dir) })
}

/// Sends a copy. Should this agent end, the tool's output has no reader any more, and it ends too.
async fn give<L: Launcher>(context: &Shared<L>, channel: &mut Channel) -> Result<()> {
    let settings = &context.settings;
    let log = OpenOptions::new().create(true).append(true).open(&settings.log_file);
    let log = log.map_err(PgError::io("open", &settings.log_file))?;
    let path = context.tool("mariadb-backup")?;
    let mut command = Command::new(&path);
    command.args(["--no-defaults", "--backup", "--stream=xbstream", "--skip-ssl"]);
    // At its end commits are blocked until it has looked at the log once more, which it does once a second by itself:
    // clients waited for that, and so did our own probe.
    command.arg("--log-copy-interval=20");
    command.arg(format!("--user={}", settings.admin)).arg(format!("--socket={}", settings.socket().display()));
    command.arg(format!("--datadir={}", settings.data_dir.display()));
    command.arg(format!("--target-dir={}", context.run_file("copy").display()));
    command.env_clear().envs(environment()).current_dir("/").kill_on_drop(true);
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(log);
    let mut child = command.spawn().map_err(PgError::io("run", &path))?;
    let mut output = child.stdout.take().ok_or_else(|| MariaError::other("mariadb-backup has no output"))?;
    let mut part = vec![0; PART];
    loop {
        let read = timeout(settings.timing.copy, output.read(&mut part)).await;
        let read = read.map_err(|_| MariaError::Timeout { what: "a copy".to_owned(), after: settings.timing.copy })?;
        let read = read.map_err(PgError::io("read from", &path))?;
        if read == 0 {
            break;
        }
        say(channel, &Reply::Part(part[..read].to_vec())).await?;
    }
    let ended = timeout(SILENCE, child.wait()).await;
    let ended = ended.map_err(|_| MariaError::Timeout { what: "mariadb-backup".to_owned(), after: SILENCE })?;
    let ended = ended.map_err(PgError::io("wait for", &path))?;
    if !ended.success() {
        let said = crate::agents::postgresql::files::tail(&settings.log_file, 0);
        return Err(MariaError::other(format!("mariadb-backup: {ended}: {said}")));
    }
    Ok(())
}
