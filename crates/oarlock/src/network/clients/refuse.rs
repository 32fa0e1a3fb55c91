//! Refusing connections on behalf of an address that has just left this node.
//!
//! Neighbours go on sending to the old owner until they have heard of the new one. What reaches a
//! host that no longer has the address is dropped in silence, and a client repeats its attempt
//! only after a second. Refused, it tries again at once.

use super::raw::LinkSocket;
use super::{ClientsError, failed, may_be_local, packet};
use std::io;
use std::net::IpAddr;
use std::time::Duration;
use tokio::io::unix::AsyncFd;
use tokio::time::Instant;

/// How long refusing is worth while: the first repetition of an attempt (1 s) and some more.
pub const REFUSE_FOR: Duration = Duration::from_secs(2);

/// More than the headers of any attempt to connect; what is longer is cut, and then not understood.
const PACKET_BYTES: usize = 2048;

/// Stands ready to refuse connections to one address. Open it before the address is lowered, run
/// it as soon as it is; dropping it ends it.
pub struct Refuser {
    socket: AsyncFd<LinkSocket>,
    address: IpAddr,
}

impl Refuser {
    /// Begins to collect the attempts to connect to `address` that arrive at `interface`. Needs
    /// the capability CAP_NET_RAW and a running tokio runtime.
    pub fn open(interface: &str, address: IpAddr) -> Result<Refuser, ClientsError> {
        let socket = LinkSocket::open(interface, address)?.watch().map_err(failed("watch a packet socket"))?;
        Ok(Refuser { socket, address })
    }

    /// Refuses for as long as said; returns how many attempts it refused. Never refuses while the
    /// address is on this host (again).
    pub async fn run(self, refuse_for: Duration) -> Result<u64, ClientsError> {
        let end = Instant::now() + refuse_for;
        let mut buffer = [0; PACKET_BYTES];
        let mut refused = 0;
        while let Ok(ready) = tokio::time::timeout_at(end, self.socket.readable()).await {
            let mut ready = ready.map_err(failed("wait for a packet"))?;
            match ready.try_io(|socket| self.refuse_next(socket.get_ref(), &mut buffer)) {
                Ok(Ok(done)) => refused += u64::from(done),
                // An interface that goes down reports so once; there is nothing to refuse then.
                Ok(Err(error)) if error.raw_os_error() == Some(libc::ENETDOWN) => {}
                Ok(Err(error)) => return Err(failed("receive a packet")(error)),
                Err(_would_block) => {}
            }
        }
        Ok(refused)
    }

    /// True when a packet was answered. A refusal that cannot be sent is like one lost on the way.
    fn refuse_next(&self, socket: &LinkSocket, buffer: &mut [u8]) -> io::Result<bool> {
        let (length, neighbour) = socket.receive(buffer)?;
        let Some(attempt) = packet::parse_attempt(&buffer[..length]) else { return Ok(false) };
        if attempt.pair.service.ip() != self.address || may_be_local(self.address) {
            return Ok(false);
        }
        Ok(packet::refusal(&attempt).is_some_and(|refusal| socket.send(&refusal, &neighbour).is_ok()))
    }
}
