//! Sockets and time for the [`Endpoint`].

use std::future::poll_fn;
use std::io;
use std::net::IpAddr;
use std::task::Poll;
use std::time::{Duration, Instant, SystemTime};

use super::endpoint::Endpoint;
use super::socket::LinkSocket;
use super::{LinkStatus, LinkTiming, LocalNode, Peer, SendError, Stats, Suspicions, TransportError, TransportEvent};
use crate::keys::PrivateKey;

/// Datagrams taken from one socket before the others, the timers and the caller get their turn.
const TURN: usize = 64;
/// More than the longest datagram, so that a longer one is seen to be too long.
const BUFFER_BYTES: usize = 2048;
/// What is due again at once after having been done is a fault; it must not become a busy loop.
const REST: Duration = Duration::from_millis(1);

/// Messages to and from all peers. It works while [`Transport::next`] is being awaited, and only then.
pub struct Transport {
    endpoint: Endpoint,
    port: u16,
    sockets: Vec<LinkSocket>,
    buffer: Box<[u8; BUFFER_BYTES]>,
    /// Something came the last time we looked: there may be more.
    received: bool,
}

impl Transport {
    /// Opens the sockets and begins to meet the peers. A link without its address is no error: it joins when it can.
    ///
    /// Must be called within a tokio runtime with I/O and time enabled.
    pub fn bind(
        local: &LocalNode,
        cluster: &str,
        peers: Vec<Peer>,
        timing: LinkTiming,
    ) -> Result<Self, TransportError> {
        let now = Instant::now();
        let wall = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        let endpoint = Endpoint::new(now, wall.as_micros() as u64, local, cluster, peers, timing)?;
        let sockets = local.links.iter().map(|address| LinkSocket::new(now, *address, local.port)).collect();
        let buffer = Box::new([0; BUFFER_BYTES]);
        let mut transport = Self { endpoint, port: local.port, sockets, buffer, received: false };
        transport.open(now)?;
        Ok(transport)
    }

    fn open(&mut self, now: Instant) -> Result<(), TransportError> {
        // Other failures were logged, and are tried again.
        let in_use = |error: &io::Error| error.kind() == io::ErrorKind::AddrInUse;
        let clashes = self.sockets.iter_mut().filter_map(|socket| socket.open(now).err()).filter(in_use).count();
        match self.sockets.first() {
            Some(socket) if clashes == self.sockets.len() => {
                Err(TransportError::PortInUse { address: socket.socket_address() })
            }
            _ => Ok(()),
        }
    }

    /// Sends a message to a peer, at the next [`Transport::flush`] or before [`Transport::next`] next waits: all that is
    /// said to a peer in one turn leaves together. A peer that is down is no error: what cannot be sent is dropped and
    /// counted, except that the newest few messages wait a moment for the first session.
    pub fn send(&mut self, peer: u8, payload: &[u8]) -> Result<(), SendError> {
        self.endpoint.send(Instant::now(), peer, payload)
    }

    /// The turn is over: sends what was said in it. Never waits.
    pub fn flush(&mut self) {
        self.endpoint.flush(Instant::now());
        self.transmit();
    }

    /// Whether something that came with the same wake-up has still to be told: the turn is not over.
    pub fn has_more(&self) -> bool {
        self.endpoint.has_event()
    }

    /// The next thing that happened. Dropping the future loses nothing.
    pub async fn next(&mut self) -> TransportEvent {
        loop {
            let now = Instant::now();
            if self.endpoint.due().is_some_and(|due| due <= now) {
                self.endpoint.on_timeout(now);
            }
            self.sockets.iter_mut().for_each(|socket| drop(socket.open(now)));
            if let Some(event) = self.endpoint.poll_event() {
                return event;
            }
            self.flush();
            if std::mem::take(&mut self.received) {
                pause().await;
            }
            // Without being told that there is something: while we dealt with one copy of a datagram, that on the next
            // link has come, and read now it does not wake us.
            self.received = self.receive();
            if !self.received {
                self.wait(now).await;
                self.received = self.receive();
            }
        }
    }

    async fn wait(&self, now: Instant) {
        let dues = self.sockets.iter().filter_map(LinkSocket::due).chain(self.endpoint.due());
        let wake = dues.min().map_or(now + Duration::from_secs(1), |due| due.max(now + REST));
        let readable = poll_fn(|cx| {
            // Every socket, so that each one wakes us.
            let ready = self.sockets.iter().filter(|socket| socket.poll_ready(cx).is_ready()).count();
            if ready > 0 { Poll::Ready(()) } else { Poll::Pending }
        });
        tokio::select! {
            () = readable => {}
            () = tokio::time::sleep_until(wake.into()) => {}
        }
    }

    /// Whether anything came.
    fn receive(&mut self) -> bool {
        let mut came = false;
        for socket in &self.sockets {
            for _ in 0..TURN {
                let Some((length, from)) = socket.receive(&mut self.buffer[..]) else { break };
                came = true;
                let datagram = self.buffer.get(..length).unwrap_or_default();
                self.endpoint.on_datagram(Instant::now(), socket.address, from, datagram);
            }
        }
        self.transmit();
        came
    }

    fn transmit(&mut self) {
        while let Some(transmit) = self.endpoint.poll_transmit() {
            let socket = self.sockets.iter().find(|socket| socket.address == transmit.local);
            let sent = socket.map(|socket| socket.send(transmit.remote, &transmit.datagram));
            if !matches!(sent, Some(Ok(()))) {
                self.endpoint.on_send_error(&transmit);
            }
        }
    }

    /// Takes another set of peers, as a newly committed configuration has it. Unchanged peers keep their sessions; a
    /// peer with a new key keeps its session until the handshake with the new key has ended (five minutes at most).
    /// On an error nothing changes.
    pub fn replace_peers(&mut self, peers: Vec<Peer>) -> Result<(), TransportError> {
        let links: Vec<_> = self.sockets.iter().map(|socket| socket.address).collect();
        self.replace(&links, peers)
    }

    /// The same, with another set of own links. Sockets of links that stay are kept.
    pub fn replace(&mut self, links: &[IpAddr], peers: Vec<Peer>) -> Result<(), TransportError> {
        let now = Instant::now();
        self.endpoint.replace(now, links, peers)?;
        let mut old = std::mem::take(&mut self.sockets);
        for link in links {
            let kept = old.iter().position(|socket| socket.address == *link).map(|position| old.swap_remove(position));
            self.sockets.push(kept.unwrap_or_else(|| LinkSocket::new(now, *link, self.port)));
        }
        Ok(())
    }

    /// Takes a new private key of our own. Live sessions go on; those made from now on use the new key.
    pub fn replace_private_key(&mut self, key: PrivateKey) -> Result<(), TransportError> {
        self.endpoint.replace_private_key(Instant::now(), key)
    }

    /// Whether there is a session with this peer (which says nothing about whether it is alive now).
    pub fn has_session(&self, peer: u8) -> bool {
        self.endpoint.has_session(peer)
    }

    /// The links to a peer; empty for one we do not know.
    pub fn links(&self, peer: u8) -> Vec<LinkStatus> {
        self.endpoint.links(Instant::now(), peer)
    }

    /// What came from a peer's addresses without being acceptable as the peer's; nothing for one we do not know.
    pub fn suspicions(&self, peer: u8) -> Suspicions {
        self.endpoint.suspicions(peer)
    }

    /// What was dropped since the start.
    pub fn stats(&self) -> Stats {
        self.endpoint.stats()
    }
}

/// Lets everything else that is ready have its turn, once.
async fn pause() {
    let mut paused = false;
    poll_fn(|cx| {
        if std::mem::replace(&mut paused, true) {
            return Poll::Ready(());
        }
        cx.waker().wake_by_ref();
        Poll::Pending
    })
    .await;
}
