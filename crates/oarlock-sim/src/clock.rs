//! Each host's own monotonic clock: it starts anywhere and runs a little fast or slow.

use oarlock_core::time::Mono;

/// A clock that is off and drifts.
#[derive(Clone, Copy, Debug)]
pub struct Clock {
    booted_at_us: u64,
    offset_us: u64,
    /// How fast it runs, in parts per million of true time.
    rate_ppm: u64,
}

impl Clock {
    /// A clock that shows `offset_us` at the true time `booted_at_us`.
    #[must_use]
    pub fn new(booted_at_us: u64, offset_us: u64, rate_ppm: u64) -> Clock {
        Clock { booted_at_us, offset_us, rate_ppm }
    }

    /// The same clock, faster or slower from the time it was set on.
    #[must_use]
    pub fn with_rate(self, rate_ppm: u64) -> Clock {
        Clock { rate_ppm, ..self }
    }

    /// The same clock after a jump ahead.
    #[must_use]
    pub fn stepped(self, us: u64) -> Clock {
        Clock { offset_us: self.offset_us + us, ..self }
    }

    /// What it shows at a true time.
    #[must_use]
    pub fn at(&self, true_us: u64) -> Mono {
        Mono(self.offset_us + true_us.saturating_sub(self.booted_at_us) * self.rate_ppm / 1_000_000)
    }

    /// The first true time at which it shows `mono` or more.
    #[must_use]
    pub fn when(&self, mono: Mono) -> u64 {
        let passed = mono.0.saturating_sub(self.offset_us);
        self.booted_at_us + (passed * 1_000_000).div_ceil(self.rate_ppm)
    }
}
