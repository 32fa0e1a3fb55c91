//! What must hold, and what is remembered to judge it. Each rule has its own file in `invariants`.

use crate::invariants::{leases, monotone_epochs, no_lost_write, start_order, voters, witness_memory};
use crate::sabotage::Sabotage;
use crate::world::World;
use oarlock_core::config::Config;
use oarlock_core::state::State;

/// The memory of all checkers.
pub struct Checks {
    /// The first rule that was broken, in words.
    pub broken: Option<String>,
    /// Commands may fail and servers die by themselves.
    pub faulty: bool,
    /// The newest committed state that any node has applied.
    pub truth: State,
    /// Its index.
    pub truth_index: u64,
    /// For `lease_before_life`.
    pub leases: leases::Memory,
    /// For `no_lost_write`.
    pub writes: no_lost_write::Memory,
    /// For `witness_memory`.
    pub promises: witness_memory::Memory,
    /// For `monotone_epochs`.
    pub epochs: monotone_epochs::Memory,
    /// For `start_order`.
    pub opened: start_order::Memory,
    /// For `voters`.
    pub voters: voters::Memory,
}

impl Checks {
    /// Nothing seen yet.
    #[must_use]
    pub fn new(config: &Config) -> Checks {
        Checks {
            broken: None,
            faulty: false,
            truth: State::begin(config.clone()),
            truth_index: 0,
            leases: leases::Memory::default(),
            writes: no_lost_write::Memory::default(),
            promises: witness_memory::Memory::default(),
            epochs: monotone_epochs::Memory::default(),
            opened: start_order::Memory::default(),
            voters: voters::Memory::default(),
        }
    }
}

impl World {
    /// A rule is broken: the run ends here.
    pub fn broken(&mut self, rule: &str, text: String) {
        // A clock that jumps is further off than what is allowed for: all that rests on clocks is excused,
        // nothing that rests on data.
        let timed = ["one_owner", "lease_before_life", "dead_means_proven"].contains(&rule);
        let excused = self.swarm.steps_clocks() && self.sabotage != Some(Sabotage::ClocksJudged);
        if timed && excused {
            return;
        }
        if self.checks.broken.is_none() {
            self.say(usize::MAX, || format!("BROKEN {rule}: {text}"));
            self.checks.broken = Some(format!("{rule}: at {:.3} ms: {text}", self.now as f64 / 1000.0));
        }
    }

    /// After each event. What runs where is looked at when it has changed.
    pub fn check_always(&mut self) {
        let mut stirred = false;
        let (now, stop_budget_us) = (self.now, self.stop_budget_us());
        for host in &mut self.hosts {
            stirred |= std::mem::take(&mut host.run.stirred);
            // What a pause excuses until then counts from then on.
            if host.run.resumed_at_us.is_some_and(|at| now >= at + stop_budget_us * 11 / 10) {
                host.run.resumed_at_us = None;
                stirred = true;
            }
        }
        if stirred {
            self.check_one_owner();
        }
        self.check_lease_before_life(stirred);
    }

    /// A core may have applied something.
    pub fn check_applied(&mut self, host: usize) {
        let Some(agent) = &mut self.hosts[host].agent else { return };
        let index = agent.core.applied();
        let seen = Some((index, agent.core.state().voters.version, agent.core.voter()));
        if std::mem::replace(&mut agent.seen, seen) == seen {
            return;
        }
        self.check_epochs(host);
        self.check_voters(host);
        if index <= self.checks.truth_index {
            return;
        }
        let Some(state) = self.hosts[host].core().map(|core| core.state().clone()) else { return };
        let before = std::mem::replace(&mut self.checks.truth, state);
        self.checks.truth_index = index;
        self.check_set_changes(&before);
        self.check_deaths(&before);
    }
}
