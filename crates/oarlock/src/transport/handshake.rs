//! A handshake that we began: what is repeated, how often, and when it is made anew.

use std::time::{Duration, Instant};

use snow::HandshakeState;

use super::crypto::{Hello, Pair, read};
use super::packet::{COOKIE_BYTES, EPHEMERAL_BYTES, NOISE_BYTES, initiation};
use super::session::Session;

/// A peer that did not answer for so long is taken for silent.
const EAGER: Duration = Duration::from_millis(500);
/// A silent peer is tried this often.
const SLOWEST: Duration = Duration::from_secs(1);
/// An initiation older than this is made anew, so that what a listener recorded soon counts as old.
const STALE: Duration = Duration::from_secs(2);

/// An initiation without its answer.
pub struct Outgoing {
    hello: Hello,
    state: HandshakeState,
    noise: [u8; NOISE_BYTES],
    stamp: u64,
    cookie: [u8; COOKIE_BYTES],
    made: Instant,
    began: Instant,
    sent: Instant,
    interval: Duration,
    /// When to repeat it.
    pub due: Instant,
    /// Begun because the peer fell silent in a session that may be good.
    pub on_silence: bool,
}

impl Outgoing {
    /// Makes an initiation, due at once.
    pub fn new(now: Instant, pair: &Pair, hello: Hello, stamp: u64, retry: Duration) -> Result<Self, snow::Error> {
        let (state, noise) = pair.initiate(hello)?;
        Ok(Self {
            hello,
            state,
            noise,
            stamp,
            cookie: [0; COOKIE_BYTES],
            made: now,
            began: now,
            sent: now,
            interval: retry,
            due: now,
            on_silence: false,
        })
    }

    /// Our name for the session to be.
    pub fn index(&self) -> u32 {
        self.hello.index
    }

    /// Whether it should be replaced by one made now.
    pub fn is_stale(&self, now: Instant) -> bool {
        now.saturating_duration_since(self.made) >= STALE
    }

    /// Takes over the patience of the initiation that this one replaces.
    pub fn replacing(mut self, old: &Outgoing) -> Self {
        (self.began, self.interval, self.on_silence) = (old.began, old.interval, old.on_silence);
        self
    }

    /// The datagram to send now; sets when to repeat it.
    pub fn datagram(&mut self, now: Instant, pair: &Pair) -> Vec<u8> {
        if now.saturating_duration_since(self.began) >= EAGER {
            self.interval = (self.interval * 2).min(SLOWEST);
        }
        self.sent = now;
        self.due = now + self.interval;
        pair.authenticate(initiation(pair.own_tag, self.stamp, self.cookie, &self.noise))
    }

    /// The peer shows a sign of life: repeat soon, but not more often than every `retry`.
    pub fn hurry(&mut self, now: Instant, retry: Duration) {
        (self.began, self.interval) = (now, retry);
        self.due = self.due.min((self.sent + retry).max(now));
    }

    /// The peer is about to answer, or to see our answer: wait for it.
    pub fn hold(&mut self, now: Instant, pause: Duration) {
        self.due = self.due.max(now + pause);
    }

    /// Takes a challenge; false if it is for another initiation, or known.
    pub fn challenge(&mut self, now: Instant, ephemeral: &[u8; EPHEMERAL_BYTES], cookie: [u8; COOKIE_BYTES]) -> bool {
        let ours = self.noise.starts_with(ephemeral) && cookie != self.cookie;
        if ours {
            self.cookie = cookie;
            self.due = now;
        }
        ours
    }

    /// Takes the response: the session, or nothing if it does not fit. A misfit leaves the handshake as it was.
    pub fn finish(&mut self, noise: &[u8]) -> Option<Hello> {
        read(&mut self.state, noise).ok()
    }

    /// The session, once [`Outgoing::finish`] has named the peer's end.
    pub fn into_session(self, now: Instant, peer: Hello, key_generation: u64) -> Option<Session> {
        let noise = self.state.into_stateless_transport_mode().ok()?;
        Some(Session::new(now, self.hello.index, peer, noise, key_generation))
    }
}
