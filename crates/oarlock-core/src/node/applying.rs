//! What follows from committed entries on this node.

use super::Core;
use crate::action::Action;
use crate::entry::Entry;
use crate::group::Driver;
use crate::ids::GroupId;
use crate::state::{Outcome, State};
use crate::voters::VoterChange;
use std::sync::Arc;

impl Core {
    pub(super) fn apply(&mut self, replace: Option<(u64, State)>, committed: Vec<(u64, Entry)>) {
        if replace.is_none() && committed.is_empty() {
            return;
        }
        let before = self.state.clone();
        if let Some((index, state)) = replace.filter(|(index, _)| *index > self.applied) {
            self.state = Arc::new(state);
            self.applied = index;
            self.proposed.clear();
            if self.state.voters.version != before.voters.version {
                self.voters_changed(before.node(self.me).voter, None);
            }
        }
        for (index, entry) in committed {
            if index <= self.applied {
                continue;
            }
            let outcome = Arc::make_mut(&mut self.state).apply(&entry);
            self.applied = index;
            self.proposed.retain(|(known, _)| *known != entry);
            if outcome == Outcome::Applied {
                self.entry_applied(index, &entry);
            }
        }
        self.dead = super::dead_in(&self.state);
        self.follow(&before);
    }

    fn entry_applied(&mut self, index: u64, entry: &Entry) {
        if let Entry::Rejoin { group, node, .. } = entry
            && let Some(driver) = self.drivers.get_mut(usize::from(group.0))
        {
            driver.copy_replaced(*node, index);
        }
        match entry {
            Entry::Rejoin { group, epoch, node, incarnation, nonce }
                if *node == self.me && *incarnation == self.holder.incarnation() =>
            {
                if let Some(driver) = self.drivers.get_mut(usize::from(group.0)) {
                    driver.rejoin_applied(*epoch, *nonce);
                }
            }
            Entry::Leave { at, life, .. } => {
                if let Some(driver) = self.drivers.get_mut(usize::from(at.group.0)) {
                    driver.leave_applied(*life);
                }
            }
            Entry::Alive { node, .. } => self.voter.began(self.now, *node),
            Entry::Voters { change: VoterChange::Replace { node, from, .. }, .. } => {
                let mine = if *node == self.me { *from } else { self.state.node(self.me).voter };
                self.voters_changed(mine, Some(*node));
            }
            Entry::Voters { .. } => self.voters_changed(self.state.node(self.me).voter, None),
            Entry::Clear { resource } => {
                if let Some(driver) = self.drivers.get_mut(usize::from(resource.group.0)) {
                    driver.clear(*resource);
                }
            }
            _ => {}
        }
    }

    /// The sentinel has answered to a seal.
    pub(super) fn sealed(&mut self, group: GroupId, epoch: u64, refused: Option<String>) {
        let driver = self.drivers.get_mut(usize::from(group.0));
        if let Some((driver, reason)) = driver.zip(refused.as_deref()).filter(|_| self.rules.seal_heeded) {
            let happening = driver.seal_refused(reason);
            return self.record(happening);
        }
        if let Some(config) = self.state.config.group(group).filter(|_| refused.is_none() || !self.rules.seal_heeded) {
            let sealed = self.sealed.entry(config.name.clone()).or_insert(epoch);
            *sealed = epoch.max(*sealed);
        }
    }

    /// Brings what hangs on the state into step with it.
    fn follow(&mut self, before: &Arc<State>) {
        let state = self.state.clone();
        let me = state.node(self.me);
        let ours = me.incarnation == self.holder.incarnation() && !me.dead;
        if ours && me.generation > self.holder.generation() && self.silenced {
            self.holder.begin(me.generation);
            self.refused_above = 0;
            self.next_renew = self.now;
        }
        self.voting.note_deaths(self.now, &state);
        if state.config.generation != before.config.generation {
            if self.rules.former_lease {
                self.voter.usual_changed(self.now, before.config.timing.lease, &before.config.timing);
            }
            self.actions.push_back(Action::AdoptConfig {
                generation: state.config.generation,
                text: state.config.text.clone(),
            });
            for (driver, group) in self.drivers.iter_mut().zip(&state.config.groups) {
                driver.grow(group);
            }
            let known = self.drivers.len();
            let new = state.config.groups().skip(known).map(|(id, group)| Driver::new(id, group, self.next_nonce));
            self.drivers.extend(new);
        }
        self.narrate(before);
    }
}
