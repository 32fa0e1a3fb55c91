//! State words: what two copies of a database may do after power came and went in a given order.
//!
//! A letter says which machine is to serve (M), stand by (S) or be off (X): `MS,MX,XX,XM` starts with
//! both, loses the second, then the first, and asks the second alone to serve, which it must refuse.
//! What must come of each step is worked out from the letters alone (`play.rs`).

mod play;
mod survey;

pub use survey::Survey;

use crate::run::Plan;
use std::fmt;
use std::str::FromStr;

/// What one step asks for, of the first and the second machine.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Letter {
    /// The first serves, the second stands by.
    Ms,
    /// The second serves, the first stands by.
    Sm,
    /// The first alone.
    Mx,
    /// The second alone.
    Xm,
    /// Both off at once.
    Xx,
}

/// Steps, one after the other, from a cluster that is served with full redundancy by the first machine.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Word(Vec<Letter>);

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

impl Letter {
    /// All of them.
    pub const ALL: [Letter; 5] = [Letter::Ms, Letter::Sm, Letter::Mx, Letter::Xm, Letter::Xx];

    /// Which machine is to serve, 0 or 1, and whether the other one is to be on.
    fn asks(self) -> Option<(usize, bool)> {
        match self {
            Letter::Ms => Some((0, true)),
            Letter::Sm => Some((1, true)),
            Letter::Mx => Some((0, false)),
            Letter::Xm => Some((1, false)),
            Letter::Xx => None,
        }
    }

    fn name(self) -> &'static str {
        match self {
            Letter::Ms => "MS",
            Letter::Sm => "SM",
            Letter::Mx => "MX",
            Letter::Xm => "XM",
            Letter::Xx => "XX",
        }
    }
}

impl Word {
    /// All words of one letter up to `longest` letters, the shortest first.
    #[must_use]
    pub fn all(longest: usize) -> Vec<Word> {
        let mut words = Vec::new();
        let mut last = vec![Word(Vec::new())];
        for _ in 0..longest {
            let longer = |word: &Word| Letter::ALL.map(|letter| Word([&word.0[..], &[letter]].concat()));
            last = last.iter().flat_map(longer).collect();
            words.extend_from_slice(&last);
        }
        words
    }
}

impl FromStr for Word {
    type Err = String;
    fn from_str(text: &str) -> Result<Word, String> {
        let letter = |name: &str| {
            let known = Letter::ALL.into_iter().find(|letter| letter.name() == name);
            known.ok_or_else(|| format!("state {name:?} in {text:?} is none of MS, SM, MX, XM, XX"))
        };
        text.split(',').map(letter).collect::<Result<_, _>>().map(Word)
    }
}

impl fmt::Display for Word {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names: Vec<&str> = self.0.iter().map(|letter| letter.name()).collect();
        f.write_str(&names.join(","))
    }
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
