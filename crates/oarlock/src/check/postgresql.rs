//! PostgreSQL: programs, data directory, and settings that would break the promise that no
//! acknowledged write is lost.

use super::finding::Area;
use super::{Report, Subject};
use crate::agents::user::SystemUser;
use crate::config::PostgresqlSettings;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;
use tokio::net::UnixStream;
use tokio::process::Command;
use tokio::time::timeout;
use tokio_postgres::{NoTls, SimpleQueryMessage};

/// One program, or one statement.
const DEADLINE: Duration = Duration::from_secs(5);
/// Role and database of the agent's own sessions.
const ROLE: &str = "oarlock";
const DATABASE: &str = "postgres";
/// Programs that the agent runs.
const PROGRAMS: [&str; 5] = ["postgres", "initdb", "pg_basebackup", "pg_rewind", "pg_controldata"];
/// Settings that must have one of some values; without them writes are lost.
const NEEDED: [(&str, &[&str], &str); 3] = [
    ("synchronous_commit", &["on", "remote_apply"], "commits would be acknowledged that only this node has"),
    ("fsync", &["on"], "a crash of the machine would lose acknowledged commits"),
    ("full_page_writes", &["on"], "a crash of the machine could damage the data"),
];
/// One that should.
const WANTED: (&str, &[&str], &str) = (
    "max_prepared_transactions",
    &["0"],
    "prepared transactions keep their locks over a takeover until somebody ends them",
);

/// Checks one database of this node.
pub async fn check(subject: &Subject, name: &str, database: &PostgresqlSettings, report: &mut Report) {
    let mut area = report.area(&format!("postgresql \"{name}\""));
    let bin_dir = bin_dir(subject, database);
    let programs = programs(&bin_dir, database, &mut area).await;
    let user = match SystemUser::lookup(&database.user).await {
        Ok(user) => Some(user),
        Err(error) => {
            area.error(error.to_string(), "install PostgreSQL's server package on every node of the group");
            None
        }
    };
    let present = data_dir(database, user.as_ref(), &mut area);
    if let (true, true, Some(user)) = (programs, present, &user) {
        settings(subject, &bin_dir, database, user, &mut area).await;
    }
    if let Some(socket) = find_socket(&subject.run_dir, database.port) {
        match timeout(DEADLINE, live(&socket, &mut area)).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => area.warning(format!("cannot ask the running server: {error}"), "is this run as root?"),
            Err(_) => area.warning("the running server does not answer", "oarlock status; oarlock explain"),
        }
    }
}

/// Where the programs are by custom: Debian, then the vendor's packages for Red Hat, then Red Hat's own.
fn bin_dir(subject: &Subject, database: &PostgresqlSettings) -> PathBuf {
    if let Some(given) = &database.bin_dir {
        return given.clone();
    }
    let version = database.version;
    let usual = [format!("usr/lib/postgresql/{version}/bin"), format!("usr/pgsql-{version}/bin"), "usr/bin".to_owned()];
    let found = usual.iter().map(|path| subject.system(path)).find(|path| path.join("postgres").exists());
    found.unwrap_or_else(|| subject.system(&usual[0]))
}

async fn programs(bin_dir: &Path, database: &PostgresqlSettings, area: &mut Area<'_>) -> bool {
    let missing: Vec<&str> = PROGRAMS.into_iter().filter(|program| !bin_dir.join(program).exists()).collect();
    if !missing.is_empty() {
        area.error(
            format!("{} lacks {}", bin_dir.display(), missing.join(", ")),
            format!("install the server package of PostgreSQL {}, or set bin_dir", database.version),
        );
        return false;
    }
    let said = output(Command::new(bin_dir.join("postgres")).arg("--version")).await;
    // "postgres (PostgreSQL) 15.14 (Debian …)"
    let version =
        said.as_deref().and_then(|text| text.split_whitespace().nth(2)?.split('.').next()?.parse::<u16>().ok());
    match version {
        Some(version) if version == database.version => true,
        Some(version) => {
            area.error(
                format!("{} is PostgreSQL {version}, the configuration says {}", bin_dir.display(), database.version),
                "set version or bin_dir",
            );
            false
        }
        None => {
            area.error(format!("{}/postgres does not tell its version", bin_dir.display()), "is it damaged?");
            false
        }
    }
}

/// Whether there is data whose settings can be looked at.
fn data_dir(database: &PostgresqlSettings, user: Option<&SystemUser>, area: &mut Area<'_>) -> bool {
    let path = &database.data_dir;
    let Ok(metadata) = fs::metadata(path) else {
        let parent = path.parent().unwrap_or(Path::new("/"));
        if !parent.is_dir() {
            area.error(
                format!("{} does not exist, so no copy can be made in it", parent.display()),
                format!("make it, owned by {}", database.user),
            );
        }
        return false;
    };
    let parent_device = path.parent().and_then(|parent| fs::metadata(parent).ok()).map(|metadata| metadata.dev());
    if parent_device.is_some_and(|device| device != metadata.dev()) {
        area.error(
            format!("{} is a mount point: a new copy cannot take its place", path.display()),
            "mount the file system one level higher",
        );
    }
    if user.is_some_and(|user| user.uid != metadata.uid()) {
        area.error(
            format!("{} belongs to user {}, not to {}", path.display(), metadata.uid(), database.user),
            format!("chown -R {} {}", database.user, path.display()),
        );
    }
    let Ok(version) = fs::read_to_string(path.join("PG_VERSION")) else { return false };
    if version.trim() != database.version.to_string() {
        area.error(
            format!(
                "{} holds data of PostgreSQL {}, the configuration says {}",
                path.display(),
                version.trim(),
                database.version
            ),
            "pg_upgrade it first, or set version and data_dir",
        );
        return false;
    }
    true
}

/// The effective values of the administrator's configuration, as the server itself reads it.
async fn settings(
    subject: &Subject,
    bin_dir: &Path,
    database: &PostgresqlSettings,
    user: &SystemUser,
    area: &mut Area<'_>,
) {
    let debian = super::boot::debian_dir(subject, database).map(|directory| directory.join("postgresql.conf"));
    let config = database.config_file.clone().or(debian);
    for (name, good, why) in NEEDED.into_iter().chain([WANTED]) {
        let mut command = Command::new(bin_dir.join("postgres"));
        command.args(["-C", name, "-D"]).arg(&database.data_dir).current_dir("/");
        if let Some(config) = &config {
            command.arg("-c").arg(format!("config_file={}", config.display()));
        }
        // The server refuses to run as root, even for this.
        if rustix::process::geteuid().is_root() {
            command.uid(user.uid).gid(user.gid);
        }
        let Some(value) = output(&mut command).await else {
            area.warning(
                format!("cannot read \"{name}\" from the configuration of PostgreSQL"),
                "is it damaged? postgres -C shows what is wrong",
            );
            return;
        };
        if !good.contains(&value.trim()) {
            let text = format!("{name} is \"{}\" in the configuration: {why}", value.trim());
            let hint = format!("set {name} = {}", good[0]);
            if name == WANTED.0 { area.warning(text, hint) } else { area.error(text, hint) }
        }
    }
}

async fn output(command: &mut Command) -> Option<String> {
    let child = command.stdin(Stdio::null()).stderr(Stdio::null()).kill_on_drop(true).output();
    let output = timeout(DEADLINE, child).await.ok()?.ok()?;
    output.status.success().then(|| String::from_utf8_lossy(&output.stdout).into_owned())
}

/// The server's own socket in a directory of the agent's, at most two levels down.
fn find_socket(run_dir: &Path, port: u16) -> Option<PathBuf> {
    let name = format!(".s.PGSQL.{port}");
    let mut directories = vec![run_dir.to_owned()];
    for _ in 0..2 {
        let mut deeper = Vec::new();
        for directory in &directories {
            let socket = directory.join(&name);
            if socket.exists() {
                return Some(socket);
            }
            let entries = fs::read_dir(directory).into_iter().flatten().filter_map(Result::ok);
            deeper.extend(entries.map(|entry| entry.path()).filter(|path| path.is_dir()));
        }
        directories = deeper;
    }
    directories.iter().map(|directory| directory.join(&name)).find(|socket| socket.exists())
}

/// What only the running server knows.
async fn live(socket: &Path, area: &mut Area<'_>) -> Result<(), String> {
    let stream = UnixStream::connect(socket).await.map_err(|error| error.to_string())?;
    let mut config = tokio_postgres::Config::new();
    config.user(ROLE).dbname(DATABASE).application_name("oarlock check");
    let (client, connection) = config.connect_raw(stream, NoTls).await.map_err(|error| describe(&error))?;
    let driver = tokio::spawn(connection);
    let result = ask(&client, area).await;
    driver.abort();
    result
}

async fn ask(client: &tokio_postgres::Client, area: &mut Area<'_>) -> Result<(), String> {
    let opted_out = "select coalesce(r.rolname, '(every role)'), coalesce(d.datname, '(every database)'), c \
         from pg_db_role_setting s left join pg_roles r on r.oid = s.setrole \
         left join pg_database d on d.oid = s.setdatabase, unnest(s.setconfig) c \
         where c like 'synchronous_commit=%' and c not in ('synchronous_commit=on', 'synchronous_commit=remote_apply')";
    for [role, database, setting] in rows(client, opted_out).await? {
        area.error(
            format!("{setting} is set for role {role} in database {database}: what it commits may be lost"),
            "alter role … reset synchronous_commit, or alter database … reset synchronous_commit",
        );
    }
    let prepared = "select count(*), coalesce(min(gid), ''), '' from pg_prepared_xacts having count(*) > 0";
    for [count, first, _] in rows(client, prepared).await? {
        area.warning(
            format!("{count} prepared transactions (the first: \"{first}\") keep their locks over a takeover"),
            "commit prepared or rollback prepared",
        );
    }
    let unlogged = "select count(*), coalesce(min(c.oid::regclass::text), ''), '' from pg_class c \
         where relpersistence = 'u' and relkind = 'r' having count(*) > 0";
    for [count, first, _] in rows(client, unlogged).await? {
        area.warning(
            format!(
                "{count} unlogged tables in database \"{DATABASE}\" (the first: {first}) are empty after a takeover"
            ),
            "alter table … set logged, unless that is what they are for",
        );
    }
    let slots = "select slot_name, plugin, '' from pg_replication_slots where slot_type = 'logical' \
         and current_setting('server_version_num')::int < 170000";
    for [slot, plugin, _] in rows(client, slots).await? {
        area.warning(
            format!("logical slot \"{slot}\" ({plugin}) does not follow a takeover before PostgreSQL 17"),
            "its subscriber must be set up anew afterwards",
        );
    }
    Ok(())
}

async fn rows(client: &tokio_postgres::Client, sql: &str) -> Result<Vec<[String; 3]>, String> {
    let messages = client.simple_query(sql).await.map_err(|error| describe(&error))?;
    Ok(messages
        .iter()
        .filter_map(|message| match message {
            SimpleQueryMessage::Row(row) => {
                Some([0, 1, 2].map(|column| row.get(column).unwrap_or_default().to_owned()))
            }
            _ => None,
        })
        .collect())
}

fn describe(error: &tokio_postgres::Error) -> String {
    crate::causes::with_causes(error)
}
