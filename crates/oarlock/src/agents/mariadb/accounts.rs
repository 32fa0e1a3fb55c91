//! What a primary must have in its catalogue: our own tables, and one account for each standby and
//! epoch, so that a receiver of an old epoch can confirm nothing.
//!
//! All of it is written on this copy alone (`sql_log_bin` off): it must not wait for a standby, and
//! a clone takes the tables along.

use super::context::Context;
use super::error::Result;
use super::session::{Session, literal, text};
use crate::agents::launcher::Launcher;
use oarlock_core::ids::NodeId;

/// What all our accounts' names begin with.
const PREFIX: &str = "oarlock_";

/// The account of a standby under a primary of `epoch`.
pub(super) fn account(node: NodeId, epoch: u64) -> String {
    format!("{PREFIX}{epoch}_{}", node.0)
}

/// Which node's account of `epoch` this is.
pub(super) fn node_of(user: &str, epoch: u64) -> Option<NodeId> {
    let node = user.strip_prefix(PREFIX)?.strip_prefix(&epoch.to_string())?.strip_prefix('_')?;
    node.parse().ok().map(NodeId)
}

fn is_ours(user: &str) -> bool {
    let numbers = user.strip_prefix(PREFIX).and_then(|rest| rest.split_once('_'));
    numbers.is_some_and(|(epoch, node)| [epoch, node].iter().all(|part| part.parse::<u64>().is_ok()))
}

impl<L: Launcher> Context<L> {
    /// Brings the catalogue in order for a primary of `epoch`; `session` writes locally. Receivers
    /// of former epochs are cut off.
    pub async fn provision(&self, session: &mut Session, epoch: u64) -> Result<()> {
        // Each may wait for the disk.
        let after = self.settings.timing.tool;
        for sql in TABLES {
            session.run(sql, after).await?;
        }
        let members = self.members().into_iter().filter(|member| member.id != self.settings.node);
        let wanted: Vec<String> = members.map(|member| account(member.id, epoch)).collect();
        let password = literal(&self.settings.secrets.replication_password);
        for user in &wanted {
            // Only who holds the cluster's own key, over TLS. The second right lets it in although
            // clients are shut out.
            let create = format!("create or replace user {user}@'%' identified by {password} require x509");
            session.run_unseen(&format!("make the account {user}"), &create, after).await?;
            let grant = format!("grant replication slave, connection admin on *.* to {user}@'%'");
            session.run(&grant, after).await?;
        }
        let others = session.rows("select user, host from mysql.user where user like 'oarlock\\_%'", after).await?;
        for row in others {
            let (user, host) = (text(&row, 0).unwrap_or_default(), text(&row, 1).unwrap_or_default());
            if is_ours(&user) && !wanted.contains(&user) {
                let drop = format!("drop user if exists {}@{}", literal(&user), literal(&host));
                session.run(&drop, after).await?;
            }
        }
        self.cut_off(session, &wanted).await
    }
}

const TABLES: [&str; 5] = [
    "create database if not exists oarlock",
    "create table if not exists oarlock.mark (id int primary key, n bigint not null) engine=innodb",
    "insert ignore into oarlock.mark values (1, 0)",
    "create table if not exists oarlock.probe (id int primary key, n bigint not null) engine=innodb",
    "insert ignore into oarlock.probe values (1, 0)",
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn accounts_carry_node_and_epoch() {
        assert_eq!(account(NodeId(2), 17), "oarlock_17_2");
        assert_eq!(node_of("oarlock_17_2", 17), Some(NodeId(2)));
        assert_eq!(node_of("oarlock_17_2", 1), None);
        assert_eq!(node_of("oarlock_7_2", 17), None);
        assert!(is_ours("oarlock_1_2") && !is_ours("oarlock_admin") && !is_ours("oarlock_1_x"));
    }
}
