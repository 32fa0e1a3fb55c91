//! The lab's wires: bridges in a network namespace of their own, one cable per host and link,
//! and what does not pass a cable.

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::io::{BufRead, BufReader};
use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result};
use clap::ValueEnum;
use serde::{Deserialize, Serialize};

use crate::cgroup::{self, Hierarchy};
use crate::deadline::{kill_group, output};
use crate::layout::{LINKS, Layout, Spec};
use crate::process::Process;

const DEADLINE: Duration = Duration::from_secs(10);

/// A direction on a cable as the host at its end sees it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, ValueEnum)]
pub enum Direction {
    /// What the host would receive.
    In,
    /// What the host sends.
    Out,
    /// Both.
    #[default]
    Both,
}

/// A fault of a host's cables.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Cut {
    /// The link; all of the host's links when `None`.
    pub link: Option<u8>,
    /// What is lost.
    pub direction: Direction,
    /// Whether the host still sees a carrier. One direction alone always keeps it.
    pub keep_carrier: bool,
    /// Only what is exchanged with this host; everything when `None`. Keeps the carrier.
    pub peer: Option<String>,
    /// Only this share of the frames, at random, in percent; all when `None`. Keeps the carrier.
    pub loss_percent: Option<u8>,
}

/// One thing that does not pass one cable.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Block {
    /// The host at the cable's end.
    pub host: String,
    /// The cable's link.
    pub link: u8,
    /// What does not pass.
    pub what: What,
    /// Only with this host; everything when `None`.
    pub peer: Option<String>,
    /// Only this share of the frames, at random, in percent; all when `None`.
    pub loss_percent: Option<u8>,
}

/// What a [`Block`] stops.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum What {
    /// The carrier itself.
    Carrier,
    /// Frames to the host.
    In,
    /// Frames from the host.
    Out,
}

impl Cut {
    /// The blocks that this cut of `host` consists of.
    #[must_use]
    pub fn blocks(&self, host: &Spec) -> BTreeSet<Block> {
        let frames_only = self.keep_carrier || self.peer.is_some() || self.loss_percent.is_some();
        let what: &[What] = match self.direction {
            Direction::Both if !frames_only => &[What::Carrier],
            Direction::Both => &[What::In, What::Out],
            Direction::In => &[What::In],
            Direction::Out => &[What::Out],
        };
        let links = host.links().iter().filter(|link| self.link.is_none_or(|l| l == **link));
        links
            .flat_map(|link| {
                what.iter().map(|what| Block {
                    host: host.name.to_owned(),
                    link: *link,
                    what: *what,
                    peer: self.peer.clone(),
                    loss_percent: self.loss_percent,
                })
            })
            .collect()
    }

    /// Whether healing `self` removes `block`: its link, direction and peer, where given.
    #[must_use]
    pub fn heals(&self, host: &str, block: &Block) -> bool {
        block.host == host
            && self.link.is_none_or(|link| link == block.link)
            && (self.peer.is_none() || self.peer == block.peer)
            && match self.direction {
                Direction::Both => true,
                Direction::In => block.what == What::In,
                Direction::Out => block.what == What::Out,
            }
    }
}

/// The control group of the process that holds the bridges' namespace, beside the hosts' own.
const GROUP: &str = "wires";

/// Starts the process that holds the bridges' namespace, and makes the bridges. It is put into a
/// control group of `lab` so that it is found even if we are killed before it is remembered.
pub fn start(hierarchies: &[Hierarchy], lab: &str) -> Result<Process> {
    let unified: Vec<Hierarchy> = hierarchies.iter().filter(|h| h.name == "unified").cloned().collect();
    cgroup::create(&unified, lab, GROUP)?;
    let mut child = cgroup::join(&unified, lab, GROUP)
        .args(["setsid", "unshare", "--net", "sh", "-c", "echo $$; exec sleep infinity"])
        .current_dir("/")
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .context("cannot start the namespace of the bridges")?;
    let mut line = String::new();
    let pipe = child.stdout.take().context("no pipe")?;
    BufReader::new(pipe).read_line(&mut line).context("cannot read a pid")?;
    let pid = line.trim().parse().context("the namespace of the bridges did not start");
    let wires = pid.and_then(Process::of).inspect_err(|_| kill_group(&mut child))?;
    let mut commands = String::from("link set lo up\n");
    for link in LINKS {
        let _ = writeln!(commands, "link add br{link} type bridge stp_state 0 forward_delay 0 mcast_snooping 0");
        let _ = writeln!(commands, "link set br{link} up");
    }
    ip(wires, &commands)?;
    Ok(wires)
}

/// Plugs the cables of `host`, whose pid 1 is `pid`, into the bridges; the far ends are eth1, ….
pub fn plug(wires: Process, host: &Spec, pid: i32) -> Result<()> {
    let mut commands = String::new();
    for link in host.links() {
        let (port, mac) = (host.port(*link), host.mac(*link));
        let _ = writeln!(commands, "link add {port} type veth peer name eth{link} address {mac} netns {pid}");
        let _ = writeln!(commands, "link set {port} master br{link} addrgenmode none");
    }
    ip(wires, &commands)
}

/// Takes the carrier off all cables of `host` at once.
pub fn unplug(wires: Process, host: &Spec) -> Result<()> {
    ip(wires, &host.links().iter().map(|link| format!("link set {} down\n", host.port(*link))).collect::<String>())
}

/// Removes the cables of `host`; gone already is no error.
pub fn remove(wires: Process, host: &Spec) -> Result<()> {
    for link in host.links() {
        let mut delete = inside(wires, &["ip", "link", "delete", &host.port(*link)]);
        output(&mut delete, None, DEADLINE)?;
    }
    Ok(())
}

/// Makes the cables of the powered hosts behave as `blocks` says.
pub fn apply(wires: Process, layout: Layout, powered: &[&Spec], blocks: &BTreeSet<Block>) -> Result<()> {
    let mut commands = String::new();
    for host in powered {
        for link in host.links() {
            let dead = blocks.iter().any(|b| b.host == host.name && b.link == *link && b.what == What::Carrier);
            let _ = writeln!(commands, "link set {} {}", host.port(*link), if dead { "down" } else { "up" });
        }
    }
    let rules = ruleset(layout, powered, blocks);
    let mut nft = inside(wires, &["nft", "-f", "-"]);
    output(&mut nft, Some(&rules), DEADLINE)?.ok().context("cannot set the packet filter of the wires")?;
    ip(wires, &commands)
}

/// The packet filter as one transaction: what a host sends enters its port, what it receives
/// leaves its port.
fn ruleset(layout: Layout, powered: &[&Spec], blocks: &BTreeSet<Block>) -> String {
    let mut text = String::from("table netdev lab\ndelete table netdev lab\ntable netdev lab {\n");
    for host in powered {
        for (link, what) in host.links().iter().flat_map(|l| [(*l, What::In), (*l, What::Out)]) {
            let mut rules = String::new();
            for block in blocks.iter().filter(|b| b.host == host.name && b.link == link && b.what == what) {
                let side = if what == What::In { "saddr" } else { "daddr" };
                let peer = block.peer.as_deref().and_then(|peer| layout.host(peer));
                let only = peer.map(|peer| format!("ether {side} {} ", peer.mac(link))).unwrap_or_default();
                let share = block.loss_percent.map(|p| format!("numgen random mod 100 < {p} ")).unwrap_or_default();
                let _ = writeln!(rules, "    {only}{share}drop");
            }
            if !rules.is_empty() {
                let (hook, name) = if what == What::In { ("egress", "in") } else { ("ingress", "out") };
                let (port, octet) = (host.port(link), host.octet);
                let _ = writeln!(text, "  chain {name}_{octet}_{link} {{");
                let _ = writeln!(text, "    type filter hook {hook} device \"{port}\" priority 0; policy accept;");
                text += &rules;
                text += "  }\n";
            }
        }
    }
    text + "}\n"
}

/// Gives every cable of `host` a capacity in the direction to it, in Mbit/s, with a queue of 50 ms as a switch
/// has; `None` takes it away again. There is none after a power-on.
pub fn limit(wires: Process, host: &Spec, mbit: Option<u32>) -> Result<()> {
    for link in host.links() {
        let port = host.port(*link);
        let rate = mbit.map(|mbit| format!("{mbit}mbit"));
        let mut tc = match &rate {
            Some(rate) => inside(
                wires,
                &[
                    "tc", "qdisc", "replace", "dev", &port, "root", "tbf", "rate", rate, "burst", "128kb", "latency",
                    "50ms",
                ],
            ),
            None => inside(wires, &["tc", "qdisc", "del", "dev", &port, "root"]),
        };
        let done = output(&mut tc, None, DEADLINE)?;
        // Nothing to take away is no error.
        if mbit.is_some() {
            done.ok().with_context(|| format!("cannot limit {port}"))?;
        }
    }
    Ok(())
}

pub(crate) fn ip(wires: Process, commands: &str) -> Result<()> {
    let mut batch = inside(wires, &["ip", "-batch", "-"]);
    output(&mut batch, Some(commands), DEADLINE)?
        .ok()
        .with_context(|| format!("cannot change the wires:\n{commands}"))?;
    Ok(())
}

/// A command in the bridges' network namespace.
fn inside(wires: Process, argv: &[&str]) -> Command {
    let mut command = Command::new("nsenter");
    command.arg(format!("--net=/proc/{}/ns/net", wires.pid)).args(argv);
    command
}

#[cfg(test)]
mod tests {
    use super::*;

    fn blocks(cut: &Cut) -> BTreeSet<Block> {
        cut.blocks(Layout::Two.host("server1").unwrap())
    }

    #[test]
    fn a_plain_cut_takes_the_carrier_of_every_link() {
        let what: Vec<(u8, What)> = blocks(&Cut::default()).iter().map(|b| (b.link, b.what)).collect();
        assert_eq!(what, [(1, What::Carrier), (2, What::Carrier)]);
    }

    #[test]
    fn healing_one_direction_leaves_the_other() {
        let mut left = blocks(&Cut { keep_carrier: true, link: Some(1), ..Cut::default() });
        let heal = Cut { direction: Direction::In, ..Cut::default() };
        left.retain(|block| !heal.heals("server1", block));
        let what: Vec<(u8, What)> = left.iter().map(|b| (b.link, b.what)).collect();
        assert_eq!(what, [(1, What::Out)]);
        left.retain(|block| !Cut::default().heals("server1", block));
        assert!(left.is_empty());
    }

    #[test]
    fn a_share_of_the_frames_is_lost_at_random_and_keeps_the_carrier() {
        let lossy = blocks(&Cut { link: Some(1), loss_percent: Some(30), ..Cut::default() });
        assert_eq!(lossy.iter().map(|b| b.what).collect::<Vec<_>>(), [What::In, What::Out]);
        let rules = ruleset(Layout::Two, &[Layout::Two.host("server1").unwrap()], &lossy);
        assert_eq!(rules.matches("\n    numgen random mod 100 < 30 drop\n").count(), 2);
    }

    #[test]
    fn the_filter_names_port_direction_and_peer() {
        let cut = Cut { link: Some(2), direction: Direction::In, peer: Some("server2".into()), ..Cut::default() };
        let hosts: Vec<&Spec> = Layout::Two.hosts().iter().collect();
        assert_eq!(
            ruleset(Layout::Two, &hosts, &blocks(&cut)),
            "table netdev lab\ndelete table netdev lab\ntable netdev lab {\n  chain in_11_2 {\n    \
             type filter hook egress device \"server1.2\" priority 0; policy accept;\n    \
             ether saddr 02:4f:41:52:02:0c drop\n  }\n}\n"
        );
    }
}
