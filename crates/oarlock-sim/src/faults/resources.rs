//! What befalls databases and services, and what an administrator asks for.

use super::{Fault, Sort};
use crate::world::World;
use oarlock_core::Event;
use oarlock_core::config::{Failback, Kind, Timing};
use oarlock_core::request::Request;

impl World {
    pub(super) fn strike_database(&mut self, host: usize, sort: Sort) {
        let boot = self.hosts[host].boot;
        let Some(resource) = self.hosts[host].databases.keys().next().copied() else { return };
        let now = self.now;
        let Some(server) = self.server(host, resource) else { return };
        let pid = server.pid;
        if sort == Sort::DatabaseKill {
            self.dies(host, boot, resource, pid);
        } else {
            server.frozen_us = Some(now);
            self.ends(200_000, 5_000_000, Fault::ThawDatabase(host, resource, pid));
        }
    }

    pub(super) fn strike_service(&mut self, host: usize, sort: Sort) {
        if sort == Sort::ServiceBreak {
            self.hosts[host].broken_service = true;
            self.ends(500_000, 6_000_000, Fault::RepairService(host));
        }
        self.kill_services(host);
    }

    /// kill -9 of the services of a host.
    pub fn kill_services(&mut self, host: usize) {
        let boot = self.hosts[host].boot;
        let config = self.config.clone();
        let all = config.groups().flat_map(|(id, group)| group.resources(id).collect::<Vec<_>>());
        for (resource, _) in all.filter(|(_, known)| known.kind == Kind::Service) {
            if let Some(pid) = self.hosts[host].run.program(resource) {
                self.dies(host, boot, resource, pid);
            }
        }
    }

    pub(super) fn strike_request(&mut self, host: usize, sort: Sort) {
        let groups: Vec<_> = self.config.groups().map(|(id, group)| (id, group.nodes.clone())).collect();
        let nodes: Vec<_> = self.hosts.iter().map(|host| host.id).collect();
        let (on, node) = (self.rng.chance(500), self.rng.pick(&nodes));
        let chosen = self.rng.within(0, groups.len() as u64 - 1) as usize;
        let (group, members) = &groups[chosen];
        let (Some(node), Some(to)) = (node, self.rng.pick(members)) else { return };
        let request = match sort {
            Sort::Move => Request::Move { group: *group, to },
            Sort::Standby => Request::Standby { node, on },
            _ => Request::Maintenance { on },
        };
        self.request(host, request);
    }

    /// Another configuration on top of the running one, as far as a running cluster takes it.
    pub(super) fn configure(&mut self, host: usize) {
        let mut config = self.checks.truth.config.as_ref().clone();
        config.generation += 1;
        config.text = format!("simulated {}", self.number()).into();
        let timings = [Timing::FAST, Timing::BALANCED, Timing::RELAXED];
        config.timing = self.rng.pick(&timings).unwrap_or(config.timing);
        for group in &mut config.groups {
            group.failback = if self.rng.chance(300) { Failback::Auto } else { Failback::Never };
            if self.rng.chance(300) {
                group.nodes.reverse();
            }
        }
        self.request(host, Request::Apply { config: Box::new(config) });
    }

    /// Somebody asks a node for something.
    pub fn request(&mut self, host: usize, request: Request) {
        let (id, life) = (self.number(), self.hosts[host].agent_life);
        self.tell(host, life, Event::Requested { id, request });
    }
}
