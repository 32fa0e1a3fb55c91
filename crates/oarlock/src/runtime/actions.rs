//! Carries out what the core wants done.

use super::envelope::Envelope;
use super::{Node, lease};
use crate::control::Response;
use oarlock_core::Action;
use oarlock_core::config::Config;
use oarlock_core::happening::Happening;
use oarlock_core::ids::{GroupId, NodeId, ResourceId};
use oarlock_core::request::Answer;
use std::sync::Arc;

impl Node {
    /// Everything the core wants, in its order.
    pub(super) fn drain(&mut self) {
        while let Some(action) = self.core.action() {
            match action {
                Action::Send { to, message } => self.send(to.0, &Envelope::Core(Box::new(message))),
                Action::Persist { ticket, durable } => match durable.encode() {
                    Ok(bytes) => self.store.save(ticket, bytes),
                    Err(error) => tracing::error!(%error, "cannot encode the state"),
                },
                Action::ArmLease { generation, incarnation, deadline, shortens, floor_index } => {
                    // Before the sentinel holds the lease: an agent after us must know whose it is.
                    match self.incarnation.keep(incarnation) {
                        Ok(()) => {
                            let _ = self.leases.send(lease::Step::Arm { generation, deadline, shortens, floor_index });
                        }
                        Err(error) => tracing::error!(%error, "cannot keep the incarnation"),
                    }
                }
                Action::Seal { group, epoch } => {
                    if let Some(config) = self.core.state().config.group(group) {
                        let _ = self.leases.send(lease::Step::Seal { group, name: config.name.clone(), epoch });
                    }
                }
                Action::Drive(order) => self.resources.drive(order),
                Action::Answer { id, answer } => {
                    if self.leave_call == Some(id) {
                        self.leave(answer == Answer::Done);
                    } else if self.restart_call == Some(id) {
                        self.restart();
                    } else if let Some((reply, note)) = self.calls.remove(&id) {
                        reply.send(match Response::from(answer) {
                            Response::Done { note: None } => Response::Done { note },
                            other => other,
                        });
                    }
                }
                Action::Record(happening) => self.happened(&happening),
                Action::Renounce { reason } => self.renounce(&reason),
                Action::AdoptConfig { generation, text } => self.adopt_config(generation, &text),
            }
        }
    }

    /// Ends this agent; without the note the next one would only find out again.
    fn renounce(&mut self, reason: &str) {
        if let Err(error) = self.memory.give_up(&self.store, reason) {
            tracing::error!("the voter's memory is not marked as given up: {}", crate::causes::with_causes(&error));
        }
        self.renounced = true;
    }

    fn happened(&mut self, happening: &Happening) {
        if let Happening::OwnerChanged { .. } = happening {
            // An agent after this one must know of this before it looks at what runs here: with an
            // older view it would stop what is rightly ours, or keep what is not.
            let _ = self.leases.send(lease::Step::Floor { floor_index: self.core.applied() });
        }
        let config = Arc::clone(&self.core.state().config);
        self.log.add(&in_words(happening, &config));
    }
}

/// A happening with names instead of numbers.
fn in_words(happening: &Happening, config: &Config) -> String {
    let node = |id: &NodeId| config.node_name(*id);
    let group = |id: &GroupId| config.group(*id).map_or_else(|| format!("{id:?}"), |group| group.name.clone());
    let resource =
        |id: &ResourceId| config.resource(*id).map_or_else(|| format!("{id:?}"), |resource| resource.name.clone());
    let because = |reason: &str| if reason.is_empty() { String::new() } else { format!(" ({reason})") };
    match happening {
        Happening::LeaderChanged { leader } => {
            leader.map_or_else(|| "no leader".to_owned(), |leader| format!("leader is {}", node(&leader)))
        }
        Happening::NodeSilent { node: id } => format!("{} is silent", node(id)),
        Happening::NodeHeard { node: id } => format!("{} is heard again", node(id)),
        Happening::NodeDead { node: id, generation } => format!("{} declared dead, generation {generation}", node(id)),
        Happening::NodeAlive { node: id, generation } => format!("{} is a member, generation {generation}", node(id)),
        Happening::VotersChanged { voters } => {
            format!("voters are {}", voters.iter().map(node).collect::<Vec<_>>().join(", "))
        }
        Happening::VoterReplaced { node: id } => format!("{} votes under a new identity from now on", node(id)),
        Happening::OwnerChanged { group: id, owner: Some(owner), epoch, reason } => {
            format!("group {} owned by {}, epoch {epoch}{}", group(id), node(owner), because(reason))
        }
        Happening::OwnerChanged { group: id, owner: None, epoch, reason } => {
            format!("group {} released, epoch {epoch}{}", group(id), because(reason))
        }
        Happening::InSyncChanged { group: id, members } => {
            let names: Vec<String> = members.iter().map(|(id, _)| node(id)).collect();
            format!("group {}: every acknowledged write is on {}", group(id), names.join(", "))
        }
        Happening::Resource { resource: id, state, reason } => {
            format!("resource {} {state}{}", resource(id), because(reason.as_deref().unwrap_or_default()))
        }
        Happening::ResourceFailed { resource: id, reason, failures } => {
            format!("resource {} failed, {failures} times lately: {reason}", resource(id))
        }
        other => other.to_string(),
    }
}
