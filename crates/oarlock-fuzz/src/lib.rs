//! Bytes that nobody meant, for every decoder: what must hold for each of them, whatever comes.
//!
//! * It does not panic (an overflow is a panic too).
//! * It takes no more memory than [`Target::bound`] says.
//! * What it understood and wrote again, it understands again in the same way.
//! * What it refuses, it refuses in words.
//!
//! `cargo test` plays the corpus and changes of it; `cargo xtask fuzz` is guided by what a run covers.

mod core;

use oarlock::fuzzing::{self, Meaning, Outcome};
use peak_alloc::PeakAlloc;
use std::sync::{Mutex, PoisonError};

#[global_allocator]
static MEMORY: PeakAlloc = PeakAlloc;
/// Memory is counted for the whole process: one at a time.
static COUNTING: Mutex<()> = Mutex::new(());

/// A decoder to be fuzzed.
#[derive(Clone, Copy, Debug)]
pub struct Target {
    /// Its name, also that of its directory in `corpus/`.
    pub name: &'static str,
    /// The decoder.
    pub decode: fn(&[u8]) -> Outcome,
    /// Bytes it may allocate for each byte it is given, beside [`BASE_BYTES`].
    pub factor: usize,
}

/// What any decoder may allocate: a message's buffers, and what a parser sets aside in advance.
pub const BASE_BYTES: usize = 4 * 1024 * 1024;

/// All of them.
pub const TARGETS: &[Target] = &[
    target("bundle", fuzzing::bundle, 64),
    target("chunks", fuzzing::chunks, 1024),
    target("configuration", fuzzing::configuration, 4096),
    target("control", fuzzing::control, 256),
    target("controldata", fuzzing::controldata, 64),
    target("datagram", fuzzing::datagram, 16),
    target("envelope", fuzzing::envelope, 256),
    target("frames", fuzzing::frames, 256),
    target("generated", fuzzing::generated, 64),
    target("handshake", fuzzing::handshake, 16),
    target("history", fuzzing::history, 64),
    target("join", fuzzing::join, 1024),
    target("memory", fuzzing::memory, 64),
    target("oar", fuzzing::oar, 256),
    target("proc", fuzzing::proc_files, 256),
    target("sentinel", core::sentinel, 256),
    target("token", fuzzing::token, 64),
    target("voter", core::voter, 256),
    target("voter-state", core::voter_state, 256),
    target("waldump", fuzzing::waldump, 64),
];

const fn target(name: &'static str, decode: fn(&[u8]) -> Outcome, factor: usize) -> Target {
    Target { name, decode, factor }
}

impl Target {
    /// The target of this name.
    #[must_use]
    pub fn named(name: &str) -> Option<&'static Target> {
        TARGETS.iter().find(|target| target.name == name)
    }

    /// Most bytes it may allocate for so many.
    #[must_use]
    pub fn bound(&self, input_bytes: usize) -> usize {
        BASE_BYTES + self.factor * input_bytes
    }

    /// Gives it bytes, and panics when something does not hold that must.
    ///
    /// # Panics
    /// See above.
    pub fn check(&self, bytes: &[u8]) {
        // A target that was caught before is no reason to stop.
        let counting = COUNTING.lock().unwrap_or_else(PoisonError::into_inner);
        let before = MEMORY.current_usage();
        MEMORY.reset_peak_usage();
        let outcome = (self.decode)(bytes);
        let taken = MEMORY.peak_usage().saturating_sub(before);
        drop(counting);
        let bound = self.bound(bytes.len());
        assert!(taken <= bound, "{}: {taken} bytes for {} bytes, at most {bound} bytes", self.name, bytes.len());
        match outcome {
            Ok(Meaning::Encoded(again)) => {
                let once_more = (self.decode)(&again);
                assert_eq!(once_more, Ok(Meaning::Encoded(again)), "{}: not what was written", self.name);
            }
            Ok(Meaning::Read(_)) => {}
            Err(words) => assert!(!words.trim().is_empty(), "{}: refused without a word", self.name),
        }
    }
}
