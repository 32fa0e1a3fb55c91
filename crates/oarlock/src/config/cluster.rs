//! The whole file: cluster, nodes, groups, and what must hold between them.

use super::group;
use super::names;
use super::node;
use super::problem::Problem;
use super::reader::{Reader, Section};
use super::schema;
use super::settings::{Arbitration, GroupSettings, NodeSettings, Preset, ResourceKind, ResourceSettings, Settings};
use super::timing;
use super::watchdog;
use std::collections::HashMap;
use std::net::IpAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;
use toml::Spanned;
use toml::de::DeTable;

/// Reads everything; `None` when too little of it could be understood.
pub fn read(reader: &Reader, root: &Spanned<DeTable<'_>>, text: &str) -> Option<Settings> {
    let file = Section::open(reader, root.get_ref(), 0, &schema::ROOT);
    if !file.has("cluster") {
        reader.report(
            Problem::error(1, "the file lacks [cluster]").hint("for example: [cluster] with name = \"genepi\""),
        );
    }
    let cluster = file.section("cluster", &schema::CLUSTER);
    let nodes = node::read_all(&file);
    let mut groups = group::read_all(&file, &nodes.iter().map(|(node, _)| node.clone()).collect::<Vec<_>>());
    let cluster = cluster?;
    let name = cluster.required_text("name");
    if let Some(name) = &name
        && let Some(fault) = names::fault(&name.value)
    {
        reader.error(name.line, format!("cluster name \"{}\" {fault}", name.value));
    }
    let (preset, times) = timing::read(reader, &cluster);
    let watchdog = watchdog::read(&cluster, &times);
    let port =
        cluster.integer("port", 1..=u64::from(u16::MAX)).map_or(super::DEFAULT_PORT, |port| truncated(port.value));
    let arbitration = cluster
        .choice("arbitration", &[("quorum", Arbitration::Quorum), ("fencing", Arbitration::Fencing)])
        .map_or(Arbitration::Quorum, |arbitration| arbitration.value);
    check_votes(reader, &cluster, arbitration, nodes.len());
    check_addresses(reader, &nodes, &groups);
    check_databases(reader, &groups);
    set_probe_deadlines(preset, groups.iter_mut().map(|(group, _)| group));
    Some(Settings {
        cluster: name?.value,
        port,
        preset,
        timing: times,
        arbitration,
        watchdog,
        nodes: nodes.into_iter().map(|(node, _)| node).collect(),
        groups: groups.into_iter().map(|(group, _)| group).collect(),
        text: Arc::from(text),
        warnings: Vec::new(),
    })
}

/// A number that was already checked against the range of its type.
pub fn truncated(number: u64) -> u16 {
    u16::try_from(number).unwrap_or(u16::MAX)
}

/// A deadline that was not given follows the timing: a deep probe waits for a disk, which is far
/// slower than a heartbeat when other programs use it too.
fn set_probe_deadlines<'g>(preset: Preset, groups: impl Iterator<Item = &'g mut GroupSettings>) {
    let default = Duration::from_millis(match preset {
        Preset::Fast => 1000,
        Preset::Balanced => 3000,
        Preset::Relaxed => 15_000,
    });
    for resource in groups.flat_map(|group| &mut group.resources) {
        let deadline = match &mut resource.kind {
            ResourceKind::Postgresql(database) => &mut database.probe_deadline,
            ResourceKind::Mariadb(database) => &mut database.probe_deadline,
            ResourceKind::Address(_) | ResourceKind::Service(_) => continue,
        };
        if deadline.is_zero() {
            *deadline = default;
        }
    }
}

/// What is wrong with two nodes and no arbitration.
pub const TWO_VOTES: &str = "2 nodes cannot tell a dead peer from a cut link";

fn check_votes(reader: &Reader, cluster: &Section<'_>, arbitration: Arbitration, votes: usize) {
    let line = cluster.line_of("arbitration");
    match (arbitration, votes) {
        (Arbitration::Quorum, 2) => reader.report(Problem::error(line, TWO_VOTES).hint(
            "add a third machine with role = \"witness\" (it votes and runs nothing), or set arbitration = \
                 \"fencing\"",
        )),
        (Arbitration::Quorum, 1) => reader.report(Problem::warning(line, "1 node: nothing can take over from it")),
        (Arbitration::Fencing, 2) => reader.report(
            Problem::warning(line, "no fence device: takeover is by hand only")
                .hint("two machines alone cannot be both automatic and safe; a witness makes takeover automatic"),
        ),
        (Arbitration::Fencing, votes) if votes != 0 => reader.report(
            Problem::error(line, format!("arbitration \"fencing\" with {votes} nodes"))
                .hint("it is for two nodes; remove it, and a majority decides"),
        ),
        _ => {}
    }
}

/// No address may stand for two things.
fn check_addresses(reader: &Reader, nodes: &[(NodeSettings, u32)], groups: &[(GroupSettings, Vec<u32>)]) {
    let mut taken: HashMap<IpAddr, String> = HashMap::new();
    let mut take = |address: IpAddr, line: u32, whose: String| {
        if let Some(other) = taken.get(&address) {
            reader.error(line, format!("address \"{address}\" of {whose} is already that of {other}"));
        } else {
            taken.insert(address, whose);
        }
    };
    for (node, line) in nodes {
        for link in &node.links {
            take(*link, *line, format!("node \"{}\"", node.name));
        }
    }
    for (group, lines) in groups {
        for (resource, line) in group.resources.iter().zip(lines) {
            if let ResourceKind::Address(settings) = &resource.kind {
                take(settings.address, *line, format!("resource \"{}\"", resource.name));
            }
        }
    }
}

/// Databases that meet on one node need directories and ports of their own.
fn check_databases(reader: &Reader, groups: &[(GroupSettings, Vec<u32>)]) {
    let mut seen: Vec<(&GroupSettings, &ResourceSettings)> = Vec::new();
    for (group, lines) in groups {
        for (resource, line) in group.resources.iter().zip(lines) {
            let Some((directory, ports)) = resource.kind.database_places() else { continue };
            for (other_group, other) in &seen {
                let meet = other_group.nodes.iter().any(|node| group.nodes.contains(node));
                let Some((other_directory, taken)) = other.kind.database_places().filter(|_| meet) else { continue };
                let whose = format!("is already used by resource \"{}\"", other.name);
                if nested(other_directory, directory) {
                    reader.error(*line, format!("data_dir \"{}\" {whose}", directory.display()));
                }
                for (key, port) in ports.iter().filter(|(_, port)| taken.iter().any(|(_, other)| other == port)) {
                    reader.error(*line, format!("{key} {port} {whose}"));
                }
            }
            seen.push((group, resource));
        }
    }
}

fn nested(a: &Path, b: &Path) -> bool {
    a.starts_with(b) || b.starts_with(a)
}
