//! The clusters that are simulated.

use oarlock_core::config::{Config, Failback, GroupConfig, Kind, NodeConfig, ResourceConfig, Timing};
use oarlock_core::ids::{GroupId, NodeId};
use std::fmt;
use std::str::FromStr;

/// Which machines there are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Layout {
    /// Two servers that can run everything, and a witness.
    Two,
    /// Two servers for the service, two for the database, and a witness.
    Four,
    /// The same without a witness: four voters.
    FourPlain,
}

impl FromStr for Layout {
    type Err = String;
    fn from_str(text: &str) -> Result<Layout, String> {
        match text {
            "two" => Ok(Layout::Two),
            "four" => Ok(Layout::Four),
            "four-plain" => Ok(Layout::FourPlain),
            other => Err(format!("layout {other:?} is neither two, four nor four-plain")),
        }
    }
}

impl fmt::Display for Layout {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Layout::Two => "two",
            Layout::Four => "four",
            Layout::FourPlain => "four-plain",
        })
    }
}

/// What varies within a layout.
#[derive(Clone, Copy, Debug)]
pub struct Variant {
    /// Which machines.
    pub layout: Layout,
    /// The times.
    pub timing: Timing,
    /// Whether groups return to their first node.
    pub failback: Failback,
    /// Whether there is an address for readers.
    pub readers: bool,
    /// With four servers: whether the service is started only while the database is up.
    pub depends: bool,
}

impl Variant {
    /// The plain form of a layout.
    #[must_use]
    pub fn plain(layout: Layout) -> Variant {
        Variant { layout, timing: Timing::BALANCED, failback: Failback::Never, readers: false, depends: true }
    }

    /// The configuration every node starts with.
    #[must_use]
    pub fn config(&self) -> Config {
        let (names, groups): (&[&str], Vec<GroupConfig>) = match self.layout {
            Layout::Two => {
                let mut kinds = vec![("vip", Kind::Address), ("db", Kind::Postgresql), ("oar-server", Kind::Service)];
                if self.readers {
                    kinds.push(("readers", Kind::ReaderAddress));
                }
                (&["server1", "server2", "frontend"], vec![self.group("oar", &[1, 2], &kinds)])
            }
            Layout::Four | Layout::FourPlain => {
                let mut kinds = vec![("dbvip", Kind::Address), ("db", Kind::Postgresql)];
                if self.readers {
                    kinds.push(("readers", Kind::ReaderAddress));
                }
                let oar = [("oarvip", Kind::Address), ("oar-server", Kind::Service)];
                let mut groups = vec![self.group("db", &[3, 4], &kinds), self.group("oar", &[1, 2], &oar)];
                groups[1].depends = self.depends.then_some(GroupId(0)).into_iter().collect();
                let names: &[&str] = &["oar1", "oar2", "db1", "db2", "frontend"];
                (if self.layout == Layout::Four { names } else { &names[..4] }, groups)
            }
        };
        let nodes = (1u8..).zip(names.iter()).map(|(id, name)| NodeConfig {
            id: NodeId(id),
            name: (*name).to_owned(),
            witness: *name == "frontend",
        });
        Config {
            generation: 1,
            text: "simulated".into(),
            cluster: "sim".into(),
            timing: self.timing,
            nodes: nodes.collect(),
            groups,
        }
    }

    fn group(&self, name: &str, nodes: &[u8], kinds: &[(&str, Kind)]) -> GroupConfig {
        GroupConfig {
            name: name.to_owned(),
            nodes: nodes.iter().copied().map(NodeId).collect(),
            failback: self.failback,
            resources: kinds
                .iter()
                .map(|(name, kind)| ResourceConfig { name: (*name).to_owned(), kind: *kind })
                .collect(),
            depends: Vec::new(),
        }
    }
}
