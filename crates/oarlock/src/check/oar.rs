//! OAR: what its profile knows to look at, here and compared with the other servers.

use super::{Report, Subject};
use crate::config::{GroupSettings, ResourceKind, ResourceSettings, ServiceSettings};
use crate::profiles::oar::check::{Finding, Services, Severity};
use crate::profiles::oar::digest::{OarDigest, compare};
use oarlock_core::ids::ResourceId;
use std::net::IpAddr;
use std::path::Path;

/// Checks the OAR server of this node.
pub async fn check(subject: &Subject, id: ResourceId, name: &str, service: &ServiceSettings, report: &mut Report) {
    let Some(file) = &service.config_file else { return };
    let file = subject.system(&file.display().to_string());
    let findings = crate::profiles::oar::check::check(&subject.root, &file, &services(subject, id)).await;
    take(name, findings, report);
}

/// Compares this machine with another server.
pub fn compare_with(ours: (&str, &OarDigest), theirs: (&str, &OarDigest), report: &mut Report) {
    take(&format!("{} and {}", ours.0, theirs.0), compare(ours, theirs), report);
}

/// This machine's part of such a comparison.
pub fn digest(root: &Path) -> OarDigest {
    crate::profiles::oar::digest::digest(root)
}

/// Addresses that move with the server of a group, and with its database: that of its own group, else of
/// those it depends on, else of any that has one.
fn services(subject: &Subject, id: ResourceId) -> Services {
    let groups = &subject.settings.groups;
    let Some(own) = groups.get(usize::from(id.group.0)) else { return Services::default() };
    let depended = own.depends.iter().filter_map(|id| groups.get(usize::from(id.0)));
    let near: Vec<&GroupSettings> = std::iter::once(own).chain(depended).filter(|group| group.has_database()).collect();
    let with_database = match near.first() {
        Some(first) => vec![*first],
        None => groups.iter().filter(|group| group.has_database()).collect(),
    };
    Services { server: addresses(own), database: with_database.into_iter().flat_map(addresses).collect() }
}

fn addresses(group: &GroupSettings) -> Vec<IpAddr> {
    let address = |resource: &ResourceSettings| match &resource.kind {
        ResourceKind::Address(address) if !address.follows_standby => Some(address.address),
        _ => None,
    };
    group.resources.iter().filter_map(address).collect()
}

fn take(name: &str, findings: Vec<Finding>, report: &mut Report) {
    let mut area = report.area(&format!("oar \"{name}\""));
    for Finding { severity, text, hint } in findings {
        match severity {
            Severity::Error => area.error(text, hint),
            Severity::Warning => area.warning(text, hint),
        }
    }
}
