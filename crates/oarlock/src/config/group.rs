//! `[[group]]`.

use super::depends;
use super::names::nearest;
use super::node::read_name;
use super::problem::Problem;
use super::reader::{Located, Section};
use super::resource;
use super::schema;
use super::settings::{GroupSettings, NodeSettings, ResourceKind, ResourceSettings};
use oarlock_core::config::Failback;
use oarlock_core::ids::NodeId;

/// Most groups accepted.
const GROUPS_MAX: usize = 32;
/// Most resources in one group.
const RESOURCES_MAX: usize = 32;

/// All groups, each with the lines of its resources.
pub fn read_all(file: &Section<'_>, nodes: &[NodeSettings]) -> Vec<(GroupSettings, Vec<u32>)> {
    let sections = file.sections("group", &schema::GROUP);
    if let Some(first_too_many) = sections.get(GROUPS_MAX) {
        file.reader.error(first_too_many.line, format!("{} groups, at most {GROUPS_MAX} are possible", sections.len()));
    }
    let mut groups: Vec<(GroupSettings, Vec<u32>)> = Vec::new();
    for section in sections.iter().take(GROUPS_MAX) {
        let group = read(section, nodes);
        if groups.iter().any(|(other, _)| !group.0.name.is_empty() && other.name == group.0.name) {
            file.reader.error(section.line_of("name"), format!("group \"{}\" is there twice", group.0.name));
        }
        groups.push(group);
    }
    depends::read(&sections, &mut groups);
    groups
}

fn read(section: &Section<'_>, nodes: &[NodeSettings]) -> (GroupSettings, Vec<u32>) {
    let name = read_name(section, "group");
    if !section.has("nodes") {
        section.missing("nodes");
    }
    let members = section.texts("nodes").map(|names| read_members(section, &names, nodes)).unwrap_or_default();
    let failback = section
        .choice("failback", &[("never", Failback::Never), ("auto", Failback::Auto)])
        .map_or(Failback::Never, |failback| failback.value);
    let (resources, lines) = read_resources(section, &name);
    check_copies(section, &members, &resources);
    // Which groups it depends on is known once all have been read.
    (GroupSettings { name, nodes: members, failback, depends: Vec::new(), resources }, lines)
}

fn read_members(section: &Section<'_>, names: &Located<Vec<Located<String>>>, nodes: &[NodeSettings]) -> Vec<NodeId> {
    let mut members = Vec::new();
    for name in &names.value {
        let Some(node) = nodes.iter().find(|node| node.name == name.value) else {
            let problem = Problem::error(name.line, format!("unknown node \"{}\"", name.value));
            let known = nodes.iter().map(|node| node.name.as_str());
            section.reader.report(match nearest(&name.value, known.clone()) {
                Some(meant) => problem.hint(format!("did you mean \"{meant}\"?")),
                None => problem.hint(format!("nodes: {}", known.collect::<Vec<_>>().join(", "))),
            });
            continue;
        };
        if node.witness {
            section.reader.report(
                Problem::error(name.line, format!("node \"{}\" is a witness", name.value))
                    .hint("a witness runs nothing; remove it here, or its role = \"witness\""),
            );
        } else if members.contains(&node.id) {
            section.reader.error(name.line, format!("node \"{}\" is there twice", name.value));
        } else {
            members.push(node.id);
        }
    }
    match names.value.len() {
        0 => section.reader.error(names.line, "\"nodes\" is empty"),
        1 => section.reader.report(Problem::warning(names.line, "group with a single node: nothing can take over")),
        _ => {}
    }
    members
}

fn read_resources(section: &Section<'_>, group: &str) -> (Vec<ResourceSettings>, Vec<u32>) {
    let sections = resource::sections(section);
    if !section.has("resource") {
        section.reader.report(
            Problem::error(section.line, format!("group \"{group}\" has no resource"))
                .hint("add at least one [[group.resource]] below it"),
        );
    }
    if sections.len() > RESOURCES_MAX {
        let text = format!("{} resources in group \"{group}\", at most {RESOURCES_MAX} are possible", sections.len());
        section.reader.error(section.line, text);
    }
    let mut resources: Vec<ResourceSettings> = Vec::new();
    let mut lines = Vec::new();
    let mut names: Vec<String> = Vec::new();
    for section in sections.iter().take(RESOURCES_MAX) {
        let name = read_name(section, "resource");
        if names.contains(&name) {
            let text = format!("resource \"{name}\" is there twice in group \"{group}\"");
            section.reader.error(section.line_of("name"), text);
        }
        if !name.is_empty() {
            names.push(name.clone());
        }
        if let Some(resource) = resource::read(section, name) {
            resources.push(resource);
            // What one resource can take from another is its address or its directory.
            lines.push(section.line_of(if section.has("address") { "address" } else { "data_dir" }));
        }
    }
    if resources.len() == section.count("resource") {
        check_data(section, group, &resources, &lines);
    }
    (resources, lines)
}

/// MariaDB's server takes the confirmation of any standby: with one, that is the right one.
fn check_copies(section: &Section<'_>, members: &[NodeId], resources: &[ResourceSettings]) {
    let found = resources.iter().find(|resource| matches!(resource.kind, ResourceKind::Mariadb(_)));
    if let Some(database) = found.filter(|_| members.len() > 2) {
        let text = format!("{} copies of MariaDB \"{}\", at most 2 are possible", members.len(), database.name);
        section.reader.report(Problem::error(section.line_of("nodes"), text).hint(
            "name two nodes here: the server takes the confirmation of any standby, so with more nobody could say \
             which one has an acknowledged row",
        ));
    }
}

/// One database at most, and readers only where there is one.
fn check_data(section: &Section<'_>, group: &str, resources: &[ResourceSettings], lines: &[u32]) {
    let mut database: Option<&str> = None;
    for (resource, line) in resources.iter().zip(lines) {
        if !resource.kind.core().is_database() {
            continue;
        }
        if let Some(first) = database {
            section.reader.report(
                Problem::error(
                    *line,
                    format!("second database \"{}\" in group \"{group}\", after \"{first}\"", resource.name),
                )
                .hint("what is in sync is known for one database per group; put it into a group of its own"),
            );
        }
        database.get_or_insert(&resource.name);
    }
    for (resource, line) in resources.iter().zip(lines) {
        if let ResourceKind::Address(address) = &resource.kind
            && address.follows_standby
            && database.is_none()
        {
            section.reader.report(
                Problem::error(
                    *line,
                    format!("address \"{}\" follows a standby, but group \"{group}\" has no database", resource.name),
                )
                .hint("remove follows, or add a resource of kind \"postgresql\" or \"mariadb\""),
            );
        }
    }
}
