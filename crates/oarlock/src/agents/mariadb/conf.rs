//! The server's configuration file, written anew for every start.

use super::settings::MariaSettings;
use crate::agents::postgresql::layout;
use oarlock_core::ids::NodeId;
use oarlock_core::resource::database::Running;
use std::fmt::Write;
use std::path::PathBuf;

/// What new sessions of clients run first while they are shut out. It cannot be carried out, so
/// that the server ends them; sessions that may administer connections do not run it.
pub(super) const CLOSED: &str = "oarlock: clients are not let in now";
/// A wait for a standby that never ends: in milliseconds, the server's largest.
pub(super) const FOR_EVER: &str = "18446744073709551615";
/// Names of the logs, so that a later look finds them.
pub(super) const BINLOG: &str = "oarlock-bin";
/// See [`BINLOG`].
pub(super) const RELAY_LOG: &str = "oarlock-relay";

/// The number under which a server writes transactions. Each time as a primary is another server:
/// so two histories are told apart by their numbers alone, whoever wrote them. A standby writes
/// none of its own.
pub(super) fn server_id(node: NodeId, epoch: Option<u64>) -> u32 {
    let node = u32::from(node.0);
    // 24 bits of epochs.
    epoch.map_or(node, |epoch| {
        let low = u32::try_from((epoch + 1) & 0x00ff_ffff).unwrap_or(1).max(1);
        (low << 8) | node
    })
}

/// The epoch in a primary's number; `None` of a standby's.
pub(super) fn epoch_of(server_id: u32) -> Option<u64> {
    u64::from(server_id >> 8).checked_sub(1)
}

/// Where the server keeps what need not last: a directory of its own, beside the data.
pub(super) fn temporary(settings: &MariaSettings) -> PathBuf {
    layout::beside(&settings.data_dir, ".oarlock-tmp")
}

/// The text of the file: defaults of ours, the administrator's file, and what is imposed.
pub(super) fn text(settings: &MariaSettings, running: Running, epoch: Option<u64>) -> String {
    let mut text = String::from("# Written by oarlock at every start, edits are lost.\n[mariadbd]\n");
    // What an administrator may have otherwise.
    text.push_str("max_binlog_size=64M\nbinlog_expire_logs_seconds=259200\ncharacter_set_server=utf8mb4\n");
    // Each connection that was not ended in order would be a line of the log otherwise, health checks included.
    text.push_str("log_warnings=1\n");
    // A server that starts removes the temporary tables of any other that uses the same directory; one that
    // missed them fell down (10.11.19).
    let _ = writeln!(text, "tmpdir={}", temporary(settings).display());
    if let Some(include) = &settings.include {
        let _ = writeln!(text, "!include {}", include.display());
    }
    text.push_str("[mariadbd]\n");
    let data = settings.data_dir.display();
    let run = settings.run_dir.display();
    let mut set = |name: &str, value: &str| {
        let _ = writeln!(text, "{name}={value}");
    };
    set("datadir", &data.to_string());
    set("socket", &settings.socket().display().to_string());
    set("pid_file", &format!("{run}/mariadb.pid"));
    set("port", &settings.port.to_string());
    set("bind_address", &settings.bind_address);
    set("server_id", &server_id(settings.node, epoch).to_string());
    set("log_bin", &format!("{data}/{BINLOG}"));
    set("log_bin_index", &format!("{data}/{BINLOG}.index"));
    set("relay_log", &format!("{data}/{RELAY_LOG}"));
    set("relay_log_index", &format!("{data}/{RELAY_LOG}.index"));
    let primary = if running == Running::Primary { "ON" } else { "OFF" };
    set("rpl_semi_sync_master_enabled", primary);
    set("rpl_semi_sync_master_timeout", FOR_EVER);
    set("init_connect", &format!("'{CLOSED}'"));
    for name in ["ssl_cert", "ssl_ca"] {
        set(name, &format!("{run}/server.crt"));
    }
    set("ssl_key", &format!("{run}/server.key"));
    let silence_s = settings.timing.replication_timeout.as_secs().max(1);
    set("slave_net_timeout", &silence_s.to_string());
    text.push_str(IMPOSED);
    text
}

/// What keeps an acknowledged row: on disk here, on disk there, in this order (PROTOCOL §6).
/// The standby's side is switched on before it follows, not here: a server that finds it on at its
/// start may cut from its log what the standby has.
const IMPOSED: &str = "\
skip_log_error
gtid_domain_id=0
gtid_strict_mode=ON
log_slave_updates=ON
sync_binlog=1
innodb_flush_log_at_trx_commit=1
sync_relay_log=1
sync_master_info=1
sync_relay_log_info=1
relay_log_recovery=OFF
skip_slave_start=ON
rpl_semi_sync_master_wait_point=AFTER_SYNC
rpl_semi_sync_master_wait_no_slave=ON
rpl_semi_sync_slave_enabled=OFF
read_only=ON
skip_name_resolve=ON
skip_networking=OFF
";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_time_as_a_primary_is_another_server() {
        let node = NodeId(2);
        assert_eq!(server_id(node, None), 2);
        assert_eq!(server_id(node, Some(0)), 0x102);
        assert_eq!(server_id(node, Some(6)), 0x702);
        assert_eq!((epoch_of(0x702), epoch_of(2)), (Some(6), None));
        assert_ne!(server_id(node, Some(0x00ff_ffff)), server_id(node, None));
    }
}
