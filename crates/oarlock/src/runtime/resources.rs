//! The agents of this node's resources: made from the configuration, fed with the core's orders
//! and the sentinel's notices.

use super::Inner;
use super::databases::{mariadb_members, mariadb_settings, postgresql_members, postgresql_settings};
use super::envelope::Envelope;
use crate::agents::address::{AddressAgent, AddressEvent, Connected};
use crate::agents::launcher::sentinel::{SentinelLauncher, exit as exit_of};
use crate::agents::mariadb::{MariaAgent, MariaHandle};
use crate::agents::postgresql::{PgAgent, PgHandle};
use crate::agents::service::{ServiceAgent, ServiceHandle, ServiceSettings};
use crate::agents::user::SystemUser;
use crate::config::{self, Profile, ResourceKind, Settings};
use crate::network::same_subnet;
use crate::profiles::oar::{self, Oar};
use crate::sentinel::SentinelHandle;
use crate::transport::LinkStatus;
use oarlock_core::ids::{NodeId, ResourceId};
use oarlock_core::resource::{AddressCommand, Command, Observation, Order};
use oarlock_core::sentinel::Exit;
use std::collections::BTreeMap;
use std::net::IpAddr;
use std::path::PathBuf;
use tokio::sync::{mpsc, watch};

/// Reports that wait for the loop.
const WAITING: usize = 256;

/// What all agents need.
pub struct Surroundings {
    /// This node.
    pub me: NodeId,
    /// Its sentinel.
    pub sentinel: SentinelHandle,
    /// Where reports go.
    pub inner: mpsc::Sender<Inner>,
    /// Who is connected to which address.
    pub connected: Connected,
    /// Directory of the configuration; secrets are below it.
    pub config_dir: PathBuf,
    /// Sockets and generated files.
    pub run_dir: PathBuf,
    /// Output of services.
    pub log_dir: PathBuf,
}

enum Agent {
    Address { commands: mpsc::Sender<AddressCommand>, settings: config::AddressSettings, reaches: watch::Sender<bool> },
    Postgresql(PgHandle),
    Mariadb(MariaHandle),
    Service(ServiceHandle),
}

/// The agents, by resource.
pub struct Resources {
    agents: BTreeMap<ResourceId, Agent>,
    /// Names that the sentinel knows them by.
    names: BTreeMap<String, ResourceId>,
    inner: mpsc::Sender<Inner>,
}

impl Resources {
    /// Starts an agent for each resource of this node.
    ///
    /// # Errors
    /// In words, when a resource cannot be run here (no such user, no secret).
    pub async fn start(settings: &Settings, around: &Surroundings) -> Result<Resources, String> {
        let mut resources = Resources { agents: BTreeMap::new(), names: BTreeMap::new(), inner: around.inner.clone() };
        for (id, resource) in settings.resources_of(around.me) {
            let group = settings.groups.get(usize::from(id.group.0)).map_or("", |group| group.name.as_str());
            let name = format!("{group}-{}", resource.name);
            let launcher = SentinelLauncher::new(around.sentinel.clone(), group.to_owned());
            let agent = match &resource.kind {
                ResourceKind::Address(address) => start_address(id, address.clone(), group.to_owned(), around),
                ResourceKind::Postgresql(database) => {
                    let pg = postgresql_settings(&name, database, settings, id, around).await?;
                    resources.names.insert(pg.task_name(), id);
                    let (events, queue) = mpsc::channel(WAITING);
                    forward(id, queue, around.inner.clone(), Observation::Database);
                    Agent::Postgresql(PgAgent::spawn(pg, launcher, events))
                }
                ResourceKind::Mariadb(database) => {
                    let maria = mariadb_settings(&name, database, settings, id, around).await?;
                    resources.names.insert(maria.task_name(), id);
                    let (events, queue) = mpsc::channel(WAITING);
                    forward(id, queue, around.inner.clone(), Observation::Database);
                    Agent::Mariadb(MariaAgent::spawn(maria, launcher, events))
                }
                ResourceKind::Service(service) => {
                    let service = service_settings(&name, service, is_database_elsewhere(settings, id), around).await?;
                    let (events, queue) = mpsc::channel(WAITING);
                    forward(id, queue, around.inner.clone(), Observation::Service);
                    Agent::Service(ServiceAgent::spawn(service, launcher, events))
                }
            };
            resources.names.insert(name, id);
            resources.agents.insert(id, agent);
        }
        Ok(resources)
    }

    /// Hands an order of the core to its agent.
    pub fn drive(&self, order: Order) {
        let taken = match (self.agents.get(&order.resource), order.command) {
            (Some(Agent::Address { commands, .. }), Command::Address(command)) => commands.try_send(command).is_ok(),
            (Some(Agent::Postgresql(agent)), Command::Database(command)) => {
                agent.send(command);
                true
            }
            (Some(Agent::Mariadb(agent)), Command::Database(command)) => {
                agent.send(command);
                true
            }
            (Some(Agent::Service(agent)), Command::Service(command)) => agent.send(command),
            _ => false,
        };
        if !taken {
            tracing::error!(resource = ?order.resource, "an order found no agent");
        }
    }

    /// The main process of a name has ended.
    pub fn exited(&self, name: &str, pid: u32, exit: Exit) {
        let exit = exit_of(name.to_owned(), pid, exit);
        match self.names.get(name).and_then(|id| self.agents.get(id)) {
            Some(Agent::Postgresql(agent)) => agent.exited(exit),
            Some(Agent::Mariadb(agent)) => agent.exited(exit),
            Some(Agent::Service(agent)) => {
                let agent = agent.clone();
                tokio::spawn(async move { agent.exited(exit).await });
            }
            _ => {}
        }
    }

    /// The last process of a name is gone.
    pub fn emptied(&self, name: &str) {
        if let Some(Agent::Service(agent)) = self.names.get(name).and_then(|id| self.agents.get(id)) {
            let agent = agent.clone();
            tokio::spawn(async move { agent.emptied().await });
        }
    }

    /// The links to the other nodes changed: replication tries working ones first from now on, and
    /// an address whose link reaches nobody, while another link does, is better off elsewhere.
    pub fn links_changed(&self, settings: &Settings, links: &BTreeMap<NodeId, Vec<LinkStatus>>) {
        let up = |node: NodeId, address: IpAddr| {
            let mut known = links.get(&node).into_iter().flatten();
            known.find(|link| link.address == address).is_none_or(|link| link.up)
        };
        for agent in self.agents.values() {
            let Agent::Address { settings, reaches, .. } = agent else { continue };
            let all = links.values().flatten();
            let (ours, others): (Vec<_>, Vec<_>) =
                all.partition(|link| same_subnet(link.local, settings.address, settings.prefix));
            let any_up = |links: &[&LinkStatus]| links.iter().any(|link| link.up);
            let cut_off = !ours.is_empty() && !any_up(&ours) && any_up(&others);
            reaches.send_replace(!cut_off);
        }
        for (id, agent) in &self.agents {
            let sort = |node: NodeId, links: &mut Vec<IpAddr>| links.sort_by_key(|link| !up(node, *link));
            match (agent, settings.resource(*id).map(|resource| &resource.kind)) {
                (Agent::Postgresql(agent), Some(ResourceKind::Postgresql(database))) => {
                    let mut members = postgresql_members(settings, *id, database.port);
                    members.iter_mut().for_each(|member| sort(member.id, &mut member.links));
                    agent.set_members(members);
                }
                (Agent::Mariadb(agent), Some(ResourceKind::Mariadb(database))) => {
                    let mut members = mariadb_members(settings, *id, database);
                    for member in &mut members {
                        sort(member.id, &mut member.links);
                        member.lost = member.links.iter().copied().filter(|link| !up(member.id, *link)).collect();
                    }
                    agent.set_members(members);
                }
                _ => {}
            }
        }
    }

    /// Where tasks of the loop report, as those of the resources do.
    pub fn inner(&self) -> mpsc::Sender<Inner> {
        self.inner.clone()
    }
}

fn start_address(id: ResourceId, settings: config::AddressSettings, group: String, around: &Surroundings) -> Agent {
    let (commands, orders) = mpsc::channel(8);
    let (reaches, reached) = watch::channel(true);
    let (events, mut queue) = mpsc::channel(WAITING);
    let kept = settings.clone();
    let (sentinel, connected) = (around.sentinel.clone(), around.connected.clone());
    let agent = AddressAgent::new(settings, group, sentinel, connected, reached, events);
    tokio::spawn(agent.serve(orders));
    let inner = around.inner.clone();
    tokio::spawn(async move {
        while let Some(event) = queue.recv().await {
            let report = match event {
                AddressEvent::Observed(what) => Inner::Observed(id, Observation::Address(what)),
                AddressEvent::Connections(address, pairs) => Inner::Tell(Envelope::Connections { address, pairs }),
                AddressEvent::Note(text) => Inner::Note(text),
            };
            if inner.send(report).await.is_err() {
                return;
            }
        }
    });
    Agent::Address { commands, settings: kept, reaches }
}

fn forward<T: Send + 'static>(
    id: ResourceId,
    mut queue: mpsc::Receiver<T>,
    inner: mpsc::Sender<Inner>,
    wrap: impl Fn(T) -> Observation + Send + 'static,
) {
    tokio::spawn(async move {
        while let Some(what) = queue.recv().await {
            if inner.send(Inner::Observed(id, wrap(what))).await.is_err() {
                return;
            }
        }
    });
}

/// A system user by name; an error, in words, when there is none.
pub(super) async fn user(name: &str) -> Result<SystemUser, String> {
    SystemUser::lookup(name).await.map_err(|error| error.to_string())
}

/// Whether a service's database is that of another group, which may move without it.
fn is_database_elsewhere(settings: &Settings, id: ResourceId) -> bool {
    let group = settings.groups.get(usize::from(id.group.0));
    group.is_some_and(|group| !group.has_database() && !group.depends.is_empty())
}

async fn service_settings(
    name: &str,
    settings: &config::ServiceSettings,
    database_elsewhere: bool,
    around: &Surroundings,
) -> Result<ServiceSettings, String> {
    let owner = user(&settings.user).await?;
    let mut service = ServiceSettings::configured(name, settings, owner, &around.log_dir);
    match settings.profile {
        Some(Profile::Oar) => {
            let (notes, mut queue) = mpsc::unbounded_channel();
            let inner = around.inner.clone();
            tokio::spawn(async move {
                while let Some(text) = queue.recv().await {
                    let _ = inner.send(Inner::Note(text)).await;
                }
            });
            let conf = settings.config_file.clone().unwrap_or_else(|| oar::CONF_FILE.into());
            Oar::new(conf, notes, database_elsewhere).equip(&mut service);
        }
        None => {}
    }
    Ok(service)
}
