//! The configuration, this machine's key and the cluster's secrets.

use super::{Report, Subject};
use crate::causes::with_causes;
use crate::config::NodeSettings;
use crate::enrol::{INVITATION_FILE, Invitation, KEY_FILE, SECRETS_DIR, directory, now_s};
use crate::keys::PrivateKey;
use crate::secrets::ClusterSecrets;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

/// Checks the files; returns the node this machine is, as far as its key says.
pub fn check(subject: &Subject, report: &mut Report) -> Option<NodeSettings> {
    configuration(subject, report);
    let directory = directory(&subject.config);
    let node = key(subject, &directory.join(KEY_FILE), report);
    secrets(&directory, report);
    invitation(&directory.join(INVITATION_FILE), report);
    node
}

fn configuration(subject: &Subject, report: &mut Report) {
    let mut area = report.area("configuration");
    for warning in &subject.settings.warnings {
        area.warning(
            format!("{}:{}: {}", subject.config.display(), warning.line, warning.text),
            warning.hint.clone().unwrap_or_default(),
        );
    }
    if subject.agent.as_ref().is_some_and(|agent| agent.drift) {
        area.warning(
            format!("{} differs from the configuration that runs; it is not obeyed", subject.config.display()),
            "oarlock apply makes it the running one on every node",
        );
    }
    if fs::metadata(&subject.config).is_ok_and(|metadata| metadata.mode() & 0o022 != 0) {
        let path = subject.config.display();
        area.error(format!("{path} can be written by others than its owner"), format!("chmod 644 {path}"));
    }
}

fn key(subject: &Subject, path: &Path, report: &mut Report) -> Option<NodeSettings> {
    let mut area = report.area("keys");
    let key = match PrivateKey::read(path) {
        Ok(key) => key,
        Err(error) => {
            // Its own text may already carry a hint on a line of its own.
            let text = with_causes(&error);
            let (text, hint) = text.split_once("\n  hint: ").unwrap_or((&text, "oarlock init or join makes it"));
            area.error(text, hint);
            return None;
        }
    };
    let node = subject.settings.node_by_key(&key.public()).cloned();
    if node.is_none() {
        area.error(
            format!("{} belongs to no node of the configuration", path.display()),
            "is this machine (still) a node of this cluster? oarlock join makes it one",
        );
    }
    node
}

fn secrets(directory: &Path, report: &mut Report) {
    let mut area = report.area("keys");
    if let Err(error) = ClusterSecrets::load(directory) {
        area.error(with_causes(&error), "oarlock init makes them, oarlock join fetches them");
        return;
    }
    let Ok(entries) = fs::read_dir(directory.join(SECRETS_DIR)) else { return };
    for entry in entries.filter_map(Result::ok) {
        let Ok(metadata) = entry.metadata() else { continue };
        if metadata.mode() & 0o077 != 0 {
            let path = entry.path();
            area.error(
                format!("secret {} has mode {:04o}, expected 0600", path.display(), metadata.mode() & 0o7777),
                format!("chmod 600 {}", path.display()),
            );
        }
    }
}

fn invitation(path: &Path, report: &mut Report) {
    let mut area = report.area("keys");
    match Invitation::load(path) {
        Ok(None) => {}
        Ok(Some(invitation)) => {
            let names: Vec<&str> = invitation.nodes.iter().map(|node| node.name.as_str()).collect();
            let expired = if invitation.expires_s <= now_s() { "; the token has expired" } else { "" };
            area.warning(
                format!("not joined yet, private key still kept here: {}{expired}", names.join(", ")),
                "oarlock join there, with the token of oarlock init or oarlock invite",
            );
        }
        Err(error) => area.error(with_causes(&error), "oarlock init makes it anew"),
    }
}
