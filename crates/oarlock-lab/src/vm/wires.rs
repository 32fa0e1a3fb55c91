//! The machines' cables: taps on the bridges of a namespace host's links, and one more for the control.

use std::fmt::Write as _;

use anyhow::Result;

use super::CONTROL;
use crate::cgroup::Hierarchy;
use crate::layout::{PREFIX_LENGTH, Spec};
use crate::net;
use crate::process::Process;

/// The links of a machine with the control's, in the order of its cards.
pub(super) fn cables(spec: &Spec) -> impl Iterator<Item = u8> {
    [CONTROL].into_iter().chain(spec.links().iter().copied())
}

/// Makes the bridges in a namespace of their own, and every machine's cables, without carrier but the
/// control's.
pub(super) fn start(hierarchies: &[Hierarchy], lab: &str, machines: &[Spec]) -> Result<Process> {
    let wires = net::start(hierarchies, lab)?;
    let mut commands = String::new();
    let _ = writeln!(commands, "link add br{CONTROL} type bridge stp_state 0 forward_delay 0 mcast_snooping 0");
    let _ = writeln!(commands, "address add 10.77.{CONTROL}.1/{PREFIX_LENGTH} dev br{CONTROL}");
    let _ = writeln!(commands, "link set br{CONTROL} up");
    for machine in machines {
        for link in cables(machine) {
            let port = machine.port(link);
            let _ = writeln!(commands, "tuntap add dev {port} mode tap");
            let _ = writeln!(commands, "link set {port} master br{link} addrgenmode none");
        }
        let _ = writeln!(commands, "link set {} up", machine.port(CONTROL));
    }
    net::ip(wires, &commands)?;
    Ok(wires)
}
