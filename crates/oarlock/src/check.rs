//! `oarlock check`: what would make a takeover fail, slow or unsafe, found before it happens.
//!
//! Looks at this machine and, where an agent runs, at what it says. Changes nothing. What only a
//! kind of resource or a profile knows is looked at by its own module.

mod boot;
mod files;
mod finding;
mod machine;
mod mariadb;
pub mod oar;
mod postgresql;
#[cfg(test)]
mod tests;

pub use finding::{Finding, Report, Severity};

use crate::config::{NodeSettings, Profile, ResourceKind, Settings};
use crate::control::{AgentInfo, StatusReport};
use std::path::PathBuf;

/// What the checks start from.
#[derive(Clone, Debug)]
pub struct Subject {
    /// The configuration file.
    pub config: PathBuf,
    /// Sockets of the agent and of what it runs.
    pub run_dir: PathBuf,
    /// The system's root directory; another one in tests.
    pub root: PathBuf,
    /// The configuration, already known to be good.
    pub settings: Settings,
    /// What the agent says of itself, if one runs.
    pub agent: Option<AgentInfo>,
    /// What it says of the cluster.
    pub status: Option<StatusReport>,
}

impl Subject {
    /// A path of the system.
    fn system(&self, path: &str) -> PathBuf {
        self.root.join(path.trim_start_matches('/'))
    }
}

/// Looks at everything.
pub async fn run(subject: &Subject) -> Report {
    let mut report = Report::default();
    let node = files::check(subject, &mut report);
    machine::check(subject, node.as_ref(), &mut report);
    if let Some(node) = node.filter(|node| !node.witness) {
        resources(subject, &node, &mut report).await;
    }
    report
}

async fn resources(subject: &Subject, node: &NodeSettings, report: &mut Report) {
    for (id, resource) in subject.settings.resources_of(node.id) {
        match &resource.kind {
            ResourceKind::Postgresql(database) => {
                postgresql::check(subject, &resource.name, database, report).await;
                boot::check_postgresql(subject, &resource.name, database, report);
            }
            ResourceKind::Mariadb(database) => mariadb::check(subject, &resource.name, database, report).await,
            ResourceKind::Service(service) if service.profile == Some(Profile::Oar) => {
                oar::check(subject, id, &resource.name, service, report).await;
            }
            ResourceKind::Service(_) | ResourceKind::Address(_) => {}
        }
    }
}
