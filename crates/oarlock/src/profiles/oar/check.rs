//! OAR's part of `oarlock check`: what makes an OAR server lose jobs, hang or start twice when it
//! changes hosts.

use super::conf::OarConf;
use super::mariadb;
use super::repair::OAR_USER;
use crate::agents::user::SystemUser;
use crate::causes::with_causes;
use std::fs;
use std::net::IpAddr;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// How long a name may take to be resolved.
const RESOLVE_DEADLINE: Duration = Duration::from_secs(2);

/// How bad it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Severity {
    /// A takeover will not work.
    Error,
    /// A takeover works, with a disadvantage.
    Warning,
}

/// Something an administrator should mend.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    /// How bad.
    pub severity: Severity,
    /// What is wrong.
    pub text: String,
    /// What to do.
    pub hint: String,
}

impl Finding {
    pub(super) fn error(text: impl Into<String>, hint: impl Into<String>) -> Finding {
        Finding { severity: Severity::Error, text: text.into(), hint: hint.into() }
    }

    pub(super) fn warning(text: impl Into<String>, hint: impl Into<String>) -> Finding {
        Finding { severity: Severity::Warning, text: text.into(), hint: hint.into() }
    }
}

/// What is looked at on one machine.
#[derive(Clone, Debug)]
struct Facts {
    conf_file: PathBuf,
    conf: OarConf,
    /// Defects of the package that matter for its engine.
    defects: Vec<Finding>,
    /// The `sql_mode` of its sessions, where the database is MariaDB and answers.
    sql_mode: Option<String>,
    /// Permission bits of the configuration.
    mode: u32,
    /// Its owner.
    owner: u32,
    /// The number of the user `oar`.
    oar: Option<u32>,
    /// What starts the server at boot, in words.
    started_by: Option<String>,
    /// What `DB_HOSTNAME` and `SERVER_HOSTNAME` stand for.
    database: Vec<IpAddr>,
    server: Vec<IpAddr>,
}

/// Where OAR's parts are reached: addresses that move with them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Services {
    /// With its database.
    pub database: Vec<IpAddr>,
    /// With the server.
    pub server: Vec<IpAddr>,
}

/// Looks at this machine; `root` is `/`.
pub async fn check(root: &Path, conf_file: &Path, services: &Services) -> Vec<Finding> {
    let conf = match OarConf::read(conf_file).await {
        Ok(conf) => conf,
        Err(error) => {
            return vec![Finding::error(with_causes(&error), "install oar-server on every server of the group")];
        }
    };
    let metadata = fs::metadata(conf_file).ok();
    let facts = Facts {
        conf_file: conf_file.to_owned(),
        mode: metadata.as_ref().map_or(0, MetadataExt::mode) & 0o7777,
        owner: metadata.as_ref().map_or(0, MetadataExt::uid),
        oar: SystemUser::lookup(OAR_USER).await.ok().map(|user| user.uid),
        started_by: started_at_boot(root),
        database: resolve(conf.get("DB_HOSTNAME")).await,
        server: resolve(conf.get("SERVER_HOSTNAME")).await,
        defects: mariadb::defects(root, &conf),
        sql_mode: mariadb::sql_mode(&conf).await,
        conf,
    };
    judge(&facts, services)
}

async fn resolve(name: Option<&str>) -> Vec<IpAddr> {
    let Some(name) = name else { return Vec::new() };
    match tokio::time::timeout(RESOLVE_DEADLINE, tokio::net::lookup_host((name.trim(), 0))).await {
        Ok(Ok(found)) => found.map(|address| address.ip()).collect(),
        Ok(Err(_)) | Err(_) => Vec::new(),
    }
}

fn judge(facts: &Facts, services: &Services) -> Vec<Finding> {
    let mut findings = Vec::new();
    judge_values(facts, &mut findings);
    judge_hosts(facts, services, &mut findings);
    judge_file(facts, &mut findings);
    findings.extend(facts.defects.iter().cloned());
    findings.extend(facts.sql_mode.as_deref().and_then(mariadb::judge_sql_mode));
    if let Some(starter) = &facts.started_by {
        findings.push(Finding::error(
            format!("{starter} starts the oar server at boot and at package upgrades, also beside a server elsewhere"),
            "set OAR_SERVER_NO_START_STOP=1 in /etc/default/oar-server",
        ));
    }
    findings
}

fn judge_values(facts: &Facts, findings: &mut Vec<Finding>) {
    let conf = &facts.conf;
    if !conf.detaches_jobs() {
        let value = conf.get("DETACH_JOB_FROM_SERVER").map_or("not set".to_owned(), |value| format!("\"{value}\""));
        findings.push(Finding::error(
            format!("DETACH_JOB_FROM_SERVER is {value}: a job that runs during a takeover never ends"),
            "set DETACH_JOB_FROM_SERVER=\"1\" in oar.conf on all servers",
        ));
    }
    for key in ["DB_BASE_PASSWD", "DB_BASE_PASSWD_RO"] {
        if conf.get(key).is_none() {
            findings.push(Finding::error(
                format!("{key} is empty: oar cannot log in to its database, and its commands hang instead of failing"),
                "set it in oar.conf on all servers and in the database",
            ));
        }
    }
    for error in [conf.database().err(), conf.server_port().err()].into_iter().flatten() {
        let text = error.to_string();
        let (text, hint) = text.split_once("; hint: ").unwrap_or((&text, ""));
        findings.push(Finding::error(text, hint));
    }
    for key in conf.shell_differs() {
        if key.starts_with("DB_") || key.starts_with("SERVER_") {
            findings.push(Finding::warning(
                format!("{key} is read differently by oar's perl programs and its shell scripts"),
                "write it as KEY=\"value\", without the characters # $ ` \\ and \" in the value",
            ));
        }
    }
}

fn judge_hosts(facts: &Facts, services: &Services, findings: &mut Vec<Finding>) {
    for (key, found, service) in
        [("DB_HOSTNAME", &facts.database, &services.database), ("SERVER_HOSTNAME", &facts.server, &services.server)]
    {
        let Some(value) = facts.conf.get(key).map(str::trim) else { continue };
        let wrong = if found.is_empty() {
            Some("cannot be resolved on this machine".to_owned())
        } else if found.iter().any(|address| !service.contains(address)) {
            let found: Vec<String> = found.iter().map(ToString::to_string).collect();
            Some(format!(
                "is {}, not a service address of its group: it does not move with what it names",
                found.join(", ")
            ))
        } else {
            None
        };
        if let Some(wrong) = wrong {
            let service: Vec<String> = service.iter().map(ToString::to_string).collect();
            findings.push(Finding::error(
                format!("{key} \"{value}\" {wrong}"),
                format!("use {} or a name for it that /etc/hosts knows on all machines", service.join(" or ")),
            ));
        }
    }
}

fn judge_file(facts: &Facts, findings: &mut Vec<Finding>) {
    let file = facts.conf_file.display();
    if facts.mode & 0o077 != 0 {
        findings.push(Finding::error(
            format!("{file} has mode {:04o}: others can read its passwords", facts.mode),
            format!("chmod 0600 {file}"),
        ));
    }
    match facts.oar {
        None => findings.push(Finding::error("there is no user \"oar\" on this machine", "install oar-server")),
        Some(oar) if oar != facts.owner => findings.push(Finding::error(
            format!("{file} belongs to user {}, not to oar ({oar}): the server cannot read it", facts.owner),
            format!("chown oar:root {file}"),
        )),
        Some(_) => {}
    }
}

/// What starts the server at boot, unless its init script is told not to.
fn started_at_boot(root: &Path) -> Option<String> {
    let defaults = fs::read_to_string(root.join("etc/default/oar-server")).unwrap_or_default();
    if OarConf::parse(&defaults).get("OAR_SERVER_NO_START_STOP").is_some() {
        return None;
    }
    let unit = root.join("etc/systemd/system/oar-server.service");
    if fs::read_link(unit).is_ok_and(|target| target == Path::new("/dev/null")) {
        return None;
    }
    if root.join("etc/systemd/system/multi-user.target.wants/oar-server.service").symlink_metadata().is_ok() {
        return Some("the systemd unit oar-server.service".to_owned());
    }
    let mut links = (2..=5).filter_map(|level| {
        let directory = fs::read_dir(root.join(format!("etc/rc{level}.d"))).ok()?;
        let mut names = directory.flatten().filter_map(|entry| entry.file_name().into_string().ok());
        names.find(|name| name.starts_with('S') && name.ends_with("oar-server"))
    });
    links.next().map(|_| "the init script oar-server".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    const SERVICE: [IpAddr; 1] = [IpAddr::V4(std::net::Ipv4Addr::new(10, 0, 0, 100))];
    const GOOD: &str = "DB_TYPE=\"Pg\"\nDB_HOSTNAME=\"oar\"\nDB_PORT=\"5432\"\nDB_BASE_NAME=\"oar\"\n\
        DB_BASE_LOGIN=\"oar\"\nDB_BASE_PASSWD=\"a\"\nDB_BASE_PASSWD_RO=\"b\"\nSERVER_HOSTNAME=\"oar\"\n\
        SERVER_PORT=\"6666\"\nDETACH_JOB_FROM_SERVER=\"1\"\n";

    fn services() -> Services {
        Services { database: SERVICE.to_vec(), server: SERVICE.to_vec() }
    }

    #[test]
    fn each_name_must_be_the_address_of_its_own_group() {
        let elsewhere = vec![IpAddr::from([10, 0, 0, 200])];
        let apart = Services { database: elsewhere.clone(), server: SERVICE.to_vec() };
        assert_eq!(judge(&Facts { database: elsewhere, ..facts(GOOD) }, &apart), []);
        let wrong = judge(&facts(GOOD), &apart);
        assert!(wrong.len() == 1 && wrong[0].text.starts_with("DB_HOSTNAME"), "{wrong:?}");
        assert!(wrong[0].hint.contains("10.0.0.200"), "{wrong:?}");
    }

    fn facts(conf: &str) -> Facts {
        Facts {
            conf_file: "/etc/oar/oar.conf".into(),
            conf: OarConf::parse(conf),
            defects: Vec::new(),
            sql_mode: None,
            mode: 0o600,
            owner: 102,
            oar: Some(102),
            started_by: None,
            database: SERVICE.to_vec(),
            server: SERVICE.to_vec(),
        }
    }

    /// The beginnings of what is found, enough to tell findings apart.
    fn found(facts: &Facts) -> Vec<String> {
        let start = |finding: Finding| finding.text.split(':').next().unwrap_or_default().to_owned();
        judge(facts, &services()).into_iter().map(start).collect()
    }

    #[test]
    fn a_good_machine_has_no_findings() {
        assert_eq!(judge(&facts(GOOD), &services()), []);
    }

    #[test]
    fn bad_values_are_found() {
        for (from, to, expected) in [
            ("SERVER=\"1\"", "SERVER=\"0\"", "DETACH_JOB_FROM_SERVER is \"0\""),
            ("DETACH_JOB_FROM_SERVER=\"1\"", "", "DETACH_JOB_FROM_SERVER is not set"),
            ("PASSWD=\"a\"", "PASSWD=\"\"", "DB_BASE_PASSWD is empty"),
            ("PASSWD_RO=\"b\"", "PASSWD_RO=", "DB_BASE_PASSWD_RO is empty"),
            ("\"Pg\"", "\"oracle\"", "DB_TYPE is \"oracle\" in the configuration of oar"),
            ("\"6666\"", "\"x\"", "SERVER_PORT is \"x\" in the configuration of oar"),
            (
                "PASSWD=\"a\"",
                "PASSWD=\"a$b\"",
                "DB_BASE_PASSWD is read differently by oar's perl programs and its shell scripts",
            ),
        ] {
            assert!(GOOD.contains(from), "{from}");
            assert_eq!(found(&facts(&GOOD.replace(from, to))), [expected], "{to}");
        }
    }

    #[test]
    fn hosts_that_do_not_move_are_found() {
        let mut facts = facts(GOOD);
        facts.database = vec!["127.0.0.1".parse().unwrap()];
        facts.server = vec![];
        let findings = judge(&facts, &services());
        let texts: Vec<&str> = findings.iter().map(|finding| finding.text.as_str()).collect();
        assert_eq!(
            texts,
            [
                "DB_HOSTNAME \"oar\" is 127.0.0.1, not a service address of its group: it does not move with what it names",
                "SERVER_HOSTNAME \"oar\" cannot be resolved on this machine",
            ]
        );
        assert_eq!(findings[0].hint, "use 10.0.0.100 or a name for it that /etc/hosts knows on all machines");
    }

    #[test]
    fn a_configuration_that_others_read_or_oar_cannot_is_found() {
        let (mode, owner, oar) = (0o644, 0, None);
        assert_eq!(found(&Facts { mode, ..facts(GOOD) }), ["/etc/oar/oar.conf has mode 0644"]);
        let expected = ["/etc/oar/oar.conf belongs to user 0, not to oar (102)"];
        assert_eq!(found(&Facts { owner, ..facts(GOOD) }), expected);
        assert_eq!(found(&Facts { oar, ..facts(GOOD) }), ["there is no user \"oar\" on this machine"]);
    }

    #[test]
    fn a_server_started_at_boot_is_found() {
        let root = tempfile::tempdir().unwrap();
        let path = |name: &str| root.path().join(name);
        assert_eq!(started_at_boot(root.path()), None);
        fs::create_dir_all(path("etc/rc2.d")).unwrap();
        fs::create_dir_all(path("etc/default")).unwrap();
        fs::write(path("etc/rc2.d/S01oar-server"), "").unwrap();
        fs::write(path("etc/default/oar-server"), "#OAR_SERVER_NO_START_STOP=1\n").unwrap();
        assert_eq!(started_at_boot(root.path()).as_deref(), Some("the init script oar-server"));
        fs::write(path("etc/default/oar-server"), "OAR_SERVER_NO_START_STOP=1\n").unwrap();
        assert_eq!(started_at_boot(root.path()), None);
        fs::remove_file(path("etc/default/oar-server")).unwrap();
        fs::create_dir_all(path("etc/systemd/system")).unwrap();
        std::os::unix::fs::symlink("/dev/null", path("etc/systemd/system/oar-server.service")).unwrap();
        assert_eq!(started_at_boot(root.path()), None);
    }

    #[tokio::test]
    async fn a_machine_without_oar_is_told_so() {
        let findings = check(Path::new("/no/such/root"), Path::new("/no/such/oar.conf"), &services()).await;
        assert_eq!(findings.len(), 1);
        assert_eq!(findings[0].text, "cannot read /no/such/oar.conf: No such file or directory (os error 2)");
    }
}
