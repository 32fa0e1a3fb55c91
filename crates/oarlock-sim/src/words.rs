//! State words: what two copies of a database may do after power came and went in a given order.
//!
//! A letter says which machine is to serve (M), stand by (S) or be off (X): `MS,MX,XX,XM` starts with
//! both, loses the second, then the first, and asks the second alone to serve, which it must refuse.
//! What must come of each step is worked out from the letters alone (`oarlock_words::Expected`), as in the lab.

mod play;
mod survey;

pub use oarlock_words::{Letter, Word};
pub use survey::Survey;

use crate::run::Plan;

/// How long to wait between power events.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Pace {
    /// Until what must come of the last one has come.
    #[default]
    Settled,
    /// Any time up to two seconds: what comes of each is open, but nothing may be lost.
    Hasty,
}

/// How a word went.
#[derive(Clone, Debug, Default)]
pub struct Told {
    /// The step that went wrong, from 1, and how; the step after the last is the healing.
    pub wrong: Option<(usize, String)>,
    /// Steps in which the machine that was asked to serve did.
    pub accepted: u64,
    /// Steps in which it refused, as it must, with what it said of it.
    pub refused: Vec<String>,
    /// Writes whose acknowledgement reached the client.
    pub acknowledged: usize,
    /// Longest time a lone machine took to serve, in milliseconds.
    pub slowest_ms: u64,
}

/// One word in one world.
#[derive(Clone, Debug)]
pub struct Course {
    /// The word.
    pub word: Word,
    /// Seed, layout, rules and traces; no random faults.
    pub plan: Plan,
    /// How fast.
    pub pace: Pace,
    /// The witness loses its power too when both machines do.
    pub witness: bool,
}

impl Course {
    /// Runs it to the end.
    #[must_use]
    pub fn play(&self) -> Told {
        play::play(self)
    }

    /// How to see it again.
    #[must_use]
    pub fn command(&self) -> String {
        let pace = if self.pace == Pace::Hasty { " --hasty" } else { "" };
        let witness = if self.witness { " --witness-too" } else { "" };
        let Plan { seed, layout, .. } = self.plan;
        format!("cargo xtask sim --word {} --seed {seed} --layout {layout}{pace}{witness} --trace", self.word)
    }
}
