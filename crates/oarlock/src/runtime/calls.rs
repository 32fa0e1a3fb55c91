//! Answers the control socket.

use super::Node;
use crate::config;
use crate::control::protocol::ClockOffset;
use crate::control::resolve::{self, Subject};
use crate::control::{AgentInfo, Call, Reply, Request, Response, StatusReport};
use oarlock_core::Event;
use oarlock_core::request::Request as CoreRequest;
use std::sync::Arc;

impl Node {
    pub(super) fn called(&mut self, call: Call) {
        let Call { request, reply, peer } = call;
        if request.changes() {
            self.note(format!("asked by {peer}: {request:?}"));
        }
        let config = self.core.state().config.clone();
        match request {
            Request::Status => reply.send(self.status()),
            Request::Info => reply.send(Response::Info { info: self.info() }),
            Request::Events { follow, since_ms } => self.log.answer(follow, since_ms, reply),
            Request::Explain { what } => reply.send(match resolve::subject(&config, &what) {
                Ok(Subject::Group(group)) => Response::Text { lines: self.core.explain(group) },
                Ok(Subject::Node(node)) => Response::Text { lines: self.core.explain_node(node) },
                Err(response) => response,
            }),
            Request::Simulate { fail } => reply.send(match resolve::node(&config, &fail) {
                Ok(node) => Response::Text { lines: self.core.simulate_failure(node) },
                Err(response) => response,
            }),
            Request::Apply { text, dry_run } => self.apply(text, dry_run, reply),
            other => match resolve::core_request(&config, &other) {
                Ok(Some(request)) => self.ask_core(request, reply),
                Ok(None) => reply.send(Response::negative("this agent does not know that request")),
                Err(response) => reply.send(response),
            },
        }
    }

    fn ask_core(&mut self, request: CoreRequest, reply: Reply) {
        self.next_call += 1;
        let id = self.next_call;
        self.calls.insert(id, reply);
        self.handle(Event::Requested { id, request });
    }

    /// Validates as a whole; with problems nothing is applied anywhere.
    fn apply(&mut self, text: String, dry_run: bool, reply: Reply) {
        let settings = match config::parse("the new configuration", &text) {
            Ok(settings) => settings,
            Err(problems) => {
                return reply.send(Response::Usage { problems: vec![problems.to_string()] });
            }
        };
        if let Some(problem) = self.forbidden_change(&settings) {
            return reply.send(Response::Usage { problems: vec![problem] });
        }
        if dry_run {
            return reply.send(Response::Done { note: Some("valid; nothing was changed".to_owned()) });
        }
        let generation = self.core.state().config.generation + 1;
        self.ask_core(CoreRequest::Apply { config: Box::new(settings.core(generation)) }, reply);
    }

    /// What a running cluster cannot take yet.
    fn forbidden_change(&self, new: &config::Settings) -> Option<String> {
        let nodes = |settings: &config::Settings| -> Vec<_> {
            settings.nodes.iter().map(|node| (node.id, node.name.clone(), node.witness, node.links.clone())).collect()
        };
        if new.cluster != self.settings.cluster {
            return Some(format!(
                "cluster name \"{}\" differs from the running \"{}\"",
                new.cluster, self.settings.cluster
            ));
        }
        if nodes(new) != nodes(&self.settings) {
            return Some("the set of nodes cannot be changed by apply yet\n  hint: keep [[node]] as it is".to_owned());
        }
        let shape = |settings: &config::Settings| settings.core(0).groups;
        if shape(new) != shape(&self.settings)
            && shape(new)
                .iter()
                .map(|group| &group.resources)
                .ne(shape(&self.settings).iter().map(|group| &group.resources))
        {
            return Some(
                "resources cannot be added to, or removed from, a running group by apply yet\n  \
                 hint: change settings of existing resources only"
                    .to_owned(),
            );
        }
        None
    }

    /// The committed configuration becomes the file on this node.
    pub(super) fn adopt_config(&mut self, generation: u64, text: &Arc<str>) {
        match config::parse("the committed configuration", text) {
            Ok(settings) => {
                let _ = self.leases.send(super::lease::Step::Timing(settings.timing));
                self.config_texts.send_replace(text.clone());
                self.resources.reconfigure(&settings);
                self.settings = settings;
                self.note(format!("configuration generation {generation} is in force"));
            }
            Err(_) => self.note(format!("configuration generation {generation} is not understood by this version")),
        }
    }

    fn status(&self) -> Response {
        let mut status = self.core.status();
        for node in &mut status.nodes {
            let Some(settings) = self.settings.node(&node.name) else { continue };
            let own = settings.id == self.core.me();
            node.realtime = if own {
                self.platform.realtime
            } else {
                self.realtime.get(&settings.id.0).copied().unwrap_or_default()
            };
            let links = self.transport.links(settings.id.0);
            node.links = settings
                .links
                .iter()
                .map(|address| oarlock_core::status::LinkStatus {
                    address: address.to_string(),
                    up: own || links.iter().any(|link| link.address == *address && link.up),
                })
                .collect();
        }
        let report = serde_json::to_value(&status).and_then(serde_json::from_value::<StatusReport>);
        match report {
            Ok(status) => Response::Status { status },
            Err(error) => Response::Internal { reason: format!("the state does not fit its form: {error}") },
        }
    }

    fn info(&self) -> AgentInfo {
        let file = std::fs::read_to_string(&self.config_path).unwrap_or_default();
        AgentInfo {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            pid: std::process::id(),
            node: self.name_of(self.core.me().0),
            cluster: self.settings.cluster.clone(),
            generation: self.core.state().config.generation,
            drift: *file != *self.core.state().config.text,
            realtime: self.platform.realtime,
            memory_locked: self.platform.memory_locked,
            cgroups: self.platform.cgroup_kill,
            clock_offsets: self
                .clock_offsets
                .iter()
                .map(|(id, offset_ms)| ClockOffset { node: self.name_of(*id), offset_ms: *offset_ms })
                .collect(),
        }
    }

    /// The sentinel was told to end: get a grace from the others, then let it go.
    pub(super) fn terminate(&mut self) {
        self.note("asked to end; the services keep running".to_owned());
        let grace_ms = 10_000;
        self.next_call += 1;
        self.leave_call = Some(self.next_call);
        self.handle(Event::Requested { id: self.next_call, request: CoreRequest::Grace { grace_ms } });
    }

    /// The grace is committed (or could not be had): the sentinel may go, the services stay.
    pub(super) fn leave(&mut self, granted: bool) {
        self.leave_call = None;
        let generation = self.core.holder().generation();
        let until_us = self.core.holder().deadline().filter(|_| granted).map(|deadline| deadline.0);
        let sentinel = self.sentinel.clone();
        tokio::spawn(async move {
            let request = oarlock_core::sentinel::Request::MayLeave { generation, until_us };
            if let Err(error) = sentinel.request(request, std::time::Duration::from_secs(1)).await {
                tracing::error!(%error, "cannot let the sentinel go");
            }
        });
    }
}
