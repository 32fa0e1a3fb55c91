//! `oarlock drill` against a real PostgreSQL and an agent that only says it has moved the group.
//! Needs PostgreSQL's server programs; without them there is nothing to write to and it is skipped.

#![allow(clippy::unwrap_used, reason = "a test: what is not as expected shall end it")]

use oarlock::control::{Call, ControlServer, Operators, Request, Response, socket_path};
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// Where Debian and Red Hat have them.
const PLACES: [&str; 4] =
    ["/usr/lib/postgresql/15/bin", "/usr/lib/postgresql/17/bin", "/usr/pgsql-15/bin", "/usr/pgsql-17/bin"];
/// The server is frozen for this long while it "moves".
const FREEZE: Duration = Duration::from_millis(400);

struct Server {
    process: Child,
    port: u16,
}

impl Drop for Server {
    fn drop(&mut self) {
        self.process.kill().unwrap();
        self.process.wait().unwrap();
    }
}

impl Server {
    fn signal(&self, signal: &str) {
        assert!(Command::new("kill").args([signal, &self.process.id().to_string()]).status().unwrap().success());
    }
}

/// PostgreSQL refuses to run as root.
fn unprivileged(program: &Path) -> Command {
    if !rustix::process::geteuid().is_root() {
        return Command::new(program);
    }
    let mut command = Command::new("setpriv");
    command.args(["--reuid", "nobody", "--regid", "nogroup", "--clear-groups"]).arg(program);
    command
}

fn server(directory: &Path) -> Option<Server> {
    let bin = PLACES.iter().map(PathBuf::from).find(|bin| bin.join("postgres").exists())?;
    fs::set_permissions(directory, fs::Permissions::from_mode(0o777)).unwrap();
    let data = directory.join("data");
    // Only this test's own client can reach it: loopback, a port of the system's choice.
    let made = unprivileged(&bin.join("initdb"))
        .args(["--auth=trust", "--username=drill", "--no-sync", "-D"])
        .arg(&data)
        .output()
        .unwrap();
    assert!(made.status.success(), "{made:?}");
    let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let process = unprivileged(&bin.join("postgres"))
        .arg("-D")
        .arg(&data)
        .args(["-c", "listen_addresses=127.0.0.1", "-c", "unix_socket_directories=", "-c", &format!("port={port}")])
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let server = Server { process, port };
    let began = Instant::now();
    while std::net::TcpStream::connect(("127.0.0.1", port)).is_err() {
        assert!(began.elapsed() < Duration::from_secs(30), "the server has not started");
        std::thread::sleep(Duration::from_millis(20));
    }
    Some(server)
}

/// An agent on `run/control.sock` whose group is always well and whose moves are `act`.
fn agent(directory: &Path, act: impl Fn() + Send + 'static) {
    fs::create_dir(directory.join("run")).unwrap();
    let path = socket_path(&directory.join("run"));
    let text = include_str!("fixtures/status.json").replace("\"in_sync\":false", "\"in_sync\":true");
    let (ready, is_ready) = std::sync::mpsc::channel();
    std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let server = ControlServer::bind(&path, Operators::default()).unwrap();
            let (sender, mut calls) = tokio::sync::mpsc::channel::<Call>(8);
            tokio::spawn(server.run(sender));
            ready.send(()).unwrap();
            while let Some(call) = calls.recv().await {
                call.reply.send(match call.request {
                    Request::Status => Response::Status { status: serde_json::from_str(&text).unwrap() },
                    Request::Move { .. } => {
                        act();
                        Response::done()
                    }
                    _ => Response::negative("not asked for"),
                });
            }
        });
    });
    is_ready.recv().unwrap();
}

#[test]
fn outage_and_loss_are_measured() {
    let directory = tempfile::tempdir().unwrap();
    let Some(server) = server(directory.path()) else { return };
    let port = server.port;
    let connection = format!("host=127.0.0.1 port={port} user=drill dbname=postgres");
    let lose = connection.clone();
    agent(directory.path(), move || {
        // A frozen server is an outage; two rows that vanish are a loss.
        server.signal("-STOP");
        kill_backends(port, "-STOP");
        std::thread::sleep(FREEZE);
        kill_backends(port, "-CONT");
        server.signal("-CONT");
        delete_rows(&lose);
    });
    let output = Command::new(env!("CARGO_BIN_EXE_oarlock"))
        .args(["--run-dir", "run", "drill", "oar", "--json", "--connection", &connection])
        .current_dir(directory.path())
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(!output.stdout.is_empty(), "{said}");
    let report: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    let number = |key: &str| report[key].as_u64().unwrap();
    assert!(number("outage_ms") >= u64::try_from(FREEZE.as_millis()).unwrap(), "{report}");
    assert!(number("rows_acknowledged") > 50, "{report}");
    assert_eq!(number("rows_lost"), 2, "{report}");
    assert_eq!(output.status.code(), Some(1), "a loss is no success");
}

/// The server's connections belong to processes of their own.
fn kill_backends(port: u16, signal: &str) {
    let processes = fs::read_dir("/proc").unwrap().filter_map(Result::ok);
    for process in processes {
        let command = fs::read_to_string(process.path().join("cmdline")).unwrap_or_default();
        if command.contains("postgres: drill ") && command.contains("127.0.0.1(") && of_port(&process.path(), port) {
            let pid = process.file_name().into_string().unwrap();
            assert!(Command::new("kill").args([signal, &pid]).status().unwrap().success());
        }
    }
}

/// Whether the parent of this process is the server on `port`.
fn of_port(process: &Path, port: u16) -> bool {
    let status = fs::read_to_string(process.join("status")).unwrap_or_default();
    let Some(parent) = status.lines().find_map(|line| line.strip_prefix("PPid:")) else { return false };
    let command = fs::read_to_string(format!("/proc/{}/cmdline", parent.trim())).unwrap_or_default();
    command.contains(&format!("port={port}"))
}

fn delete_rows(connection: &str) {
    let connection = connection.to_owned();
    let delete = async move {
        let (client, driver) = tokio_postgres::connect(&connection, tokio_postgres::NoTls).await.unwrap();
        tokio::spawn(driver);
        let tables = client.query("select tablename from pg_tables where tablename like 'oarlock_drill_%'", &[]).await;
        let table: String = tables.unwrap()[0].get(0);
        let sql = format!("delete from {table} where id in (select id from {table} order by id limit 2)");
        assert_eq!(client.execute(&sql, &[]).await.unwrap(), 2);
    };
    // The agent's own runtime is busy with us: a thread with one of its own.
    let runtime = || tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    std::thread::spawn(move || runtime().block_on(delete)).join().unwrap();
}
