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
