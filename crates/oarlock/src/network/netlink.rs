//! One request after the other over a netlink socket, each with a deadline.

use std::io;
use std::net::IpAddr;
use std::os::fd::AsFd;
use std::time::{Duration, Instant};

use netlink_packet_core::{
    NLM_F_ACK, NLM_F_CREATE, NLM_F_DUMP, NLM_F_EXCL, NLM_F_REQUEST, NetlinkDeserializable, NetlinkMessage,
    NetlinkPayload, NetlinkSerializable,
};
use netlink_packet_route::address::{AddressAttribute, AddressFlags, AddressMessage};
use netlink_packet_route::link::LinkMessage;
use netlink_packet_route::{AddressFamily, RouteNetlinkMessage};
use netlink_sys::protocols::NETLINK_ROUTE;
use netlink_sys::{Socket, SocketAddr};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use rustix::net::RecvFlags;

use super::NetworkError;
use super::interfaces::{Interface, InterfaceAddress};

/// How long the kernel may take to answer: it answers within microseconds unless something else
/// holds its network lock.
const ANSWER_WITHIN: Duration = Duration::from_millis(500);
/// Longest answer the kernel gives at once, in bytes.
const BUFFER_BYTES: usize = 64 * 1024;

/// A socket for requests about interfaces and addresses. Calls block for at most half a second,
/// usually for some microseconds.
pub struct Netlink {
    socket: Socket,
    sequence: u32,
    buffer: Vec<u8>,
}

impl Netlink {
    /// Opens the socket.
    ///
    /// # Errors
    /// When the kernel refuses it.
    pub fn open() -> Result<Self, NetworkError> {
        Self::open_protocol(NETLINK_ROUTE)
    }

    pub(super) fn open_protocol(protocol: isize) -> Result<Self, NetworkError> {
        let open = || -> io::Result<Socket> {
            let mut socket = Socket::new(protocol)?;
            socket.bind_auto()?;
            socket.connect(&SocketAddr::new(0, 0))?;
            Ok(socket)
        };
        let socket = open().map_err(NetworkError::kernel("opening a netlink socket"))?;
        Ok(Self { socket, sequence: 0, buffer: vec![0; BUFFER_BYTES] })
    }

    /// All interfaces.
    ///
    /// # Errors
    /// When the kernel does not answer in time.
    pub fn interfaces(&mut self) -> Result<Vec<Interface>, NetworkError> {
        let request = RouteNetlinkMessage::GetLink(LinkMessage::default());
        let answers = self.ask_route(request, NLM_F_DUMP).map_err(NetworkError::kernel("listing interfaces"))?;
        let interface = |answer| match answer {
            RouteNetlinkMessage::NewLink(link) => Some(Interface::from_message(&link)),
            _ => None,
        };
        Ok(answers.into_iter().filter_map(interface).collect())
    }

    /// All addresses of all interfaces.
    ///
    /// # Errors
    /// When the kernel does not answer in time.
    pub fn addresses(&mut self) -> Result<Vec<InterfaceAddress>, NetworkError> {
        let request = RouteNetlinkMessage::GetAddress(AddressMessage::default());
        let answers = self.ask_route(request, NLM_F_DUMP).map_err(NetworkError::kernel("listing addresses"))?;
        let address = |answer| match answer {
            RouteNetlinkMessage::NewAddress(message) => InterfaceAddress::from_message(&message),
            _ => None,
        };
        Ok(answers.into_iter().filter_map(address).collect())
    }

    /// Puts an address on an interface; that it is there already is no error.
    ///
    /// # Errors
    /// When the kernel refuses it or does not answer in time (it may then still do it).
    pub fn add_address(&mut self, index: u32, ip: IpAddr, prefix_bits: u8) -> Result<(), NetworkError> {
        let mut message = address_message(index, ip, prefix_bits);
        if ip.is_ipv6() {
            // Duplicate address detection would take a second; we looked for conflicts ourselves.
            message.attributes.push(AddressAttribute::Flags(AddressFlags::Nodad));
        }
        let flags = NLM_F_ACK | NLM_F_CREATE | NLM_F_EXCL;
        match self.ask_route(RouteNetlinkMessage::NewAddress(message), flags) {
            Err(error) if error.raw_os_error() == Some(Errno::EXIST.raw_os_error()) => Ok(()),
            other => other.map(drop).map_err(NetworkError::kernel("adding an address")),
        }
    }

    /// Takes an address away. `false`: it was not there, or its interface was not.
    ///
    /// # Errors
    /// When the kernel refuses it or does not answer in time (it may then still do it).
    pub fn remove_address(&mut self, index: u32, ip: IpAddr, prefix_bits: u8) -> Result<bool, NetworkError> {
        let message = address_message(index, ip, prefix_bits);
        let absent = [Errno::ADDRNOTAVAIL, Errno::NODEV].map(|errno| Some(errno.raw_os_error()));
        match self.ask_route(RouteNetlinkMessage::DelAddress(message), NLM_F_ACK) {
            Ok(_) => Ok(true),
            Err(error) if absent.contains(&error.raw_os_error()) => Ok(false),
            Err(error) => Err(NetworkError::kernel("removing an address")(error)),
        }
    }

    fn ask_route(&mut self, request: RouteNetlinkMessage, flags: u16) -> io::Result<Vec<RouteNetlinkMessage>> {
        self.ask(request, flags)
    }

    /// Sends one request and returns what is answered, up to the acknowledgement or the end.
    pub(super) fn ask<Q, A>(&mut self, request: Q, flags: u16) -> io::Result<Vec<A>>
    where
        Q: NetlinkSerializable,
        NetlinkPayload<Q>: From<Q>,
        A: NetlinkDeserializable,
    {
        self.sequence = self.sequence.wrapping_add(1);
        let mut message = NetlinkMessage::from(request);
        message.header.flags = NLM_F_REQUEST | flags;
        message.header.sequence_number = self.sequence;
        message.finalize();
        let mut frame = vec![0; message.buffer_len()];
        message.serialize(&mut frame);
        let until = Instant::now() + ANSWER_WITHIN;
        self.socket.send(&frame, 0)?;
        self.answers(until)
    }

    fn answers<A: NetlinkDeserializable>(&mut self, until: Instant) -> io::Result<Vec<A>> {
        let mut answers = Vec::new();
        loop {
            wait_readable(&self.socket, until)?;
            let flags = RecvFlags::DONTWAIT;
            let (_, length) = match rustix::net::recv(&self.socket, &mut self.buffer[..], flags) {
                Err(Errno::AGAIN | Errno::INTR) => continue,
                received => received?,
            };
            let received = &self.buffer[..length.min(self.buffer.len())];
            for message in messages::<A>(received) {
                let message = message?;
                // An answer that came after an earlier deadline.
                if message.header.sequence_number != self.sequence {
                    continue;
                }
                match message.payload {
                    NetlinkPayload::InnerMessage(answer) => answers.push(answer),
                    NetlinkPayload::Error(error) if error.code.is_some() => {
                        return Err(super::refused(error.raw_code()));
                    }
                    NetlinkPayload::Error(_) | NetlinkPayload::Done(_) => return Ok(answers),
                    _ => {}
                }
            }
        }
    }
}

fn wait_readable(socket: impl AsFd, until: Instant) -> io::Result<()> {
    let left = until.saturating_duration_since(Instant::now());
    let timeout = Timespec { tv_sec: 0, tv_nsec: left.subsec_nanos().into() };
    let mut fds = [PollFd::new(&socket, PollFlags::IN)];
    match poll(&mut fds, Some(&timeout)) {
        Ok(0) => Err(io::Error::new(io::ErrorKind::TimedOut, "no answer from the kernel in 500 ms")),
        Ok(_) | Err(Errno::INTR) => Ok(()),
        Err(errno) => Err(errno.into()),
    }
}

/// The messages in one received datagram.
pub(super) fn messages<A: NetlinkDeserializable>(
    mut bytes: &[u8],
) -> impl Iterator<Item = io::Result<NetlinkMessage<A>>> {
    std::iter::from_fn(move || {
        if bytes.is_empty() {
            return None;
        }
        let message = NetlinkMessage::deserialize(bytes);
        // Messages are aligned to four bytes; one that is none ends the datagram.
        let length = message.as_ref().map_or(bytes.len(), |message| message.header.length as usize);
        bytes = bytes.get(length.max(16).next_multiple_of(4)..).unwrap_or_default();
        Some(message.map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error)))
    })
}

fn address_message(index: u32, ip: IpAddr, prefix_bits: u8) -> AddressMessage {
    let mut message = AddressMessage::default();
    message.header.family = if ip.is_ipv4() { AddressFamily::Inet } else { AddressFamily::Inet6 };
    message.header.prefix_len = prefix_bits;
    message.header.index = index;
    message.attributes.push(AddressAttribute::Local(ip));
    message.attributes.push(AddressAttribute::Address(ip));
    message
}
