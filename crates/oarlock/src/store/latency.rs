//! How long the disk takes to sync.

use std::collections::VecDeque;
use std::time::Duration;

/// Syncs remembered.
const RECENT: usize = 128;

/// Durations of the most recent syncs.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct SyncLatency {
    /// Half of them took no longer.
    pub median: Duration,
    /// None of them took longer.
    pub max: Duration,
    /// How many there were, at most 128. A save needs two, one after the other.
    pub samples: usize,
}

/// The most recent durations.
#[derive(Debug, Default)]
pub struct Recent(VecDeque<Duration>);

impl Recent {
    /// Takes one more.
    pub fn push(&mut self, duration: Duration) {
        if self.0.len() >= RECENT {
            self.0.pop_front();
        }
        self.0.push_back(duration);
    }

    /// Their summary.
    pub fn summary(&self) -> SyncLatency {
        let mut sorted: Vec<_> = self.0.iter().copied().collect();
        sorted.sort_unstable();
        SyncLatency {
            median: sorted.get(sorted.len() / 2).copied().unwrap_or_default(),
            max: sorted.last().copied().unwrap_or_default(),
            samples: sorted.len(),
        }
    }
}
