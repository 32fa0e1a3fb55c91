//! The layer of configuration files between the Debian root and the hosts' own layers: quick to
//! write anew at each `lab up`, where the root is slow to build.

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown, symlink};
use std::path::Path;

use anyhow::{Context, Result};

use crate::cgroup::Hierarchy;
use crate::layout::{NETWORK, Part};
use crate::state::{Engine, Shape};
use crate::suite::Suite;

const BOOT: &str = include_str!("../assets/lab-boot.sh");
const AGENT: &str = include_str!("../assets/lab-agent.sh");
/// Passwords of the throw-away databases in the lab.
pub const OAR_PASSWORD: &str = "oar";
/// Password of OAR's read-only role.
pub const OAR_RO_PASSWORD: &str = "oar_ro";

/// Writes the layer for hosts of `shape` over `root` into the empty directory `layer`.
pub fn write(layer: &Path, root: &Path, shape: Shape, hierarchies: &[Hierarchy]) -> Result<()> {
    for dir in ["etc/lab", "etc/oar", "usr/local/sbin", "usr/sbin"] {
        fs::create_dir_all(layer.join(dir))?;
    }
    text(&layer.join("etc/hosts"), &shape.layout.etc_hosts(), 0o644)?;
    let database = shape.layout.group(Part::Database).name;
    text(&layer.join("etc/lab/database-group"), &format!("{database}\n"), 0o644)?;
    text(&layer.join("usr/local/sbin/lab-boot"), BOOT, 0o755)?;
    text(&layer.join("usr/local/sbin/lab-agent"), AGENT, 0o755)?;
    for program in ["oarlock", "oarlock-lab"] {
        symlink(format!("/opt/oarlock/{program}"), layer.join("usr/sbin").join(program))?;
    }
    match shape.db {
        Engine::Postgresql => postgresql(layer, root, shape.suite.postgresql())?,
        Engine::Mariadb => mariadb(layer, root)?,
    }
    oar_conf(layer, root, shape, hierarchies)
}

/// The administrator's own PostgreSQL files, in Debian's layout, and a place for the data.
fn postgresql(layer: &Path, root: &Path, version: &str) -> Result<()> {
    let home = fs::metadata(root.join("var/lib/postgresql"))?;
    let data = layer.join("var/lib/postgresql").join(version);
    let etc = layer.join("etc/postgresql").join(version).join("main");
    for dir in [&data, &etc] {
        fs::create_dir_all(dir)?;
    }
    let port = Engine::Postgresql.port();
    let conf = format!(
        "data_directory = '/var/lib/postgresql/{version}/main'\n\
         hba_file = '/etc/postgresql/{version}/main/pg_hba.conf'\n\
         ident_file = '/etc/postgresql/{version}/main/pg_ident.conf'\n\
         external_pid_file = '/var/run/postgresql/{version}-main.pid'\n\
         port = {port}\nunix_socket_directories = '/var/run/postgresql'\n"
    );
    let hba = format!(
        "local all postgres peer\nlocal all all peer\nhost all all {NETWORK} scram-sha-256\nhost all all 127.0.0.1/32 scram-sha-256\n"
    );
    for (file, content) in [("postgresql.conf", conf), ("pg_hba.conf", hba), ("pg_ident.conf", String::new())] {
        text(&etc.join(file), &content, 0o640)?;
        chown(etc.join(file), Some(home.uid()), Some(home.gid()))?;
    }
    for dir in [layer.join("var/lib/postgresql"), data, layer.join("etc/postgresql").join(version), etc] {
        chown(&dir, Some(home.uid()), Some(home.gid()))
            .with_context(|| format!("cannot give {} to postgres", dir.display()))?;
    }
    Ok(())
}

/// The administrator's own MariaDB file, and what he mends of OAR's package before he makes its tables:
/// `oarlock check` tells him the same two things, and the mode.
fn mariadb(layer: &Path, root: &Path) -> Result<()> {
    let etc = layer.join("etc/mysql/mariadb.conf.d");
    let database = "usr/lib/oar/database";
    for dir in [&etc, &layer.join(database)] {
        fs::create_dir_all(dir)?;
    }
    let conf = "[mariadbd]\n\
        # OAR 2.5 writes dates that other modes refuse.\n\
        sql_mode = NO_ENGINE_SUBSTITUTION\n\
        innodb_buffer_pool_size = 64M\ninnodb_log_file_size = 32M\n";
    text(&etc.join("60-lab.cnf"), conf, 0o644)?;
    let mended = |file: &str, mend: fn(&str) -> String| {
        let source = root.join(database).join(file);
        let shipped = fs::read_to_string(&source).with_context(|| format!("cannot read {}", source.display()))?;
        text(&layer.join(database).join(file), &mend(&shipped), 0o644)
    };
    // A reserved word as the name of a column.
    mended("mysql_structure.sql", |shipped| shipped.replace("\nforce ", "\n`force` "))?;
    // Two backslashes before a quotation mark end the quotation there; three do not.
    mended("mysql_default_admission_rules.sql", |shipped| {
        shipped.replace("\\\\\\'", "\0").replace("\\\\'", "\\\\\\'").replace('\0', "\\\\\\'")
    })
}

/// OAR's configuration: the package's own, with the database and server behind the names of their services.
fn oar_conf(layer: &Path, root: &Path, shape: Shape, hierarchies: &[Hierarchy]) -> Result<()> {
    let source = root.join("etc/oar/oar.conf");
    let shipped = fs::read_to_string(&source).with_context(|| format!("cannot read {}", source.display()))?;
    let port = shape.db.port().to_string();
    let kind = match shape.db {
        Engine::Postgresql => "Pg",
        Engine::Mariadb => "mysql",
    };
    let mut settings = vec![
        ("DB_TYPE", Some(kind)),
        ("DB_HOSTNAME", Some(shape.layout.group(Part::Database).service)),
        ("DB_PORT", Some(port.as_str())),
        ("DB_BASE_PASSWD", Some(OAR_PASSWORD)),
        ("DB_BASE_PASSWD_RO", Some(OAR_RO_PASSWORD)),
        ("SERVER_HOSTNAME", Some(shape.layout.group(Part::Oar).service)),
        ("DETACH_JOB_FROM_SERVER", Some("1")),
    ];
    if shape.suite == Suite::Trixie || !hierarchies.iter().any(|h| h.name == "cpuset") {
        // OAR 2.6 confines jobs through systemd, which a lab host does not run; OAR 2.5 needs the
        // v1 cpuset controller, which a machine with only the unified hierarchy does not have.
        settings.push(("JOB_RESOURCE_MANAGER_PROPERTY_DB_FIELD", None));
    }
    let target = layer.join("etc/oar/oar.conf");
    text(&target, &replace(&shipped, &settings), 0o600)?;
    let owner = fs::metadata(&source)?;
    chown(&target, Some(owner.uid()), Some(owner.gid())).context("cannot give oar.conf to oar")
}

/// `shipped` with each setting's line replaced, appended where there is none, or commented out.
fn replace(shipped: &str, settings: &[(&str, Option<&str>)]) -> String {
    let is = |line: &str, key: &str| line.strip_prefix(key).is_some_and(|rest| rest.starts_with('='));
    let mut text: String = shipped
        .lines()
        .filter(|line| !settings.iter().any(|(key, _)| is(line, key)))
        .map(|line| format!("{line}\n"))
        .collect();
    for (key, value) in settings {
        if let Some(value) = value {
            text += &format!("{key}=\"{value}\"\n");
        }
    }
    text
}

fn text(path: &Path, text: &str, mode: u32) -> Result<()> {
    fs::write(path, text)
        .and_then(|()| fs::set_permissions(path, fs::Permissions::from_mode(mode)))
        .with_context(|| format!("cannot write {}", path.display()))
}

#[cfg(test)]
mod tests {
    #[test]
    fn settings_replace_only_their_own_lines() {
        let shipped = "# DB_TYPE=\"mysql\"\nDB_TYPE=\"Pg\"\nDB_TYPES=\"kept\"\nGONE=\"1\"\n";
        let settings = [("DB_TYPE", Some("x")), ("GONE", None), ("NEW", Some("y"))];
        assert_eq!(
            super::replace(shipped, &settings),
            "# DB_TYPE=\"mysql\"\nDB_TYPES=\"kept\"\nDB_TYPE=\"x\"\nNEW=\"y\"\n"
        );
    }
}
