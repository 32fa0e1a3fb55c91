//! MariaDB: programs, data directory, settings, what starts it beside us, and accounts that could
//! have a row acknowledged that no standby has.

use super::finding::Area;
use super::{Report, Subject};
use crate::agents::distribution::{MARIADB_TOOLS, mariadb_config, mariadb_server, mariadb_tools};
use crate::agents::user::SystemUser;
use crate::config::{MariadbSettings, MariadbVersion};
use mysql_async::prelude::Queryable;
use mysql_async::{Conn, OptsBuilder};
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;
use tokio::process::Command;
use tokio::time::timeout;

/// One program, or one statement.
const DEADLINE: Duration = Duration::from_secs(5);
/// The account of the agent's own sessions.
const ADMIN: &str = "root";
/// Units of the distributions that start the server at boot.
const UNITS: [&str; 3] = ["mariadb.service", "mysql.service", "mysqld.service"];
/// Who may end another's statement, and with it have its row acknowledged, which no standby has.
const MAY_KILL: &str = "select distinct grantee from information_schema.user_privileges \
    where privilege_type in ('SUPER', 'CONNECTION ADMIN')";
/// Who may write on a standby although it is read-only.
const MAY_WRITE: &str = "select distinct grantee from information_schema.user_privileges \
    where privilege_type in ('SUPER', 'READ_ONLY ADMIN', 'READ ONLY ADMIN')";
/// Tables that neither replicate safely nor survive a crash; the server's own are not meant.
const OTHER_ENGINES: &str = "select concat(table_schema, '.', table_name) from information_schema.tables \
    where engine is not null and engine <> 'InnoDB' and table_type = 'BASE TABLE' \
    and table_schema not in ('mysql', 'sys', 'information_schema', 'performance_schema')";

/// Checks one database of this node.
pub async fn check(subject: &Subject, name: &str, database: &MariadbSettings, report: &mut Report) {
    let mut area = report.area(&format!("mariadb \"{name}\""));
    programs(subject, database, &mut area).await;
    let user = match SystemUser::lookup(&database.user).await {
        Ok(user) => Some(user),
        Err(error) => {
            area.error(error.to_string(), "install MariaDB's server package on every node of the group");
            None
        }
    };
    data_dir(database, user.as_ref(), &mut area);
    settings(subject, database, &mut area);
    if let Some(socket) = find_socket(&subject.run_dir, name) {
        match timeout(DEADLINE, live(&socket, &mut area)).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => area.warning(format!("cannot ask the running server: {error}"), "is this run as root?"),
            Err(_) => area.warning("the running server does not answer", "oarlock status; oarlock explain"),
        }
    }
    drop(area);
    boot(subject, report);
}

async fn programs(subject: &Subject, database: &MariadbSettings, area: &mut Area<'_>) {
    let server = mariadb_server(database, &subject.root);
    let tools = mariadb_tools(database, &subject.root);
    let tools = MARIADB_TOOLS.map(|tool| tools.join(tool));
    let all = std::iter::once(&server).chain(&tools);
    let missing: Vec<String> = all.filter(|path| !path.exists()).map(|path| path.display().to_string()).collect();
    if !missing.is_empty() {
        area.error(
            format!("this machine lacks {}", missing.join(", ")),
            "install mariadb-server and mariadb-backup, or set bin_dir",
        );
    }
    if !server.exists() {
        return;
    }
    let said = output(Command::new(&server).arg("--no-defaults").arg("--version")).await;
    match said.as_deref().and_then(version) {
        Some(found) if found == database.version => {}
        Some(found) => area.error(
            format!("{} is MariaDB {found}, the configuration says {}", server.display(), database.version),
            "set version or bin_dir",
        ),
        None => area.error(format!("{} does not tell its version", server.display()), "is it MariaDB's?"),
    }
}

/// The version in "mariadbd  Ver 10.11.19-MariaDB-0+deb12u1 for debian-linux-gnu …"; `None` of what is
/// not MariaDB.
fn version(said: &str) -> Option<MariadbVersion> {
    let word = said.split_whitespace().skip_while(|word| *word != "Ver").nth(1)?;
    let mut numbers = word.split_once("-MariaDB")?.0.split('.');
    Some(MariadbVersion { major: numbers.next()?.parse().ok()?, minor: numbers.next()?.parse().ok()? })
}

fn data_dir(database: &MariadbSettings, user: Option<&SystemUser>, area: &mut Area<'_>) {
    let path = &database.data_dir;
    let parent = path.parent().unwrap_or(Path::new("/"));
    let Ok(metadata) = fs::metadata(path) else {
        if !parent.is_dir() {
            area.error(format!("{} does not exist, so no copy can be made in it", parent.display()), "make it");
        }
        return;
    };
    if fs::metadata(parent).is_ok_and(|parent| parent.dev() != metadata.dev()) {
        area.error(
            format!("{} is a mount point: a new copy cannot take its place", path.display()),
            "mount the file system one level higher, and set data_dir to a directory in it",
        );
    }
    if user.is_some_and(|user| user.uid != metadata.uid()) {
        area.error(
            format!("{} belongs to user {}, not to {}", path.display(), metadata.uid(), database.user),
            format!("chown -R {0}:{0} {1}", database.user, path.display()),
        );
    }
}

/// Settings of the administrator's that oarlock overrules, where that may surprise.
fn settings(subject: &Subject, database: &MariadbSettings, area: &mut Area<'_>) {
    let Some(file) = mariadb_config(database, &subject.root) else { return };
    let Ok(text) = fs::read_to_string(&file) else {
        area.warning(
            format!("{} cannot be read", file.display()),
            format!("the server, user {}, must be able to read it", database.user),
        );
        return;
    };
    if sets(&text, "init_connect") {
        area.warning(
            format!("{} sets init_connect: it is not used, oarlock shuts clients out with it", file.display()),
            "set what it does where the client connects",
        );
    }
}

/// Whether an option file sets an option, written either way.
fn sets(text: &str, option: &str) -> bool {
    let dashed = option.replace('_', "-");
    text.lines().any(|line| {
        let name = line.split('=').next().unwrap_or_default().trim();
        let name = name.strip_prefix("loose-").or_else(|| name.strip_prefix("loose_")).unwrap_or(name);
        name == option || name == dashed
    })
}

/// The server's own socket, in the agent's directory of a resource: `GROUP-NAME`.
fn find_socket(run_dir: &Path, name: &str) -> Option<PathBuf> {
    let entries = fs::read_dir(run_dir).ok()?.filter_map(Result::ok);
    let own = entries.filter(|entry| entry.file_name().to_string_lossy().ends_with(&format!("-{name}")));
    own.map(|entry| entry.path().join("mariadb.sock")).find(|socket| socket.exists())
}

/// What only the running server knows.
async fn live(socket: &Path, area: &mut Area<'_>) -> Result<(), String> {
    let options = OptsBuilder::default().socket(Some(socket.display().to_string())).user(Some(ADMIN));
    let failed = |error: mysql_async::Error| crate::causes::with_causes(&error);
    let mut server = Conn::new(options).await.map_err(failed)?;
    let kill: Vec<String> = server.query(MAY_KILL).await.map_err(failed)?;
    let kill = people(kill);
    if !kill.is_empty() {
        area.warning(
            format!(
                "{} may KILL: a client that waits for the standby is then told its row is safe, or others see it",
                kill.join(", ")
            ),
            "revoke super, connection admin on *.* from …; else KILL nobody whose statement waits for the standby",
        );
    }
    let write: Vec<String> = server.query(MAY_WRITE).await.map_err(failed)?;
    let write = people(write);
    if !write.is_empty() {
        area.warning(
            format!("{} may write on a standby: what is written there stops replication", write.join(", ")),
            "revoke super, read only admin on *.* from …",
        );
    }
    let tables: Vec<String> = server.query(OTHER_ENGINES).await.map_err(failed)?;
    if let Some(first) = tables.first() {
        area.error(
            format!(
                "{} tables are not InnoDB (the first: {first}): a takeover may lose or double rows of theirs",
                tables.len()
            ),
            "alter table … engine=InnoDB",
        );
    }
    server.disconnect().await.map_err(failed)
}

/// Accounts that are neither the server's nor ours.
fn people(grantees: Vec<String>) -> Vec<String> {
    const KNOWN: [&str; 3] = ["'root'@'localhost'", "'mysql'@'localhost'", "'mariadb.sys'@'localhost'"];
    let is_ours = |grantee: &String| KNOWN.contains(&grantee.as_str()) || grantee.starts_with("'oarlock_");
    grantees.into_iter().filter(|grantee| !is_ours(grantee)).collect()
}

/// Checks what starts a server beside us.
fn boot(subject: &Subject, report: &mut Report) {
    let mut area = report.area("boot");
    for unit in UNITS {
        let masked = subject.system(&format!("etc/systemd/system/{unit}"));
        if fs::read_link(masked).is_ok_and(|target| target == Path::new("/dev/null")) {
            continue;
        }
        let wanted = subject.system(&format!("etc/systemd/system/multi-user.target.wants/{unit}"));
        if wanted.symlink_metadata().is_ok() {
            area.error(
                format!("{unit} is enabled: the system starts a database at boot, beside oarlock"),
                format!("systemctl disable {unit}, and systemctl mask it, so that an upgrade does not start it either"),
            );
        }
    }
}

async fn output(command: &mut Command) -> Option<String> {
    let child = command.stdin(Stdio::null()).stderr(Stdio::null()).kill_on_drop(true).output();
    let output = timeout(DEADLINE, child).await.ok()?.ok()?;
    output.status.success().then(|| String::from_utf8_lossy(&output.stdout).into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_version_is_read_and_another_product_is_not_taken_for_it() {
        let said = "/usr/sbin/mariadbd  Ver 10.11.19-MariaDB-0+deb12u1 for debian-linux-gnu on x86_64 (Debian 12)";
        assert_eq!(version(said), Some(MariadbVersion { major: 10, minor: 11 }));
        assert_eq!(version("mysqld  Ver 8.0.36 for Linux on x86_64 (MySQL Community Server - GPL)"), None);
        assert_eq!(version(""), None);
    }

    #[test]
    fn options_are_found_however_they_are_written() {
        assert!(sets("[mariadbd]\ninit-connect = 'set names x'\n", "init_connect"));
        assert!(sets("loose_init_connect=x", "init_connect"));
        assert!(!sets("# init_connect=x\ninit_connect_x=y\n", "init_connect"));
    }

    #[test]
    fn only_people_are_told_of() {
        let grantees = ["'root'@'localhost'", "'oarlock_3_2'@'%'", "'dba'@'%'"].map(str::to_owned);
        assert_eq!(people(grantees.to_vec()), ["'dba'@'%'"]);
    }
}
