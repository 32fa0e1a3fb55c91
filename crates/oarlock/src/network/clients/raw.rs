//! The sockets that the standard library does not know. `unsafe` only because the C library
//! takes addresses and options as pointers with a length.
#![allow(unsafe_code)]

use super::{ClientsError, failed};
use rustix::net::sockopt::{Timeout, set_socket_timeout};
use rustix::net::{AddressFamily, Protocol, SocketFlags, SocketType, ipproto, socket_with};
use std::ffi::c_int;
use std::io;
use std::mem::{size_of, zeroed};
use std::net::{IpAddr, SocketAddr};
use std::os::fd::{AsRawFd, BorrowedFd, OwnedFd, RawFd};
use std::time::Duration;
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

/// A neighbour's address on the link, with what a socket needs to send to it.
#[derive(Clone, Copy)]
pub(super) struct LinkAddress(libc::sockaddr_ll);

/// A socket that sees the IP packets arriving at one interface and sends packets to neighbours.
pub(super) struct LinkSocket(OwnedFd);

impl LinkSocket {
    /// Sees only attempts to connect to `address` that arrive at `interface`.
    pub fn open(interface: &str, address: IpAddr) -> Result<LinkSocket, ClientsError> {
        let index = interface_index(interface)?;
        let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
        // Without a protocol it receives nothing, so that no packet slips in before the filter.
        let socket = socket_with(AddressFamily::PACKET, SocketType::DGRAM, flags, None)
            .map_err(failed("open a packet socket"))?;
        attach(&socket, &attempts_to(address)).map_err(failed("attach a filter to a packet socket"))?;
        // SAFETY: all zeroes are a valid `sockaddr_ll`.
        let mut wanted: libc::sockaddr_ll = unsafe { zeroed() };
        wanted.sll_family = libc::AF_PACKET as u16;
        let protocol = if address.is_ipv4() { libc::ETH_P_IP } else { libc::ETH_P_IPV6 };
        wanted.sll_protocol = (protocol as u16).to_be();
        wanted.sll_ifindex = index;
        // SAFETY: the pointer and the length are those of a live `sockaddr_ll`.
        let bound =
            unsafe { libc::bind(socket.as_raw_fd(), (&raw const wanted).cast(), length_of::<libc::sockaddr_ll>()) };
        check(bound).map_err(failed("bind a packet socket"))?;
        Ok(LinkSocket(socket))
    }

    /// Registers it with the running tokio runtime.
    pub fn watch(self) -> io::Result<AsyncFd<LinkSocket>> {
        // SAFETY: the descriptor is owned, never replaced, and closed only when the socket is dropped.
        unsafe { AsyncFd::register_with_interest(self, Interest::READABLE) }.map_err(io::Error::from)
    }

    /// The next packet and the neighbour that sent it; `WouldBlock` when there is none.
    pub fn receive(&self, buffer: &mut [u8]) -> io::Result<(usize, LinkAddress)> {
        // SAFETY: all zeroes are a valid `sockaddr_ll`.
        let mut from: libc::sockaddr_ll = unsafe { zeroed() };
        let mut length = length_of::<libc::sockaddr_ll>();
        // SAFETY: buffer and address are live, writable and of the lengths given.
        let got = unsafe {
            libc::recvfrom(
                self.0.as_raw_fd(),
                buffer.as_mut_ptr().cast(),
                buffer.len(),
                0,
                (&raw mut from).cast(),
                &raw mut length,
            )
        };
        Ok((count(got)?, LinkAddress(from)))
    }

    /// Sends one IP packet to a neighbour, under this interface's own link address.
    pub fn send(&self, packet: &[u8], to: &LinkAddress) -> io::Result<()> {
        // SAFETY: packet and address are live and of the lengths given.
        let sent = unsafe {
            libc::sendto(
                self.0.as_raw_fd(),
                packet.as_ptr().cast(),
                packet.len(),
                libc::MSG_NOSIGNAL,
                (&raw const to.0).cast(),
                length_of::<libc::sockaddr_ll>(),
            )
        };
        count(sent).map(drop)
    }
}

impl AsRawFd for LinkSocket {
    fn as_raw_fd(&self) -> RawFd {
        self.0.as_raw_fd()
    }
}

/// A socket that sends whole IP packets of one family out of one interface and receives nothing.
pub(super) struct IpSocket(OwnedFd);

impl IpSocket {
    /// For packets to addresses of the family of `like`.
    pub fn open(interface: &str, like: IpAddr) -> Result<IpSocket, ClientsError> {
        interface_index(interface)?;
        let family = if like.is_ipv4() { AddressFamily::INET } else { AddressFamily::INET6 };
        let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
        let raw: Option<Protocol> = Some(ipproto::RAW);
        let socket = socket_with(family, SocketType::RAW, flags, raw).map_err(failed("open a raw IP socket"))?;
        let name = interface.as_bytes();
        // SAFETY: the pointer and the length are those of the name.
        let bound = unsafe {
            libc::setsockopt(
                socket.as_raw_fd(),
                libc::SOL_SOCKET,
                libc::SO_BINDTODEVICE,
                name.as_ptr().cast(),
                name.len() as libc::socklen_t,
            )
        };
        check(bound).map_err(failed("bind a raw IP socket to its interface"))?;
        Ok(IpSocket(socket))
    }

    /// Sends `packet`, which begins with its IP header; the port of `to` is not looked at.
    pub fn send(&self, packet: &[u8], to: IpAddr) -> io::Result<()> {
        let to = SocketAddr::new(to, 0);
        rustix::net::sendto(&self.0, packet, rustix::net::SendFlags::NOSIGNAL, &to)?;
        Ok(())
    }
}

/// Limits how long one receive of a netlink socket may take.
pub(super) fn limit_receive(socket: &netlink_sys::Socket, left: Duration) -> io::Result<()> {
    // SAFETY: the descriptor stays open while `socket` is borrowed; its type offers no safe borrow.
    let descriptor = unsafe { BorrowedFd::borrow_raw(socket.as_raw_fd()) };
    Ok(set_socket_timeout(descriptor, Timeout::Recv, Some(left))?)
}

fn interface_index(name: &str) -> Result<c_int, ClientsError> {
    let unknown = |source| ClientsError::Interface { name: name.to_owned(), source };
    let text = std::ffi::CString::new(name).map_err(|error| unknown(error.into()))?;
    // SAFETY: the text is live and ends with a zero.
    let index = unsafe { libc::if_nametoindex(text.as_ptr()) };
    if index == 0 { Err(unknown(io::Error::last_os_error())) } else { Ok(index as c_int) }
}

/// A filter program of the kernel's packet machine, so that a busy interface does not wake us:
/// TCP, to `address`, of the three flags SYN, RST and ACK only SYN. It is a first sieve; the
/// packet is read with care afterwards.
fn attempts_to(address: IpAddr) -> Vec<libc::sock_filter> {
    const WORD: u32 = libc::BPF_LD | libc::BPF_W | libc::BPF_ABS;
    const BYTE: u32 = libc::BPF_LD | libc::BPF_B | libc::BPF_ABS;
    const EQUAL: u32 = libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K;
    let (protocol_at, address_at, octets) = match address {
        IpAddr::V4(address) => (9, 16, address.octets().to_vec()),
        IpAddr::V6(address) => (6, 24, address.octets().to_vec()),
    };
    // Pairs of "load from there" and "must equal that".
    let mut steps = vec![(BYTE, protocol_at, 6)];
    for (word, at) in octets.chunks_exact(4).zip((address_at..).step_by(4)) {
        steps.push((WORD, at, u32::from_be_bytes([word[0], word[1], word[2], word[3]])));
    }
    let mut program: Vec<(u32, u32)> =
        steps.iter().flat_map(|&(load, at, value)| [(load, at), (EQUAL, value)]).collect();
    program.extend(match address {
        // The index register takes the length of the IP header.
        IpAddr::V4(_) => {
            vec![(libc::BPF_LDX | libc::BPF_B | libc::BPF_MSH, 0), (libc::BPF_LD | libc::BPF_B | libc::BPF_IND, 13)]
        }
        IpAddr::V6(_) => vec![(BYTE, 40 + 13)],
    });
    program.extend([
        (libc::BPF_ALU | libc::BPF_AND | libc::BPF_K, 0x16),
        (EQUAL, 0x02),
        (libc::BPF_RET | libc::BPF_K, u32::MAX),
        (libc::BPF_RET | libc::BPF_K, 0),
    ]);
    let last = program.len() - 1;
    let jump = |at: usize, code: u32| if code == EQUAL { (last - at - 1) as u8 } else { 0 };
    program
        .iter()
        .enumerate()
        .map(|(at, &(code, k))| libc::sock_filter { code: code as u16, jt: 0, jf: jump(at, code), k })
        .collect()
}

fn attach(socket: &OwnedFd, program: &[libc::sock_filter]) -> io::Result<()> {
    let program = libc::sock_fprog { len: program.len() as u16, filter: program.as_ptr().cast_mut() };
    // SAFETY: the kernel copies the program, which it does not change, before the call returns.
    check(unsafe {
        libc::setsockopt(
            socket.as_raw_fd(),
            libc::SOL_SOCKET,
            libc::SO_ATTACH_FILTER,
            (&raw const program).cast(),
            length_of::<libc::sock_fprog>(),
        )
    })
}

const fn length_of<T>() -> libc::socklen_t {
    size_of::<T>() as libc::socklen_t
}

fn check(result: c_int) -> io::Result<()> {
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

fn count(result: isize) -> io::Result<usize> {
    usize::try_from(result).map_err(|_| io::Error::last_os_error())
}
