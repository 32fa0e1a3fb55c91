//! How copies and their servers are called by PostgreSQL: `NODE_EPOCH` as `application_name`, so
//! that a receiver of an old epoch can confirm nothing, and the connection strings.

use super::session::{REPLICATION_ROLE, identifier};
use super::settings::{Member, PgSettings};
use oarlock_core::ids::NodeId;
use std::fmt::Write;

/// A standby nobody ever is: commits that wait for it are acknowledged to nobody.
pub(super) const NOBODY: &str = "FIRST 1 (\"oarlock nobody\")";

/// The longest part of a node's name that fits PostgreSQL's 63 bytes beside a number.
const NAME_LIMIT: usize = 40;

/// The `application_name` of `member`'s standby under a primary of `epoch`.
pub(super) fn application_name(member: &Member, epoch: u64) -> String {
    let keep = |c: char| if c.is_ascii_graphic() && !"\"'\\=".contains(c) { c } else { '?' };
    let name: String = member.name.chars().take(NAME_LIMIT).map(keep).collect();
    format!("{name}_{epoch}")
}

/// Which member's standby this is, if it is one of `epoch`.
pub(super) fn member_named(members: &[Member], name: &str, epoch: u64) -> Option<NodeId> {
    // PostgreSQL compares these names without regard to case.
    let found = members.iter().find(|member| application_name(member, epoch).eq_ignore_ascii_case(name));
    found.map(|member| member.id)
}

/// `synchronous_standby_names` for commits that wait for all of `names`; empty: for nobody.
pub(super) fn wait_for_all(names: &[String]) -> String {
    if names.is_empty() {
        return String::new();
    }
    let list: Vec<String> = names.iter().map(|name| identifier(name)).collect();
    format!("FIRST {} ({})", names.len(), list.join(","))
}

/// The epoch in a `synchronous_standby_names` made by [`wait_for_all`]; none when it names nobody.
pub(crate) fn epoch_of(setting: &str) -> Option<u64> {
    let name = setting.trim_end_matches(['"', ')']).rsplit('"').next()?;
    name.rsplit_once('_')?.1.parse().ok()
}

/// Connection string to the server of `member`, for walreceiver and tools. The password comes
/// from the password file, never from here.
pub(super) fn connection(settings: &PgSettings, member: &Member, application: &str) -> String {
    let hosts: Vec<String> = member.links.iter().map(ToString::to_string).collect();
    let silence_ms = settings.timing.replication_timeout.as_millis();
    let pairs = [
        ("host", hosts.join(",")),
        ("port", member.port.to_string()),
        ("user", REPLICATION_ROLE.to_owned()),
        ("passfile", settings.run_dir.join("passfile").display().to_string()),
        ("sslmode", "verify-ca".to_owned()),
        ("sslrootcert", settings.run_dir.join("server.crt").display().to_string()),
        // Proves that the server knows our verifier, not only that it holds the certificate.
        ("channel_binding", "require".to_owned()),
        ("gssencmode", "disable".to_owned()),
        // libpq 15 takes anything below 2 s as 2 s; with two links the second is tried after it.
        ("connect_timeout", "2".to_owned()),
        ("keepalives_idle", "2".to_owned()),
        ("keepalives_interval", "1".to_owned()),
        ("keepalives_count", "3".to_owned()),
        ("tcp_user_timeout", silence_ms.to_string()),
        ("application_name", application.to_owned()),
    ];
    let mut text = String::new();
    for (key, value) in pairs {
        let value = value.replace('\\', "\\\\").replace('\'', "\\'");
        let _ = write!(text, "{}{key}='{value}'", if text.is_empty() { "" } else { " " });
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn member(id: u8, name: &str) -> Member {
        Member { id: NodeId(id), name: name.to_owned(), links: Vec::new(), port: 5432 }
    }

    #[test]
    fn names_carry_node_and_epoch() {
        let members = [member(1, "server1"), member(2, "server_2")];
        assert_eq!(application_name(&members[1], 7), "server_2_7");
        assert_eq!(member_named(&members, "SERVER_2_7", 7), Some(NodeId(2)));
        assert_eq!(member_named(&members, "server_2_7", 8), None);
    }

    #[test]
    fn all_are_waited_for() {
        assert_eq!(wait_for_all(&[]), "");
        let setting = wait_for_all(&["a_3".to_owned(), "b_3".to_owned()]);
        assert_eq!(setting, "FIRST 2 (\"a_3\",\"b_3\")");
        assert_eq!(epoch_of(&setting), Some(3));
        assert_eq!(epoch_of(NOBODY), None);
        assert_eq!(epoch_of(""), None);
    }
}
