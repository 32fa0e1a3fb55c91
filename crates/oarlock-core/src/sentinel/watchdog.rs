//! When the machine's hardware watchdog may be fed: so that a node on which agent and sentinel stand still is
//! reset before anybody else may start what it ran, and no other node is reset at all.
//!
//! The watchdog runs only while something exclusive is here. It is fed only by a lease that is still fresh, that is
//! at each renewal; so it fires at the latest `timeout_us - fresh_us` after the deadline that the last renewal
//! gave. It is fed once more when a lapse has been carried out in full: a sentinel that could not silence its node
//! leaves that to the watchdog.
//!
//! A lease that is not fresh feeds it in two cases, each said in the log: at a start, which must find it running, and
//! when renewals are answered late for half of its time, for a slow network must not reset a machine that serves. Who
//! stands still just then is reset later by as much as the lease was old.

use serde::{Deserialize, Serialize};

use super::machine::Sentinel;
use super::message::Reply;

/// A hardware watchdog to be kept.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Watchdog {
    /// Its device.
    pub device: String,
    /// It resets the machine when it was not fed for so long, in microseconds; whole seconds.
    pub timeout_us: u64,
    /// A lease that has at least so long to go is fresh, in microseconds.
    pub fresh_us: u64,
}

/// What is to be done with the watchdog now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Care {
    /// Nothing exclusive is here: it is to be stopped. One that cannot be stopped is to be fed.
    Stop,
    /// It is to run and to be fed.
    Feed {
        /// Not by a fresh lease: the renewals take too long.
        late: bool,
    },
    /// It is not to be fed. It is not to be started either: that would be feeding.
    Leave,
}

impl Sentinel {
    /// What is to be done with the watchdog of the record at `now_us`, when it was last fed at `fed_us`. To be asked
    /// after each event, before its effects are performed: a start must find the watchdog running.
    #[must_use]
    pub fn care(&self, now_us: u64, fed_us: u64) -> Care {
        let record = self.record();
        let Some(watchdog) = &record.watchdog else { return Care::Stop };
        if self.silencing.is_some() {
            return Care::Leave;
        }
        if !record.holds_exclusive() {
            return Care::Stop;
        }
        match record.deadline_us {
            // The lapse was carried out: what is left waits for a disk and will not run again.
            None => Care::Feed { late: false },
            // A lapse that has not been seen to yet.
            Some(deadline_us) if deadline_us <= now_us => Care::Leave,
            Some(deadline_us) if deadline_us - now_us >= watchdog.fresh_us => Care::Feed { late: false },
            Some(_) if now_us.saturating_sub(fed_us) >= watchdog.timeout_us / 2 => Care::Feed { late: true },
            Some(_) => Care::Leave,
        }
    }

    pub(super) fn watch(&mut self, watchdog: Option<Watchdog>) -> Reply {
        if self.record.watchdog != watchdog {
            self.record.watchdog = watchdog;
            self.save();
        }
        Reply::Done
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::sentinel::{Act, Effect, Event, Exit, Guard, Outcome, Platform, Process, Request};

    const LEASE_US: u64 = 1_000;
    const TIMEOUT_US: u64 = 2_000;
    const FRESH_US: u64 = 750;
    /// The sentinel looks again after so long at the latest.
    const LOOK_US: u64 = 100;

    /// A sentinel with a hardware watchdog that fires.
    struct World {
        sentinel: Sentinel,
        now_us: u64,
        fed_us: u64,
        /// Since when the hardware counts; `None`: it is stopped.
        fires_us: Option<u64>,
        /// When the last renewal was sent.
        renewed_us: u64,
        /// Killed processes are gone at once.
        dies: bool,
    }

    impl World {
        fn new() -> Self {
            let sentinel = Sentinel::new(Platform::default());
            let mut world = Self { sentinel, now_us: 10_000, fed_us: 0, fires_us: None, renewed_us: 0, dies: true };
            let watchdog = Watchdog { device: "dog".into(), timeout_us: TIMEOUT_US, fresh_us: FRESH_US };
            world.ask(Request::Watch { watchdog: Some(watchdog) });
            world.ask(Request::NewGeneration { generation: 1 });
            world
        }

        fn ask(&mut self, request: Request) {
            self.event(Event::Request { id: 1, request });
        }

        /// A renewal that was sent `age_us` ago.
        fn renew(&mut self, age_us: u64) {
            let generation = self.sentinel.record().generation;
            self.renewed_us = self.renewed_us.max(self.now_us - age_us);
            self.ask(Request::Lease { generation, deadline_us: self.now_us - age_us + LEASE_US });
        }

        fn start(&mut self) {
            let generation = self.sentinel.record().generation;
            let guard = Some(Guard { group: "g".into(), generation, epoch: 1 });
            self.ask(Request::Spawn { name: "s".into(), command: Box::default(), guard });
        }

        fn is_fresh(&self) -> bool {
            self.sentinel.record().deadline_us.is_some_and(|at| at >= self.now_us + FRESH_US)
        }

        fn runs(&self) -> bool {
            self.sentinel.record().holds_exclusive()
        }

        fn event(&mut self, event: Event) {
            assert!(self.fires_us.is_none_or(|at| self.now_us < at), "reset although the sentinel is well");
            let mut events = vec![event];
            while let Some(event) = events.pop() {
                let effects = self.sentinel.handle(self.now_us, event);
                match self.sentinel.care(self.now_us, self.fed_us) {
                    Care::Stop => self.fires_us = None,
                    Care::Feed { .. } => {
                        self.fed_us = self.now_us;
                        self.fires_us = Some(self.now_us + TIMEOUT_US);
                    }
                    Care::Leave => {}
                }
                for effect in effects {
                    let killed = match effect {
                        Effect::Act { ticket, act: Act::Spawn { .. } } => {
                            assert!(self.fires_us.is_some(), "started without the watchdog");
                            let process = Process { pid: 5, start_ticks: 1 };
                            events.push(Event::Acted { ticket, outcome: Outcome::Done });
                            events.push(Event::Acted { ticket, outcome: Outcome::Forked(process) });
                            continue;
                        }
                        Effect::Kill { name } => vec![name],
                        Effect::Silence { services, .. } => services,
                        _ => continue,
                    };
                    for name in killed.into_iter().filter(|_| self.dies) {
                        events.push(Event::Emptied { name: name.clone() });
                        events.push(Event::Exited { name, pid: 5, exit: Exit::Signal(9) });
                    }
                }
            }
        }

        fn wait(&mut self, us: u64) {
            let until_us = self.now_us + us;
            while self.now_us < until_us {
                let lapse_us = self.sentinel.record().deadline_us.unwrap_or(u64::MAX).max(self.now_us + 1);
                self.now_us = (self.now_us + LOOK_US).min(until_us).min(lapse_us);
                self.event(Event::Tick);
            }
        }
    }

    #[test]
    fn a_node_that_owns_nothing_has_its_watchdog_stopped() {
        let mut world = World::new();
        assert_eq!(world.fires_us, None);
        world.renew(0);
        world.wait(100 * TIMEOUT_US);
        assert_eq!(world.fires_us, None);
        // Its lease lapsed long ago, and another generation begins.
        world.ask(Request::NewGeneration { generation: 2 });
        world.renew(0);
        world.start();
        assert!(world.runs() && world.fires_us.is_some());
        world.ask(Request::KillGroup { name: "s".into() });
        assert!(!world.runs() && world.fires_us.is_none());
    }

    #[test]
    fn a_lapse_that_is_carried_out_resets_nothing() {
        let mut world = World::new();
        world.renew(0);
        world.start();
        world.wait(100 * TIMEOUT_US);
        assert!(!world.runs() && world.fires_us.is_none());
    }

    #[test]
    fn a_lapse_that_is_not_carried_out_is_left_to_the_watchdog() {
        let mut world = World::new();
        world.renew(0);
        world.start();
        world.dies = false;
        world.wait(LEASE_US);
        let fires_us = world.fires_us.unwrap();
        world.wait(fires_us - world.now_us - 1);
        assert_eq!((world.runs(), world.fires_us), (true, Some(fires_us)));
        assert!(fires_us <= world.renewed_us + LEASE_US - FRESH_US + TIMEOUT_US);
    }

    #[test]
    fn what_only_waits_for_a_disk_after_a_lapse_resets_nothing() {
        let mut world = World::new();
        world.renew(0);
        world.start();
        world.dies = false;
        world.wait(LEASE_US);
        let remaining = vec![crate::sentinel::Remaining { pid: 5, state: 'D' }];
        world.event(Event::Inspected { name: "s".into(), remaining });
        world.wait(100 * TIMEOUT_US);
        assert!(world.runs() && world.fires_us.is_some());
    }

    #[test]
    fn renewals_that_are_answered_late_reset_nothing() {
        let mut world = World::new();
        world.renew(0);
        world.start();
        for _ in 0..200 {
            world.wait(100);
            world.renew(LEASE_US - FRESH_US + 300);
        }
        assert!(world.runs());
    }

    #[test]
    fn a_long_grace_feeds_until_it_is_no_longer_fresh() {
        let mut world = World::new();
        world.renew(0);
        world.start();
        world.ask(Request::Lease { generation: 1, deadline_us: world.now_us + 20 * LEASE_US });
        world.wait(19 * LEASE_US);
        assert!(world.runs());
        world.wait(2 * LEASE_US);
        assert!(!world.runs());
    }

    #[test]
    fn the_next_sentinel_knows_the_watchdog() {
        let mut world = World::new();
        world.renew(0);
        world.start();
        let next = Sentinel::adopt(world.sentinel.record().clone(), Platform::default());
        assert_eq!(next.care(world.now_us, 0), Care::Feed { late: false });
        assert_eq!(next.care(world.now_us + LEASE_US, 0), Care::Leave);
    }

    proptest! {
        /// The sentinel stands still at some moment: what it ran is reset in time, whatever came before.
        #[test]
        fn a_node_that_stands_still_is_reset_in_time(steps in proptest::collection::vec((0_u8..6, 0_u64..400), 1..60)) {
            let mut world = World::new();
            for (what, us) in steps {
                match what {
                    // Of a lease that is not fresh the text above speaks.
                    0 if world.is_fresh() => world.start(),
                    0 => {}
                    1 => world.ask(Request::KillGroup { name: "s".into() }),
                    2 => {
                        let generation = world.sentinel.record().generation + 1;
                        world.ask(Request::NewGeneration { generation });
                    }
                    3 => world.wait(us),
                    // In time, as every other inequality expects it.
                    _ => world.renew(us % (LEASE_US - FRESH_US)),
                }
                if world.runs() {
                    let fires_us = world.fires_us.expect("something exclusive runs without the watchdog");
                    prop_assert!(fires_us <= world.renewed_us + LEASE_US - FRESH_US + TIMEOUT_US);
                }
            }
        }
    }
}
