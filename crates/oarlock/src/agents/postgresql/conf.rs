//! The server's configuration: what is imposed on its command line, where nothing can override it,
//! and the generated file with the little that changes while it runs.

use super::settings::PgSettings;
use std::collections::BTreeMap;
use std::fmt::Write;
use std::path::Path;

/// The settings that change while the server runs.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub(super) struct Dynamic {
    /// `synchronous_standby_names`.
    pub names: String,
    /// `primary_conninfo`; empty on a primary.
    pub upstream: String,
    /// Counts the files written, so that a session can tell whether one was taken over.
    pub generation: u64,
}

/// Names in [`Dynamic`] that ALTER SYSTEM could override.
pub(super) const DYNAMIC_NAMES: [&str; 2] = ["synchronous_standby_names", "primary_conninfo"];

/// The setting that carries [`Dynamic::generation`].
pub(super) const GENERATION: &str = "oarlock.generation";

/// The text of the generated `postgresql.conf`, which includes `user` first.
pub(super) fn text(user: &Path, dynamic: &Dynamic) -> String {
    let mut text = "# Written by oarlock, edits are lost.\n".to_owned();
    let _ = writeln!(text, "include_if_exists {}", quoted(&user.display().to_string()));
    let _ = writeln!(text, "synchronous_standby_names = {}", quoted(&dynamic.names));
    let _ = writeln!(text, "primary_conninfo = {}", quoted(&dynamic.upstream));
    let _ = writeln!(text, "{GENERATION} = {}", quoted(&dynamic.generation.to_string()));
    text
}

/// Reads a generated file back; `None` when it is not one.
pub(super) fn parse(text: &str) -> Option<Dynamic> {
    let value = |name: &str| {
        let line = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(" = '")?.strip_suffix('\''))?;
        Some(line.replace("''", "'").replace("\\\\", "\\"))
    };
    Some(Dynamic {
        names: value("synchronous_standby_names")?,
        upstream: value("primary_conninfo")?,
        generation: value(GENERATION)?.parse().ok()?,
    })
}

/// A value as the configuration file wants it.
pub(super) fn quoted(value: &str) -> String {
    format!("'{}'", value.replace('\\', "\\\\").replace('\'', "''"))
}

/// Settings of the administrator that we only raise or extend; asked from `postgres -C`.
pub(super) const RAISED: [&str; 8] = [
    "unix_socket_directories",
    "wal_level",
    "max_connections",
    "max_worker_processes",
    "max_wal_senders",
    "max_prepared_transactions",
    "max_locks_per_transaction",
    "superuser_reserved_connections",
];

/// Settings that a standby must have at least as high as its primary had, else it cannot replay.
pub(super) const REPLAY_LIMITS: [&str; 5] = [
    "max_connections",
    "max_worker_processes",
    "max_wal_senders",
    "max_prepared_transactions",
    "max_locks_per_transaction",
];

/// Senders that clones, rewinds and standbys of our own need.
const OWN_SENDERS: u64 = 10;
/// Connections that stay free for us and the administrator when clients took all others.
const OWN_CONNECTIONS: u64 = 6;

/// The settings of the command line. `asked` are the administrator's own values of [`RAISED`],
/// `floor` what the primary had of [`REPLAY_LIMITS`].
pub(super) fn imposed(
    settings: &PgSettings,
    asked: &BTreeMap<&'static str, String>,
    floor: &BTreeMap<&'static str, u64>,
) -> Vec<(&'static str, String)> {
    let run = |name: &str| settings.run_dir.join(name).display().to_string();
    let ms = |duration: std::time::Duration| format!("{}ms", duration.as_millis());
    let number = |name: &str| asked.get(name).and_then(|value| value.parse::<u64>().ok()).unwrap_or(0);
    let mut list: Vec<(&'static str, String)> = vec![
        ("config_file", run("postgresql.conf")),
        ("hba_file", run("pg_hba.conf")),
        ("ident_file", run("pg_ident.conf")),
        ("data_directory", settings.data_dir.display().to_string()),
        ("unix_socket_directories", sockets(settings, asked)),
        ("listen_addresses", settings.listen_addresses.clone()),
        ("port", settings.port.to_string()),
        ("ssl", "on".into()),
        ("ssl_cert_file", run("server.crt")),
        ("ssl_key_file", run("server.key")),
        ("fsync", "on".into()),
        ("full_page_writes", "on".into()),
        ("synchronous_commit", "on".into()),
        ("wal_log_hints", "on".into()),
        ("wal_keep_size", format!("{}MB", settings.wal_keep_mib)),
        ("hot_standby", "on".into()),
        ("recovery_target_timeline", "latest".into()),
        ("recovery_min_apply_delay", "0".into()),
        ("primary_slot_name", String::new()),
        ("restart_after_crash", "off".into()),
        ("track_activities", "on".into()),
        ("wal_receiver_status_interval", "1s".into()),
        ("wal_receiver_timeout", ms(settings.timing.replication_timeout)),
        ("wal_sender_timeout", ms(settings.timing.replication_timeout)),
        ("wal_retrieve_retry_interval", "100ms".into()),
        // A reader's conflict holds up replay, and with it a promotion.
        ("max_standby_streaming_delay", ms(settings.timing.statement)),
        ("max_standby_archive_delay", ms(settings.timing.statement)),
        ("tcp_keepalives_idle", "10s".into()),
        ("tcp_keepalives_interval", "2s".into()),
        ("tcp_keepalives_count", "3".into()),
        ("tcp_user_timeout", "10s".into()),
    ];
    if asked.get("wal_level").is_none_or(|level| level != "logical") {
        list.push(("wal_level", "replica".into()));
    }
    let reserved = number("superuser_reserved_connections").max(OWN_CONNECTIONS);
    list.push(("superuser_reserved_connections", reserved.to_string()));
    for name in REPLAY_LIMITS {
        let own = if name == "max_wal_senders" { OWN_SENDERS } else { 0 };
        let wanted = number(name).max(own).max(floor.get(name).copied().unwrap_or(0));
        if wanted > number(name) {
            list.push((name, wanted.to_string()));
        }
    }
    list
}

fn sockets(settings: &PgSettings, asked: &BTreeMap<&'static str, String>) -> String {
    let ours = format!("\"{}\"", settings.run_dir.display());
    match asked.get("unix_socket_directories").map(String::as_str).unwrap_or_default() {
        "" => ours,
        theirs => format!("{ours},{theirs}"),
    }
}

/// `postgresql.auto.conf` without the settings that would override [`Dynamic`]; `None` when there
/// are none in it.
pub(super) fn without_overrides(auto: &str) -> Option<String> {
    let overrides = |line: &&str| {
        let name = line.split(['=', ' ', '\t']).find(|word| !word.is_empty()).unwrap_or_default();
        DYNAMIC_NAMES.iter().any(|dynamic| dynamic.eq_ignore_ascii_case(name))
    };
    auto.lines().any(|line| overrides(&line)).then(|| {
        let kept = auto.lines().filter(|line| !overrides(line));
        kept.map(|line| format!("{line}\n")).collect()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn generated_file_is_read_back() {
        let dynamic =
            Dynamic { names: "FIRST 1 (\"b_4\")".into(), upstream: "host='a' app='x\\'y'".into(), generation: 9 };
        let text = text(Path::new("/etc/it's/postgresql.conf"), &dynamic);
        assert!(text.contains("include_if_exists '/etc/it''s/postgresql.conf'"));
        assert_eq!(parse(&text), Some(dynamic));
        assert_eq!(parse("port = 5432"), None);
    }

    #[test]
    fn overrides_are_removed() {
        let auto = "# Do not edit\nwork_mem = '4MB'\nsynchronous_standby_names = ''\nprimary_conninfo='x'\n";
        assert_eq!(without_overrides(auto).as_deref(), Some("# Do not edit\nwork_mem = '4MB'\n"));
        assert_eq!(without_overrides("work_mem = '4MB'\n"), None);
    }
}
