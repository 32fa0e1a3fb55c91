//! Two commands make a cluster: `init` and `join` as programs, over loopback.

#![allow(clippy::unwrap_used, reason = "a test: what is not as expected shall end it")]

use oarlock::keys::PrivateKey;
use std::fs;
use std::net::TcpListener;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Command, Output, Stdio};

fn run(directory: &Path, arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_oarlock"))
        .args(["--config", "etc/oarlock.toml", "--run-dir", "run"])
        .args(arguments)
        .current_dir(directory)
        .stdin(Stdio::null())
        .output()
        .unwrap()
}

/// Exit code and standard error, with what differs from run to run replaced.
fn told(output: &Output, directory: &Path) -> String {
    let token = String::from_utf8_lossy(&output.stdout);
    let mut text = String::from_utf8_lossy(&output.stderr).replace(&directory.display().to_string(), "DIR");
    if !token.trim().is_empty() {
        text = text.replace(token.trim(), "TOKEN");
    }
    if let Some(at) = text.find(" UTC") {
        text.replace_range(at - 16..at, "2026-01-01 00:00");
    }
    format!("exit code: {}\n{text}", output.status.code().unwrap())
}

fn free_port() -> String {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port().to_string()
}

const INIT: [&str; 16] = [
    "init",
    "--cluster",
    "lab",
    "--timing",
    "fast",
    "--node",
    "server1=127.0.0.1,127.0.0.2",
    "--node",
    "server2=127.0.0.3,127.0.0.4",
    "--witness",
    "frontend=127.0.0.5",
    "--address",
    "10.77.1.100/24",
    "--state-dir",
    "state",
    "--this",
];

fn init(directory: &Path, port: &str, more: &[&str]) -> Output {
    let arguments = [&INIT, ["server1", "--invite-port", port].as_slice(), more].concat();
    run(directory, &arguments)
}

/// Serves the invitation in `directory` while `work` runs.
fn serving<T>(directory: &Path, work: impl FnOnce() -> T) -> T {
    let config = directory.join("etc/oarlock.toml");
    let (end, ended) = tokio::sync::oneshot::channel::<()>();
    let server = std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let addresses = vec!["127.0.0.1".parse().unwrap(), "127.0.0.2".parse().unwrap()];
        runtime.block_on(async {
            tokio::select! {
                () = oarlock::enrol::serve_invitations(config, addresses) => {}
                _ = ended => {}
            }
        });
    });
    let result = work();
    end.send(()).unwrap();
    server.join().unwrap();
    result
}

#[test]
fn two_commands_make_a_cluster() {
    let (first, second, third) =
        (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let made = init(first.path(), &free_port(), &["--postgresql", "15", "--profile", "oar", "--data-dir", "/srv/pg"]);
    insta::assert_snapshot!("init", told(&made, first.path()));
    let token = String::from_utf8(made.stdout).unwrap();
    assert_eq!(token.lines().count(), 1);

    serving(first.path(), || {
        let joined = run(second.path(), &["join", token.trim(), "--node", "server2", "--state-dir", "state"]);
        insta::assert_snapshot!("join", told(&joined, second.path()).replace(token.trim(), "TOKEN"));
        // As it may be read over the telephone.
        let spoken = token.trim().to_lowercase().replace('-', " ");
        let words: Vec<&str> = spoken.split(' ').collect();
        let joined = run(third.path(), &[&["join", "--node", "frontend", "--state-dir", "state"], &words[..]].concat());
        assert!(joined.status.success(), "{joined:?}");
    });

    let text = fs::read_to_string(first.path().join("etc/oarlock.toml")).unwrap();
    for (directory, node) in [(&first, "server1"), (&second, "server2"), (&third, "frontend")] {
        let etc = directory.path().join("etc");
        assert_eq!(fs::read_to_string(etc.join("oarlock.toml")).unwrap(), text);
        let settings = oarlock::config::load(&etc.join("oarlock.toml")).unwrap();
        let key = PrivateKey::read(&etc.join("node.key")).unwrap();
        assert_eq!(settings.node_by_key(&key.public()).unwrap().name, node);
        oarlock::secrets::ClusterSecrets::load(&etc).unwrap();
        for secret in ["node.key", "secrets/replication.password", "secrets/replication.key"] {
            assert_eq!(fs::metadata(etc.join(secret)).unwrap().permissions().mode() & 0o777, 0o600, "{secret}");
        }
    }
    assert!(!first.path().join("etc/invitation.toml").exists(), "everybody has joined");
}

#[test]
fn a_token_can_be_replaced() {
    let (first, second) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let old = String::from_utf8(init(first.path(), &free_port(), &[]).stdout).unwrap();
    let new = String::from_utf8(run(first.path(), &["invite"]).stdout).unwrap();
    assert_ne!(old, new);
    serving(first.path(), || {
        let join = |token: &str| {
            run(
                second.path(),
                &["join", token.trim(), "--node", "server2", "--state-dir", "state", "--deadline-s", "20"],
            )
        };
        let refused = join(&old);
        insta::assert_snapshot!("join_refused", told(&refused, second.path()));
        let joined = join(&new);
        assert!(joined.status.success(), "{joined:?}");
    });
}

#[test]
fn a_cluster_is_not_overwritten() {
    let first = tempfile::tempdir().unwrap();
    assert!(init(first.path(), &free_port(), &[]).status.success());
    let before = fs::read_to_string(first.path().join("etc/oarlock.toml")).unwrap();
    insta::assert_snapshot!("init_again", told(&init(first.path(), &free_port(), &[]), first.path()));
    assert_eq!(fs::read_to_string(first.path().join("etc/oarlock.toml")).unwrap(), before);

    fs::create_dir(first.path().join("state")).unwrap();
    fs::write(first.path().join("state/votes"), "x").unwrap();
    insta::assert_snapshot!("init_force", told(&init(first.path(), &free_port(), &["--force"]), first.path()));
    assert_ne!(fs::read_to_string(first.path().join("etc/oarlock.toml")).unwrap(), before);
    assert!(!first.path().join("state").exists());
    let aside = fs::read_dir(first.path().join("etc")).unwrap().filter_map(Result::ok);
    let aside = aside.map(|entry| entry.path()).find(|path| path.display().to_string().contains("replaced")).unwrap();
    assert_eq!(fs::read_to_string(aside.join("oarlock.toml")).unwrap(), before);
}

#[test]
fn wrong_flags_are_all_told() {
    let directory = tempfile::tempdir().unwrap();
    for (name, arguments) in [
        ("init_nothing", ["init"].as_slice()),
        ("init_bad_node", &["init", "--cluster", "lab", "--node", "server1=10.0.0"]),
        (
            "init_bad_values",
            &[
                "init",
                "--cluster",
                "my lab",
                "--node",
                "server1=10.0.0.1",
                "--node",
                "server1=10.0.0.1",
                "--address",
                "10.0.0.255/24",
                "--postgresql",
                "9",
                "--this",
                "server1",
            ],
        ),
        (
            "init_elsewhere",
            &[
                "init",
                "--cluster",
                "lab",
                "--node",
                "a=127.0.0.1",
                "--node",
                "b=127.0.0.2",
                "--witness",
                "c=127.0.0.3",
                "--this",
                "d",
            ],
        ),
        ("join_bad_token", &["join", "ABCDE-FGHJK", "--state-dir", "state"]),
        ("invite_nobody", &["invite"]),
    ] {
        insta::assert_snapshot!(name, told(&run(directory.path(), arguments), directory.path()));
    }
    assert!(!directory.path().join("etc").exists(), "nothing was written");
}
