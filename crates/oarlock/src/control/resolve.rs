//! From the names in a request to the core's numbers, by the running configuration.

use super::protocol::{Request, Response};
use crate::config::nearest;
use oarlock_core::config::Config;
use oarlock_core::ids::{GroupId, NodeId, ResourceId};
use oarlock_core::request::Request as CoreRequest;

/// What `explain` is asked about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Subject {
    /// A group.
    Group(GroupId),
    /// A node.
    Node(NodeId),
}

/// The core's form of a request that it answers itself; `Ok(None)` for those the shell answers.
pub fn core_request(config: &Config, request: &Request) -> Result<Option<CoreRequest>, Response> {
    Ok(Some(match request {
        Request::Move { group, node: to } => {
            CoreRequest::Move { group: self::group(config, group)?, to: node(config, to)? }
        }
        Request::Standby { node: name, on } => CoreRequest::Standby { node: node(config, name)?, on: *on },
        Request::Maintenance { on } => CoreRequest::Maintenance { on: *on },
        Request::Clear { resource: name } => CoreRequest::Clear { resource: resource(config, name)? },
        Request::Replace { node: name } => CoreRequest::Replace { node: node(config, name)? },
        _ => return Ok(None),
    }))
}

/// The node of this name.
pub fn node(config: &Config, name: &str) -> Result<NodeId, Response> {
    let found = config.nodes.iter().find(|node| node.name == name).map(|node| node.id);
    found.ok_or_else(|| unknown("node", name, config.nodes.iter().map(|node| node.name.as_str()).collect()))
}

/// The group of this name.
pub fn group(config: &Config, name: &str) -> Result<GroupId, Response> {
    let found = config.groups().find(|(_, group)| group.name == name).map(|(id, _)| id);
    found.ok_or_else(|| unknown("group", name, config.groups.iter().map(|group| group.name.as_str()).collect()))
}

/// The resource of this name, alone or as `group/resource`.
pub fn resource(config: &Config, name: &str) -> Result<ResourceId, Response> {
    let (wanted_group, wanted) = match name.split_once('/') {
        Some((group_name, resource)) => (Some(group(config, group_name)?), resource),
        None => (None, name),
    };
    let all: Vec<(ResourceId, String)> = config
        .groups()
        .filter(|(id, _)| wanted_group.is_none_or(|wanted| wanted == *id))
        .flat_map(|(id, group)| {
            group.resources(id).map(|(id, resource)| (id, format!("{}/{}", group.name, resource.name)))
        })
        .collect();
    let matches: Vec<&(ResourceId, String)> =
        all.iter().filter(|(_, full)| full.split_once('/').is_some_and(|(_, short)| short == wanted)).collect();
    match matches.as_slice() {
        [(id, _)] => Ok(*id),
        [] => Err(unknown(
            "resource",
            name,
            all.iter().filter_map(|(_, full)| full.split_once('/').map(|(_, short)| short)).collect(),
        )),
        several => {
            let names: Vec<&str> = several.iter().map(|(_, full)| full.as_str()).collect();
            let problem =
                format!("resource \"{name}\" is in more than one group\n  hint: one of: {}", names.join(", "));
            Err(Response::Usage { problems: vec![problem] })
        }
    }
}

/// The group or else the node of this name.
pub fn subject(config: &Config, name: &str) -> Result<Subject, Response> {
    if let Ok(group) = group(config, name) {
        return Ok(Subject::Group(group));
    }
    if let Ok(node) = node(config, name) {
        return Ok(Subject::Node(node));
    }
    let groups = config.groups.iter().map(|group| group.name.as_str());
    Err(unknown("group or node", name, groups.chain(config.nodes.iter().map(|node| node.name.as_str())).collect()))
}

fn unknown(what: &str, name: &str, known: Vec<&str>) -> Response {
    let hint = match nearest(name, known.iter().copied()) {
        Some(meant) => format!("did you mean \"{meant}\"?"),
        None => format!("one of: {}", known.join(", ")),
    };
    Response::Usage { problems: vec![format!("unknown {what} \"{name}\"\n  hint: {hint}")] }
}
