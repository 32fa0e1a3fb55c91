//! Typed time. The core never reads a clock: the shell says what time it is.

use serde::{Deserialize, Serialize};
use std::fmt;
use std::ops::{Add, AddAssign, Sub};

/// A moment on the node's own monotonic clock, in microseconds since its boot.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize)]
pub struct Mono(pub u64);

/// A length of time in microseconds.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize)]
pub struct Span(pub u64);

impl Span {
    /// No time at all.
    pub const ZERO: Span = Span(0);

    /// A span of whole milliseconds.
    pub const fn from_ms(ms: u64) -> Span {
        Span(ms * 1000)
    }

    /// This span in whole milliseconds, rounded down.
    pub const fn as_ms(self) -> u64 {
        self.0 / 1000
    }

    /// `self * numerator / denominator`, rounded up; the longest there is where it would be longer.
    pub const fn scaled(self, numerator: u64, denominator: u64) -> Span {
        // Mostly small: the wide division is slow.
        if let Some(small) = self.0.checked_mul(numerator) {
            return Span(small.div_ceil(denominator));
        }
        let exact = (self.0 as u128 * numerator as u128).div_ceil(denominator as u128);
        Span(if exact > u64::MAX as u128 { u64::MAX } else { exact as u64 })
    }
}

impl Mono {
    /// Time from `earlier` to `self`, zero when `earlier` is later.
    pub const fn since(self, earlier: Mono) -> Span {
        Span(self.0.saturating_sub(earlier.0))
    }
}

impl Add<Span> for Mono {
    type Output = Mono;
    fn add(self, span: Span) -> Mono {
        Mono(self.0.saturating_add(span.0))
    }
}

impl Add for Span {
    type Output = Span;
    fn add(self, other: Span) -> Span {
        Span(self.0.saturating_add(other.0))
    }
}

impl AddAssign<Span> for Mono {
    fn add_assign(&mut self, span: Span) {
        *self = *self + span;
    }
}

impl Sub<Span> for Mono {
    type Output = Mono;
    fn sub(self, span: Span) -> Mono {
        Mono(self.0.saturating_sub(span.0))
    }
}

impl fmt::Debug for Mono {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{:03}ms", self.0 / 1000, self.0 % 1000)
    }
}

impl fmt::Debug for Span {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{:03}ms", self.0 / 1000, self.0 % 1000)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_senseless_length_is_scaled_to_the_longest_there_is() {
        assert_eq!(Span(5).scaled(3, 2), Span(8));
        assert_eq!(Span(u64::MAX).scaled(1100, 1000), Span(u64::MAX));
        assert_eq!(Span(u64::MAX).scaled(1000, 1000), Span(u64::MAX));
    }
}
