//! OAR: what its profile knows to look at, here and compared with the other servers.

use super::{Report, Subject};
use crate::config::{ResourceKind, ServiceSettings};
use crate::profiles::oar::check::{Finding, Severity};
use crate::profiles::oar::digest::{OarDigest, compare};
use std::net::IpAddr;
use std::path::Path;

/// Checks the OAR server of this node.
pub async fn check(subject: &Subject, name: &str, service: &ServiceSettings, report: &mut Report) {
    let Some(file) = &service.config_file else { return };
    let file = subject.system(&file.display().to_string());
    let findings = crate::profiles::oar::check::check(&subject.root, &file, &service_addresses(subject)).await;
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

/// Addresses that move: OAR's own and, where that is another group, its database's.
fn service_addresses(subject: &Subject) -> Vec<IpAddr> {
    let resources = subject.settings.groups.iter().flat_map(|group| &group.resources);
    resources
        .filter_map(|resource| match &resource.kind {
            ResourceKind::Address(address) if !address.follows_standby => Some(address.address),
            _ => None,
        })
        .collect()
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
