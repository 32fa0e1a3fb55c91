//! `oarlock check --peers`: what must be the same on all servers, compared over ssh.

use super::child;
use crate::causes::with_causes;
use crate::check::{Report, Subject, oar};
use crate::config::{NodeSettings, Profile, ResourceKind};
use crate::profiles::oar::digest::OarDigest;
use std::time::Duration;

/// One other server.
const DEADLINE: Duration = Duration::from_secs(20);

/// Compares this machine with every other server that may run OAR.
pub fn compare(subject: &Subject, report: &mut Report) {
    let Some(own) = own_node(subject) else { return };
    let others = others(subject, own);
    if others.is_empty() {
        return;
    }
    let ours = oar::digest(&subject.root);
    for other in others {
        match fetch(&other.name) {
            Ok(theirs) => oar::compare_with((&own.name, &ours), (&other.name, &theirs), report),
            Err(reason) => report.area("peers").warning(
                format!("cannot compare with {}: {reason}", other.name),
                format!("does \"ssh {} oarlock --version\" work as this user, without a question?", other.name),
            ),
        }
    }
}

fn own_node(subject: &Subject) -> Option<&NodeSettings> {
    let key = crate::enrol::directory(&subject.config).join(crate::enrol::KEY_FILE);
    let key = crate::keys::PrivateKey::read(&key).ok()?;
    subject.settings.node_by_key(&key.public())
}

fn others<'s>(subject: &'s Subject, own: &NodeSettings) -> Vec<&'s NodeSettings> {
    let mut others: Vec<&NodeSettings> = Vec::new();
    for group in &subject.settings.groups {
        let runs_oar = group.resources.iter().any(
            |resource| matches!(&resource.kind, ResourceKind::Service(service) if service.profile == Some(Profile::Oar)),
        );
        if !runs_oar || !group.nodes.contains(&own.id) {
            continue;
        }
        for node in group.nodes.iter().filter_map(|id| subject.settings.node_by_id(*id)) {
            if node.id != own.id && !others.iter().any(|known| known.id == node.id) {
                others.push(node);
            }
        }
    }
    others
}

fn fetch(host: &str) -> Result<OarDigest, String> {
    let ssh = ["ssh", "-o", "BatchMode=yes", "-o", "ConnectTimeout=5", "--", host, "oarlock", "check", "--digest"];
    let output = child::run(&ssh, DEADLINE).map_err(|error| with_causes(&error))?;
    if !output.success {
        return Err(output.stderr.lines().last().unwrap_or("ssh failed").to_owned());
    }
    serde_json::from_str(&output.stdout).map_err(|_| "its oarlock gives another kind of answer".to_owned())
}
