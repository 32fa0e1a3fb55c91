//! Which hosts a lab has and how they are wired.

use std::fmt;
use std::net::Ipv4Addr;

use clap::ValueEnum;
use serde::{Deserialize, Serialize};

/// The links every lab has; link 1 carries the service addresses.
pub const LINKS: [u8; 2] = [1, 2];
/// Prefix length of both links' networks.
pub const PREFIX_LENGTH: u8 = 24;
/// What all links' networks are part of.
pub const NETWORK: &str = "10.77.0.0/16";
/// The name OAR's service address has in every host's /etc/hosts; with two servers the database's too.
pub const SERVICE_NAME: &str = "oar";
/// The address that moves between the servers that run OAR.
pub const SERVICE_ADDRESS: Ipv4Addr = Ipv4Addr::new(10, 77, 1, 100);
/// Where readers find a standby, where hosts have disks of their own.
pub const READER_ADDRESS: Ipv4Addr = Ipv4Addr::new(10, 77, 1, 102);

/// How many servers share the work.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, ValueEnum, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Layout {
    /// Two servers, each able to run everything, and a witness.
    #[default]
    Two,
    /// Two for OAR, two for the database, and a witness.
    Four,
    /// The same four without a witness; users work where no agent is.
    FourPlain,
}

/// What a host is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Kind {
    /// Can own the service.
    Server,
    /// Where users work; also the witness.
    Frontend,
    /// Where users work, and nothing else.
    User,
    /// Runs the jobs.
    Node,
}

/// One host of a layout.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Spec {
    /// Its name everywhere.
    pub name: &'static str,
    /// What it is for.
    pub kind: Kind,
    /// Last octet of its addresses.
    pub octet: u8,
}

impl Kind {
    /// Whether such a host is a node of the cluster.
    #[must_use]
    pub fn in_cluster(self) -> bool {
        matches!(self, Kind::Server | Kind::Frontend)
    }
}

impl Spec {
    /// The links it is plugged into: `eth1` is link 1.
    #[must_use]
    pub fn links(&self) -> &'static [u8] {
        match self.kind {
            Kind::Server | Kind::Frontend => &LINKS,
            Kind::User | Kind::Node => &LINKS[..1],
        }
    }

    /// Its address on `link`.
    #[must_use]
    pub fn address(&self, link: u8) -> Ipv4Addr {
        Ipv4Addr::new(10, 77, link, self.octet)
    }

    /// Its hardware address on `link`, the same after every power-on.
    #[must_use]
    pub fn mac(&self, link: u8) -> String {
        format!("02:4f:41:52:{link:02x}:{:02x}", self.octet)
    }

    /// The bridge side's name of its cable on `link`.
    #[must_use]
    pub fn port(&self, link: u8) -> String {
        format!("{}.{link}", self.name)
    }
}

/// What a group of resources is there for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Part {
    /// The database.
    Database,
    /// OAR's server.
    Oar,
}

/// A group of resources and where it is reached.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Group {
    /// Its name in the cluster.
    pub name: &'static str,
    /// The name its service address has in every host's /etc/hosts.
    pub service: &'static str,
    /// Its service address.
    pub address: Ipv4Addr,
    /// The hosts it may run on, the preferred one first.
    pub hosts: &'static [&'static str],
}

const BOTH: [Group; 1] =
    [Group { name: "oar", service: SERVICE_NAME, address: SERVICE_ADDRESS, hosts: &["server1", "server2"] }];

/// The database first, as everywhere in the cluster.
const APART: [Group; 2] = [
    Group { name: "db", service: "db", address: Ipv4Addr::new(10, 77, 1, 101), hosts: &["db1", "db2"] },
    Group { name: "oar", service: SERVICE_NAME, address: SERVICE_ADDRESS, hosts: &["oar1", "oar2"] },
];

const fn spec(name: &'static str, kind: Kind, octet: u8) -> Spec {
    Spec { name, kind, octet }
}

const TWO: [Spec; 4] = [
    spec("server1", Kind::Server, 11),
    spec("server2", Kind::Server, 12),
    spec("frontend", Kind::Frontend, 21),
    spec("node1", Kind::Node, 31),
];

const fn four(frontend: Kind) -> [Spec; 6] {
    [
        spec("oar1", Kind::Server, 11),
        spec("oar2", Kind::Server, 12),
        spec("db1", Kind::Server, 13),
        spec("db2", Kind::Server, 14),
        spec("frontend", frontend, 21),
        spec("node1", Kind::Node, 31),
    ]
}

const FOUR: [Spec; 6] = four(Kind::Frontend);
const FOUR_PLAIN: [Spec; 6] = four(Kind::User);

impl Layout {
    /// The hosts, in the order in which they are powered on.
    #[must_use]
    pub fn hosts(self) -> &'static [Spec] {
        match self {
            Self::Two => &TWO,
            Self::Four => &FOUR,
            Self::FourPlain => &FOUR_PLAIN,
        }
    }

    /// The groups of resources, those that others depend on first.
    #[must_use]
    pub fn groups(self) -> &'static [Group] {
        match self {
            Self::Two => &BOTH,
            Self::Four | Self::FourPlain => &APART,
        }
    }

    /// The group that has a part; with two servers one group has both.
    #[must_use]
    pub fn group(self, part: Part) -> Group {
        match (self, part) {
            (Self::Two, _) => BOTH[0],
            (_, Part::Database) => APART[0],
            (_, Part::Oar) => APART[1],
        }
    }

    /// The host called `name`.
    #[must_use]
    pub fn host(self, name: &str) -> Option<&'static Spec> {
        self.hosts().iter().find(|host| host.name == name)
    }

    /// The text of every host's /etc/hosts. A host's own name means its address on link 1.
    #[must_use]
    pub fn etc_hosts(self) -> String {
        let mut text = String::from("127.0.0.1 localhost\n::1 localhost ip6-localhost\n");
        for host in self.hosts() {
            for link in host.links() {
                let suffix = if *link == 1 { String::new() } else { format!("-link{link}") };
                text += &format!("{} {}{suffix}\n", host.address(*link), host.name);
            }
        }
        for group in self.groups() {
            text += &format!("{} {}\n", group.address, group.service);
        }
        text
    }
}

impl fmt::Display for Layout {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Two => "two",
            Self::Four => "four",
            Self::FourPlain => "four-plain",
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn etc_hosts_names_every_address_once() {
        assert_eq!(
            Layout::Two.etc_hosts(),
            "127.0.0.1 localhost\n::1 localhost ip6-localhost\n\
             10.77.1.11 server1\n10.77.2.11 server1-link2\n\
             10.77.1.12 server2\n10.77.2.12 server2-link2\n\
             10.77.1.21 frontend\n10.77.2.21 frontend-link2\n\
             10.77.1.31 node1\n10.77.1.100 oar\n"
        );
    }

    #[test]
    fn every_server_belongs_to_one_group() {
        for layout in [Layout::Two, Layout::Four, Layout::FourPlain] {
            let servers = layout.hosts().iter().filter(|host| host.kind == Kind::Server).map(|host| host.name);
            let mut servers: Vec<&str> = servers.collect();
            let mut grouped: Vec<&str> = layout.groups().iter().flat_map(|group| group.hosts).copied().collect();
            servers.sort_unstable();
            grouped.sort_unstable();
            assert_eq!(servers, grouped, "{layout}");
            for part in [Part::Database, Part::Oar] {
                assert!(layout.groups().contains(&layout.group(part)), "{layout} {part:?}");
            }
        }
        assert!(Layout::Four.etc_hosts().ends_with("10.77.1.101 db\n10.77.1.100 oar\n"));
    }

    #[test]
    fn port_names_fit_the_kernel() {
        for host in FOUR.iter().chain(&TWO) {
            assert!(host.port(2).len() < 16);
        }
    }
}
