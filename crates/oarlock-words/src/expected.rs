//! What must be, derived from power alone.

use crate::Letter;

/// What must be: who serves acknowledges at once, alone or with the other.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Expected {
    /// Which machines are on.
    pub on: [bool; 2],
    /// Which copies hold everything that was acknowledged.
    pub complete: [bool; 2],
    /// Which machine serves.
    pub serves: Option<usize>,
}

/// A change of power; what comes of it is waited for before the next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Event {
    /// This machine loses its power.
    Off(usize),
    /// This machine gets its power.
    On(usize),
    /// Both lose their power in one instant.
    BothOff,
}

impl Expected {
    /// Where every word begins: both on, both complete, the first serves.
    #[must_use]
    pub fn begin() -> Expected {
        Expected { on: [true; 2], complete: [true; 2], serves: Some(0) }
    }

    /// A machine gets or loses its power.
    pub fn power(&mut self, machine: usize, on: bool) {
        self.on[machine] = on;
        self.serves = self.serves.filter(|known| self.on[*known]);
    }

    /// Time passes, until nothing more comes of the power as it is.
    pub fn comes(&mut self) {
        let able = |machine: &usize| self.on[*machine] && self.complete[*machine];
        self.serves = self.serves.or_else(|| (0..2).find(able));
        if self.serves.is_some() {
            self.complete = self.on;
        }
    }

    /// An event, and what comes of it.
    pub fn after(&mut self, event: Event) {
        match event {
            Event::Off(machine) => self.power(machine, false),
            Event::On(machine) => self.power(machine, true),
            Event::BothOff => (0..2).for_each(|machine| self.power(machine, false)),
        }
        self.comes();
    }

    /// What a step does to the power when `serves` serves: a machine that is to hand over or to be off goes
    /// off first.
    #[must_use]
    pub fn events(&self, letter: Letter, serves: Option<usize>) -> Vec<Event> {
        let Some((main, both)) = letter.asks() else { return vec![Event::BothOff] };
        let other = 1 - main;
        let (mut events, mut other_on) = (Vec::new(), self.on[other]);
        if other_on && (!both || serves == Some(other)) {
            events.push(Event::Off(other));
            other_on = false;
        }
        if !self.on[main] {
            events.push(Event::On(main));
        }
        if both && !other_on {
            events.push(Event::On(other));
        }
        events
    }

    /// A whole step.
    pub fn step(&mut self, letter: Letter) {
        for event in self.events(letter, self.serves) {
            self.after(event);
        }
    }

    /// Whether the machine that a letter asks to serve does; with both off there is nobody to ask.
    #[must_use]
    pub fn accepts(&self, letter: Letter) -> bool {
        letter.asks().is_none_or(|(main, _)| self.serves == Some(main))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Word;

    fn after(word: &str) -> Expected {
        let word: Word = word.parse().unwrap();
        let mut expected = Expected::begin();
        word.letters().iter().for_each(|letter| expected.step(*letter));
        expected
    }

    #[test]
    fn a_copy_that_was_left_behind_must_not_serve() {
        let refused = after("MS,MX,XX,XM");
        assert_eq!(refused, Expected { on: [false, true], complete: [true, false], serves: None });
        assert!(!refused.accepts(Letter::Xm));
        assert_eq!(after("MX,XX,SM").serves, Some(0));
    }

    #[test]
    fn either_serves_when_both_went_at_once() {
        assert_eq!(after("XX,XM").serves, Some(1));
        assert_eq!(after("XX,MX").serves, Some(0));
    }

    #[test]
    fn a_hand_over_is_a_loss_of_power_and_a_return() {
        assert_eq!(Expected::begin().events(Letter::Sm, Some(0)), [Event::Off(0), Event::On(0)]);
        assert_eq!(Expected::begin().events(Letter::Ms, Some(0)), []);
        assert_eq!(after("SM").serves, Some(1));
    }
}
