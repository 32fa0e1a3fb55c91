//! Addresses, announcements, conflicts and connections on a pair of virtual interfaces.

use std::io::{Read, Write};
use std::net::{IpAddr, TcpListener, TcpStream};
use std::time::Duration;

use oarlock::network::{
    Change, ConflictWatch, End, Interface, Netlink, PROBE_WAIT, Snapshot, Watcher, announce, destroy_connections,
    destroy_untold, keep_announcing, probe,
};

use super::{Case, run};

pub const CASES: &[Case] = &[
    ("network_addresses_come_and_go", addresses_come_and_go),
    ("network_watcher_sees_changes", watcher_sees_changes),
    ("network_announcements_are_heard", announcements_are_heard),
    ("network_probe_finds_the_holder", probe_finds_the_holder),
    ("network_connections_are_destroyed", connections_are_destroyed),
    ("network_untold_connections_are_destroyed", untold_connections_are_destroyed),
];

const SOON: Duration = Duration::from_secs(5);

fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

/// Two interfaces joined back to back: `left` has 10.9.0.1/24 and fd09::1/64, `right` nothing.
fn pair() -> (Interface, Interface) {
    run("ip link set lo up");
    run("ip link add left type veth peer name right");
    run("ip link set left up");
    run("ip link set right up");
    run("ip address add 10.9.0.1/24 dev left");
    run("ip address add fd09::1/64 dev left nodad");
    let snapshot = Snapshot::take_blocking().unwrap();
    (snapshot.interface("left").unwrap().clone(), snapshot.interface("right").unwrap().clone())
}

fn block_on<T>(future: impl Future<Output = T>) -> T {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async { tokio::time::timeout(SOON, future).await.expect("in time") })
}

fn addresses_come_and_go() {
    let (left, _) = pair();
    assert!(left.up && left.carrier && left.mac.is_some() && !left.loopback);
    let mut netlink = Netlink::open().unwrap();
    for (address, prefix_bits) in [(ip("10.9.0.100"), 24), (ip("fd09::100"), 64)] {
        let snapshot = Snapshot::take_blocking().unwrap();
        assert!(!snapshot.holds(address));
        assert_eq!(snapshot.interface_for(address, prefix_bits).unwrap().name, "left");
        netlink.add_address(left.index, address, prefix_bits).unwrap();
        netlink.add_address(left.index, address, prefix_bits).expect("again is no error");
        assert!(Snapshot::take_blocking().unwrap().holds(address));
        assert!(netlink.remove_address(left.index, address, prefix_bits).unwrap());
        assert!(!netlink.remove_address(left.index, address, prefix_bits).unwrap());
        assert!(!Snapshot::take_blocking().unwrap().holds(address));
    }
    let error = netlink.add_address(9999, ip("10.9.0.100"), 24).unwrap_err();
    assert_eq!(error.to_string(), "adding an address failed");
    assert!(!netlink.remove_address(9999, ip("10.9.0.100"), 24).unwrap());
}

fn watcher_sees_changes() {
    let (left, right) = pair();
    block_on(async {
        let watcher = Watcher::open().unwrap();
        let wait_for = async |wanted: &dyn Fn(&Change) -> bool| {
            while !watcher.changes().await.unwrap().iter().any(wanted) {}
        };
        let mut netlink = Netlink::open().unwrap();
        netlink.add_address(left.index, ip("10.9.0.100"), 24).unwrap();
        let ours = |ip: IpAddr| ip.to_string() == "10.9.0.100";
        wait_for(&|change| matches!(change, Change::Address(address) if ours(address.ip))).await;
        netlink.remove_address(left.index, ip("10.9.0.100"), 24).unwrap();
        wait_for(&|change| matches!(change, Change::AddressGone(address) if ours(address.ip))).await;
        run("ip link set right down");
        let cut = |interface: &Interface| interface.index == left.index && !interface.carrier;
        wait_for(&|change| matches!(change, Change::Interface(interface) if cut(interface))).await;
        run("ip link delete left");
        let gone = |interface: &Interface| interface.index == right.index;
        wait_for(&|change| matches!(change, Change::InterfaceGone(interface) if gone(interface))).await;
    });
}

fn announcements_are_heard() {
    let (left, right) = pair();
    let service = ip("10.9.0.100");
    block_on(async {
        let watch = ConflictWatch::open(&right).unwrap();
        announce(&left, service).unwrap();
        let heard = watch.next(|claimed| claimed == service).await.unwrap();
        assert_eq!(heard, (service, left.mac.unwrap()));
        // Heard again without being asked, twice each time, for as long as the address is here.
        let mut netlink = Netlink::open().unwrap();
        netlink.add_address(left.index, service, 24).unwrap();
        let repeated = tokio::spawn(keep_announcing(left.clone(), service));
        for _ in 0..6 {
            watch.next(|claimed| claimed == service).await.unwrap();
        }
        netlink.remove_address(left.index, service, 24).unwrap();
        tokio::time::timeout(Duration::from_secs(5), repeated).await.unwrap().unwrap().unwrap();
        announce(&left, ip("fd09::100")).unwrap();
    });
}

fn probe_finds_the_holder() {
    let (left, right) = pair();
    block_on(async {
        let holder = probe(&right, ip("10.9.0.1"), PROBE_WAIT).await.unwrap();
        assert_eq!(holder, left.mac);
        let holder = probe(&right, ip("fd09::1"), PROBE_WAIT).await.unwrap();
        assert_eq!(holder, left.mac);
        for free in ["10.9.0.77", "fd09::77"] {
            let start = tokio::time::Instant::now();
            assert_eq!(probe(&right, ip(free), PROBE_WAIT).await.unwrap(), None);
            assert!(start.elapsed() >= PROBE_WAIT);
        }
    });
}

fn connections_are_destroyed() {
    pair();
    // A dual-stack listener carries IPv4 in an IPv6 socket.
    for (listen, address) in [("10.9.0.1:7000", "10.9.0.1:7000"), ("[::]:7001", "10.9.0.1:7001")] {
        let listener = TcpListener::bind(listen).unwrap();
        let client = TcpStream::connect(address).unwrap();
        let (server, _) = listener.accept().unwrap();
        assert_eq!(destroy_connections(End::Local(ip("10.9.0.99"))).unwrap(), 0);
        // Both ends have this address here; the reset of one may be faster than we are.
        assert_ne!(destroy_connections(End::Local(ip("10.9.0.1"))).unwrap(), 0);
        for mut end in [client, server] {
            end.set_read_timeout(Some(SOON)).unwrap();
            assert_ne!(end.read(&mut [0]).unwrap_err().kind(), std::io::ErrorKind::WouldBlock);
        }
        TcpStream::connect(address).expect("the listener is left alone");
    }
    let listener = TcpListener::bind("10.9.0.1:7002").unwrap();
    let _client = TcpStream::connect("10.9.0.1:7002").unwrap();
    let _server = listener.accept().unwrap();
    assert_ne!(destroy_connections(End::Remote(ip("10.9.0.1"))).unwrap(), 0);
}

/// A server that ends while its last words are lost leaves a client behind that knows nothing.
fn untold_connections_are_destroyed() {
    pair();
    let listener = TcpListener::bind("10.9.0.1:7003").unwrap();
    let connected = || {
        let client = TcpStream::connect("10.9.0.1:7003").unwrap();
        client.set_read_timeout(Some(SOON)).unwrap();
        (client, listener.accept().unwrap().0)
    };
    let (mut left, gone) = connected();
    run("ip link set lo down");
    drop(gone);
    run("ip link set lo up");
    let (mut well, mut kept) = connected();
    let ended = destroy_untold(End::Local(ip("10.9.0.1"))).unwrap();
    if ended == 0 && kernel() < (6, 11) {
        println!("skipped: this kernel leaves such sockets alone");
    } else {
        assert_eq!((ended, left.read(&mut [0]).unwrap_err().kind()), (1, std::io::ErrorKind::ConnectionReset));
    }
    kept.write_all(b"x").unwrap();
    assert_eq!(well.read(&mut [0]).unwrap(), 1, "others are left alone");
}

fn kernel() -> (u32, u32) {
    let release = std::fs::read_to_string("/proc/sys/kernel/osrelease").unwrap();
    let mut numbers = release.split(['.', '-']).map(|number| number.parse().unwrap());
    (numbers.next().unwrap(), numbers.next().unwrap())
}
