//! The disk under a voter's state: writing takes time, a crash loses what was under way.

use crate::rng::Rng;
use oarlock_core::durable::Durable;
use oarlock_core::event::Loaded;

/// One host's disk, as far as the voter's state goes.
#[derive(Clone, Debug, Default)]
pub struct Disk {
    saved: Option<Box<Durable>>,
    under_way: Vec<(u64, Box<Durable>)>,
    /// What is there is damaged and says so, until an agent that knows it has saved something new.
    pub torn: bool,
    /// Whoever writes knows.
    renewing: bool,
    /// Longest time for one write, in microseconds.
    pub slow_us: u64,
}

impl Disk {
    /// What is on the disk.
    #[must_use]
    pub fn saved(&self) -> Option<&Durable> {
        self.saved.as_deref()
    }

    /// What is there, and what is on its way there, is worth nothing.
    pub fn lose(&mut self) {
        self.torn = true;
        self.renewing = false;
    }

    /// A write begins.
    pub fn begin(&mut self, ticket: u64, durable: Box<Durable>) {
        self.under_way.push((ticket, durable));
    }

    /// The write of this ticket (and of all before it) is done.
    pub fn done(&mut self, ticket: u64) {
        let (done, rest) = std::mem::take(&mut self.under_way).into_iter().partition(|(known, _)| *known <= ticket);
        self.under_way = rest;
        let done: Vec<(u64, Box<Durable>)> = done;
        if let Some((_, durable)) = done.into_iter().max_by_key(|(known, _)| *known) {
            self.reached(durable);
        }
    }

    fn reached(&mut self, durable: Box<Durable>) {
        if self.torn && !self.renewing {
            return;
        }
        self.torn = false;
        self.saved = Some(durable);
    }

    /// Whoever wrote died: each write under way reached the disk or did not, in order.
    pub fn crash(&mut self, rng: &mut Rng) {
        let reached = rng.within(0, self.under_way.len() as u64) as usize;
        if let Some((_, durable)) = std::mem::take(&mut self.under_way).into_iter().take(reached).next_back() {
            self.reached(durable);
        }
        self.renewing = false;
    }

    /// What a starting voter finds.
    #[must_use]
    pub fn load(&mut self) -> Loaded {
        self.renewing = self.torn;
        match &self.saved {
            _ if self.torn => Loaded::Doubtful { reason: "checksum of both slots wrong".into() },
            None => Loaded::Fresh,
            Some(durable) => Loaded::Intact(durable.clone()),
        }
    }
}
