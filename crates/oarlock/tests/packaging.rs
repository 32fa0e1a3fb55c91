//! What is packaged with the program.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test: what is not as expected shall end it")]

use std::fs;
use std::process::Command;

const UNIT: &str = include_str!("../../../packaging/oarlock.service");

#[test]
fn the_unit_agrees_with_the_program() {
    let setting = |name: &str| UNIT.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix('='));
    // A wrong configuration ends with 2 and is not tried again; a hung sentinel is noticed.
    assert_eq!(setting("RestartPreventExitStatus"), Some((oarlock::cli::Code::Usage as u8).to_string().as_str()));
    assert!(setting("WatchdogSec").is_some() && setting("Type") == Some("notify"));
    // Stopping the unit kills no service and no keeper.
    assert_eq!(setting("KillMode"), Some("process"));
}

#[test]
fn systemd_accepts_the_unit() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("oarlock.service");
    // It looks whether the program and the manual page are there; they are not installed here.
    let unit = UNIT.replace("/usr/sbin/oarlock", env!("CARGO_BIN_EXE_oarlock")).replace("Documentation=", "#");
    fs::write(&path, unit).unwrap();
    match Command::new("systemd-analyze").arg("verify").arg(&path).output() {
        Ok(output) => {
            let said = String::from_utf8_lossy(&output.stderr);
            assert!(output.status.success() && said.is_empty(), "{said}");
        }
        Err(error) => println!("skipped: systemd-analyze: {error}"),
    }
}

/// Whatever the unit sets is inherited by every service, and these would take something from one.
const FORBIDDEN: &[&str] = &[
    "Protect",
    "Private",
    "ReadOnly",
    "ReadWrite",
    "Inaccessible",
    "BindPaths",
    "TemporaryFileSystem",
    "RootDirectory",
    "MountAPIVFS",
    "NoNewPrivileges",
    "Restrict",
    "SystemCall",
    "LockPersonality",
    "MemoryDenyWriteExecute",
    "Device",
    "User=",
    "RemoveIPC",
    "MemoryMax",
    "TasksMax=",
    "IPAddressDeny",
];
/// What the agent, the sentinel, a database, OAR or a mount cannot do without.
const NEEDED: &[&str] = &[
    "CAP_CHOWN",
    "CAP_DAC",
    "CAP_FOWNER",
    "CAP_KILL",
    "CAP_SETUID",
    "CAP_SETGID",
    "CAP_SETPCAP",
    "CAP_NET",
    "CAP_IPC",
    "CAP_SYS_ADMIN",
    "CAP_SYS_MODULE",
    "CAP_SYS_NICE",
    "CAP_SYS_RESOURCE",
    "CAP_SYS_PTRACE",
    "CAP_SYS_CHROOT",
    "CAP_SYS_BOOT",
    "CAP_MKNOD",
    "CAP_AUDIT_WRITE",
    "CAP_AUDIT_CONTROL",
    "CAP_FSETID",
];

fn harms(unit: &str) -> Vec<&str> {
    let settings = unit.lines().filter(|line| !line.starts_with('#'));
    settings
        .filter(|line| {
            let takes = FORBIDDEN.iter().any(|start| line.starts_with(start));
            let dropped = line.strip_prefix("CapabilityBoundingSet=");
            let lacks =
                dropped.is_some_and(|set| !set.starts_with('~') || NEEDED.iter().any(|name| set.contains(name)));
            takes || lacks
        })
        .collect()
}

#[test]
fn the_units_hardening_takes_nothing_from_a_service() {
    assert_eq!(harms(UNIT), Vec::<&str>::new());
    assert_eq!(
        harms("PrivateTmp=yes\nCapabilityBoundingSet=~CAP_SYS_NICE\nUMask=0077"),
        ["PrivateTmp=yes", "CapabilityBoundingSet=~CAP_SYS_NICE"]
    );
}

#[test]
fn the_example_is_a_good_configuration() {
    let example = include_str!("../../../packaging/example.toml");
    let settings = oarlock::config::parse("example.toml", example).unwrap();
    assert_eq!(settings.nodes.len(), 3);
}
