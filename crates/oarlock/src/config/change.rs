//! From a running configuration to a new one: what a running cluster can take, and how.
//!
//! Resources are known to the nodes by their position, and what runs is kept by name; so groups and
//! resources keep their places and names, and new ones come after them. What a running program, a
//! copy of data or an address hangs on cannot change under it.

use super::settings::{GroupSettings, NodeSettings, ResourceKind, ResourceSettings, Settings};

/// Everything in `new` that a cluster running `old` cannot take, in words, each with a hint.
pub fn forbidden(old: &Settings, new: &Settings) -> Vec<String> {
    let mut problems = Vec::new();
    if new.cluster != old.cluster {
        let names = format!("cluster name \"{}\" differs from the running \"{}\"", new.cluster, old.cluster);
        problems.push(hinted(&names, "is this the file of another cluster?"));
    }
    if new.port != old.port {
        let ports = format!("port {} differs from the running {}", new.port, old.port);
        problems.push(hinted(&ports, "the nodes would lose each other: stop all agents, edit the file on each, start"));
    }
    if new.arbitration != old.arbitration {
        problems.push(hinted("arbitration cannot change while the cluster runs", "keep it as it is"));
    }
    nodes(old, new, &mut problems);
    groups(old, new, &mut problems);
    problems
}

/// Whether an agent that was started with `old` must start anew to do as `new` says. Preferences are
/// the core's, which has them at once.
pub fn needs_restart(old: &Settings, new: &Settings) -> bool {
    let stripped = |settings: &Settings| {
        let mut stripped = settings.clone();
        stripped.text = "".into();
        stripped.warnings = Vec::new();
        for group in &mut stripped.groups {
            group.failback = oarlock_core::config::Failback::Never;
            group.nodes.sort();
        }
        stripped
    };
    stripped(old) != stripped(new)
}

fn nodes(old: &Settings, new: &Settings, problems: &mut Vec<String>) {
    let identity = |node: &NodeSettings| (node.id, node.name.clone(), node.witness, node.key);
    let identities = |settings: &Settings| settings.nodes.iter().map(identity).collect::<Vec<_>>();
    if identities(old) != identities(new) {
        problems.push(hinted(
            "the set of nodes, their order, roles and keys cannot be changed by apply",
            "keep name, role and key of each [[node]] as they are",
        ));
        return;
    }
    for (old, new) in old.nodes.iter().zip(&new.nodes) {
        if !new.links.iter().any(|link| old.links.contains(link)) {
            let text = format!("no link of node \"{}\" stays as it is", new.name);
            problems.push(hinted(&text, "the nodes find each other over what stays: change one link after the other"));
        }
    }
}

fn groups(old: &Settings, new: &Settings, problems: &mut Vec<String>) {
    for (index, group) in old.groups.iter().enumerate() {
        match new.groups.get(index).filter(|other| other.name == group.name) {
            Some(other) => same_group(group, other, new, problems),
            None => problems.push(hinted(
                &format!("group \"{}\" is not in its place any more", group.name),
                "groups cannot be removed, renamed or reordered; add new ones at the end",
            )),
        }
    }
}

fn same_group(old: &GroupSettings, new: &GroupSettings, settings: &Settings, problems: &mut Vec<String>) {
    for id in old.nodes.iter().filter(|id| !new.nodes.contains(id)) {
        let node = settings.node_by_id(*id).map_or("", |node| node.name.as_str());
        problems.push(hinted(
            &format!("node \"{node}\" cannot be taken out of group \"{}\"", new.name),
            "what it runs would be left to itself; oarlock standby takes a node out of service",
        ));
    }
    for (index, resource) in old.resources.iter().enumerate() {
        match new.resources.get(index).filter(|other| other.name == resource.name) {
            Some(other) => same_resource(old, resource, other, problems),
            None => problems.push(hinted(
                &format!("resource \"{}/{}\" is not in its place any more", old.name, resource.name),
                "resources cannot be removed, renamed or reordered; add new ones at the end",
            )),
        }
    }
    for added in new.resources.iter().skip(old.resources.len()).filter(|added| added.kind.core().is_database()) {
        problems.push(hinted(
            &format!("resource \"{}/{}\": a database cannot join a group that runs", new.name, added.name),
            "put it into a new group at the end",
        ));
    }
}

fn same_resource(group: &GroupSettings, old: &ResourceSettings, new: &ResourceSettings, problems: &mut Vec<String>) {
    let fixed: &[(&str, bool)] = match (&old.kind, &new.kind) {
        (ResourceKind::Address(old), ResourceKind::Address(new)) => &[
            ("address", old.address != new.address || old.prefix != new.prefix),
            ("interface", old.interface != new.interface),
            ("follows", old.follows_standby != new.follows_standby),
        ],
        (ResourceKind::Postgresql(old), ResourceKind::Postgresql(new)) => &[
            ("version", old.version != new.version),
            ("data_dir", old.data_dir != new.data_dir),
            ("port", old.port != new.port),
            ("user", old.user != new.user),
        ],
        (ResourceKind::Mariadb(old), ResourceKind::Mariadb(new)) => &[
            ("version", old.version != new.version),
            ("data_dir", old.data_dir != new.data_dir),
            ("port", old.port != new.port),
            // Each agent must know the other's; they are not changed in the same instant.
            ("copy_port", old.copy_port != new.copy_port),
            ("user", old.user != new.user),
        ],
        (ResourceKind::Service(old), ResourceKind::Service(new)) => &[
            // Scripts find what they started by their own means, which the new ones may not share.
            ("start, stop and status", old.program != new.program && (is_scripts(old) || is_scripts(new))),
            ("profile", old.profile != new.profile),
        ],
        _ => &[("kind", true)],
    };
    for (key, _) in fixed.iter().filter(|(_, changed)| *changed) {
        problems.push(hinted(
            &format!("{key} of resource \"{}/{}\" cannot be changed while it runs", group.name, new.name),
            "add a new resource instead, or stop all agents, edit the file on each node, start",
        ));
    }
}

fn is_scripts(service: &super::settings::ServiceSettings) -> bool {
    matches!(service.program, super::settings::Program::Commands { .. })
}

fn hinted(text: &str, hint: &str) -> String {
    format!("{text}\n  hint: {hint}")
}

#[cfg(test)]
mod tests {
    use super::super::parse;
    use super::*;

    const TWO: &str = include_str!("../../tests/fixtures/two.toml");

    fn change(from: &str, to: &str) -> (Vec<String>, bool) {
        let text = TWO.replacen(from, to, 1);
        assert_ne!(text, TWO, "{from}");
        let (old, new) = (parse("old", TWO).unwrap(), parse("new", &text).unwrap_or_else(|error| panic!("{error}")));
        (forbidden(&old, &new), needs_restart(&old, &new))
    }

    #[test]
    fn what_hangs_on_something_running_is_refused() {
        for (from, to, word) in [
            ("name = \"genepi\"", "name = \"other\"", "cluster name \"other\""),
            ("name = \"frontend\"", "name = \"fronted\"", "the set of nodes"),
            ("\"10.77.1.10\", \"10.77.2.10\"", "\"10.77.3.10\"", "no link of node \"frontend\""),
            ("nodes = [\"server1\", \"server2\"]", "nodes = [\"server1\"]", "node \"server2\""),
            ("name = \"oar\"\n", "name = \"raw\"\n", "group \"oar\""),
            ("name = \"vip\"", "name = \"viper\"", "resource \"oar/vip\""),
            ("10.77.1.100/24", "10.77.1.102/24", "address of resource \"oar/vip\""),
            ("15/main", "15/other", "data_dir of resource \"oar/db\""),
            ("follows = \"standby\"", "", "follows of resource \"oar/readers\""),
        ] {
            let (problems, _) = change(from, to);
            assert!(problems.iter().any(|problem| problem.contains(word)), "{word}: {problems:?}");
        }
    }

    #[test]
    fn the_rest_is_taken_with_a_restart_of_the_agent_where_that_reads_it() {
        let service = "[[group.resource]]\nname = \"more\"\nkind = \"service\"\ncommand = [\"/bin/sleep\", \"9\"]\n";
        let added = format!("follows = \"standby\"\n\n{service}");
        for (from, to, restart) in [
            ("failback = \"never\"", "failback = \"auto\"", false),
            ("nodes = [\"server1\", \"server2\"]", "nodes = [\"server2\", \"server1\"]", false),
            ("failback = \"never\"", "failback = \"never\" # kept", false),
            ("\"10.77.1.10\", \"10.77.2.10\"", "\"10.77.1.10\", \"10.77.3.10\"", true),
            ("timing = \"fast\"", "timing = \"relaxed\"", true),
            ("profile = \"oar\"", "profile = \"oar\"\nstop_timeout_ms = 9000", true),
            ("follows = \"standby\"", added.as_str(), true),
        ] {
            assert_eq!(change(from, to), (vec![], restart), "{to}");
        }
    }
}
