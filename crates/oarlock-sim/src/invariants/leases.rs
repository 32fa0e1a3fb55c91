//! Lease before life: nothing exclusive runs later than the stop budget after the end of a lease,
//! and no lease is longer than what a majority granted, counted from when it was asked for.

use crate::world::World;
use oarlock_core::config::Kind;
use oarlock_core::ids::ResourceId;
use oarlock_core::message::Renew;
use oarlock_core::time::{Mono, Span};
use std::collections::{BTreeMap, VecDeque};

/// A renewal that is under way.
pub struct Asked {
    incarnation: u64,
    sequence: u64,
    /// When it was sent, by its sender's own clock.
    at: Mono,
    /// The same by true time.
    at_us: u64,
    /// For how long, in microseconds.
    lease_us: u64,
    /// The version of the voters that it counts.
    voters_version: u64,
    /// Who acknowledged, one bit for each host.
    by: u64,
}

/// Renewals as they were sent and acknowledged.
#[derive(Default)]
pub struct Memory {
    /// By host, in the order in which they were sent.
    asked: BTreeMap<usize, VecDeque<Asked>>,
    /// By host: latest deadline armed since its boot, but for longer ones that the sentinel gave up.
    deadline: BTreeMap<usize, (u64, Mono)>,
    /// By host: the latest armed since the sentinel was asked to give up a longer one.
    shorter: BTreeMap<usize, Mono>,
    /// Before this (true time) no lease that something runs under can be over.
    good_until_us: u64,
}

/// So long, in microseconds of true time, a renewal may still matter.
const REMEMBERED_US: u64 = 60_000_000;

impl Memory {
    /// A renewal that this host sent.
    #[must_use]
    pub fn asked_by(&self, host: usize, renew: &Renew) -> Option<&Asked> {
        self.asked.get(&host)?.iter().rev().find(|asked| asked.is(renew))
    }

    /// Another incarnation begins on a host, under which nothing of the former runs: no lease of that is
    /// worth anything, even one that the sentinel did not hear of before it died.
    pub fn begin_anew(&mut self, host: usize) {
        self.deadline.remove(&host);
        self.shorter.remove(&host);
    }

    /// The end of the last lease armed on a host in this boot.
    #[must_use]
    pub fn latest(&self, host: usize, boot: u64) -> Option<Mono> {
        self.deadline.get(&host).filter(|(known, _)| *known == boot).map(|(_, deadline)| *deadline)
    }
}

impl Asked {
    fn is(&self, renew: &Renew) -> bool {
        (self.sequence, self.incarnation) == (renew.sequence, renew.incarnation)
    }
}

impl World {
    /// A node asks for a renewal.
    pub fn renew_said(&mut self, host: usize, renew: &Renew) {
        let now = self.now;
        let at = self.hosts[host].clock.at(now);
        let asked = self.checks.leases.asked.entry(host).or_default();
        // It goes to several.
        if asked.back().is_some_and(|last| last.is(renew)) {
            return;
        }
        while asked.front().is_some_and(|oldest| oldest.at_us + REMEMBERED_US < now) {
            asked.pop_front();
        }
        // One's own acknowledgement is not sent; it counts where the node votes.
        asked.push_back(Asked {
            incarnation: renew.incarnation,
            sequence: renew.sequence,
            at,
            at_us: now,
            lease_us: renew.lease.0,
            voters_version: renew.voters_version,
            by: 1 << host,
        });
    }

    /// A voter acknowledges one of `holder`.
    pub fn ack_said(&mut self, host: usize, holder: usize, renew: &Renew) {
        let asked = self.checks.leases.asked.get_mut(&holder);
        if let Some(asked) = asked.and_then(|asked| asked.iter_mut().rev().find(|asked| asked.is(renew))) {
            asked.by |= 1 << host;
        }
    }

    /// A node counts on its lease until `deadline`.
    pub fn check_deadline(&mut self, host: usize, incarnation: u64, deadline: Mono, shortens: bool) {
        let node = self.hosts[host].id;
        let asked = self.checks.leases.asked.get(&host).into_iter().flat_map(|asked| asked.iter().rev());
        let asked = asked.filter(|asked| asked.incarnation == incarnation);
        let long_enough = |asked: &&Asked| deadline.0 <= asked.at.0 + asked.lease_us;
        // Mostly the last ones; all, where leases became shorter.
        let granted =
            self.is_granted(asked.clone().take_while(long_enough)) || self.is_granted(asked.filter(long_enough));
        let boot = self.hosts[host].boot;
        let latest = self.checks.leases.deadline.entry(host).or_insert((boot, deadline));
        *latest = if latest.0 == boot { (boot, latest.1.max(deadline)) } else { (boot, deadline) };
        if shortens {
            self.checks.leases.shorter.insert(host, deadline);
        } else if let Some(shorter) = self.checks.leases.shorter.get_mut(&host) {
            *shorter = deadline.max(*shorter);
        }
        if !granted {
            self.broken("lease_before_life", format!("{node} counts on its lease until {deadline:?}, not granted"));
        }
    }

    /// Whoever acknowledged a later one stands by an earlier one too, under the same voters.
    fn is_granted<'a>(&self, renewals: impl Iterator<Item = &'a Asked>) -> bool {
        let mut by: BTreeMap<u64, u64> = BTreeMap::new();
        for asked in renewals {
            let by = by.entry(asked.voters_version).or_default();
            *by |= asked.by;
            if self.checks.voters.is_majority(asked.voters_version, *by) {
                return true;
            }
        }
        false
    }

    /// The sentinel was asked for a shorter lease: once that is on file, no longer one can be had back.
    pub fn lease_shortened(&mut self, host: usize, to_us: u64) {
        let kept = self.hosts[host].watch.kept.as_ref().and_then(|record| record.deadline_us);
        if kept.is_some_and(|kept| kept <= to_us)
            && let Some(shorter) = self.checks.leases.shorter.remove(&host)
        {
            let boot = self.hosts[host].boot;
            self.checks.leases.deadline.insert(host, (boot, shorter));
        }
    }

    /// An agent starts with what its sentinel has: what the one before it counted on and had not told yet, nobody knows
    /// any more (seed two/570).
    pub fn lease_inherited(&mut self, host: usize, deadline: Option<Mono>) {
        let boot = self.hosts[host].boot;
        let deadlines = &mut self.checks.leases.deadline;
        match (deadline, deadlines.get_mut(&host).filter(|(known, _)| *known == boot)) {
            (Some(deadline), Some((_, latest))) => *latest = deadline.min(*latest),
            (None, Some(_)) => drop(deadlines.remove(&host)),
            (_, None) => {}
        }
    }

    /// Whatever is exclusive runs under a lease, or within the stop budget after. Looks again only
    /// once the first lease can be over, or something was started.
    pub fn check_lease_before_life(&mut self, stirred: bool) {
        if !stirred && self.now <= self.checks.leases.good_until_us {
            return;
        }
        let budget = Span(self.stop_budget_us());
        let mut good_until = u64::MAX;
        for (index, host) in self.hosts.iter().enumerate() {
            let service =
                |(id, _): (ResourceId, u32)| self.config.resource(id).is_some_and(|known| known.kind == Kind::Service);
            let idle = host.run.addresses().is_empty() && !host.run.programs().any(service);
            if !host.acts() || idle || self.has_just_resumed(host) {
                continue;
            }
            let now = host.clock.at(self.now);
            let known = self.checks.leases.deadline.get(&index).filter(|(boot, _)| *boot == host.boot);
            match known {
                Some((_, deadline)) if now <= *deadline + budget => {
                    good_until = good_until.min(host.clock.when(*deadline + budget));
                }
                _ => {
                    let text = format!("{} runs something exclusive at {now:?}, its lease: {known:?}", host.id);
                    return self.broken("lease_before_life", text);
                }
            }
        }
        self.checks.leases.good_until_us = good_until;
    }
}
