//! A new configuration: asked of every node, committed, written down, put into force.
//!
//! The node that is asked sends the text to all others. Each checks it against what it runs and what
//! its machine has, and answers with every problem. A node that is there and has a problem, or does
//! not answer, refuses it for all; one that is away is named and takes it over when it returns. Then
//! one entry commits it, if no other was committed meanwhile, and each node writes its file.
//!
//! In force at once, by the core: preferences (`failback`, the order of a group's `nodes`), times of
//! leases, heartbeats and elections. All other changes that [`change::forbidden`] lets through (links
//! while one stays, settings of resources, new resources and groups at the end, new nodes of a group,
//! times of probes) are read by an agent when it starts, so the agents start anew, one node after the
//! other, each under a grace of the others; what runs is adopted and goes on. Settings of a program
//! that only matter when it is started (its command, its environment) wait for its next start.
//! Refused: other nodes, roles or keys, anything removed, renamed or reordered, and whatever a running
//! program, a copy of data or an address hangs on; see [`change`].

use super::envelope::Envelope;
use super::{Inner, Node, lease};
use crate::agents::distribution;
use crate::agents::postgresql::debian_bin_dir;
use crate::agents::user::SystemUser;
use crate::config::{self, Program, ResourceKind, Settings, change};
use crate::control::{Reply, Response};
use oarlock_core::Event;
use oarlock_core::ids::NodeId;
use oarlock_core::request::Request as CoreRequest;
use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::mpsc;
use tokio::time::Instant;

/// A message may be lost: it is sent again.
const ASK_EVERY: Duration = Duration::from_millis(500);
/// Looking users up may take a directory service five seconds.
const CHECK_DEADLINE: Duration = Duration::from_secs(12);
/// Shortest grace under which an agent starts anew.
const GRACE_MIN_MS: u64 = 2_000;

/// The answers of the other nodes to one question: who, and every problem there.
pub type Answers = mpsc::Sender<(u8, Vec<String>)>;

/// What the other nodes said.
#[derive(Debug)]
pub struct Verdict {
    settings: Box<Settings>,
    /// The generation it would be.
    generation: u64,
    dry_run: bool,
    reply: Reply,
    problems: Vec<String>,
    /// Names of the nodes that are away.
    absent: Vec<String>,
}

/// A question under way.
pub struct Asking {
    id: u64,
    answers: Answers,
}

struct Peer {
    id: u8,
    name: String,
    there: bool,
}

impl Node {
    /// `oarlock apply`: checks here, then everywhere.
    pub(super) fn apply(&mut self, text: String, dry_run: bool, reply: Reply) {
        if self.asking.as_ref().is_some_and(|asking| !asking.answers.is_closed()) {
            return reply.send(Response::negative("another configuration is being checked just now"));
        }
        let id = self.next_id();
        let (answers, queue) = mpsc::channel(64);
        self.asking = Some(Asking { id, answers });
        let links = self.links();
        let peers = self.settings.nodes.iter().filter(|node| node.id != self.core.me()).map(|node| Peer {
            id: node.id.0,
            name: node.name.clone(),
            there: links.get(&node.id).is_some_and(|links| links.iter().any(|link| link.up)),
        });
        let peers = peers.collect();
        let generation = self.core.state().config.generation + 1;
        let (me, running) = (self.core.me(), self.settings.clone());
        let inner = self.resources.inner();
        tokio::spawn(async move {
            let own = running.node_by_id(me).map_or_else(String::new, |node| node.name.clone());
            let settings = match check(&running, me, &text).await {
                Ok(settings) => settings,
                Err(problems) => {
                    return reply.send(Response::Usage { problems: named(&own, problems) });
                }
            };
            let (problems, absent) = ask(id, &text, peers, queue, &inner).await;
            let verdict = Verdict { settings: Box::new(settings), generation, dry_run, reply, problems, absent };
            let _ = inner.send(Inner::Checked(Box::new(verdict))).await;
        });
    }

    /// Another node wants to know whether this one can take a configuration.
    pub(super) fn check_for(&self, from: u8, id: u64, text: String) {
        let (me, running, inner) = (self.core.me(), self.settings.clone(), self.resources.inner());
        tokio::spawn(async move {
            let problems = check(&running, me, &text).await.err().unwrap_or_default();
            let _ = inner.send(Inner::Send(from, Envelope::Checked { id, problems })).await;
        });
    }

    /// Another node has checked it.
    pub(super) fn checked_by(&self, from: u8, id: u64, problems: Vec<String>) {
        if let Some(asking) = self.asking.as_ref().filter(|asking| asking.id == id) {
            let _ = asking.answers.try_send((from, problems));
        }
    }

    /// All have answered who could.
    pub(super) fn judged(&mut self, verdict: Verdict) {
        self.asking = None;
        if !verdict.problems.is_empty() {
            return verdict.reply.send(Response::Usage { problems: verdict.problems });
        }
        let mut notes = Vec::new();
        if verdict.dry_run {
            notes.push("valid; nothing was changed".to_owned());
        } else {
            notes.push(format!("generation {} is in force", verdict.generation));
            if change::needs_restart(&self.started_with, &verdict.settings) {
                notes.push("the agents start anew, one node after the other; what runs goes on".to_owned());
            }
        }
        for name in &verdict.absent {
            notes.push(format!("{name} is away: not checked there, taken over when it returns"));
        }
        let note = notes.join("; ");
        if verdict.dry_run {
            return verdict.reply.send(Response::Done { note: Some(note) });
        }
        let config = Box::new(verdict.settings.core(verdict.generation));
        self.ask_core(CoreRequest::Apply { config }, verdict.reply, Some(note));
    }

    /// The committed configuration becomes the file on this node.
    pub(super) fn adopt_config(&mut self, generation: u64, text: &Arc<str>) {
        match config::parse("the committed configuration", text) {
            Ok(settings) => {
                let _ = self.leases.send(lease::Step::Timing(settings.timing));
                self.settings = settings;
                self.config_texts.send_replace(text.clone());
                self.note(format!("configuration generation {generation} is in force"));
            }
            Err(_) => self.note(format!("configuration generation {generation} is not understood by this version")),
        }
    }

    /// The file is written: an agent that starts now starts with it.
    pub(super) fn config_written(&mut self) {
        if change::needs_restart(&self.started_with, &self.settings) {
            let position = self.settings.nodes.iter().position(|node| node.id == self.core.me()).unwrap_or_default();
            let turn = Duration::from_micros(self.settings.timing.lease.0) * 2;
            self.restart_at = Some(Instant::now() + turn * (u32::try_from(position).unwrap_or_default() + 1));
        }
    }

    /// It is this node's turn to start its agent anew.
    pub(super) fn restart_due(&mut self) {
        self.restart_at = None;
        if !change::needs_restart(&self.started_with, &self.settings) {
            return;
        }
        self.note("starting anew with the new configuration; what runs goes on".to_owned());
        let grace_ms = (self.settings.timing.lease.as_ms() * 4).max(GRACE_MIN_MS);
        let id = self.next_id();
        self.restart_call = Some(id);
        self.handle(Event::Requested { id, request: CoreRequest::Grace { grace_ms } });
    }

    /// The grace is had, or cannot be had; then nothing exclusive runs here that it could protect. The
    /// sentinel hears of the long lease first.
    pub(super) fn restart(&mut self) {
        self.restart_call = None;
        let _ = self.leases.send(lease::Step::Restart);
    }
}

/// Asks all peers until all that are there have answered. Returns the problems and who is away.
async fn ask(
    id: u64,
    text: &str,
    peers: Vec<Peer>,
    mut answers: mpsc::Receiver<(u8, Vec<String>)>,
    inner: &mpsc::Sender<Inner>,
) -> (Vec<String>, Vec<String>) {
    let mut heard: BTreeMap<u8, Vec<String>> = BTreeMap::new();
    let deadline = Instant::now() + CHECK_DEADLINE;
    let awaited: BTreeSet<u8> = peers.iter().filter(|peer| peer.there).map(|peer| peer.id).collect();
    while Instant::now() < deadline && !awaited.iter().all(|id| heard.contains_key(id)) {
        for peer in peers.iter().filter(|peer| !heard.contains_key(&peer.id)) {
            let _ = inner.send(Inner::Send(peer.id, Envelope::Check { id, text: text.to_owned() })).await;
        }
        let again = Instant::now() + ASK_EVERY;
        while !awaited.iter().all(|id| heard.contains_key(id)) {
            match tokio::time::timeout_at(again, answers.recv()).await {
                Ok(Some((from, problems))) => drop(heard.insert(from, problems)),
                _ => break,
            }
        }
    }
    let mut problems = Vec::new();
    let mut absent = Vec::new();
    for peer in peers {
        match heard.remove(&peer.id) {
            Some(found) => problems.extend(named(&peer.name, found)),
            None if peer.there => problems.push(format!(
                "{}: is there, but did not say within {} s whether it can take it\n  hint: are all agents of the same \
                 version? see oarlock status",
                peer.name,
                CHECK_DEADLINE.as_secs()
            )),
            None => absent.push(peer.name),
        }
    }
    (problems, absent)
}

fn named(node: &str, problems: Vec<String>) -> Vec<String> {
    problems.into_iter().map(|problem| format!("{node}: {problem}")).collect()
}

/// Whether this node, running `running`, can take the configuration.
async fn check(running: &Settings, me: NodeId, text: &str) -> Result<Settings, Vec<String>> {
    let settings = config::parse("the new configuration", text).map_err(|problems| vec![problems.to_string()])?;
    let mut problems = change::forbidden(running, &settings);
    for (id, resource) in settings.resources_of(me) {
        // What runs already has what it needs.
        if running.resource(id) == Some(resource) && running.resources_of(me).any(|(known, _)| known == id) {
            continue;
        }
        let missing = missing(&resource.kind).await;
        problems.extend(missing.into_iter().map(|what| format!("resource \"{}\": {what}", resource.name)));
    }
    if problems.is_empty() { Ok(settings) } else { Err(problems) }
}

/// What a resource needs and this machine lacks.
async fn missing(kind: &ResourceKind) -> Vec<String> {
    let (user, programs) = match kind {
        ResourceKind::Address(_) => return Vec::new(),
        ResourceKind::Postgresql(database) => {
            let directory = database.bin_dir.clone();
            let directory = directory.unwrap_or_else(|| debian_bin_dir(u32::from(database.version)));
            (&database.user, vec![directory.join("postgres").display().to_string()])
        }
        ResourceKind::Mariadb(database) => {
            let root = Path::new("/");
            let tools = distribution::mariadb_tools(database, root);
            let mut programs = vec![distribution::mariadb_server(database, root).display().to_string()];
            programs.extend(distribution::MARIADB_TOOLS.map(|tool| tools.join(tool).display().to_string()));
            (&database.user, programs)
        }
        ResourceKind::Service(service) => {
            let commands: Vec<&Vec<String>> = match &service.program {
                Program::Command(command) => vec![command],
                Program::Commands { start, stop, status } => vec![start, stop, status],
            };
            (&service.user, commands.into_iter().filter_map(|command| command.first().cloned()).collect())
        }
    };
    let mut missing: Vec<String> =
        SystemUser::lookup(user).await.err().map(|error| error.to_string()).into_iter().collect();
    for program in programs.into_iter().collect::<BTreeSet<_>>() {
        let is_there = {
            let program = program.clone();
            tokio::task::spawn_blocking(move || Path::new(&program).is_file()).await.unwrap_or_default()
        };
        if !is_there {
            missing.push(format!("no program {program} on this machine"));
        }
    }
    missing
}
