//! Clients of a service address in network namespaces made for each test: a client and two
//! servers on one bridge. They need root and iproute2.

use super::*;
use std::fs::File;
use std::io::{ErrorKind, Read};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::mpsc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

const SERVICE: &str = "10.98.0.100";
const SERVICE_V6: &str = "fd98::64";
const PATIENCE: Duration = Duration::from_secs(10);

/// Namespaces on one bridge, each with `eth0` at 10.98.0.N and fd98::N; gone when dropped.
struct Bench {
    prefix: String,
}

impl Bench {
    /// `None` (the test then says so and ends) where namespaces cannot be made.
    fn new() -> Option<Bench> {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let number = COUNT.fetch_add(1, Ordering::Relaxed);
        let bench = Bench { prefix: format!("oarlock-test-{}-{number}", std::process::id()) };
        if !rustix::process::geteuid().is_root() || !ip(&format!("netns add {}", bench.name("switch"))) {
            eprintln!("skipped: network namespaces need root and iproute2");
            return None;
        }
        let switch = bench.name("switch");
        assert!(ip(&format!("-n {switch} link add br0 type bridge")));
        assert!(ip(&format!("-n {switch} link set br0 up")));
        for (host, number) in [("client", 1), ("server1", 2), ("server2", 3)] {
            let name = bench.name(host);
            assert!(ip(&format!("netns add {name}")));
            assert!(ip(&format!("-n {switch} link add {host} type veth peer name eth0 netns {name}")));
            assert!(ip(&format!("-n {switch} link set {host} master br0 up")));
            assert!(ip(&format!("-n {name} link set lo up")));
            assert!(ip(&format!("-n {name} link set eth0 up")));
            assert!(ip(&format!("-n {name} addr add 10.98.0.{number}/24 dev eth0")));
            assert!(ip(&format!("-n {name} addr add fd98::{number}/64 dev eth0 nodad")));
        }
        Some(bench)
    }

    fn name(&self, host: &str) -> String {
        format!("{}-{host}", self.prefix)
    }

    fn ip(&self, host: &str, arguments: &str) {
        assert!(ip(&format!("-n {} {arguments}", self.name(host))), "ip {arguments} in {host}");
    }

    fn raise(&self, host: &str, address: IpAddr) {
        let (prefix, flag) = if address.is_ipv4() { (24, "") } else { (64, " nodad") };
        self.ip(host, &format!("addr add {address}/{prefix} dev eth0{flag}"));
    }

    /// Runs `work` on a thread of its own inside the namespace of `host`.
    fn on<T: Send + 'static>(&self, host: &str, work: impl FnOnce() -> T + Send + 'static) -> JoinHandle<T> {
        let path = format!("/run/netns/{}", self.name(host));
        std::thread::spawn(move || {
            let namespace = File::open(path).unwrap();
            let kind = Some(rustix::thread::LinkNameSpaceType::Network);
            rustix::thread::move_into_link_name_space(std::os::fd::AsFd::as_fd(&namespace), kind).unwrap();
            work()
        })
    }
}

impl Drop for Bench {
    fn drop(&mut self) {
        for host in ["client", "server1", "server2", "switch"] {
            ip(&format!("netns delete {}", self.name(host)));
        }
    }
}

fn ip(arguments: &str) -> bool {
    Command::new("ip").args(arguments.split(' ')).status().is_ok_and(|status| status.success())
}

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap()
}

/// One attempt to connect: how it ended and how long it took.
fn attempt(address: SocketAddr, limit: Duration) -> (Option<ErrorKind>, Duration) {
    let start = Instant::now();
    let result = TcpStream::connect_timeout(&address, limit);
    (result.err().map(|error| error.kind()), start.elapsed())
}

fn service(address: &str) -> SocketAddr {
    SocketAddr::new(address.parse().unwrap(), 7777)
}

#[test]
fn a_connection_to_an_address_that_left_is_refused_at_once() {
    connections_are_refused_at(service(SERVICE));
}

#[test]
fn a_connection_to_an_ipv6_address_that_left_is_refused_at_once() {
    connections_are_refused_at(service(SERVICE_V6));
}

fn connections_are_refused_at(service: SocketAddr) {
    let Some(bench) = Bench::new() else { return };
    bench.raise("server1", service.ip());
    let listener = bench.on("server1", move || TcpListener::bind(service).unwrap()).join().unwrap();
    let try_once =
        |limit_ms| bench.on("client", move || attempt(service, Duration::from_millis(limit_ms))).join().unwrap();
    assert_eq!(try_once(2000).0, None, "the client has learnt where the address is");

    let (opened, is_open) = mpsc::channel();
    let refuser = bench.on("server1", move || {
        runtime().block_on(async {
            let refuser = Refuser::open("eth0", service.ip()).unwrap();
            opened.send(()).unwrap();
            refuser.run(REFUSE_FOR).await.unwrap()
        })
    });
    is_open.recv_timeout(PATIENCE).unwrap();
    assert_eq!(try_once(2000).0, None, "nothing is refused while the address is here");
    drop(listener);
    let bits = if service.is_ipv4() { 24 } else { 64 };
    bench.ip("server1", &format!("addr del {}/{bits} dev eth0", service.ip()));

    let mut times: Vec<Duration> = Vec::new();
    for _ in 0..5 {
        let (error, time) = try_once(1500);
        assert_eq!(error, Some(ErrorKind::ConnectionRefused));
        times.push(time);
    }
    times.sort_unstable();
    println!("refused after {times:?}");
    // Before the client would try again by itself, after a second.
    assert!(times[2] < Duration::from_millis(800), "median of {times:?}");
    assert_eq!(refuser.join().unwrap(), 5);
    assert_eq!(try_once(500).0, Some(ErrorKind::TimedOut), "without the refuser the attempt is lost");
}

#[test]
fn a_hung_connection_is_reset_by_the_new_owner() {
    hung_connections_are_reset_at(service(SERVICE));
}

#[test]
fn a_hung_ipv6_connection_is_reset_by_the_new_owner() {
    hung_connections_are_reset_at(service(SERVICE_V6));
}

fn hung_connections_are_reset_at(service: SocketAddr) {
    let Some(bench) = Bench::new() else { return };
    let hung = hang(&bench, service);
    let start = Instant::now();
    let sent = bench.on("server2", move || runtime().block_on(tickle("eth0", &hung.pairs)).unwrap());
    let (error, noticed) = hung.client.join().unwrap();
    println!("reset after {:?}", noticed - start);
    assert_eq!(error, ErrorKind::ConnectionReset);
    // It would hang for minutes.
    assert!(noticed - start < Duration::from_secs(1), "reset after {:?}", noticed - start);
    assert_eq!(sent.join().unwrap(), TICKLE_AT_MS.len() as u64);
}

#[test]
fn a_client_that_learns_late_where_the_address_is_now_is_reset_by_a_later_round() {
    let Some(bench) = Bench::new() else { return };
    let hung = hang(&bench, service(SERVICE));
    // Its answer to the first round goes to nobody.
    bench.ip("client", &format!("neigh replace {SERVICE} lladdr 02:00:00:00:00:99 dev eth0 nud permanent"));
    let sent = bench.on("server2", move || runtime().block_on(tickle("eth0", &hung.pairs)).unwrap());
    std::thread::sleep(Duration::from_millis(TICKLE_AT_MS[1] / 2));
    assert!(!hung.client.is_finished());
    bench.ip("client", &format!("neigh del {SERVICE} dev eth0"));
    let start = Instant::now();
    let (error, noticed) = hung.client.join().unwrap();
    println!("reset {:?} after it had learnt", noticed - start);
    assert_eq!(error, ErrorKind::ConnectionReset);
    assert!(!sent.is_finished(), "by one of the rounds before the last");
}

/// A client that waits for an answer of a server that is unplugged now; the address is on the other.
struct Hung {
    pairs: Vec<Pair>,
    /// How the client's wait ended, and when.
    client: JoinHandle<(ErrorKind, Instant)>,
    _server: TcpStream,
}

fn hang(bench: &Bench, service: SocketAddr) -> Hung {
    bench.raise("server1", service.ip());
    let listener = bench.on("server1", move || TcpListener::bind(service).unwrap()).join().unwrap();
    let (connected, is_connected) = mpsc::channel();
    let client = bench.on("client", move || {
        let mut stream = TcpStream::connect_timeout(&service, PATIENCE).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        connected.send(stream.local_addr().unwrap()).unwrap();
        let error = stream.read(&mut [0; 1]).unwrap_err();
        (error.kind(), Instant::now())
    });
    let (server, _) = listener.accept().unwrap();
    let client_address = is_connected.recv_timeout(PATIENCE).unwrap();
    let pairs = bench.on("server1", move || list_connections(service.ip()).unwrap()).join().unwrap();
    assert_eq!(pairs, [Pair { client: client_address, service }]);
    bench.ip("switch", "link set server1 down");
    bench.raise("server2", service.ip());
    Hung { pairs, client, _server: server }
}

#[test]
fn connections_of_both_families_are_listed() {
    let Some(bench) = Bench::new() else { return };
    let service = service(SERVICE);
    bench.raise("server1", service.ip());
    // A listener for both families holds an IPv4 connection as an IPv6 one.
    let listener = bench.on("server1", || TcpListener::bind("[::]:7777").unwrap()).join().unwrap();
    let other: SocketAddr = "10.98.0.2:7777".parse().unwrap();
    let connect = |to| bench.on("client", move || TcpStream::connect_timeout(&to, PATIENCE).unwrap()).join().unwrap();
    let streams = [connect(service), connect(other)];
    let _held = [listener.accept().unwrap(), listener.accept().unwrap()];
    let pairs = bench.on("server1", move || list_connections(service.ip()).unwrap()).join().unwrap();
    assert_eq!(pairs, [Pair { client: streams[0].local_addr().unwrap(), service }]);
}

#[test]
fn loopback_is_local_and_a_foreign_address_is_not() {
    assert!(may_be_local("127.0.0.1".parse().unwrap()));
    assert!(!may_be_local("192.0.2.77".parse().unwrap()));
}

#[test]
fn an_unknown_interface_is_named() {
    let error = runtime().block_on(async { Refuser::open("no-such-if", "10.0.0.1".parse().unwrap()).err().unwrap() });
    assert_eq!(error.to_string(), "no network interface \"no-such-if\"");
}
