//! What a voter promised it remembers: nothing is said before it is on the disk, and no renewal
//! is acknowledged after it.

use crate::world::World;
use oarlock_core::ids::VoterId;
use oarlock_core::message::Message;
use oarlock_core::message::Promise;
use std::collections::{BTreeMap, BTreeSet};

/// Promises that were said.
#[derive(Default)]
pub struct Memory {
    promised: BTreeMap<usize, BTreeSet<Promise>>,
    term: BTreeMap<(usize, VoterId), u64>,
}

impl World {
    /// A node is about to say something.
    pub fn check_said(&mut self, host: usize, to: usize, message: &Message) {
        match message {
            Message::Promised(promise) => {
                let saved = self.hosts[host].disk.saved().and_then(|durable| durable.promised.get(&promise.node));
                let safe = saved.is_some_and(|(generation, _)| *generation >= promise.generation);
                self.checks.promises.promised.entry(host).or_default().insert(*promise);
                if !safe {
                    self.broken("witness_memory", format!("{promise:?} was said before it was on the disk"));
                }
            }
            Message::Acked(renew) => {
                self.check_not_promised(host, to, renew);
                self.ack_said(host, to, renew);
            }
            Message::Renew(renew) => self.renew_said(host, renew),
            _ => {}
        }
    }

    fn check_not_promised(&mut self, host: usize, to: usize, renew: &oarlock_core::message::Renew) {
        // Whom the acknowledgement goes to is known by the generation and incarnation it names.
        let holder = || self.checks.leases.asked_by(to, renew).map(|_| self.hosts[to].id);
        let promised = self.checks.promises.promised.get(&host).is_some_and(|promised| {
            let holder = holder();
            promised.iter().any(|known| {
                Some(known.node) == holder
                    && known.generation >= renew.generation
                    && known.voters_version == renew.voters_version
            })
        });
        if promised {
            self.broken("witness_memory", format!("{renew:?} was acknowledged after it was promised dead"));
        }
    }

    /// An agent starts from what is on its disk.
    pub fn check_loaded(&mut self, host: usize) {
        let machine = &self.hosts[host];
        let Some(durable) = machine.disk.saved().filter(|_| !machine.disk.torn) else { return };
        let (term, voter) = (durable.log.term, durable.voter);
        let known = self.checks.promises.term.entry((host, voter)).or_insert(0);
        let falls = term < *known;
        *known = term.max(*known);
        if falls {
            self.broken("witness_memory", format!("the term on the disk fell to {term}"));
        }
    }
}
