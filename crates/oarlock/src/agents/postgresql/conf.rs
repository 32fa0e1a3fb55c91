//! The server's configuration: what is imposed on its command line, where nothing can override it,
//! and the generated file with the little that changes while it runs.

use super::settings::PgSettings;
use std::collections::BTreeMap;
use std::fmt::Write;
use std::path::Path;

/// The settings that change while the server runs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Dynamic {
    /// `synchronous_standby_names`.
    pub names: String,
    /// `primary_conninfo`; empty on a primary.
    pub upstream: String,
    /// `wal_retrieve_retry_interval`: [`SOON`], or [`PATIENTLY`] when the upstream is long gone,
    /// for each attempt writes two lines to the log.
    pub retry: String,
}

/// A standby tries again this soon: somebody may be waiting for it.
const SOON: &str = "100ms";
/// Nobody waits for it any more.
const PATIENTLY: &str = "5s";

impl Dynamic {
    pub fn new(names: &str, upstream: &str) -> Dynamic {
        Dynamic { names: names.to_owned(), upstream: upstream.to_owned(), retry: SOON.to_owned() }
    }

    /// The same for an upstream that is long gone, or is not.
    pub fn trying(self, patiently: bool) -> Dynamic {
        let retry = if patiently { PATIENTLY } else { SOON };
        Dynamic { retry: retry.to_owned(), ..self }
    }
}

/// Names in [`Dynamic`] that ALTER SYSTEM could override.
pub(super) const DYNAMIC_NAMES: [&str; 3] =
    ["synchronous_standby_names", "primary_conninfo", "wal_retrieve_retry_interval"];

/// A setting of our own that counts the files written, so that a session can tell whether one was
/// taken over.
pub(super) const GENERATION: &str = "oarlock.generation";

/// The text of the generated `postgresql.conf`, which includes `user` first.
pub(crate) fn text(user: &Path, dynamic: &Dynamic, generation: u64) -> String {
    let mut text = "# Written by oarlock, edits are lost.\n".to_owned();
    for (name, value) in DEFAULTS {
        let _ = writeln!(text, "{name} = {}", quoted(value));
    }
    let _ = writeln!(text, "include_if_exists {}", quoted(&user.display().to_string()));
    for (name, value) in DYNAMIC_NAMES.iter().zip([&dynamic.names, &dynamic.upstream, &dynamic.retry]) {
        let _ = writeln!(text, "{name} = {}", quoted(value));
    }
    let _ = writeln!(text, "{GENERATION} = {}", quoted(&generation.to_string()));
    text
}

/// Reads a generated file back, with its generation; `None` when it is not one.
pub(crate) fn parse(text: &str) -> Option<(Dynamic, u64)> {
    let value = |name: &str| {
        let line = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(" = '")?.strip_suffix('\''))?;
        Some(line.replace("''", "'").replace("\\\\", "\\"))
    };
    let [names, upstream, retry] = DYNAMIC_NAMES.map(value);
    let dynamic = Dynamic { names: names?, upstream: upstream?, retry: retry? };
    Some((dynamic, value(GENERATION)?.parse().ok()?))
}

/// A value as the configuration file wants it.
pub(crate) fn quoted(value: &str) -> String {
    format!("'{}'", value.replace('\\', "\\\\").replace('\'', "''"))
}

/// Better than PostgreSQL's defaults here; the administrator's file may say otherwise.
const DEFAULTS: [(&str, &str); 2] = [
    // After a crash every file is flushed before recovery; one by one that takes seconds.
    ("recovery_init_sync_method", "syncfs"),
    // Connections that stay free for us and the administrator when clients took all others.
    ("superuser_reserved_connections", "8"),
];

/// Settings that a standby must have at least as high as its primary had, else it cannot replay.
pub(super) const REPLAY_LIMITS: [&str; 5] = [
    "max_connections",
    "max_worker_processes",
    "max_wal_senders",
    "max_prepared_transactions",
    "max_locks_per_transaction",
];

/// The settings of the command line. `sockets` is the administrator's own list of socket
/// directories; `raised` are settings that must be higher than in the administrator's file.
pub(super) fn imposed(
    settings: &PgSettings,
    sockets: &str,
    raised: &BTreeMap<&'static str, u64>,
) -> Vec<(&'static str, String)> {
    let run = |name: &str| settings.run_dir.join(name).display().to_string();
    let ms = |duration: std::time::Duration| format!("{}ms", duration.as_millis());
    let ours = format!("\"{}\"", settings.run_dir.display());
    let sockets = if sockets.is_empty() { ours } else { format!("{ours},{sockets}") };
    let mut list: Vec<(&'static str, String)> = vec![
        ("config_file", run("postgresql.conf")),
        ("hba_file", run("pg_hba.conf")),
        ("ident_file", run("pg_ident.conf")),
        ("data_directory", settings.data_dir.display().to_string()),
        ("unix_socket_directories", sockets),
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
        // A reader's conflict holds up replay, and with it a promotion.
        ("max_standby_streaming_delay", ms(settings.timing.statement)),
        ("max_standby_archive_delay", ms(settings.timing.statement)),
        ("tcp_keepalives_idle", "10s".into()),
        ("tcp_keepalives_interval", "2s".into()),
        ("tcp_keepalives_count", "3".into()),
        ("tcp_user_timeout", "10s".into()),
    ];
    list.extend(raised.iter().map(|(name, value)| (*name, value.to_string())));
    list
}

/// `postgresql.auto.conf` without the settings that would override [`Dynamic`]; `None` when there
/// are none in it.
pub(crate) fn without_overrides(auto: &str) -> Option<String> {
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
        let dynamic = Dynamic::new("FIRST 1 (\"b_4\")", "host='a' app='x\\'y'").trying(true);
        let text = text(Path::new("/etc/it's/postgresql.conf"), &dynamic, 9);
        assert!(text.contains("include_if_exists '/etc/it''s/postgresql.conf'"));
        assert_eq!(parse(&text), Some((dynamic, 9)));
        assert_eq!(parse("port = 5432"), None);
    }

    #[test]
    fn overrides_are_removed() {
        let auto = "# Do not edit\nwork_mem = '4MB'\nsynchronous_standby_names = ''\nprimary_conninfo='x'\n";
        assert_eq!(without_overrides(auto).as_deref(), Some("# Do not edit\nwork_mem = '4MB'\n"));
        assert_eq!(without_overrides("work_mem = '4MB'\n"), None);
    }
}
