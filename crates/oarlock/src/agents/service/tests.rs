//! Services made of shell commands, started by a launcher without a sentinel.

use super::*;
use crate::agents::launcher::direct::DirectLauncher;
use crate::agents::launcher::{LaunchError, SpawnRequest};
use oarlock_core::resource::Guard;
use std::fs;
use std::path::Path;
use std::time::Instant;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;

const PATIENCE: Duration = Duration::from_secs(10);
const GUARD: Guard = Guard { generation: 3, epoch: 7 };
const TERM: i32 = 15;

/// One agent with what it tells, in a directory of its own.
struct Bench {
    directory: tempfile::TempDir,
    launcher: DirectLauncher,
    handle: ServiceHandle,
    events: mpsc::Receiver<ServiceObservation>,
}

fn shell(script: &str) -> Vec<String> {
    ["/bin/sh", "-c", script].map(str::to_owned).to_vec()
}

fn root() -> SystemUser {
    let (uid, gid) = (rustix::process::getuid().as_raw(), rustix::process::getgid().as_raw());
    SystemUser { name: "root".into(), uid, gid, groups: vec![], home: "/".into() }
}

fn supervised(script: &str) -> ServiceSettings {
    settings(Run::Supervised { command: shell(script), stop_signal: TERM })
}

/// Has started when it has made the file `$D/ready`.
fn ready_when_it_says(script: &str) -> ServiceSettings {
    let checks = vec![check(Probe::Command(shell("test -e $D/ready")), 1)];
    ServiceSettings { checks, ..supervised(script) }
}

fn settings(run: Run) -> ServiceSettings {
    ServiceSettings {
        name: "test".into(),
        run,
        user: root(),
        env: vec![("PATH".into(), "/usr/bin:/bin".into())],
        cwd: "/".into(),
        log: LogFile { file: "log/test".into(), max_bytes: 1 << 20 },
        checks: vec![],
        start_timeout: Duration::from_secs(5),
        stop_timeout: Duration::from_secs(5),
        hooks: None,
    }
}

fn check(probe: Probe, failures: u32) -> Check {
    Check { probe, interval: Duration::from_millis(20), deadline: Duration::from_secs(2), failures }
}

impl Bench {
    /// Commands find their directory in `$D`.
    fn new(mut settings: ServiceSettings) -> Bench {
        let directory = tempfile::tempdir().unwrap();
        settings.log.file = directory.path().join("log/test");
        settings.env.push(("D".into(), directory.path().to_str().unwrap().into()));
        let (launcher, exits) = DirectLauncher::new();
        let (handle, events) = Bench::agent(settings, launcher.clone());
        tokio::spawn(route(exits, handle.clone()));
        Bench { directory, launcher, handle, events }
    }

    fn agent(
        settings: ServiceSettings,
        launcher: impl Launcher,
    ) -> (ServiceHandle, mpsc::Receiver<ServiceObservation>) {
        let (sender, events) = mpsc::channel(64);
        (ServiceAgent::spawn(settings, launcher, sender), events)
    }

    fn path(&self, name: &str) -> std::path::PathBuf {
        self.directory.path().join(name)
    }

    async fn start(&mut self) -> ServiceObservation {
        assert!(self.handle.send(ServiceCommand::Start { guard: GUARD, takeover: true }));
        self.next().await
    }

    async fn stop(&mut self, kill: bool) -> ServiceObservation {
        assert!(self.handle.send(ServiceCommand::Stop { kill }));
        self.next().await
    }

    /// What it tells next, `Healthy` left out.
    async fn next(&mut self) -> ServiceObservation {
        next(&mut self.events).await
    }

    async fn main(&self) -> Option<u32> {
        self.launcher.running("test").await.unwrap()
    }

    async fn alive(&self) -> bool {
        self.launcher.alive("test").await.unwrap()
    }
}

async fn next(events: &mut mpsc::Receiver<ServiceObservation>) -> ServiceObservation {
    let next = async {
        loop {
            match events.recv().await.unwrap() {
                ServiceObservation::Healthy => {}
                other => return other,
            }
        }
    };
    tokio::time::timeout(PATIENCE, next).await.expect("the agent says something in time")
}

async fn route(mut exits: mpsc::UnboundedReceiver<Exit>, handle: ServiceHandle) {
    while let Some(exit) = exits.recv().await {
        handle.exited(exit).await;
    }
}

fn failed(what: ServiceObservation) -> String {
    match what {
        ServiceObservation::Failed { reason } => reason,
        other => panic!("{other:?}"),
    }
}

async fn eventually(what: &str, mut holds: impl FnMut() -> bool) {
    let start = Instant::now();
    while !holds() {
        assert!(start.elapsed() < PATIENCE, "{what}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

fn exists(pid: u32) -> bool {
    // A killed process that its new parent has not reaped yet does nothing any more.
    fs::read_to_string(format!("/proc/{pid}/stat")).is_ok_and(|stat| !stat.contains(") Z "))
}

fn number(path: &Path) -> Option<u32> {
    fs::read_to_string(path).ok()?.trim().parse().ok()
}

#[tokio::test]
async fn a_program_is_started_reported_healthy_and_stopped() {
    let mut bench = Bench::new(supervised("echo here; exec sleep 1000"));
    assert_eq!(bench.start().await, ServiceObservation::Started);
    assert_eq!(bench.launcher.guard("test"), Some(GUARD));
    assert_eq!(bench.events.recv().await, Some(ServiceObservation::Healthy));
    let pid = bench.main().await.unwrap();
    assert_eq!(bench.stop(false).await, ServiceObservation::Stopped);
    assert!(!exists(pid));
    assert_eq!(fs::read_to_string(bench.path("log/test")).unwrap(), "here\n");
    assert_eq!(bench.stop(false).await, ServiceObservation::Stopped, "answered always");
}

#[tokio::test]
async fn a_clean_exit_that_nobody_asked_for_is_a_failure() {
    let mut bench = Bench::new(supervised("while [ ! -e $D/end ]; do sleep 0.01; done"));
    assert_eq!(bench.start().await, ServiceObservation::Started);
    fs::write(bench.path("end"), "").unwrap();
    assert_eq!(failed(bench.next().await), "ended by itself (exit code 0)");
}

#[tokio::test]
async fn a_killed_program_is_noticed_at_once_and_its_children_are_killed() {
    let mut bench = Bench::new(supervised("sleep 1000 & echo $! > $D/child; wait"));
    assert_eq!(bench.start().await, ServiceObservation::Started);
    let child = bench.path("child");
    eventually("the child is there", || number(&child).is_some()).await;
    bench.launcher.signal("test", 9).await.unwrap();
    assert_eq!(failed(bench.next().await), "ended by itself (signal 9)");
    let child = number(&child).unwrap();
    eventually("the child is gone", || !exists(child)).await;
}

#[tokio::test]
async fn who_does_not_stop_is_killed_with_all_its_children() {
    let mut settings = supervised("trap '' TERM; sleep 1000 & echo $! > $D/child; while :; do sleep 0.1; done");
    settings.stop_timeout = Duration::from_millis(100);
    let mut bench = Bench::new(settings);
    assert_eq!(bench.start().await, ServiceObservation::Started);
    let child = bench.path("child");
    eventually("the child is there", || number(&child).is_some()).await;
    let (pid, child) = (bench.main().await.unwrap(), number(&child).unwrap());
    let asked = Instant::now();
    assert_eq!(bench.stop(false).await, ServiceObservation::Stopped);
    assert!(asked.elapsed() >= Duration::from_millis(100), "it had its grace");
    assert!(!exists(pid) && !exists(child));
}

#[tokio::test]
async fn a_kill_interrupts_a_stop() {
    let mut settings = ready_when_it_says("trap '' TERM; touch $D/ready; while :; do sleep 0.1; done");
    settings.stop_timeout = Duration::from_secs(1000);
    let mut bench = Bench::new(settings);
    assert_eq!(bench.start().await, ServiceObservation::Started);
    assert!(bench.handle.send(ServiceCommand::Stop { kill: false }));
    assert_eq!(bench.stop(true).await, ServiceObservation::Stopped);
    assert!(!bench.alive().await);
}

#[tokio::test]
async fn it_has_started_when_its_check_passes() {
    let mut bench = Bench::new(ready_when_it_says("sleep 0.2; touch $D/ready; exec sleep 1000"));
    assert_eq!(bench.start().await, ServiceObservation::Started);
    assert!(bench.path("ready").exists());
}

#[tokio::test]
async fn a_start_that_takes_too_long_fails_and_says_why() {
    let mut settings = supervised("exec sleep 1000");
    settings.start_timeout = Duration::from_millis(200);
    settings.checks = vec![check(Probe::Command(shell("echo not yet; exit 4")), 1)];
    let mut bench = Bench::new(settings);
    assert_eq!(
        failed(bench.start().await),
        "not well within 200 ms of its start: command /bin/sh: it ended with exit code 4: not yet"
    );
    assert!(!bench.alive().await, "what was left has been killed");
}

#[tokio::test]
async fn only_failures_in_a_row_count() {
    let mut settings = supervised("exec sleep 1000");
    // Passes, fails twice, passes, then fails for good.
    let script = "echo x >> $D/count; case $(wc -l < $D/count) in 1|4) exit 0;; *) exit 1;; esac";
    settings.checks = vec![check(Probe::Command(shell(script)), 3)];
    let mut bench = Bench::new(settings);
    assert_eq!(bench.start().await, ServiceObservation::Started);
    assert_eq!(failed(bench.next().await), "command /bin/sh: it ended with exit code 1");
    assert_eq!(fs::read_to_string(bench.path("count")).unwrap(), "x\n".repeat(7));
    assert!(!bench.alive().await);
}

#[tokio::test]
async fn a_frozen_check_fails_by_its_deadline() {
    let mut settings = supervised("exec sleep 1000");
    settings.start_timeout = Duration::from_millis(300);
    settings.checks = vec![check(Probe::Command(shell("exec sleep 1000")), 1)];
    settings.checks[0].deadline = Duration::from_millis(50);
    let mut bench = Bench::new(settings);
    let reason = failed(bench.start().await);
    assert!(reason.ends_with("within 50 ms"), "{reason}");
}

#[tokio::test]
async fn what_runs_already_is_adopted_under_the_new_guard() {
    let mut bench = Bench::new(supervised("exec sleep 1000"));
    assert_eq!(bench.start().await, ServiceObservation::Started);
    let pid = bench.main().await;
    let (handle, mut events) = Bench::agent(supervised("exit 1"), bench.launcher.clone());
    let newer = Guard { generation: 4, epoch: 8 };
    assert!(handle.send(ServiceCommand::Start { guard: newer, takeover: false }));
    assert_eq!(next(&mut events).await, ServiceObservation::Started);
    assert_eq!(bench.launcher.guard("test"), Some(newer));
    assert_eq!(bench.main().await, pid, "nothing was started");
    assert!(handle.send(ServiceCommand::Stop { kill: true }));
    assert_eq!(next(&mut events).await, ServiceObservation::Stopped);
    assert_eq!(bench.main().await, None);
}

#[tokio::test]
async fn a_stop_reaches_what_an_earlier_agent_started() {
    let script = "trap 'touch $D/asked; exit' TERM; touch $D/ready; while :; do sleep 0.01; done";
    let mut bench = Bench::new(ready_when_it_says(script));
    assert_eq!(bench.start().await, ServiceObservation::Started);
    let (handle, mut events) = Bench::agent(supervised("exit 1"), bench.launcher.clone());
    assert!(handle.send(ServiceCommand::Stop { kill: false }));
    // The first agent hears of the exit; this one is told by the same route in service.
    assert_eq!(failed(bench.next().await), "ended by itself (exit code 0)");
    assert!(bench.path("asked").exists(), "it was asked, not killed");
    drop(handle);
    assert_eq!(events.recv().await, None, "an agent ends with its handle");
}

fn scripts(start: &str) -> ServiceSettings {
    settings(Run::Scripts { start: shell(start), stop: shell("kill $(cat $D/pid); touch $D/stopped") })
}

const DAEMON: &str = "sleep 1000 > /dev/null 2>&1 & echo $! > $D/pid";

#[tokio::test]
async fn scripts_start_and_stop_a_service() {
    let mut bench = Bench::new(scripts(DAEMON));
    assert_eq!(bench.start().await, ServiceObservation::Started);
    assert!(bench.alive().await);
    assert_eq!(bench.main().await, None, "the start command has ended");
    assert_eq!(bench.stop(false).await, ServiceObservation::Stopped);
    assert!(bench.path("stopped").exists());
    assert!(!bench.alive().await);
}

#[tokio::test]
async fn a_service_of_scripts_that_ends_is_noticed() {
    let mut bench = Bench::new(scripts(DAEMON));
    assert_eq!(bench.start().await, ServiceObservation::Started);
    bench.handle.emptied().await;
    let pid = number(&bench.path("pid")).unwrap();
    let pid = rustix::process::Pid::from_raw(pid.cast_signed()).unwrap();
    rustix::process::kill_process(pid, rustix::process::Signal::KILL).unwrap();
    let launcher = bench.launcher.clone();
    while launcher.alive("test").await.unwrap() {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    bench.handle.emptied().await;
    assert_eq!(failed(bench.next().await), "all its processes have ended by themselves");
}

#[tokio::test]
async fn a_start_command_that_fails_or_leaves_nothing_is_a_failure() {
    let mut bench = Bench::new(scripts("exit 3"));
    assert_eq!(failed(bench.start().await), "the start command failed (exit code 3)");
    let mut bench = Bench::new(scripts("exit 0"));
    let reason = failed(bench.start().await);
    assert_eq!(reason, "the start command left no process behind, and no check is set to watch it");
}

#[tokio::test]
async fn what_scripts_start_elsewhere_is_watched_by_checks_and_ended_by_its_command() {
    let mut settings = scripts("touch $D/up");
    settings.checks = vec![check(Probe::Command(shell("test -e $D/up")), 2)];
    settings.run = Run::Scripts { start: shell("touch $D/up"), stop: shell("echo x >> $D/stops; rm -f $D/up") };
    let mut bench = Bench::new(settings);
    assert_eq!(bench.start().await, ServiceObservation::Started);
    fs::remove_file(bench.path("up")).unwrap();
    assert_eq!(failed(bench.next().await), "command /bin/sh: it ended with exit code 1");
    assert_eq!(fs::read_to_string(bench.path("stops")).unwrap(), "x\n", "ended by its own command");
    assert_eq!(bench.start().await, ServiceObservation::Started);
    assert_eq!(bench.stop(true).await, ServiceObservation::Stopped);
    assert_eq!(fs::read_to_string(bench.path("stops")).unwrap(), "x\nx\n", "a kill has no other means");
}

/// A sentinel whose lease has lapsed.
#[derive(Clone)]
struct Lapsed(DirectLauncher);

impl Launcher for Lapsed {
    async fn spawn(&self, _: SpawnRequest) -> Result<u32, LaunchError> {
        Err(LaunchError::Refused { reason: "the lease has lapsed".into() })
    }
    async fn spawn_script(&self, request: SpawnRequest) -> Result<u32, LaunchError> {
        self.spawn(request).await
    }
    async fn alive(&self, name: &str) -> Result<bool, LaunchError> {
        self.0.alive(name).await
    }
    async fn running(&self, name: &str) -> Result<Option<u32>, LaunchError> {
        self.0.running(name).await
    }
    async fn kill_group(&self, name: &str) -> Result<(), LaunchError> {
        self.0.kill_group(name).await
    }
    async fn signal(&self, name: &str, signal: i32) -> Result<(), LaunchError> {
        self.0.signal(name, signal).await
    }
    async fn promote(&self, name: &str, file: PathBuf, signal: i32, guard: Guard) -> Result<(), LaunchError> {
        self.0.promote(name, file, signal, guard).await
    }
    async fn mark_guarded(&self, _: &str, _: Option<Guard>) -> Result<(), LaunchError> {
        Err(LaunchError::Refused { reason: "the lease has lapsed".into() })
    }
}

#[tokio::test]
async fn without_a_lease_nothing_is_started_and_nothing_adopted() {
    let mut bench = Bench::new(supervised("exec sleep 1000"));
    let (handle, mut events) = Bench::agent(supervised("exec sleep 1000"), Lapsed(bench.launcher.clone()));
    let start = ServiceCommand::Start { guard: GUARD, takeover: false };
    assert!(handle.send(start.clone()));
    assert_eq!(failed(next(&mut events).await), "cannot start: refused: the lease has lapsed");
    assert_eq!(bench.start().await, ServiceObservation::Started);
    assert!(handle.send(start));
    assert_eq!(failed(next(&mut events).await), "cannot start: refused: the lease has lapsed");
    assert!(!bench.alive().await, "what has no right to run does not run");
}

struct Recorder(mpsc::UnboundedSender<(bool, Option<u32>)>);

impl Hooks for Recorder {
    fn started(&self, takeover: bool, main: Option<u32>) -> Boxed<'_, ()> {
        Box::pin(async move { self.0.send((takeover, main)).unwrap() })
    }
}

#[tokio::test]
async fn a_profile_is_told_of_each_start_of_ours() {
    let mut settings = supervised("exec sleep 1000");
    let (sender, mut told) = mpsc::unbounded_channel();
    settings.hooks = Some(Arc::new(Recorder(sender)));
    let mut bench = Bench::new(settings);
    assert_eq!(bench.start().await, ServiceObservation::Started);
    assert_eq!(told.recv().await, Some((true, bench.main().await)));
    assert_eq!(bench.stop(true).await, ServiceObservation::Stopped);
}

#[tokio::test]
async fn a_page_is_judged_by_its_status() {
    for (answer, expected) in [
        ("HTTP/1.1 200 OK\r\n\r\nhello", Ok(())),
        ("HTTP/1.1 302 Found\r\n\r\n", Ok(())),
        ("HTTP/1.1 503 Later\r\n\r\n", Err("status 503".to_owned())),
        ("nonsense", Err("no HTTP answer".to_owned())),
    ] {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let server = tokio::spawn(async move {
            let (mut stream, _) = listener.accept().await.unwrap();
            let mut request = [0; 1024];
            let length = stream.read(&mut request).await.unwrap();
            stream.write_all(answer.as_bytes()).await.unwrap();
            String::from_utf8_lossy(&request[..length]).into_owned()
        });
        let page = Probe::Http(Http::parse(&format!("http://{address}/health")).unwrap());
        assert_eq!(page.look(&supervised(""), None, PATIENCE).await, expected);
        assert!(server.await.unwrap().starts_with("GET /health HTTP/1.0\r\n"));
    }
}

#[tokio::test]
async fn a_connection_is_tried() {
    // Until it listens, the port is taken and refuses.
    let socket = tokio::net::TcpSocket::new_v4().unwrap();
    socket.bind("127.0.0.1:0".parse().unwrap()).unwrap();
    let address = socket.local_addr().unwrap().to_string();
    let tcp = Probe::Tcp(address.clone());
    let refused = tcp.look(&supervised(""), None, PATIENCE).await.unwrap_err();
    assert!(refused.starts_with("cannot connect: Connection refused"), "{refused}");
    let (host, port) = address.split_once(':').unwrap();
    let connection = format!("host={host} port={port} user=nobody");
    let sql = Probe::Sql(Sql { connection, query: "select 1".into() });
    let refused = sql.look(&supervised(""), None, PATIENCE).await.unwrap_err();
    assert!(refused.contains("Connection refused"), "{refused}");
    let _listener = socket.listen(1).unwrap();
    assert_eq!(tcp.look(&supervised(""), None, PATIENCE).await, Ok(()));
}

#[tokio::test]
async fn a_server_that_says_nothing_costs_the_deadline_only() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let limit = Duration::from_millis(50);
    let connection = format!("host=127.0.0.1 port={} user=nobody", address.port());
    let sql = Probe::Sql(Sql { connection, query: "select 1".into() });
    assert_eq!(sql.look(&supervised(""), None, limit).await, Err("no answer within 50 ms".into()));
    let page = Probe::Http(Http::parse(&format!("http://{address}/")).unwrap());
    assert_eq!(page.look(&supervised(""), None, limit).await, Err("no answer within 50 ms".into()));
}

#[tokio::test]
async fn a_command_is_bounded_in_time_and_output() {
    let user = root();
    let ended = run(&shell("echo out; echo err >&2; exit 5"), &user, &[], PATIENCE).await.unwrap();
    assert_eq!(ended, Outcome { code: Some(5), output: "out\n".into(), errors: "err\n".into() });
    let flood = run(&shell("head -c 1000000 /dev/zero"), &user, &[], PATIENCE).await.unwrap();
    assert_eq!((flood.code, flood.output.len()), (Some(0), 65536));
    let left = run(&shell("sleep 3 & echo ready"), &user, &[], PATIENCE).await.unwrap();
    assert_eq!((left.code, left.output.as_str()), (Some(0), "ready\n"), "nobody waits for what it left behind");

    let directory = tempfile::tempdir().unwrap();
    let env = [("D".to_owned(), directory.path().to_str().unwrap().to_owned())];
    let script = shell("sleep 1000 & echo $! > $D/child; wait");
    let late = run(&script, &user, &env, Duration::from_millis(200)).await.unwrap_err();
    assert_eq!(late, "/bin/sh did not end within 200 ms");
    let child = number(&directory.path().join("child")).unwrap();
    eventually("the whole group is killed", || !exists(child)).await;
}
