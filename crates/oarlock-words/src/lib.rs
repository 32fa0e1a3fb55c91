//! State words: what two copies of a database may do after power came and went in a given order.
//!
//! A letter says which machine is to serve (M), stand by (S) or be off (X): `MS,MX,XX,XM` starts with
//! both, loses the second, then the first, and asks the second alone to serve, which it must refuse.
//! What must come of each step is worked out from the letters alone ([`Expected`]). The simulator and
//! the lab play words and hold what they see against it; nothing here knows how either does that.

mod choice;
mod expected;

pub use choice::choose;
pub use expected::{Event, Expected};

use std::fmt;
use std::str::FromStr;

/// What one step asks for, of the first and the second machine.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
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

impl Letter {
    /// All of them.
    pub const ALL: [Letter; 5] = [Letter::Ms, Letter::Sm, Letter::Mx, Letter::Xm, Letter::Xx];

    /// Which machine is to serve, 0 or 1, and whether the other one is to be on; `None` with both off.
    #[must_use]
    pub fn asks(self) -> Option<(usize, bool)> {
        match self {
            Letter::Ms => Some((0, true)),
            Letter::Sm => Some((1, true)),
            Letter::Mx => Some((0, false)),
            Letter::Xm => Some((1, false)),
            Letter::Xx => None,
        }
    }

    /// As it is written.
    #[must_use]
    pub fn name(self) -> &'static str {
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

    /// Its letters, in their order.
    #[must_use]
    pub fn letters(&self) -> &[Letter] {
        &self.0
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
