//! The OAR profile against a real OAR server. Ignored by default: it needs root, the packages
//! oar-server, oar-user and oar-node, a database that `oar.conf` reaches, a compute node `node1`
//! whose first resource is free, an ordinary user `alice`, and that nothing of it is in use:
//! `OARLOCK_TEST_OAR=1 cargo test -p oarlock --test oar -- --ignored --nocapture`

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)] // a test: what is not as expected ends it

use oarlock::agents::launcher::Launcher;
use oarlock::agents::launcher::direct::DirectLauncher;
use oarlock::agents::service::{LogFile, ServiceAgent, ServiceHandle, ServiceSettings};
use oarlock::agents::user::SystemUser;
use oarlock::profiles::oar::{CONF_FILE, Oar, check, digest};
use oarlock_core::resource::{Guard, ServiceCommand, ServiceObservation};
use std::fs;
use std::net::{IpAddr, ToSocketAddrs};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};
use tokio::sync::mpsc;

const PATIENCE: Duration = Duration::from_secs(90);
/// Where jobs write that they ran, one line each.
const RUNS: &str = "/tmp/oarlock-test-runs";

/// The four scripts of OAR that run around a job, in the order of its life, slow when asked to be.
const SERVER_PROLOGUE: &str = "SERVER_PROLOGUE_EXEC_FILE";
const NODE_PROLOGUE: &str = "PROLOGUE_EXEC_FILE";
const SERVER_EPILOGUE: &str = "SERVER_EPILOGUE_EXEC_FILE";

struct Bench {
    launcher: DirectLauncher,
    handle: ServiceHandle,
    events: mpsc::Receiver<ServiceObservation>,
    notes: mpsc::UnboundedReceiver<String>,
}

impl Bench {
    async fn new() -> Bench {
        let user = SystemUser::lookup("oar").await.unwrap();
        let (sender, notes) = mpsc::unbounded_channel();
        let mut settings = ServiceSettings {
            name: "oar".into(),
            run: Oar::run(),
            env: vec![("PATH".into(), "/usr/sbin:/usr/bin:/sbin:/bin".into()), ("HOME".into(), user.home.clone())],
            user,
            cwd: "/".into(),
            log: LogFile { file: "/tmp/oarlock-test/almighty.log".into(), max_bytes: 1 << 20 },
            checks: vec![],
            start_timeout: Duration::from_secs(10),
            stop_timeout: Duration::from_secs(5),
            hooks: None,
        };
        Oar::new(CONF_FILE.into(), sender, false).equip(&mut settings);
        let (launcher, mut exits) = DirectLauncher::new();
        let (sender, events) = mpsc::channel(64);
        let handle = ServiceAgent::spawn(settings, launcher.clone(), sender);
        let told = handle.clone();
        tokio::spawn(async move {
            while let Some(exit) = exits.recv().await {
                told.exited(exit).await;
            }
        });
        Bench { launcher, handle, events, notes }
    }

    async fn start(&mut self) {
        let start = Instant::now();
        let guard = Guard { generation: 1, epoch: 1 };
        assert!(self.handle.send(ServiceCommand::Start { guard, takeover: true }));
        assert_eq!(self.next().await, ServiceObservation::Started);
        println!("started after {:?}", start.elapsed());
    }

    async fn stop(&mut self) {
        let start = Instant::now();
        assert!(self.handle.send(ServiceCommand::Stop { kill: false }));
        assert_eq!(self.next().await, ServiceObservation::Stopped);
        println!("stopped after {:?}", start.elapsed());
    }

    /// Kills the server as a power failure would: everything at once.
    async fn crash(&mut self) {
        self.launcher.kill_group("oar").await.unwrap();
        println!("crashed: {}", self.failure().await);
    }

    async fn failure(&mut self) -> String {
        match self.next().await {
            ServiceObservation::Failed { reason } => reason,
            other => panic!("{other:?}"),
        }
    }

    async fn next(&mut self) -> ServiceObservation {
        let next = async {
            loop {
                match self.events.recv().await.unwrap() {
                    ServiceObservation::Healthy => {}
                    other => return other,
                }
            }
        };
        tokio::time::timeout(PATIENCE, next).await.expect("the agent says something in time")
    }

    fn said(&mut self) -> Vec<String> {
        std::iter::from_fn(|| self.notes.try_recv().ok()).inspect(|note| println!("note: {note}")).collect()
    }
}

fn output(program: &str, arguments: &[&str]) -> String {
    let output = Command::new("timeout").args(["30", program]).args(arguments).output().unwrap();
    format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
}

fn submit() -> u32 {
    submit_for(1)
}

fn submit_for(seconds: u32) -> u32 {
    let command = format!("cd /tmp && oarsub 'echo $OAR_JOB_ID >> {RUNS}; sleep {seconds}'");
    let said = output("su", &["alice", "-c", &command]);
    let id = said.lines().find_map(|line| line.strip_prefix("OAR_JOB_ID=")).map(str::trim);
    id.and_then(|id| id.parse().ok()).unwrap_or_else(|| panic!("{said}"))
}

fn state(job: u32) -> String {
    let said = output("oarstat", &["-s", "-j", &job.to_string()]);
    said.rsplit(' ').next().unwrap_or_default().trim().to_owned()
}

async fn until_state(job: u32, wanted: &str) {
    let start = Instant::now();
    loop {
        let now = state(job);
        if now == wanted {
            println!("job {job} {wanted} after {:?}", start.elapsed());
            return;
        }
        assert!(start.elapsed() < PATIENCE, "job {job} is {now}, not {wanted}");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

fn runs(job: u32) -> usize {
    let runs = fs::read_to_string(RUNS).unwrap_or_default();
    runs.lines().filter(|line| line.trim() == job.to_string()).count()
}

/// Makes one of OAR's scripts wait for the file `/tmp/oarlock-test-go` (60 s at most), or quick again.
fn slow(script: Option<&str>) {
    let path = "/usr/local/bin/oarlock-test-slow";
    let text = "#!/bin/sh\nfor i in $(seq 600); do [ -e /tmp/oarlock-test-go ] && exit 0; sleep 0.1; done\n";
    fs::write(path, text).unwrap();
    fs::set_permissions(path, fs::Permissions::from_mode(0o755)).unwrap();
    let _ = fs::remove_file("/tmp/oarlock-test-go");
    let conf = fs::read_to_string(CONF_FILE).unwrap();
    let mut lines: Vec<&str> = conf.lines().filter(|line| !line.contains(path)).collect();
    let added = script.map(|script| format!("{script}=\"{path}\""));
    lines.extend(added.as_deref());
    fs::write(CONF_FILE, lines.join("\n") + "\n").unwrap();
}

fn go() {
    fs::write("/tmp/oarlock-test-go", "").unwrap();
}

#[tokio::test]
#[ignore = "needs a prepared OAR"]
async fn a_real_oar_server_is_kept_in_service() {
    if std::env::var_os("OARLOCK_TEST_OAR").is_none() {
        println!("skipped: set OARLOCK_TEST_OAR=1 on a machine whose OAR may be killed");
        return;
    }
    let _ = tracing_subscriber::fmt().with_max_level(tracing::Level::DEBUG).try_init();
    fs::write(RUNS, "").unwrap();
    fs::set_permissions(RUNS, fs::Permissions::from_mode(0o666)).unwrap();
    slow(None);
    let mut bench = Bench::new().await;
    what_check_says().await;
    a_job_is_run(&mut bench).await;
    a_killed_server_is_noticed(&mut bench).await;
    a_killed_helper_is_noticed(&mut bench).await;
    a_frozen_server_is_noticed(&mut bench).await;
    a_job_that_had_not_reached_its_node(&mut bench).await;
    a_job_that_had_reached_its_node(&mut bench).await;
    a_job_that_was_being_finished(&mut bench).await;
    a_deleted_job_that_was_being_finished(&mut bench).await;
    a_job_whose_node_does_not_answer(&mut bench).await;
}

async fn what_check_says() {
    println!("-- what check says");
    let service: Vec<IpAddr> = ("oar", 0).to_socket_addrs().unwrap().map(|address| address.ip()).collect();
    let services = check::Services { database: service.clone(), server: service };
    let findings = check::check(Path::new("/"), Path::new(CONF_FILE), &services).await;
    let texts: Vec<&str> = findings.iter().map(|finding| finding.text.as_str()).collect();
    assert_eq!(texts.len(), 1, "{texts:?}");
    assert!(texts[0].starts_with("the init script oar-server starts the oar server at boot"), "{texts:?}");
    let digest = digest::digest(Path::new("/"));
    assert_eq!(digest::compare(("a", &digest), ("b", &digest)), []);
    assert_ne!(digest, digest::OarDigest::default());
}

async fn a_job_is_run(bench: &mut Bench) {
    println!("-- start, run a job, stop");
    bench.start().await;
    let job = submit();
    until_state(job, "Terminated").await;
    assert_eq!(runs(job), 1);
    bench.stop().await;
    assert_eq!(output("pgrep", &["-u", "oar", "-f", "Almighty"]), "", "nothing of it is left");
}

async fn a_killed_server_is_noticed(bench: &mut Bench) {
    println!("-- the server is killed");
    bench.start().await;
    bench.launcher.signal("oar", 9).await.unwrap();
    assert_eq!(bench.failure().await, "ended by itself (signal 9)");
}

async fn a_killed_helper_is_noticed(bench: &mut Bench) {
    println!("-- the helper that listens is killed; a connection to the port would still succeed");
    bench.start().await;
    let killed = Instant::now();
    output("pkill", &["-9", "-u", "oar", "-f", "^Almighty: appendice"]);
    println!("noticed: {} after {:?}", bench.failure().await, killed.elapsed());
}

async fn a_frozen_server_is_noticed(bench: &mut Bench) {
    println!("-- the server is frozen");
    bench.start().await;
    let frozen = Instant::now();
    bench.launcher.signal("oar", 19).await.unwrap();
    let reason = bench.failure().await;
    println!("noticed: {reason} after {:?}", frozen.elapsed());
    assert_eq!(reason, "oar's processes: the server is stopped by a signal");
    bench.said();
}

async fn a_job_that_had_not_reached_its_node(bench: &mut Bench) {
    println!("-- the server dies while it launches a job that has not reached its node");
    slow(Some(SERVER_PROLOGUE));
    bench.start().await;
    let job = submit();
    until_state(job, "Launching").await;
    bench.crash().await;
    slow(None);
    bench.start().await;
    until_state(job, "Terminated").await;
    assert_eq!(runs(job), 1, "it ran once");
    assert_eq!(bench.said(), [format!("job {job} was being launched and runs nowhere: launched again")]);
}

async fn a_job_that_had_reached_its_node(bench: &mut Bench) {
    println!("-- the server dies while it launches a job that has reached its node");
    slow(Some(NODE_PROLOGUE));
    let job = submit();
    until_state(job, "Launching").await;
    tokio::time::sleep(Duration::from_secs(2)).await;
    bench.crash().await;
    bench.start().await;
    tokio::time::sleep(Duration::from_secs(8)).await;
    assert_eq!(state(job), "Launching", "left alone");
    go();
    until_state(job, "Terminated").await;
    assert_eq!(runs(job), 1, "it ran once");
    assert_eq!(bench.said(), Vec::<String>::new());
}

async fn a_job_that_was_being_finished(bench: &mut Bench) {
    println!("-- the server dies while it finishes a job");
    slow(Some(SERVER_EPILOGUE));
    let job = submit();
    until_state(job, "Finishing").await;
    bench.crash().await;
    slow(None);
    bench.start().await;
    until_state(job, "Terminated").await;
    assert_eq!(runs(job), 1, "it ran once");
    assert_eq!(bench.said(), [format!("job {job} had ended and was not cleaned up after: done again")]);
}

async fn a_deleted_job_that_was_being_finished(bench: &mut Bench) {
    println!("-- the server dies while it finishes a job that was deleted");
    let job = submit_for(1000);
    until_state(job, "Running").await;
    slow(Some(SERVER_EPILOGUE));
    output("oardel", &[&job.to_string()]);
    until_state(job, "Finishing").await;
    bench.crash().await;
    slow(None);
    bench.start().await;
    until_state(job, "Error").await;
    bench.said();
}

async fn a_job_whose_node_does_not_answer(bench: &mut Bench) {
    println!("-- the server dies while it launches a job whose node does not answer");
    slow(Some(SERVER_PROLOGUE));
    let job = submit();
    until_state(job, "Launching").await;
    bench.crash().await;
    slow(None);
    let sshd = "^sshd.*/etc/oar/sshd_config";
    output("pkill", &["-STOP", "-f", sshd]);
    bench.start().await;
    tokio::time::sleep(Duration::from_secs(12)).await;
    assert_eq!((state(job).as_str(), runs(job)), ("Launching", 0), "left alone");
    output("pkill", &["-CONT", "-f", sshd]);
    until_state(job, "Terminated").await;
    assert_eq!(runs(job), 1, "it ran once");
    assert_eq!(bench.said(), [format!("job {job} was being launched and runs nowhere: launched again")]);
    bench.stop().await;
}
