//! Server and client against each other.

use super::*;
use std::io::Write;
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};
use tokio::sync::mpsc;

const DEADLINE: Duration = Duration::from_secs(5);

/// An agent that answers with `answer` on a thread of its own until the returned guard is dropped.
fn agent(answer: impl Fn(Call) + Send + 'static) -> (tempfile::TempDir, std::path::PathBuf) {
    let directory = tempfile::tempdir().unwrap();
    let path = socket_path(directory.path());
    let (ready, is_ready) = std::sync::mpsc::channel();
    let bound = path.clone();
    std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let server = ControlServer::bind(&bound, Operators::default()).unwrap();
            let (sender, mut calls) = mpsc::channel(8);
            tokio::spawn(server.run(sender));
            ready.send(()).unwrap();
            while let Some(call) = calls.recv().await {
                answer(call);
            }
        });
    });
    is_ready.recv().unwrap();
    (directory, path)
}

fn ask(path: &std::path::Path, request: &Request) -> Response {
    ControlClient::connect(path, DEADLINE).unwrap().ask(request).unwrap()
}

#[test]
fn a_request_is_answered() {
    let (_directory, path) = agent(|call| {
        assert_eq!(call.peer.uid, rustix::process::getuid().as_raw());
        let response = match call.request {
            Request::Move { group, node } => Response::negative(format!("{group} to {node}")),
            _ => Response::done(),
        };
        call.reply.send(response);
    });
    assert_eq!(ask(&path, &Request::Maintenance { on: true }), Response::done());
    let request = Request::Move { group: "oar".to_owned(), node: "server2".to_owned() };
    assert_eq!(ask(&path, &request), Response::negative("oar to server2"));
    let large = Request::Apply { text: "\n".repeat(200_000), dry_run: true };
    assert_eq!(ask(&path, &large), Response::done());
}

#[test]
fn events_come_one_by_one() {
    let (_directory, path) = agent(|call| {
        for number in 0..3 {
            let event = EventLine { time_ms: number, node: "server1".to_owned(), text: "x".to_owned() };
            assert!(call.reply.send_part(Response::Event { event }));
        }
    });
    let mut seen = Vec::new();
    let request = Request::Events { follow: false, since_ms: None };
    let collect = |response| {
        if let Response::Event { event } = response {
            seen.push(event.time_ms);
        }
        true
    };
    ControlClient::connect(&path, DEADLINE).unwrap().ask_many(&request, false, collect).unwrap();
    assert_eq!(seen, [0, 1, 2]);
}

#[test]
fn a_dropped_request_is_told() {
    let (_directory, path) = agent(drop);
    assert!(matches!(ask(&path, &Request::Status), Response::Internal { .. }));
}

#[test]
fn garbage_is_answered_and_does_no_harm() {
    let (_directory, path) = agent(|call| call.reply.send(Response::done()));
    for bytes in [b"\xff\xff\xff\xff".as_slice(), b"\0\0\0\x02{}", b"\0\0\0\x04null", b"\0\0\0\x05\xff\xfe{}}"] {
        let mut stream = UnixStream::connect(&path).unwrap();
        stream.write_all(bytes).unwrap();
        stream.set_read_timeout(Some(DEADLINE)).unwrap();
        let mut answer = Vec::new();
        std::io::Read::read_to_end(&mut stream, &mut answer).unwrap();
        assert!(String::from_utf8_lossy(&answer).contains("does not understand"), "{bytes:?}");
    }
    // A client that leaves in the middle of a frame.
    UnixStream::connect(&path).unwrap().write_all(b"\0\0").unwrap();
    assert_eq!(ask(&path, &Request::Status), Response::done());
}

#[test]
fn nobody_there_and_nobody_answering() {
    let directory = tempfile::tempdir().unwrap();
    let path = socket_path(directory.path());
    assert!(matches!(ControlClient::connect(&path, DEADLINE), Err(ControlError::NoAgent { .. })));

    // Bound, never accepting: a frozen agent.
    let _listener = std::os::unix::net::UnixListener::bind(&path).unwrap();
    let began = Instant::now();
    let late = ControlClient::connect(&path, Duration::from_millis(50)).unwrap().ask(&Request::Status);
    assert!(matches!(late, Err(ControlError::Late { .. })), "{late:?}");
    assert!(began.elapsed() < DEADLINE);
}

#[test]
fn names_are_resolved_by_the_running_configuration() {
    let settings = crate::config::parse("two.toml", include_str!("../../tests/fixtures/four.toml")).unwrap();
    let config = settings.core(1);
    assert!(resolve::resource(&config, "db").is_ok());
    assert!(resolve::resource(&config, "oar/vip").is_ok());
    for (name, expected) in [
        ("vip", "one of: database/vip, oar/vip"),
        ("d", "did you mean \"db\"?"),
        ("nothing", "one of: vip, db, vip, web, oar-server"),
        ("oarr/vip", "did you mean \"oar\"?"),
    ] {
        let Err(Response::Usage { problems }) = resolve::resource(&config, name) else { panic!("{name} was found") };
        assert!(problems[0].contains(expected), "{problems:?}");
    }
    assert!(matches!(resolve::subject(&config, "oar"), Ok(resolve::Subject::Group(_))));
    assert!(matches!(resolve::subject(&config, "oar1"), Ok(resolve::Subject::Node(_))));
    let request = Request::Move { group: "oar".to_owned(), node: "oar3".to_owned() };
    assert!(resolve::core_request(&config, &request).is_err());
    assert_eq!(resolve::core_request(&config, &Request::Status), Ok(None));
}
