//! `[[node]]`.

use super::names;
use super::network;
use super::problem::Problem;
use super::reader::{Located, Section};
use super::schema;
use super::settings::NodeSettings;
use crate::keys::PublicKey;
use oarlock_core::ids::NodeId;
use std::net::IpAddr;

/// Most nodes accepted: clusters have two to five; the limit bounds what the transport keeps.
const NODES_MAX: usize = 16;
/// Most links of one node.
const LINKS_MAX: usize = 4;

/// All nodes with the lines of their links.
pub fn read_all(file: &Section<'_>) -> Vec<(NodeSettings, u32)> {
    let sections = file.sections("node", &schema::NODE);
    if sections.is_empty() {
        file.reader.report(
            Problem::error(1, "the file has no [[node]]").hint("a cluster begins with two servers and a witness"),
        );
    }
    if let Some(first_too_many) = sections.get(NODES_MAX) {
        file.reader.error(first_too_many.line, format!("{} nodes, at most {NODES_MAX} are possible", sections.len()));
    }
    let mut nodes: Vec<(NodeSettings, u32)> = Vec::new();
    for (position, section) in sections.iter().take(NODES_MAX).enumerate() {
        let node = read(section, position);
        check_unique(section, &node, &nodes);
        nodes.push((node, section.line_of("links")));
    }
    nodes
}

/// One node. What could not be read is filled in so that reading can go on; the problem is noted.
fn read(section: &Section<'_>, position: usize) -> NodeSettings {
    let name = read_name(section, "node");
    let position_id = u8::try_from(position + 1).unwrap_or(u8::MAX);
    let id = section.integer("id", 1..=255).and_then(|id| u8::try_from(id.value).ok()).unwrap_or(position_id);
    let witness = section.choice("role", &[("server", false), ("witness", true)]).is_some_and(|role| role.value);
    if !section.has("links") {
        section.missing("links");
    }
    let links = section.texts("links").map(|links| read_links(section, &links)).unwrap_or_default();
    let key = section.required_text("key").and_then(|key| read_key(section, &key));
    NodeSettings { id: NodeId(id), name, links, key: key.unwrap_or(PublicKey::from_bytes([0; 32])), witness }
}

/// The name of a node, group or resource; empty when there is none that can be used.
pub fn read_name(section: &Section<'_>, what: &str) -> String {
    let Some(name) = section.required_text("name") else { return String::new() };
    if let Some(fault) = names::fault(&name.value) {
        section.reader.error(name.line, format!("{what} name \"{}\" {fault}", name.value));
    }
    name.value
}

fn read_links(section: &Section<'_>, links: &Located<Vec<Located<String>>>) -> Vec<IpAddr> {
    if links.value.is_empty() {
        section
            .reader
            .report(Problem::error(links.line, "\"links\" is empty").hint("one address of the machine per link"));
    }
    if links.value.len() > LINKS_MAX {
        section.reader.error(links.line, format!("{} links, at most {LINKS_MAX} are possible", links.value.len()));
    }
    let mut addresses = Vec::new();
    for link in &links.value {
        match link.value.parse::<IpAddr>() {
            Err(_) => {
                let problem = Problem::error(link.line, format!("link \"{}\" is not an IP address", link.value));
                let hint = if link.value.contains('/') {
                    "write the address alone, without the prefix"
                } else {
                    "names are not looked up: a takeover must not wait for a name server"
                };
                section.reader.report(problem.hint(hint));
            }
            Ok(address) => match network::link_fault(address) {
                Some(fault) => section.reader.error(link.line, format!("link \"{address}\" {fault}")),
                None => addresses.push(address),
            },
        }
    }
    addresses
}

fn read_key(section: &Section<'_>, key: &Located<String>) -> Option<PublicKey> {
    match key.value.parse() {
        Ok(key) => Some(key),
        Err(error) => {
            // The value is not repeated: it may be a private key.
            let problem = Problem::error(key.line, format!("\"key\" is not a public key: {}", first_line(&error)));
            section.reader.report(problem.hint("64 hexadecimal digits, as oarlock init writes them"));
            None
        }
    }
}

fn first_line(error: &crate::keys::KeyError) -> String {
    error.to_string().lines().next().unwrap_or_default().to_owned()
}

fn check_unique(section: &Section<'_>, node: &NodeSettings, others: &[(NodeSettings, u32)]) {
    for (other, _) in others {
        if !node.name.is_empty() && other.name == node.name {
            section.reader.error(section.line_of("name"), format!("node \"{}\" is there twice", node.name));
        }
        if other.id == node.id {
            let problem = Problem::error(
                section.line_of("id"),
                format!("id {} of node \"{}\" is already that of \"{}\"", node.id.0, node.name, other.name),
            );
            section.reader.report(problem.hint("nodes without an id are numbered by their position, from 1"));
        }
        if other.key == node.key && node.key.as_bytes() != &[0; 32] {
            section.reader.report(
                Problem::error(
                    section.line_of("key"),
                    format!("nodes \"{}\" and \"{}\" share a key", other.name, node.name),
                )
                .hint("each machine has a key of its own"),
            );
        }
    }
}
