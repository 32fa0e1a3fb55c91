//! The form of a datagram on the wire. Only what is needed to find the right key stands in clear.
//!
//! ```text
//! every datagram   magic 'o' | version | kind | 0
//! initiation       tag 8 | stamp 8 | cookie 16 | Noise message 1 (60) | mac 16
//! response         receiver 4 | Noise message 2 (60) | mac 16
//! challenge        tag 8 | ephemeral 32 | cookie 16 | mac 16
//! data             receiver 4 | counter 8 | sealed bytes
//! ```
//! Numbers are little-endian. Parsing only cuts; whoever uses a part has checked the mac or the seal first.

/// Version of the wire format and of the handshake; also part of what the handshake authenticates.
pub const VERSION: u8 = 2;
/// Largest datagram: what IPv6 carries everywhere (1280) less the IPv6 and UDP headers.
pub const MAX_DATAGRAM_BYTES: usize = 1232;
/// Length of the tag that names the sender of a handshake message.
pub const TAG_BYTES: usize = 8;
/// Length of a message authentication code.
pub const MAC_BYTES: usize = 16;
/// Length of the proof of freshness.
pub const COOKIE_BYTES: usize = 16;
/// Length of an ephemeral public key.
pub const EPHEMERAL_BYTES: usize = 32;
/// What a seal adds to the sealed bytes.
pub const SEAL_BYTES: usize = 16;
/// What both handshake messages carry sealed: session index and instance.
pub const HELLO_BYTES: usize = 4 + 8;
/// A Noise KK message with that payload.
pub const NOISE_BYTES: usize = EPHEMERAL_BYTES + HELLO_BYTES + SEAL_BYTES;
/// What stands before the sealed bytes of a data datagram.
pub const DATA_HEADER_BYTES: usize = HEADER_BYTES + 4 + 8;
/// The most bytes one data datagram can carry before sealing.
pub const MAX_PLAIN_BYTES: usize = MAX_DATAGRAM_BYTES - DATA_HEADER_BYTES - SEAL_BYTES;

const HEADER_BYTES: usize = 4;
const MAGIC: u8 = b'o';
const INITIATION: u8 = 1;
const RESPONSE: u8 = 2;
const CHALLENGE: u8 = 3;
const DATA: u8 = 4;

/// Why a datagram was not even looked at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Refusal {
    /// Not one of ours, or cut, or too long.
    Malformed,
    /// One of ours, of another version.
    OtherVersion,
}

/// The first message of a handshake.
#[derive(Debug, Clone, Copy)]
pub struct Initiation<'a> {
    /// Names the sender to those who share a secret with it.
    pub tag: [u8; TAG_BYTES],
    /// The sender's wall clock in microseconds, growing from one to the next.
    pub stamp: u64,
    /// Answer to a challenge, or zero.
    pub cookie: [u8; COOKIE_BYTES],
    /// The Noise message; it begins with the ephemeral key.
    pub noise: &'a [u8; NOISE_BYTES],
    /// Everything that `mac` covers.
    pub covered: &'a [u8],
    /// Code over `covered`.
    pub mac: &'a [u8],
}

impl Initiation<'_> {
    /// The sender's ephemeral key, which names this initiation.
    pub fn ephemeral(&self) -> [u8; EPHEMERAL_BYTES] {
        take(self.noise)
    }
}

/// The second message of a handshake.
#[derive(Debug, Clone, Copy)]
pub struct Response<'a> {
    /// Index that the initiator chose.
    pub receiver: u32,
    /// The Noise message.
    pub noise: &'a [u8],
    /// Everything that `mac` covers.
    pub covered: &'a [u8],
    /// Code over `covered`.
    pub mac: &'a [u8],
}

/// A demand to repeat an initiation with a cookie, because it may be an old one.
#[derive(Debug, Clone, Copy)]
pub struct Challenge<'a> {
    /// Names the sender.
    pub tag: [u8; TAG_BYTES],
    /// The ephemeral key of the initiation it answers.
    pub ephemeral: [u8; EPHEMERAL_BYTES],
    /// What the initiation must carry.
    pub cookie: [u8; COOKIE_BYTES],
    /// Everything that `mac` covers.
    pub covered: &'a [u8],
    /// Code over `covered`.
    pub mac: &'a [u8],
}

/// A datagram, cut into its parts.
#[derive(Debug, Clone, Copy)]
pub enum Packet<'a> {
    /// First message of a handshake.
    Initiation(Initiation<'a>),
    /// Second message of a handshake.
    Response(Response<'a>),
    /// Demand for a cookie.
    Challenge(Challenge<'a>),
    /// Anything sealed in a session.
    Data {
        /// Index that the receiver of this datagram chose for the session.
        receiver: u32,
        /// Number of the datagram in its session.
        counter: u64,
        /// The sealed bytes.
        sealed: &'a [u8],
    },
}

/// Cuts a datagram into its parts.
pub fn parse(datagram: &[u8]) -> Result<Packet<'_>, Refusal> {
    let (header, body) = datagram.split_first_chunk::<HEADER_BYTES>().ok_or(Refusal::Malformed)?;
    let [magic, version, kind, reserved] = *header;
    if magic != MAGIC || datagram.len() > MAX_DATAGRAM_BYTES {
        return Err(Refusal::Malformed);
    }
    if version != VERSION {
        return Err(Refusal::OtherVersion);
    }
    if reserved != 0 {
        return Err(Refusal::Malformed);
    }
    if kind == DATA {
        return parse_data(body).ok_or(Refusal::Malformed);
    }
    let end = datagram.len().checked_sub(MAC_BYTES).ok_or(Refusal::Malformed)?;
    let (covered, mac) = datagram.split_at(end);
    let body = covered.get(HEADER_BYTES..).ok_or(Refusal::Malformed)?;
    let packet = match kind {
        INITIATION => parse_initiation(body, covered, mac),
        RESPONSE => parse_response(body, covered, mac),
        CHALLENGE => parse_challenge(body, covered, mac),
        _ => None,
    };
    packet.ok_or(Refusal::Malformed)
}

fn parse_initiation<'a>(body: &'a [u8], covered: &'a [u8], mac: &'a [u8]) -> Option<Packet<'a>> {
    let (tag, rest) = body.split_first_chunk()?;
    let (stamp, rest) = rest.split_first_chunk()?;
    let (cookie, noise) = rest.split_first_chunk()?;
    let (tag, stamp, cookie) = (*tag, u64::from_le_bytes(*stamp), *cookie);
    let noise = noise.try_into().ok()?;
    Some(Packet::Initiation(Initiation { tag, stamp, cookie, noise, covered, mac }))
}

fn parse_response<'a>(body: &'a [u8], covered: &'a [u8], mac: &'a [u8]) -> Option<Packet<'a>> {
    let (receiver, noise) = body.split_first_chunk()?;
    let receiver = u32::from_le_bytes(*receiver);
    (noise.len() == NOISE_BYTES).then_some(Packet::Response(Response { receiver, noise, covered, mac }))
}

fn parse_challenge<'a>(body: &'a [u8], covered: &'a [u8], mac: &'a [u8]) -> Option<Packet<'a>> {
    let (tag, rest) = body.split_first_chunk()?;
    let (ephemeral, cookie) = rest.split_first_chunk()?;
    let cookie = cookie.try_into().ok()?;
    Some(Packet::Challenge(Challenge { tag: *tag, ephemeral: *ephemeral, cookie, covered, mac }))
}

fn parse_data(body: &[u8]) -> Option<Packet<'_>> {
    let (receiver, rest) = body.split_first_chunk()?;
    let (counter, sealed) = rest.split_first_chunk()?;
    let (receiver, counter) = (u32::from_le_bytes(*receiver), u64::from_le_bytes(*counter));
    (sealed.len() >= SEAL_BYTES).then_some(Packet::Data { receiver, counter, sealed })
}

/// An initiation without its mac.
pub fn initiation(tag: [u8; TAG_BYTES], stamp: u64, cookie: [u8; COOKIE_BYTES], noise: &[u8]) -> Vec<u8> {
    build(INITIATION, &[&tag, &stamp.to_le_bytes(), &cookie, noise])
}

/// A response without its mac.
pub fn response(receiver: u32, noise: &[u8]) -> Vec<u8> {
    build(RESPONSE, &[&receiver.to_le_bytes(), noise])
}

/// A challenge without its mac.
pub fn challenge(tag: [u8; TAG_BYTES], ephemeral: [u8; EPHEMERAL_BYTES], cookie: [u8; COOKIE_BYTES]) -> Vec<u8> {
    build(CHALLENGE, &[&tag, &ephemeral, &cookie])
}

/// What stands before the sealed bytes of a data datagram.
pub fn data_header(receiver: u32, counter: u64) -> Vec<u8> {
    build(DATA, &[&receiver.to_le_bytes(), &counter.to_le_bytes()])
}

fn build(kind: u8, parts: &[&[u8]]) -> Vec<u8> {
    let body: usize = parts.iter().map(|part| part.len()).sum();
    let mut datagram = Vec::with_capacity(HEADER_BYTES + body + MAC_BYTES);
    datagram.extend_from_slice(&[MAGIC, VERSION, kind, 0]);
    parts.iter().for_each(|part| datagram.extend_from_slice(part));
    datagram
}

/// The first `N` bytes of an array that has at least so many.
fn take<const N: usize, const M: usize>(bytes: &[u8; M]) -> [u8; N] {
    const { assert!(N <= M) };
    let mut head = [0; N];
    head.copy_from_slice(&bytes[..N]);
    head
}
