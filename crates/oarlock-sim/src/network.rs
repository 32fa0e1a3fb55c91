//! The network: delay, loss, duplication, reordering, cuts in each direction.

use crate::rng::Rng;
use std::collections::{BTreeMap, BTreeSet};

/// What the network does to a datagram, and which paths are cut.
#[derive(Clone, Debug)]
pub struct Network {
    /// Lost datagrams, in thousandths.
    pub loss_permille: u64,
    /// Datagrams that arrive twice, in thousandths.
    pub twice_permille: u64,
    /// Shortest way, in microseconds.
    pub delay_us: u64,
    /// What may come on top; more than the distance of two datagrams reorders them.
    pub jitter_us: u64,
    /// Datagrams that take much longer, in thousandths.
    pub slow_permille: u64,
    /// Paths (from, to) of the cluster's own datagrams that are cut.
    cut: BTreeSet<(usize, usize)>,
    /// Paths (from, to) on which the cluster's own datagrams take this much longer, in microseconds.
    detours_us: BTreeMap<(usize, usize), u64>,
    /// Pairs between which the databases cannot talk.
    replication_cut: BTreeSet<(usize, usize)>,
    /// Hosts that no client reaches.
    pub clients_cut: BTreeSet<usize>,
}

impl Network {
    /// A quiet network.
    #[must_use]
    pub fn quiet() -> Network {
        Network {
            loss_permille: 0,
            twice_permille: 0,
            delay_us: 100,
            jitter_us: 200,
            slow_permille: 0,
            cut: BTreeSet::new(),
            detours_us: BTreeMap::new(),
            replication_cut: BTreeSet::new(),
            clients_cut: BTreeSet::new(),
        }
    }

    /// How long one way takes now.
    pub fn delay(&self, rng: &mut Rng) -> u64 {
        let slow = if rng.chance(self.slow_permille) { rng.within(10_000, 200_000) } else { 0 };
        self.delay_us + rng.within(0, self.jitter_us) + slow
    }

    /// After how long a datagram arrives: never, once, or twice.
    pub fn arrivals(&self, rng: &mut Rng, from: usize, to: usize) -> [Option<u64>; 2] {
        if self.cut.contains(&(from, to)) || rng.chance(self.loss_permille) {
            return [None, None];
        }
        let first = self.delay(rng) + self.detours_us.get(&(from, to)).copied().unwrap_or(0);
        let second = rng.chance(self.twice_permille).then(|| self.delay(rng) + rng.within(0, 50_000));
        [Some(first), second]
    }

    /// Whether databases on two hosts can talk.
    #[must_use]
    pub fn replicates(&self, a: usize, b: usize) -> bool {
        let pair = (a.min(b), a.max(b));
        !self.replication_cut.contains(&pair) && !self.cut.contains(&(a, b)) && !self.cut.contains(&(b, a))
    }

    /// Cuts one direction.
    pub fn cut(&mut self, from: usize, to: usize) {
        self.cut.insert((from, to));
    }

    /// Cuts the path of the databases.
    pub fn cut_replication(&mut self, a: usize, b: usize) {
        self.replication_cut.insert((a.min(b), a.max(b)));
    }

    /// From now on one direction takes this much longer.
    pub fn detour(&mut self, from: usize, to: usize, us: u64) {
        self.detours_us.insert((from, to), us);
    }

    /// Both directions take the usual time again.
    pub fn straighten(&mut self, a: usize, b: usize) {
        self.detours_us.remove(&(a, b));
        self.detours_us.remove(&(b, a));
    }

    /// Mends one direction and everything that hangs on it.
    pub fn mend(&mut self, from: usize, to: usize) {
        self.cut.remove(&(from, to));
        self.detours_us.remove(&(from, to));
    }

    /// Mends the path of the databases.
    pub fn mend_replication(&mut self, a: usize, b: usize) {
        self.replication_cut.remove(&(a.min(b), a.max(b)));
    }

    /// Mends everything and calms down.
    pub fn heal(&mut self) {
        *self = Network::quiet();
    }
}
