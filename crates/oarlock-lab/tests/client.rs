//! The writing client against a real PostgreSQL that dies, stalls and lies.
#![allow(clippy::unwrap_used, reason = "a helper that fails shall fail its test")]

mod postgres;

use oarlock_lab::Engine;
use oarlock_lab::client::{Session, Target, create_table, fetch_rows};
use oarlock_lab::history::{Attempt, History, IdleEvent, Outcome, Rows, Stamp, check, outage_around, wrongly_seen};
use postgres::Postgres;
use std::path::{Path, PathBuf};
use std::process::{Child, Command};
use std::time::{Duration, Instant};

const PATIENCE: Duration = Duration::from_secs(20);

/// A client process of ours; killed if the test ends before it.
struct Client {
    process: Child,
    log: PathBuf,
}

impl Client {
    fn start(postgres: &Postgres, extra: &[&str]) -> Client {
        let log = postgres.dir().join("client.log");
        let mut command = Command::new(env!("CARGO_BIN_EXE_oarlock-lab"));
        command.args(["client", "--run", "r", "--host", "127.0.0.1"]);
        command.args(["--port", &postgres.port().to_string(), "--user", "postgres"]);
        command.args(["--dbname", "postgres", "--create-within-ms", "10000"]);
        command.arg("--log").arg(&log).args(extra);
        let process = command.spawn().unwrap();
        Client { process, log }
    }

    /// Reads the log again and again until it satisfies.
    fn await_log(&self, what: &str, satisfied: impl Fn(&History) -> bool) {
        until(what, || Path::exists(&self.log) && History::read(&self.log).is_ok_and(|h| satisfied(&h)));
    }

    fn stop(mut self) -> History {
        let pid = rustix::process::Pid::from_child(&self.process);
        rustix::process::kill_process(pid, rustix::process::Signal::TERM).unwrap();
        assert!(self.process.wait().unwrap().success());
        History::read(&self.log).unwrap()
    }
}

impl Drop for Client {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

fn until(what: &str, mut condition: impl FnMut() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !condition() {
        assert!(Instant::now() < deadline, "not within {PATIENCE:?}: {what}");
        std::thread::sleep(Duration::from_millis(10));
    }
}

fn target(postgres: &Postgres) -> Target {
    Target {
        host: postgres.dir().display().to_string(),
        engine: Engine::Postgresql,
        port: Some(postgres.port()),
        dbname: "postgres".into(),
        user: "postgres".into(),
        password: String::new(),
        connect_timeout_ms: 5_000,
        statement_timeout_ms: 5_000,
    }
}

fn block_on<T>(future: impl Future<Output = T>) -> T {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(future)
}

/// Runs SQL as an administrator, over the Unix socket.
fn admin(postgres: &Postgres, sql: &str) {
    let target = target(postgres);
    block_on(async {
        let mut session = Session::open(&target).await.unwrap();
        session.run(sql).await.unwrap();
    });
}

fn rows(postgres: &Postgres) -> Rows {
    block_on(fetch_rows(&target(postgres), "r")).unwrap()
}

fn acked(history: &History) -> usize {
    history.acked().count()
}

fn acked_after(history: &History, at: Stamp) -> bool {
    history.acked().any(|a| a.begun.mono_us > at.mono_us)
}

/// The PostgreSQL of the machine, or None (said aloud) where there is none.
fn postgres() -> Option<Postgres> {
    let postgres = Postgres::create();
    if postgres.is_none() {
        eprintln!("skipped: no PostgreSQL server programs on this machine");
    }
    postgres
}

#[test]
fn a_quiet_run_is_clean_and_a_missing_or_doubled_row_is_caught() {
    let Some(postgres) = postgres() else { return };
    let _server = postgres.start();
    let client = Client::start(&postgres, &["--writers", "2"]);
    client.await_log("40 acknowledged rows", |h| acked(h) >= 40);
    let history = client.stop();
    assert!(history.end.is_some());

    let verdict = check(&history, &rows(&postgres));
    assert!(verdict.clean(), "{verdict}");
    assert_eq!((verdict.refused, verdict.unknown), (0, 0), "{verdict}");

    admin(&postgres, "DELETE FROM bench.rows WHERE id = 7");
    admin(&postgres, "INSERT INTO bench.rows SELECT * FROM bench.rows WHERE id = 8");
    admin(&postgres, "INSERT INTO bench.rows VALUES ('r', 999999, 0, 0)");
    let verdict = check(&history, &rows(&postgres));
    assert_eq!(verdict.lost, [7]);
    assert_eq!(verdict.doubled, [8]);
    assert_eq!(verdict.unexpected, [999_999]);
}

#[test]
fn readers_of_the_service_and_of_a_server_by_name_are_told_apart() {
    let Some(postgres) = postgres() else { return };
    let server = postgres.start();
    let client = Client::start(&postgres, &["--readers", "1", "--reader-host", "localhost"]);
    let showed = |h: &History, by_name: bool| {
        h.reads.iter().any(|r| r.server.is_some() == by_name && r.reader == u32::from(by_name) && !r.newest.is_empty())
    };
    client.await_log("a read of each", |h| showed(h, false) && showed(h, true));
    drop(server);
    let _server = postgres.start();
    client.await_log("a read over a second connection", |h| {
        [0, 1].iter().all(|reader| h.reads.iter().any(|r| r.reader == *reader && r.session == 1))
    });
    let history = client.stop();
    assert!(history.reads.iter().all(|r| !r.standby && r.server.as_deref().is_none_or(|s| s == "localhost")));
    assert_eq!(wrongly_seen(&history, &rows(&postgres)), Vec::<String>::new());
    let newest = history.reads.iter().flat_map(|r| &r.newest).map(|(_, id)| *id).max().unwrap();
    admin(&postgres, &format!("DELETE FROM bench.rows WHERE id = {newest}"));
    assert_eq!(wrongly_seen(&history, &rows(&postgres)).len(), 1);
}

#[test]
fn a_killed_server_is_an_outage_without_a_lost_row() {
    let Some(postgres) = postgres() else { return };
    let server = postgres.start();
    let client = Client::start(&postgres, &["--connections", "2"]);
    client.await_log("20 acknowledged rows and idle connections", |h| acked(h) >= 20 && h.idle.len() == 2);

    let killed = Stamp::now();
    server.kill();
    client.await_log("refused attempts and lost idle connections", |h| {
        let refused = h.attempts.iter().filter(|a| a.outcome == Outcome::Refused);
        let lost = h.idle.iter().filter(|i| i.event == IdleEvent::Lost);
        refused.count() >= 3 && lost.count() == 2
    });
    let restarted = Stamp::now();
    let _server = postgres.start();
    client.await_log("acknowledged rows and idle connections again", |h| {
        acked_after(h, restarted) && h.idle.iter().filter(|i| i.event == IdleEvent::Opened).count() == 4
    });
    let history = client.stop();

    let verdict = check(&history, &rows(&postgres));
    assert!(verdict.clean(), "{verdict}");
    let outage = outage_around(&history, killed, history.last_instant()).unwrap();
    assert!(outage.ended);
    assert!(outage.ms() >= restarted.ms_since(killed), "{} ms", outage.ms());
    let alive = history.idle.iter().filter(|i| i.event == IdleEvent::Alive);
    assert_eq!(alive.count(), 2);
}

/// Makes every commit wait for a standby that does not exist.
fn stall_commits(postgres: &Postgres) {
    admin(postgres, "ALTER SYSTEM SET synchronous_standby_names = 'nobody'");
    admin(postgres, "SELECT pg_reload_conf()");
}

fn find(history: &History, wanted: impl Fn(&Attempt) -> bool) -> Option<Attempt> {
    history.attempts.iter().find(|a| wanted(a)).cloned()
}

#[test]
fn a_commit_whose_wait_was_cancelled_counts_as_unknown() {
    let Some(postgres) = postgres() else { return };
    let _server = postgres.start();
    let client = Client::start(&postgres, &["--statement-timeout-ms", "15000"]);
    client.await_log("10 acknowledged rows", |h| acked(h) >= 10);
    stall_commits(&postgres);
    let cancel = "SELECT pg_cancel_backend(pid) FROM pg_stat_activity WHERE wait_event = 'SyncRep'";
    let warned = |h: &History| {
        let warned = |a: &Attempt| a.error.as_deref().is_some_and(|e| e.starts_with("warning: "));
        find(h, warned)
    };
    until("a warned attempt", || {
        admin(&postgres, cancel);
        History::read(&client.log).is_ok_and(|h| warned(&h).is_some())
    });
    let history = History::read(&client.log).unwrap();
    let attempt = warned(&history).unwrap();
    assert_eq!(attempt.outcome, Outcome::Unknown);
    assert_eq!(
        attempt.error.as_deref(),
        Some("warning: canceling wait for synchronous replication due to user request")
    );
    assert_eq!(rows(&postgres).get(&attempt.id), Some(&1));
}

#[test]
fn an_attempt_that_hangs_is_abandoned_and_unknown() {
    let Some(postgres) = postgres() else { return };
    let _server = postgres.start();
    let client = Client::start(&postgres, &["--statement-timeout-ms", "200"]);
    client.await_log("10 acknowledged rows", |h| acked(h) >= 10);
    stall_commits(&postgres);
    let hung = |a: &Attempt| a.error.as_deref() == Some("no answer in 200 ms");
    client.await_log("two abandoned attempts", |h| h.attempts.iter().filter(|a| hung(a)).count() >= 2);
    let history = client.stop();
    let attempt = find(&history, hung).unwrap();
    assert_eq!(attempt.outcome, Outcome::Unknown);
    let sent = attempt.sent.unwrap();
    let waited_ms = attempt.done.ms_since(sent);
    assert!((200.0..1_000.0).contains(&waited_ms), "{waited_ms} ms");
    let verdict = check(&history, &rows(&postgres));
    assert!(verdict.clean(), "{verdict}");
}

#[test]
fn a_server_that_accepts_and_says_nothing_is_refused_at_the_deadline() {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let target = Target {
        host: "127.0.0.1".into(),
        engine: Engine::Postgresql,
        port: Some(listener.local_addr().unwrap().port()),
        dbname: "bench".into(),
        user: "bench".into(),
        password: "bench".into(),
        connect_timeout_ms: 150,
        statement_timeout_ms: 150,
    };
    let began = Instant::now();
    let error = block_on(Session::open(&target)).err().unwrap();
    assert_eq!(error.to_string(), "no connection in 150 ms");
    assert!(began.elapsed() < Duration::from_secs(2));
    assert!(block_on(create_table(&target, Duration::from_millis(1))).is_err());
}
