//! Tests against the real kernel: each case is a process of its own in network and mount namespaces of
//! its own, so that nothing of the machine is touched. Needs root; without, everything is skipped.
//!
//! There is no test harness because the same program must also play sentinel and agent.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)] // a failed test panics

mod agent;
mod apply;
mod memory;
mod network;
mod rig;
mod sentinel;
mod solo;

use std::process::{Command, ExitCode, Stdio};
use std::time::{Duration, Instant};

/// Longest any case may take; it is killed then.
const CASE_DEADLINE: Duration = Duration::from_secs(60);

type Case = (&'static str, fn());

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let cases = [network::CASES, sentinel::CASES, agent::CASES, apply::CASES, memory::CASES].concat();
    if arguments.first().is_some_and(|role| role == rig::ROLE) {
        return rig::play(&arguments);
    }
    if arguments.first().is_some_and(|role| role == rig::CROWD) {
        rig::crowd();
    }
    if let [flag, name] = arguments.as_slice()
        && flag == "--case"
    {
        return run_here(&cases, name);
    }
    if !rustix::process::geteuid().is_root() {
        println!("host tests skipped: they need root for namespaces");
        return ExitCode::SUCCESS;
    }
    let wanted = |name: &str| {
        let mut filters = arguments.iter().filter(|argument| !argument.starts_with('-')).peekable();
        filters.peek().is_none() || filters.any(|filter| name.contains(filter.as_str()))
    };
    let (mut passed, mut failed) = (0, 0);
    for (name, _) in cases.iter().filter(|(name, _)| wanted(name)) {
        let start = Instant::now();
        let good = run_child(name);
        println!("test {name} ... {} ({} ms)", if good { "ok" } else { "FAILED" }, start.elapsed().as_millis());
        if good { passed += 1 } else { failed += 1 }
    }
    println!("host tests: {passed} passed; {failed} failed");
    if failed == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

fn run_here(cases: &[Case], name: &str) -> ExitCode {
    let Some((_, case)) = cases.iter().find(|(known, _)| *known == name) else {
        return ExitCode::FAILURE;
    };
    case();
    ExitCode::SUCCESS
}

fn run_child(name: &str) -> bool {
    let exe = std::env::current_exe().expect("our own path");
    let mut child = Command::new("unshare")
        .args(["--net", "--mount"])
        .arg(exe)
        .args(["--case", name])
        .stdin(Stdio::null())
        .spawn()
        .expect("a process for the case");
    let until = Instant::now() + CASE_DEADLINE;
    loop {
        match child.try_wait().expect("to wait for the case") {
            Some(status) => return status.success(),
            None if Instant::now() >= until => {
                child.kill().expect("to kill the case");
                child.wait().expect("to wait for the case");
                return false;
            }
            None => std::thread::sleep(Duration::from_millis(5)),
        }
    }
}

/// Runs a command that must succeed.
fn run(command: &str) {
    let mut words = command.split_whitespace();
    let status = Command::new(words.next().expect("a program")).args(words).status().expect("to run it");
    assert!(status.success(), "{command}: {status}");
}
