//! The checks on a machine made of files.

use super::*;
use crate::config::Settings;
use crate::enrol::{KEY_FILE, write_file};
use crate::keys::PrivateKey;
use crate::secrets::ClusterSecrets;
use std::fs;
use std::os::unix::fs::PermissionsExt;

struct Machine {
    directory: tempfile::TempDir,
    settings: Settings,
}

/// A good node `server1` on loopback, whose database has no data yet.
fn machine() -> Machine {
    let directory = tempfile::tempdir().unwrap();
    let etc = directory.path().join("etc/oarlock");
    let key = PrivateKey::generate().unwrap();
    let old = include_str!("../../tests/fixtures/two.toml");
    let first = crate::config::parse("x", old).unwrap().nodes[0].key.to_string();
    let text =
        old.replace(&first, &key.public().to_string()).replace("10.77.1.1\", \"10.77.2.1", "127.0.0.1\", \"127.0.0.2");
    write_file(&etc.join("oarlock.toml"), text.as_bytes(), 0o644).unwrap();
    key.write_new(&etc.join(KEY_FILE)).unwrap();
    ClusterSecrets::create(&etc).unwrap();
    let settings = crate::config::load(&etc.join("oarlock.toml")).unwrap();
    Machine { directory, settings }
}

impl Machine {
    fn path(&self, path: &str) -> PathBuf {
        self.directory.path().join(path)
    }

    /// Findings as text, the directory called ROOT.
    fn findings(&self, agent: Option<AgentInfo>) -> Vec<String> {
        let subject = Subject {
            config: self.path("etc/oarlock/oarlock.toml"),
            run_dir: self.path("run"),
            root: self.directory.path().to_owned(),
            settings: self.settings.clone(),
            agent,
            status: None,
        };
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let report = runtime.block_on(run(&subject));
        let root = self.directory.path().display().to_string();
        let text = |finding: &Finding| format!("{}: {}: {}", finding.severity, finding.area, finding.text);
        report.findings.iter().map(|finding| text(finding).replace(&root, "ROOT")).collect()
    }
}

fn agent() -> AgentInfo {
    AgentInfo {
        version: env!("CARGO_PKG_VERSION").to_owned(),
        pid: 1,
        node: "server1".to_owned(),
        cluster: "genepi".to_owned(),
        generation: 1,
        drift: false,
        realtime: true,
        memory_locked: true,
        cgroups: true,
        watchdog: false,
        clock_offsets: Vec::new(),
    }
}

fn with<'f>(findings: &'f [String], area: &str) -> Vec<&'f String> {
    findings.iter().filter(|finding| finding.contains(&format!(": {area}: "))).collect()
}

#[test]
fn good_files_give_no_finding() {
    let findings = machine().findings(Some(agent()));
    for area in ["configuration", "keys", "agent", "boot"] {
        assert_eq!(with(&findings, area), Vec::<&String>::new());
    }
}

#[test]
fn open_keys_and_secrets_are_found() {
    let machine = machine();
    let open = |path: &str| fs::set_permissions(machine.path(path), fs::Permissions::from_mode(0o644)).unwrap();
    open("etc/oarlock/secrets/replication.key");
    let findings = machine.findings(Some(agent()));
    assert_eq!(
        with(&findings, "keys"),
        ["error: keys: secret ROOT/etc/oarlock/secrets/replication.key has mode 0644, expected 0600"]
    );
    open("etc/oarlock/node.key");
    let findings = machine.findings(Some(agent()));
    assert!(findings[0].contains("node.key has mode 0644"), "{findings:?}");
}

#[test]
fn a_foreign_key_is_found() {
    let machine = machine();
    PrivateKey::generate().unwrap().write_replacing(&machine.path("etc/oarlock/node.key")).unwrap();
    let findings = machine.findings(Some(agent()));
    assert!(findings[0].contains("belongs to no node"), "{findings:?}");
}

#[test]
fn what_was_not_granted_is_told() {
    let clock = crate::control::protocol::ClockOffset { node: "server2".to_owned(), offset_ms: -3_600_000 };
    let agent = AgentInfo {
        realtime: false,
        memory_locked: false,
        cgroups: false,
        drift: true,
        clock_offsets: vec![clock],
        ..agent()
    };
    let findings = machine().findings(Some(agent));
    assert_eq!(with(&findings, "agent").len(), 4, "{findings:?}");
    assert_eq!(with(&findings, "configuration").len(), 1, "{findings:?}");
}

#[test]
fn a_second_starter_is_found() {
    let machine = machine();
    let start = machine.path("etc/postgresql/15/main/start.conf");
    write_file(&start, b"# comment\nauto\n", 0o644).unwrap();
    let conf = machine.path("etc/postgresql/15/main/postgresql.conf");
    write_file(&conf, b"data_directory = '/srv/other'\n", 0o644).unwrap();
    assert_eq!(with(&machine.findings(Some(agent())), "boot").len(), 0, "another database's");
    write_file(&conf, b"data_directory = '/var/lib/postgresql/15/main'\t# moved\n", 0o644).unwrap();
    assert_eq!(with(&machine.findings(Some(agent())), "boot").len(), 1);
    write_file(&start, b"disabled\n", 0o644).unwrap();
    assert_eq!(with(&machine.findings(Some(agent())), "boot").len(), 0);
    fs::remove_file(&start).unwrap();
    write_file(&machine.path("etc/systemd/system/multi-user.target.wants/postgresql-15.service"), b"", 0o644).unwrap();
    assert_eq!(with(&machine.findings(Some(agent())), "boot").len(), 1);
}

#[test]
fn oar_is_looked_at_where_it_may_run() {
    let machine = machine();
    let findings = machine.findings(Some(agent()));
    assert!(findings.iter().any(|finding| finding.contains("oar \"oar-server\"")), "{findings:?}");
    let conf = machine.path("etc/oar/oar.conf");
    write_file(&conf, b"DETACH_JOB_FROM_SERVER=\"0\"\nDB_HOSTNAME=\"10.77.1.100\"\n", 0o600).unwrap();
    let findings = machine.findings(Some(agent()));
    assert!(findings.iter().any(|finding| finding.contains("DETACH_JOB_FROM_SERVER is \"0\"")), "{findings:?}");
    assert!(!findings.iter().any(|finding| finding.contains("DB_HOSTNAME")), "{findings:?}");
}

#[test]
fn missing_programs_and_taken_ports_are_found() {
    let mut machine = machine();
    let socket = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
    machine.settings.port = socket.local_addr().unwrap().port();
    let findings = machine.findings(None);
    assert!(
        findings.iter().any(|finding| finding.contains("UDP port") && finding.contains("127.0.0.1")),
        "{findings:?}"
    );
    assert!(findings.iter().any(|finding| finding.contains("lacks postgres, initdb")), "{findings:?}");
    assert!(findings.iter().any(|finding| finding.contains("no agent runs")), "{findings:?}");
}

/// The same node with MariaDB as its database.
fn on_mariadb() -> Machine {
    let machine = machine();
    let file = machine.path("etc/oarlock/oarlock.toml");
    let text = fs::read_to_string(&file).unwrap();
    let data = machine.path("var/lib/mysql").display().to_string();
    let text = text
        .replacen("kind = \"postgresql\"", "kind = \"mariadb\"", 1)
        .replacen("version = \"15\"", "version = \"10.11\"", 1)
        .replacen("/var/lib/postgresql/15/main", &data, 1);
    write_file(&file, text.as_bytes(), 0o644).unwrap();
    let settings = crate::config::load(&file).unwrap();
    Machine { settings, ..machine }
}

#[test]
fn a_machine_without_mariadb_is_told_so() {
    let machine = on_mariadb();
    let findings = machine.findings(Some(agent()));
    let about = with(&findings, "mariadb \"db\"");
    assert!(about[0].contains("lacks ROOT/usr/sbin/mariadbd, ROOT/usr/bin/mariadb-install-db"), "{findings:?}");
    assert!(!findings.iter().any(|finding| finding.to_lowercase().contains("postgres")), "{findings:?}");
    assert_eq!(with(&findings, "boot"), Vec::<&String>::new());
}

#[test]
fn what_starts_mariadb_beside_us_is_found() {
    let machine = on_mariadb();
    let unit = "etc/systemd/system/multi-user.target.wants/mariadb.service";
    write_file(&machine.path(unit), b"", 0o644).unwrap();
    let findings = machine.findings(Some(agent()));
    assert!(with(&findings, "boot")[0].contains("mariadb.service is enabled"), "{findings:?}");
    std::os::unix::fs::symlink("/dev/null", machine.path("etc/systemd/system/mariadb.service")).unwrap();
    assert_eq!(with(&machine.findings(Some(agent())), "boot").len(), 0, "masked");
}
