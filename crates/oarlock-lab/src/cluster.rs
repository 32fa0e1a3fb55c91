//! What `oarlock status --json` says, and what full redundancy means in its terms.

use oarlock_core::status::{GroupStatus, ResourceStatus, Status};
use serde::Deserialize;
use std::ops::Deref;

/// The name of the group that runs everything with two servers, and OAR with four.
pub const GROUP: &str = "oar";

/// The cluster as one of its nodes sees it.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(transparent)]
pub struct ClusterStatus(Status);

impl Deref for ClusterStatus {
    type Target = Status;

    fn deref(&self) -> &Status {
        &self.0
    }
}

impl ClusterStatus {
    /// The group with the database.
    #[must_use]
    pub fn group(&self) -> Option<&GroupStatus> {
        self.databases().next().map(|(group, _)| group)
    }

    /// The group of this name.
    #[must_use]
    pub fn named(&self, name: &str) -> Option<&GroupStatus> {
        self.groups.iter().find(|group| group.name == name)
    }

    /// The owner of the group of this name.
    #[must_use]
    pub fn owner_of(&self, name: &str) -> Option<&str> {
        self.named(name)?.owner.as_deref()
    }

    /// The owner of the database's group.
    pub fn owner(&self) -> Option<&str> {
        self.group()?.owner.as_deref()
    }

    /// The epoch of the database's group; 0 if there is none.
    pub fn epoch(&self) -> u64 {
        self.group().map_or(0, |g| g.epoch)
    }

    /// The nodes other than the owner that hold an in-sync copy of the database.
    pub fn in_sync_standbys(&self) -> Vec<&str> {
        let databases = self.databases();
        let members = databases.flat_map(|(_, r)| r.members.iter());
        members.filter(|m| m.role == "standby" && m.in_sync).map(|m| m.node.as_str()).collect()
    }

    fn databases(&self) -> impl Iterator<Item = (&GroupStatus, &ResourceStatus)> {
        let all = self.groups.iter().flat_map(|g| g.resources.iter().map(move |r| (g, r)));
        all.filter(|(_, r)| r.kind == "postgresql" || r.kind == "mariadb")
    }

    /// What still lacks to full redundancy, in words; `None` when nothing does.
    #[must_use]
    pub fn lacking(&self) -> Option<String> {
        let lacking = self.all_lacking();
        (!lacking.is_empty()).then(|| lacking.join("; "))
    }

    fn all_lacking(&self) -> Vec<String> {
        let mut lacking = Vec::new();
        if !self.quorum {
            lacking.push("no quorum".to_owned());
        }
        for node in &self.nodes {
            if node.state != "online" {
                lacking.push(format!("{} is {}", node.name, node.state));
            }
            let down = node.links.iter().filter(|l| !l.up);
            lacking.extend(down.map(|l| format!("link {} of {} is down", l.address, node.name)));
        }
        for group in &self.groups {
            let owner = group.owner.as_deref().unwrap_or("nobody");
            if group.state != "started" || group.owner.is_none() {
                let reason = group.reason.as_deref().unwrap_or("no reason given");
                lacking.push(format!("{} is {} at {owner}: {reason}", group.name, group.state));
            }
        }
        let mut databases = 0;
        for (group, database) in self.databases() {
            databases += 1;
            lacking.extend(self.copies_lacking(group, database));
        }
        if databases == 0 {
            lacking.push("no database".to_owned());
        }
        lacking
    }

    /// Every server of the group must have a copy, the owner's the primary, all of them in sync.
    fn copies_lacking(&self, group: &GroupStatus, database: &ResourceStatus) -> Vec<String> {
        let mut lacking = Vec::new();
        // With one group every server belongs to it, whether its copy is known of or not.
        let listed = |name: &String| self.groups.len() == 1 || database.members.iter().any(|m| m.node == *name);
        if database.members.len() < 2 {
            lacking.push(format!("no second copy of {}", database.name));
        }
        for node in self.nodes.iter().filter(|n| n.role == "server" && listed(&n.name)) {
            let role = if group.owner.as_ref() == Some(&node.name) { "primary" } else { "standby" };
            match database.members.iter().find(|m| m.node == node.name) {
                None => lacking.push(format!("no copy of {} at {}", database.name, node.name)),
                Some(m) if m.role != role || !m.in_sync => lacking.push(format!(
                    "{} at {} is {} {} in_sync={}, not an in-sync {role}",
                    database.name, m.node, m.role, m.state, m.in_sync
                )),
                Some(_) => {}
            }
        }
        lacking
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const WHOLE: &str = r#"{"schema":1,"cluster":"lab","quorum":true,"leader":"frontend","generation":3,
      "nodes":[{"name":"server1","role":"server","state":"online","realtime":true,"links":[{"address":"10.77.1.11","up":true}]},
               {"name":"server2","role":"server","state":"online","realtime":true,"links":[{"address":"10.77.1.12","up":true}]},
               {"name":"frontend","role":"witness","state":"online","realtime":true,"links":[]}],
      "groups":[{"name":"oar","state":"started","owner":"server1","epoch":7,"reason":null,"resources":[
        {"name":"vip","kind":"address","state":"started","failures":0,"members":[]},
        {"name":"db","kind":"postgresql","state":"started","failures":0,"members":[
          {"node":"server1","role":"primary","state":"started","in_sync":true,"lag_bytes":null},
          {"node":"server2","role":"standby","state":"started","in_sync":true,"lag_bytes":0}]}]}]}"#;

    fn parse(text: &str) -> ClusterStatus {
        serde_json::from_str(text).unwrap()
    }

    fn lacking_with(from: &str, to: &str) -> Vec<String> {
        assert!(WHOLE.contains(from), "{from}");
        parse(&WHOLE.replace(from, to)).all_lacking()
    }

    #[test]
    fn a_whole_cluster_lacks_nothing() {
        let cluster = parse(WHOLE);
        assert_eq!(cluster.lacking(), None);
        assert_eq!((cluster.owner(), cluster.epoch()), (Some("server1"), 7));
        assert_eq!(cluster.in_sync_standbys(), ["server2"]);
    }

    #[test]
    fn four_servers_have_two_copies_and_two_owners() {
        let servers =
            r#"{"name":"oar1","role":"server","state":"online","realtime":true,"links":[]},{"name":"server2""#;
        let text = WHOLE.replacen(r#"{"name":"server2""#, servers, 1).replacen(
            r#""name":"oar","state""#,
            r#""name":"db","state""#,
            1,
        );
        let oar = r#""groups":[{"name":"oar","state":"started","owner":"oar1","epoch":2,"reason":null,"resources":[
          {"name":"oar-server","kind":"service","state":"running","failures":0,"members":[]}]},"#;
        let cluster = parse(&text.replacen(r#""groups":["#, oar, 1));
        assert_eq!(cluster.lacking(), None);
        assert_eq!((cluster.owner(), cluster.epoch()), (Some("server1"), 7));
        assert_eq!(cluster.owner_of("oar"), Some("oar1"));
    }

    #[test]
    fn a_standby_out_of_sync_is_no_redundancy() {
        let stale = r#""in_sync":false,"lag_bytes":0"#;
        assert_eq!(
            lacking_with(r#""in_sync":true,"lag_bytes":0"#, stale),
            ["db at server2 is standby started in_sync=false, not an in-sync standby"]
        );
    }

    #[test]
    fn an_offline_node_a_dead_link_and_a_blocked_group_are_named() {
        let offline = lacking_with(r#""witness","state":"online""#, r#""witness","state":"offline""#);
        assert_eq!(offline, ["frontend is offline"]);
        let link = lacking_with(r#""10.77.1.12","up":true"#, r#""10.77.1.12","up":false"#);
        assert_eq!(link, ["link 10.77.1.12 of server2 is down"]);
        let blocked = lacking_with(
            r#""started","owner":"server1","epoch":7,"reason":null"#,
            r#""blocked","owner":"server1","epoch":7,"reason":"disk full""#,
        );
        assert_eq!(blocked, ["oar is blocked at server1: disk full"]);
    }

    #[test]
    fn a_status_without_a_database_is_not_whole() {
        assert_eq!(lacking_with("postgresql", "service"), ["no database"]);
    }
}
