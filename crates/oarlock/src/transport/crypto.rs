//! What two nodes share before any handshake, and the Noise pieces themselves.
//!
//! Each pair of nodes can compute a secret from their static keys alone. Codes made with it stand on every handshake
//! message, so that a stranger's flood costs one hash each and no curve arithmetic; Noise then does the real work.

use snow::params::HashChoice;
use snow::resolvers::{CryptoResolver, DefaultResolver};
use snow::{HandshakeState, StatelessTransportState};

use super::packet::{COOKIE_BYTES, EPHEMERAL_BYTES, HELLO_BYTES, MAC_BYTES, NOISE_BYTES, TAG_BYTES, VERSION};
use crate::keys::{KeyError, PrivateKey, PublicKey, random_bytes};

const PATTERN: &str = "Noise_KK_25519_ChaChaPoly_BLAKE2s";
const HASH_BYTES: usize = 32;

/// What the two ends of a session tell each other sealed in the handshake.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Hello {
    /// The sender's name for the session, written on what is sent to it.
    pub index: u32,
    /// Random number of the sender's process, so that a restart is noticed.
    pub instance: u64,
}

impl Hello {
    fn to_bytes(self) -> [u8; HELLO_BYTES] {
        let mut bytes = [0; HELLO_BYTES];
        bytes[..4].copy_from_slice(&self.index.to_le_bytes());
        bytes[4..].copy_from_slice(&self.instance.to_le_bytes());
        bytes
    }

    fn from_bytes(bytes: &[u8]) -> Option<Self> {
        let (index, rest) = bytes.split_first_chunk()?;
        let instance = rest.try_into().ok()?;
        Some(Self { index: u32::from_le_bytes(*index), instance: u64::from_le_bytes(instance) })
    }
}

/// Everything that this node and one peer share by their keys and the configuration.
pub struct Pair {
    private: PrivateKey,
    public: PublicKey,
    prologue: Vec<u8>,
    send_key: [u8; HASH_BYTES],
    receive_key: [u8; HASH_BYTES],
    /// Names us to the peer.
    pub own_tag: [u8; TAG_BYTES],
    /// Names the peer to us.
    pub peer_tag: [u8; TAG_BYTES],
}

impl Pair {
    /// Fails on a public key with which no secret can be agreed.
    pub fn new(cluster: &str, own: (&str, &PrivateKey), peer: (&str, &PublicKey)) -> Result<Self, KeyError> {
        let prologue = prologue(cluster, own.0, peer.0);
        let secret = own.1.agree(peer.1)?;
        let direction = |sender: &str| keyed_hash(&secret, &[b"oarlock handshake", &prologue, sender.as_bytes()]);
        let (send_key, receive_key) = (direction(own.0), direction(peer.0));
        Ok(Self {
            private: own.1.clone(),
            public: *peer.1,
            own_tag: head(keyed_hash(&send_key, &[b"tag"])),
            peer_tag: head(keyed_hash(&receive_key, &[b"tag"])),
            prologue,
            send_key,
            receive_key,
        })
    }

    /// Appends the code to a handshake message of ours.
    pub fn authenticate(&self, mut message: Vec<u8>) -> Vec<u8> {
        let mac: [u8; MAC_BYTES] = head(keyed_hash(&self.send_key, &[&message]));
        message.extend_from_slice(&mac);
        message
    }

    /// Whether a handshake message comes from the peer.
    pub fn verify(&self, covered: &[u8], mac: &[u8]) -> bool {
        let expected: [u8; MAC_BYTES] = head(keyed_hash(&self.receive_key, &[covered]));
        same(&expected, mac)
    }

    /// Begins a handshake: the state to keep, and the Noise message to send.
    pub fn initiate(&self, hello: Hello) -> Result<(HandshakeState, [u8; NOISE_BYTES]), snow::Error> {
        let mut state = self.builder()?.build_initiator()?;
        let noise = write(&mut state, hello)?;
        Ok((state, noise))
    }

    /// Answers one: the peer's hello, the session, the Noise message to send.
    pub fn respond(
        &self,
        initiation: &[u8],
        hello: Hello,
    ) -> Result<(Hello, StatelessTransportState, [u8; NOISE_BYTES]), snow::Error> {
        let mut state = self.builder()?.build_responder()?;
        let peer = read(&mut state, initiation)?;
        let noise = write(&mut state, hello)?;
        Ok((peer, state.into_stateless_transport_mode()?, noise))
    }

    fn builder(&self) -> Result<snow::Builder<'_>, snow::Error> {
        snow::Builder::new(PATTERN.parse()?)
            .local_private_key(self.private.as_bytes())?
            .remote_public_key(self.public.as_bytes())?
            .prologue(&self.prologue)
    }
}

/// Ends a handshake that we began: the peer's hello.
pub fn read(state: &mut HandshakeState, noise: &[u8]) -> Result<Hello, snow::Error> {
    let mut payload = [0; NOISE_BYTES];
    let length = state.read_message(noise, &mut payload)?;
    payload.get(..length).and_then(Hello::from_bytes).ok_or(snow::Error::Input)
}

fn write(state: &mut HandshakeState, hello: Hello) -> Result<[u8; NOISE_BYTES], snow::Error> {
    let mut noise = [0; NOISE_BYTES];
    let length = state.write_message(&hello.to_bytes(), &mut noise)?;
    if length == NOISE_BYTES { Ok(noise) } else { Err(snow::Error::Input) }
}

/// Makes cookies: proofs that an initiation was made after we asked for it. Nothing is kept per initiation.
pub struct CookieJar(pub [u8; HASH_BYTES]);

impl CookieJar {
    /// A jar with a secret of its own.
    pub fn new() -> Result<Self, KeyError> {
        let mut secret = [0; HASH_BYTES];
        random_bytes(&mut secret)?;
        Ok(Self(secret))
    }

    /// The cookie for the initiation with this ephemeral key. `round` grows with every handshake taken from the peer,
    /// so that a cookie is of no use afterwards.
    pub fn cookie(&self, peer_tag: &[u8], ephemeral: &[u8; EPHEMERAL_BYTES], round: u64) -> [u8; COOKIE_BYTES] {
        head(keyed_hash(&self.0, &[peer_tag, ephemeral, &round.to_le_bytes()]))
    }
}

/// Compares without telling by its duration where the difference is.
pub fn same(left: &[u8], right: &[u8]) -> bool {
    let difference = left.iter().zip(right).fold(0, |difference, (left, right)| difference | (left ^ right));
    left.len() == right.len() && std::hint::black_box(difference) == 0
}

/// Version, cluster and both names, in an order that both ends find.
fn prologue(cluster: &str, own: &str, peer: &str) -> Vec<u8> {
    let mut prologue = vec![VERSION];
    for text in ["oarlock", cluster, own.min(peer), own.max(peer)] {
        prologue.extend_from_slice(&(text.len() as u64).to_le_bytes());
        prologue.extend_from_slice(text.as_bytes());
    }
    prologue
}

#[allow(clippy::expect_used, reason = "the resolver is compiled in with this hash: a build matter, not input")]
fn keyed_hash(key: &[u8; HASH_BYTES], parts: &[&[u8]]) -> [u8; HASH_BYTES] {
    let mut hash = DefaultResolver.resolve_hash(&HashChoice::Blake2s).expect("BLAKE2s is compiled in");
    let mut out = [0; HASH_BYTES];
    hash.hmac(key, &parts.concat(), &mut out);
    out
}

fn head<const N: usize>(hash: [u8; HASH_BYTES]) -> [u8; N] {
    const { assert!(N <= HASH_BYTES) };
    let mut head = [0; N];
    head.copy_from_slice(&hash[..N]);
    head
}
