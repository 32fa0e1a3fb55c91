//! What the machine grants: time, memory, control groups, ports, addresses.

use super::{Report, Subject};
use crate::config::{NodeSettings, ResourceKind};
use crate::network::Snapshot;
use std::fs;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener, UdpSocket};

/// Clocks that differ by more make logs misleading; nothing in the protocol depends on it.
const CLOCK_WARNING_MS: i64 = 1000;

/// Checks the machine, as node `node` if that is known.
pub fn check(subject: &Subject, node: Option<&NodeSettings>, report: &mut Report) {
    agent(subject, report);
    kernel(subject, report);
    if node.is_none_or(|node| !node.witness) {
        watchdog(subject, report);
    }
    if let Some(node) = node {
        network(subject, node, report);
    }
}

fn agent(subject: &Subject, report: &mut Report) {
    let mut area = report.area("agent");
    let Some(agent) = &subject.agent else {
        area.warning("no agent runs on this machine", "systemctl enable --now oarlock");
        return;
    };
    if agent.version != env!("CARGO_PKG_VERSION") {
        area.warning(
            format!("the agent is of version {}, this command of {}", agent.version, env!("CARGO_PKG_VERSION")),
            "systemctl restart oarlock: services keep running",
        );
    }
    if !agent.realtime {
        area.warning(
            "real-time scheduling was not granted: a busy machine may lose its lease without need",
            "the unit needs LimitRTPRIO and, with cgroup v1, a budget in cpu.rt_runtime_us",
        );
    }
    if !agent.memory_locked {
        area.warning(
            "the sentinel's memory is not locked: swapping may delay it past its deadline",
            "the unit needs LimitMEMLOCK=infinity",
        );
    }
    if !agent.cgroups {
        area.warning(
            "services are not kept in control groups: a program that leaves its session may escape being killed",
            "mount the unified hierarchy: mount -t cgroup2 none /sys/fs/cgroup/unified",
        );
    }
    for clock in agent.clock_offsets.iter().filter(|clock| clock.offset_ms.abs() > CLOCK_WARNING_MS) {
        area.warning(
            format!("the clock of {} is {} ms off ours", clock.node, clock.offset_ms),
            "run an NTP client on every node; oarlock itself does not depend on it, jobs and logs do",
        );
    }
    if subject.status.as_ref().is_some_and(|status| !status.quorum) {
        area.error("no quorum: a majority of the nodes is not heard", "oarlock status shows which");
    }
}

fn kernel(subject: &Subject, report: &mut Report) {
    let mut area = report.area("machine");
    let controllers = ["sys/fs/cgroup/cgroup.controllers", "sys/fs/cgroup/unified/cgroup.controllers"];
    if subject.agent.is_none() && !controllers.iter().any(|path| subject.system(path).exists()) {
        area.warning(
            "no cgroup v2: services are killed process by process",
            "mount -t cgroup2 none /sys/fs/cgroup/unified",
        );
    }
    let nonlocal_bind = subject.system("proc/sys/net/ipv4/ip_nonlocal_bind");
    if fs::read_to_string(nonlocal_bind).is_ok_and(|value| value.trim() == "1") {
        area.warning(
            "net.ipv4.ip_nonlocal_bind is 1: programs may bind service addresses that are elsewhere",
            "sysctl net.ipv4.ip_nonlocal_bind=0, unless something on this machine needs it",
        );
    }
}

/// A witness runs nothing that somebody would have to stop.
fn watchdog(subject: &Subject, report: &mut Report) {
    let mut area = report.area("machine");
    let usual = subject.system("dev/watchdog").exists();
    let Some(wanted) = &subject.settings.watchdog else {
        area.warning(
            "no watchdog: if agent and sentinel are stopped or killed in the same instant, nothing silences this node",
            if usual {
                "watchdog = \"/dev/watchdog\" in [cluster]"
            } else {
                "modprobe softdog, or enable the hardware's; then watchdog = \"/dev/watchdog\" in [cluster]"
            },
        );
        return;
    };
    let device = &wanted.device;
    let usable = match &subject.agent {
        Some(agent) => agent.watchdog,
        None => subject.system(device.trim_start_matches('/')).exists(),
    };
    if !usable {
        area.warning(
            format!(
                "the watchdog {device} cannot be used: nothing silences this node if agent and sentinel stand still"
            ),
            "the agent's log says why: no driver is loaded, or another program (systemd's RuntimeWatchdogSec) has it",
        );
    }
}

fn network(subject: &Subject, node: &NodeSettings, report: &mut Report) {
    let mut area = report.area("network");
    let snapshot = match Snapshot::take_blocking() {
        Ok(snapshot) => snapshot,
        Err(error) => {
            area.warning(format!("cannot list the addresses of this machine: {error}"), "");
            return;
        }
    };
    for link in node.links.iter().filter(|link| !link.is_loopback() && !snapshot.holds(**link)) {
        area.error(
            format!("link {link} of node \"{}\" is not on this machine", node.name),
            "is the cable in and the interface configured? or does the configuration name the wrong address?",
        );
    }
    if node.links.len() == 1 && subject.settings.nodes.len() > 1 {
        area.warning(
            "one link only: when it is cut, the node is cut off",
            "links = [first, second] survives the loss of one",
        );
    }
    if !node.witness {
        for (_, resource) in subject.settings.resources_of(node.id) {
            let ResourceKind::Address(address) = &resource.kind else { continue };
            let found = match &address.interface {
                Some(name) => snapshot.interface(name).map(|_| ()),
                None => snapshot.interface_for(address.address, address.prefix).map(|_| ()),
            };
            if let Err(error) = found {
                area.error(
                    format!("no interface for \"{}\" ({}): {error}", resource.name, address.address),
                    "give the interface an address of that network, or name it: interface = \"…\"",
                );
            }
        }
    }
    drop(area);
    if subject.agent.is_none() {
        ports(subject, node, report);
    }
}

/// Only where no agent runs: otherwise it is the one that has them.
fn ports(subject: &Subject, node: &NodeSettings, report: &mut Report) {
    let mut area = report.area("network");
    let port = subject.settings.port;
    for link in &node.links {
        let taken = UdpSocket::bind(SocketAddr::new(*link, port));
        if taken.is_err_and(|error| error.kind() == std::io::ErrorKind::AddrInUse) {
            area.error(
                format!("UDP port {port} on {link} is taken"),
                "ss -ulpn shows by whom; or set port in [cluster]",
            );
        }
    }
    for (_, resource) in subject.settings.resources_of(node.id) {
        for (_, port) in resource.kind.database_places().map(|(_, ports)| ports).unwrap_or_default() {
            let address = SocketAddr::new(IpAddr::V4(Ipv4Addr::UNSPECIFIED), port);
            if TcpListener::bind(address).is_err_and(|error| error.kind() == std::io::ErrorKind::AddrInUse) {
                area.error(
                    format!("TCP port {port} of \"{}\" is taken", resource.name),
                    "a database that was not started by oarlock? stop it and see what starts it at boot",
                );
            }
        }
    }
}
