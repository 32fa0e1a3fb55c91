//! The `oarlock` command as a person meets it: exit code, standard output and standard error.

#![allow(clippy::unwrap_used, reason = "a test: what is not as expected shall end it")]

use oarlock::control::{Call, ControlServer, EventLine, Operators, Request, Response, StatusReport, socket_path};
use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};

/// Runs the command in `directory`, which is called DIR in what is returned.
fn run(directory: &Path, arguments: &[&str]) -> String {
    let output = Command::new(env!("CARGO_BIN_EXE_oarlock"))
        .args(["--config", "etc/oarlock.toml", "--run-dir", "run"])
        .args(arguments)
        .current_dir(directory)
        .env_clear()
        .env("PATH", std::env::var_os("PATH").unwrap_or_default())
        .stdin(Stdio::null())
        .output()
        .unwrap();
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).replace(&directory.display().to_string(), "DIR");
    format!(
        "exit code: {}\n--- stdout\n{}--- stderr\n{}",
        output.status.code().unwrap(),
        text(&output.stdout),
        text(&output.stderr)
    )
}

fn empty() -> tempfile::TempDir {
    tempfile::tempdir().unwrap()
}

/// An agent that knows nothing but its answers, on `run/control.sock` below a new directory.
fn agent(answer: impl Fn(&Call) -> Vec<Response> + Send + 'static) -> tempfile::TempDir {
    let directory = empty();
    fs::create_dir(directory.path().join("run")).unwrap();
    let path = socket_path(&directory.path().join("run"));
    let (ready, is_ready) = std::sync::mpsc::channel();
    std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let server = ControlServer::bind(&path, Operators::default()).unwrap();
            let (sender, mut calls) = tokio::sync::mpsc::channel(8);
            tokio::spawn(server.run(sender));
            ready.send(()).unwrap();
            while let Some(call) = calls.recv().await {
                for response in answer(&call) {
                    call.reply.send_part(response);
                }
            }
        });
    });
    is_ready.recv().unwrap();
    directory
}

#[test]
fn help() {
    let directory = empty();
    insta::assert_snapshot!("help", run(directory.path(), &["--help"]));
    insta::assert_snapshot!("help_init", run(directory.path(), &["init", "--help"]));
    insta::assert_snapshot!("help_join", run(directory.path(), &["join", "--help"]));
    insta::assert_snapshot!("help_deploy", run(directory.path(), &["deploy", "--help"]));
    insta::assert_snapshot!("help_undeploy", run(directory.path(), &["undeploy", "--help"]));
    insta::assert_snapshot!("help_status", run(directory.path(), &["status", "--help"]));
}

#[test]
fn wrong_usage() {
    let directory = empty();
    insta::assert_snapshot!("usage_command", run(directory.path(), &["mvoe", "oar", "server2"]));
    insta::assert_snapshot!("usage_argument", run(directory.path(), &["move", "oar"]));
    insta::assert_snapshot!("usage_switch", run(directory.path(), &["maintenance", "onn"]));
    insta::assert_snapshot!("usage_host", run(directory.path(), &["status", "--host", "-oProxyCommand=x"]));
}

#[test]
fn no_agent() {
    let directory = empty();
    for arguments in [["status"].as_slice(), &["move", "oar", "server2"], &["events", "--follow"]] {
        insta::assert_snapshot!("no_agent", run(directory.path(), arguments));
    }
}

#[test]
fn answers() {
    let directory = agent(|call| {
        vec![match &call.request {
            Request::Status => {
                Response::Status { status: serde_json::from_str(include_str!("fixtures/status.json")).unwrap() }
            }
            Request::Move { node, .. } if node == "server2" => Response::Done { note: None },
            Request::Move { .. } => Response::Usage {
                problems: vec!["unknown node \"sever2\"\n  hint: did you mean \"server2\"?".to_owned()],
            },
            Request::Standby { on: true, .. } => {
                Response::Unsafe { reason: "server2 is the only in-sync copy".to_owned() }
            }
            Request::Standby { on: false, .. } => Response::NoQuorum,
            Request::Replace { node } if node == "frontend" => Response::done(),
            Request::Replace { .. } => Response::Unsafe {
                reason: "1 of the other voters (server2, frontend) are there, 2 have to agree without server1"
                    .to_owned(),
            },
            Request::Clear { .. } => Response::negative("resource \"db\" has not failed"),
            Request::Explain { .. } | Request::Simulate { .. } => {
                Response::Text { lines: vec!["line one".to_owned(), "line two".to_owned()] }
            }
            _ => Response::Internal { reason: "not that".to_owned() },
        }]
    });
    for (name, arguments) in [
        ("status", ["status"].as_slice()),
        ("status_json", &["status", "--json"]),
        ("move", &["move", "oar", "server2"]),
        ("move_unknown", &["move", "oar", "sever2"]),
        ("standby_unsafe", &["standby", "server1"]),
        ("online_no_quorum", &["online", "server1"]),
        ("clear_negative", &["clear", "db"]),
        ("replace", &["replace", "frontend"]),
        ("replace_unsafe", &["replace", "server1"]),
        ("explain", &["explain", "oar"]),
        ("simulate_json", &["simulate", "--fail", "server1", "--json"]),
        ("drill_unsafe", &["drill", "oar"]),
        ("drill_unknown", &["drill", "oer"]),
        ("maintenance_internal", &["maintenance", "on"]),
    ] {
        insta::assert_snapshot!(name, run(directory.path(), arguments));
    }
}

#[test]
fn a_status_without_quorum_says_so_by_its_exit_code() {
    let directory = agent(|_| vec![Response::Status { status: StatusReport { schema: 1, ..Default::default() } }]);
    insta::assert_snapshot!("status_no_quorum", run(directory.path(), &["status"]));
}

#[test]
fn events() {
    let directory = agent(|_| {
        let event = |time_ms, text: &str| Response::Event {
            event: EventLine { time_ms, node: "server1".to_owned(), text: text.to_owned() },
        };
        vec![
            event(1_735_689_599_000, "server2 is silent"),
            event(1_735_689_599_250, "oar/db: promoted"),
            Response::done(),
        ]
    });
    insta::assert_snapshot!("events", run(directory.path(), &["events"]));
    insta::assert_snapshot!("events_json", run(directory.path(), &["events", "--json", "--since-s", "60"]));
}

#[test]
fn apply() {
    let directory = agent(|call| match &call.request {
        Request::Apply { dry_run: true, .. } => vec![Response::done()],
        Request::Apply { text, .. } => vec![Response::Done { note: Some(format!("{} bytes", text.len())) }],
        _ => Vec::new(),
    });
    fs::write(directory.path().join("good.toml"), "# shorter\n".to_owned() + include_str!("fixtures/two.toml"))
        .unwrap();
    fs::write(directory.path().join("bad.toml"), include_str!("fixtures/bad.toml")).unwrap();
    insta::assert_snapshot!("apply_bad", run(directory.path(), &["apply", "bad.toml"]));
    insta::assert_snapshot!("apply_dry_run", run(directory.path(), &["apply", "good.toml", "--dry-run"]));
    insta::assert_snapshot!("apply_missing", run(directory.path(), &["apply", "missing.toml"]));
    assert!(run(directory.path(), &["apply", "good.toml"]).contains("bytes\n"));
}

#[test]
fn generated_documentation() {
    let directory = empty();
    insta::assert_snapshot!("config_reference", run(directory.path(), &["generate", "config-reference"]));
    assert!(run(directory.path(), &["generate", "man"]).contains(".SH \"OARLOCK MOVE\""));
    run(directory.path(), &["generate", "man", "--dir", &directory.path().display().to_string()]);
    let page = std::fs::read_to_string(directory.path().join("oarlock-move.1")).unwrap();
    assert!(page.contains("oarlock\\-move") && directory.path().join("oarlock.1").exists(), "{page}");
    assert!(run(directory.path(), &["generate", "completions", "zsh"]).contains("#compdef oarlock"));
}

/// Answers every look of `deploy` with what lies in the file of the machine's name.
const SSH: &str = "#!/bin/sh\nwhile [ \"$1\" != -- ]; do shift; done\ncat >/dev/null\ncat \"$(dirname \"$0\")/$2\"\n";

#[test]
fn deploy_shows_its_plan_or_what_stands_against_it() {
    use std::os::unix::fs::PermissionsExt;
    let directory = empty();
    let ssh = directory.path().join("ssh");
    fs::write(&ssh, SSH).unwrap();
    fs::set_permissions(&ssh, fs::Permissions::from_mode(0o755)).unwrap();
    let version = env!("CARGO_PKG_VERSION");
    let server = |address: &str, kib: u32| {
        format!(
            "uid 0\nhost x\napt yes\noarlock {version}\naddress {address}/24\npostgresql 15\n\
             cluster 15 main 5432 down no {kib} 900000 /var/lib/postgresql/15/main\nend\n"
        )
    };
    fs::write(directory.path().join("db-a"), server("10.0.0.1", 800_000)).unwrap();
    fs::write(directory.path().join("db-b"), server("10.0.0.2", 40_000)).unwrap();
    fs::write(directory.path().join("db-w"), format!("uid 0\nhost w\noarlock {version}\naddress 10.0.0.3/24\nend\n"))
        .unwrap();
    let ssh = ssh.display().to_string();
    let deploy = |first: &str, second: &str, more: &[&str]| {
        let nodes = [format!("--node={first}"), format!("--node={second}")];
        let mut arguments = vec!["deploy", "--cluster=genepi", &nodes[0], &nodes[1], "--witness=db-w=10.0.0.3"];
        arguments.extend(["--address=10.0.0.100/24", "--ssh", &ssh]);
        arguments.extend(more);
        let text = run(directory.path(), &arguments);
        // The date in the names of what is kept.
        let mut parts = text.split(".before-oarlock-");
        let first = parts.next().unwrap().to_owned();
        parts.fold(first, |text, part| format!("{text}.before-oarlock-DATE{}", part.get(15..).unwrap_or(part)))
    };
    insta::assert_snapshot!("deploy_plan", deploy("db-a=10.0.0.1", "db-b=10.0.0.2", &["--dry-run"]));
    insta::assert_snapshot!("deploy_refused", deploy("db-b=10.0.0.2", "db-a=10.0.0.1", &["--dry-run"]));
    insta::assert_snapshot!("deploy_unasked", {
        let text = deploy("db-a=10.0.0.1", "db-b=10.0.0.2", &[]);
        text.split("--- stderr").nth(1).unwrap().to_owned()
    });
}
