//! The machine's hardware watchdog, kept by the sentinel alone: should it stand still, nobody feeds it.
//!
//! When it is fed is decided in the core ([`Care`]). Here it is opened, fed and stopped. It is opened anew by each
//! sentinel: the death of one closes the device without the word that stops it, so that it goes on counting.

mod card;

use std::io;

use oarlock_core::sentinel::{Care, Sentinel, Watchdog};

pub(super) use card::open;

/// Feeding more often than this part of the timeout brings nothing.
const FEEDS_PER_TIMEOUT: u64 = 8;
/// How long to wait before a device that could not be used is tried again.
const RETRY_US: u64 = 10_000_000;

/// A watchdog that counts.
pub(super) trait Device {
    /// It begins to count anew.
    fn feed(&mut self) -> io::Result<()>;
    /// It does not count any more.
    fn stop(&mut self) -> io::Result<()>;
}

/// Opens a device, which starts it, and sets its timeout in seconds.
pub(super) type Open = fn(&str, u32) -> io::Result<Box<dyn Device>>;

/// The watchdog as the sentinel keeps it.
pub(super) struct Watch {
    open: Open,
    /// As of the record when we last looked.
    wanted: Option<Watchdog>,
    /// There while it counts.
    device: Option<Box<dyn Device>>,
    /// It could be opened when it was last tried, and has its timeout.
    works: bool,
    /// It was started by somebody who made it impossible to stop.
    unstoppable: bool,
    fed_us: u64,
    next_us: u64,
    late: bool,
    retry_at_us: u64,
}

impl Watch {
    pub(super) fn new(open: Open) -> Self {
        Self {
            open,
            wanted: None,
            device: None,
            works: false,
            unstoppable: false,
            fed_us: 0,
            next_us: 0,
            late: false,
            retry_at_us: 0,
        }
    }

    /// Whether there is one, and it can be used.
    pub(super) fn works(&self) -> bool {
        self.works
    }

    /// When [`Watch::tend`] is to be called next, whatever happens.
    pub(super) fn due_us(&self) -> Option<u64> {
        if self.device.is_some() {
            return Some(self.next_us);
        }
        self.wanted.as_ref()?;
        (!self.works).then_some(self.retry_at_us)
    }

    /// Does what is due; lines for the log. To be called after each event, before its effects are performed.
    pub(super) fn tend(&mut self, machine: &Sentinel, now_us: u64) -> Vec<String> {
        let mut lines = Vec::new();
        let record = machine.record();
        // One that cannot be stopped is kept, whatever is wanted instead: the machine would be reset.
        if record.watchdog != self.wanted && !self.unstoppable {
            self.stop(&mut lines);
            if self.device.is_none() {
                self.wanted.clone_from(&record.watchdog);
                (self.works, self.retry_at_us) = (false, 0);
            }
        }
        let Some(wanted) = self.wanted.clone() else { return lines };
        let care = machine.care(now_us, self.fed_us);
        if now_us >= self.next_us {
            self.next_us = now_us + wanted.timeout_us / FEEDS_PER_TIMEOUT;
        }
        // To start it is to feed it.
        if care == Care::Leave {
            return lines;
        }
        let needed = matches!(care, Care::Feed { .. });
        if self.device.is_none() && (needed || !self.works) && (self.works || now_us >= self.retry_at_us) {
            self.start(&wanted, now_us, &mut lines);
        }
        if care == Care::Stop && !self.unstoppable {
            self.stop(&mut lines);
        }
        self.feed(care, &wanted, now_us, &mut lines);
        lines
    }

    fn start(&mut self, wanted: &Watchdog, now_us: u64, lines: &mut Vec<String>) {
        let seconds = u32::try_from(wanted.timeout_us.div_ceil(1_000_000)).unwrap_or(u32::MAX);
        match (self.open)(&wanted.device, seconds) {
            Ok(device) => {
                if !self.works {
                    lines.push(format!("watchdog {}: resets this machine after {seconds} s", wanted.device));
                }
                (self.device, self.works, self.fed_us) = (Some(device), true, now_us);
                self.next_us = now_us + wanted.timeout_us / FEEDS_PER_TIMEOUT;
            }
            Err(error) => {
                lines.push(format!("watchdog {} cannot be used: {error}", wanted.device));
                (self.works, self.retry_at_us) = (false, now_us + RETRY_US);
            }
        }
    }

    fn stop(&mut self, lines: &mut Vec<String>) {
        let Some(device) = &mut self.device else { return };
        match device.stop() {
            Ok(()) => self.device = None,
            Err(error) => {
                self.unstoppable = true;
                lines.push(format!("the watchdog cannot be stopped ({error}): it is fed as long as we live"));
            }
        }
    }

    fn feed(&mut self, care: Care, wanted: &Watchdog, now_us: u64, lines: &mut Vec<String>) {
        let Some(device) = &mut self.device else { return };
        if now_us < self.fed_us + wanted.timeout_us / FEEDS_PER_TIMEOUT {
            return;
        }
        let late = care == Care::Feed { late: true };
        if late && !self.late {
            lines.push("watchdog fed although the lease is not fresh: renewals take long".to_owned());
        }
        self.late = late;
        match device.feed() {
            Ok(()) => self.fed_us = now_us,
            Err(error) => {
                lines.push(format!("watchdog {} cannot be fed: {error}", wanted.device));
                // Opened anew at once.
                (self.device, self.works, self.retry_at_us) = (None, false, 0);
            }
        }
    }
}

#[cfg(test)]
mod tests;
