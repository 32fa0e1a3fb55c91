//! The joining machine's end.

use super::bundle::Bundle;
use super::channel::{Channel, ChannelError};
use super::serve::{Ask, Tell};
use super::token::Token;
use super::{CONFIG_FILE, KEY_FILE, with_causes};
use crate::config;
use std::io;
use std::net::SocketAddr;
use std::time::Duration;
use tokio::net::TcpStream;
use tokio::time::{Instant, sleep, timeout, timeout_at};

/// One address is given this long to answer.
const CONNECT_DEADLINE: Duration = Duration::from_secs(3);
/// One whole exchange.
const EXCHANGE_DEADLINE: Duration = Duration::from_secs(15);
/// Between two tries; the inviting agent may start a little later.
const RETRY_INTERVAL: Duration = Duration::from_millis(500);
/// So many refusals of the secret are final: it does not get better by waiting.
const REFUSALS_MAX: u32 = 3;

/// Why a machine could not join.
#[derive(Debug, thiserror::Error)]
pub enum FetchError {
    /// Nobody answered until the deadline.
    #[error("no agent answered the invitation within {} s; last: {last}", waited.as_secs())]
    Silence {
        /// How long was tried.
        waited: Duration,
        /// The last failure, in words.
        last: String,
    },
    /// The inviting machine does not know the secret (any more).
    #[error("the inviting machine refuses the token")]
    Refused,
    /// The token is too old.
    #[error("the token has expired")]
    Expired {
        /// Since when, in seconds since 1970.
        since_s: u64,
    },
    /// No such node is invited.
    #[error("no node \"{node}\" is invited")]
    Unknown {
        /// Who asked.
        node: String,
        /// Who is.
        invited: Vec<String>,
    },
    /// That node has joined already.
    #[error("node \"{node}\" has already joined, from {from}")]
    Taken {
        /// Who asked.
        node: String,
        /// From where it joined.
        from: String,
        /// When, in seconds since 1970.
        at_s: u64,
    },
    /// What came cannot be used.
    #[error("the inviting machine sent something that cannot be used: {problem}")]
    Unusable {
        /// In words.
        problem: String,
    },
    /// It came and could not be written down.
    #[error("cannot write the node's files")]
    Store(#[source] io::Error),
}

/// How one try ended.
enum Try {
    Final(FetchError),
    Refused,
    Again(String),
}

/// Fetches this node's bundle from the machine the token names, hands it to `store`, and once that
/// has succeeded has the other machine forget the key. Tries until `deadline` has passed.
pub async fn fetch(
    token: &Token,
    node: &str,
    deadline: Duration,
    mut store: impl FnMut(&Bundle) -> io::Result<()>,
) -> Result<Bundle, FetchError> {
    let end = Instant::now() + deadline;
    let mut refusals = 0;
    let mut last = "nothing was tried".to_owned();
    loop {
        for address in &token.addresses {
            let address = SocketAddr::new(*address, token.port);
            let exchange = timeout(EXCHANGE_DEADLINE, exchange(token, node, address, &mut store));
            match timeout_at(end, exchange).await {
                Err(_) => return Err(FetchError::Silence { waited: deadline, last }),
                Ok(Err(_)) => last = format!("{address} took too long"),
                Ok(Ok(Ok(bundle))) => return Ok(bundle),
                Ok(Ok(Err(Try::Final(error)))) => return Err(error),
                Ok(Ok(Err(Try::Refused))) => {
                    refusals += 1;
                    last = format!("{address} refused the token");
                    if refusals >= REFUSALS_MAX {
                        return Err(FetchError::Refused);
                    }
                }
                Ok(Ok(Err(Try::Again(reason)))) => last = format!("{address}: {reason}"),
            }
        }
        if timeout_at(end, sleep(RETRY_INTERVAL)).await.is_err() {
            return Err(FetchError::Silence { waited: deadline, last });
        }
    }
}

async fn exchange(
    token: &Token,
    node: &str,
    address: SocketAddr,
    store: &mut impl FnMut(&Bundle) -> io::Result<()>,
) -> Result<Bundle, Try> {
    let connect = timeout(CONNECT_DEADLINE, TcpStream::connect(address)).await;
    let stream =
        connect.map_err(|_| Try::Again("no answer".to_owned()))?.map_err(|error| Try::Again(error.to_string()))?;
    let mut channel = match Channel::open(stream, &token.secret).await {
        Ok(channel) => channel,
        // Who does not know the secret gets no answer, only the end of the connection.
        Err(ChannelError::Broken(_) | ChannelError::Foreign(_)) => return Err(Try::Refused),
        Err(error) => return Err(Try::Again(with_causes(&error))),
    };
    let again = |error: ChannelError| Try::Again(with_causes(&error));
    channel.send(&Ask::Bundle { node: node.to_owned() }).await.map_err(again)?;
    let node = node.to_owned();
    let bundle = match channel.receive::<Tell>().await.map_err(again)? {
        Tell::Bundle(bundle) => bundle,
        Tell::Expired { since_s } => return Err(Try::Final(FetchError::Expired { since_s })),
        Tell::Unknown { invited } => return Err(Try::Final(FetchError::Unknown { node, invited })),
        Tell::Taken { from, at_s } => return Err(Try::Final(FetchError::Taken { node, from, at_s })),
        Tell::NotNow { reason } => return Err(Try::Again(reason)),
        Tell::Done => return Err(Try::Again("an answer to another question".to_owned())),
    };
    check(&bundle, &node).map_err(|problem| Try::Final(FetchError::Unusable { problem }))?;
    store(&bundle).map_err(|error| Try::Final(FetchError::Store(error)))?;
    // Everything is here. Should this get lost, the key is only forgotten later over there.
    if channel.send(&Ask::Stored).await.is_ok() {
        let _: Result<Tell, _> = channel.receive().await;
    }
    Ok(bundle)
}

/// The bundle must make this machine that node.
fn check(bundle: &Bundle, node: &str) -> Result<(), String> {
    if bundle.node != node {
        return Err(format!("files for node \"{}\"", bundle.node));
    }
    let text = bundle.content(CONFIG_FILE).ok_or("no configuration")?;
    let text = std::str::from_utf8(text).map_err(|_| "a configuration that is not text")?;
    let settings =
        config::parse(CONFIG_FILE, text).map_err(|problems| format!("its configuration is wrong: {problems}"))?;
    if settings.node(node).is_none() {
        return Err(format!("a configuration without node \"{node}\""));
    }
    if bundle.content(KEY_FILE).is_none() {
        return Err("no key".to_owned());
    }
    Ok(())
}
