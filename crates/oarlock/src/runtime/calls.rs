//! Answers the control socket.

use super::Node;
use crate::control::protocol::ClockOffset;
use crate::control::resolve::{self, Subject};
use crate::control::{AgentInfo, Call, Reply, Request, Response, StatusReport};
use oarlock_core::Event;
use oarlock_core::request::Request as CoreRequest;

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
                Ok(Some(request)) => self.ask_core(request, reply, None),
                Ok(None) => reply.send(Response::negative("this agent does not know that request")),
                Err(response) => reply.send(response),
            },
        }
    }

    /// A number that no other request has.
    pub(super) fn next_id(&mut self) -> u64 {
        self.next_call += 1;
        self.next_call
    }

    /// `note` is added to the answer when it is done.
    pub(super) fn ask_core(&mut self, request: CoreRequest, reply: Reply, note: Option<String>) {
        let id = self.next_id();
        self.calls.insert(id, (reply, note));
        self.handle(Event::Requested { id, request });
    }

    fn status(&self) -> Response {
        let mut status = self.core.status();
        for node in &mut status.nodes {
            let Some(settings) = self.settings.node(&node.name) else { continue };
            let own = settings.id == self.core.me();
            let granted = self.grants.of(settings.id);
            (node.realtime, node.watchdog) = (granted.realtime, granted.watchdog);
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
            watchdog: self.grants.own().watchdog,
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
        let id = self.next_id();
        self.leave_call = Some(id);
        self.handle(Event::Requested { id, request: CoreRequest::Grace { grace_ms } });
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
