//! The configuration as `init` writes it: complete, commented, ready to be edited and applied.

use crate::config::{Arbitration, MARIADB_COPY_PORT, Preset};
use crate::keys::PublicKey;
use crate::sql::Engine;
use std::fmt::Write;
use std::net::IpAddr;

/// What `init` was told.
#[derive(Clone, Debug)]
pub struct Plan {
    /// Cluster name.
    pub cluster: String,
    /// Preset of times.
    pub timing: Preset,
    /// UDP port.
    pub port: u16,
    /// Who decides.
    pub arbitration: Arbitration,
    /// The machines.
    pub nodes: Vec<PlannedNode>,
    /// Name of the group.
    pub group: String,
    /// Service address with prefix.
    pub address: Option<String>,
    /// Read-only address with prefix.
    pub reader_address: Option<String>,
    /// Interface of both.
    pub interface: Option<String>,
    /// The database.
    pub database: Option<PlannedDatabase>,
    /// Run OAR.
    pub oar: bool,
}

/// A machine.
#[derive(Clone, Debug)]
pub struct PlannedNode {
    /// Its name.
    pub name: String,
    /// Its addresses.
    pub links: Vec<IpAddr>,
    /// Votes only.
    pub witness: bool,
    /// Its public key.
    pub key: PublicKey,
}

/// A database.
#[derive(Clone, Debug)]
pub struct PlannedDatabase {
    /// Its engine.
    pub engine: Engine,
    /// Version, as its kind wants it.
    pub version: String,
    /// Data directory.
    pub data_dir: String,
    /// TCP port, if not the usual one.
    pub port: Option<u16>,
}

const HEAD: &str = "\
# Configuration of oarlock, the same on every node.
# Edit a copy and apply it: oarlock apply FILE --dry-run, then without --dry-run.
# A change made here alone is reported as drift and not obeyed.
# Every key with its default: oarlock generate config-reference
";

/// The whole text. Strings are quoted as TOML wants it, whatever they hold.
pub fn render(plan: &Plan) -> String {
    let mut text = String::from(HEAD);
    // Writing to a String cannot fail.
    let _ = cluster(&mut text, plan).and_then(|()| nodes(&mut text, plan)).and_then(|()| group(&mut text, plan));
    text
}

fn cluster(text: &mut String, plan: &Plan) -> std::fmt::Result {
    writeln!(text, "\n[cluster]\nname = {}", quoted(&plan.cluster))?;
    writeln!(text, "# fast: quiet LAN, takeover within about half a second; balanced; relaxed: WAN, busy machines")?;
    writeln!(text, "timing = {}", quoted(plan.timing.name()))?;
    writeln!(text, "# UDP port the nodes talk on, on every link\nport = {}", plan.port)?;
    if plan.arbitration == Arbitration::Fencing {
        writeln!(text, "# two servers alone: no takeover without a confirmed fence of the other")?;
        writeln!(text, "arbitration = \"fencing\"")?;
    }
    Ok(())
}

fn nodes(text: &mut String, plan: &Plan) -> std::fmt::Result {
    writeln!(text, "\n# The machines. links: one address per link; two links survive the loss of one.")?;
    writeln!(text, "# key: its public key; the private one is on that machine only (node.key).")?;
    for (position, node) in plan.nodes.iter().enumerate() {
        let links: Vec<String> = node.links.iter().map(|link| quoted(&link.to_string())).collect();
        writeln!(text, "[[node]]\nname = {}\nid = {}", quoted(&node.name), position + 1)?;
        writeln!(text, "links = [{}]", links.join(", "))?;
        if node.witness {
            writeln!(text, "role = \"witness\"            # votes and remembers, runs nothing")?;
        }
        writeln!(text, "key = {}\n", quoted(&node.key.to_string()))?;
    }
    Ok(())
}

fn group(text: &mut String, plan: &Plan) -> std::fmt::Result {
    if plan.address.is_none() && plan.database.is_none() && !plan.oar {
        return Ok(());
    }
    let servers: Vec<String> = plan.nodes.iter().filter(|node| !node.witness).map(|node| quoted(&node.name)).collect();
    writeln!(text, "# What runs together on one node, started in this order and stopped in reverse.")?;
    writeln!(text, "[[group]]\nname = {}", quoted(&plan.group))?;
    writeln!(text, "nodes = [{}]   # most preferred first", servers.join(", "))?;
    writeln!(text, "failback = \"never\"             # never: stays where it is; auto: returns to the first node")?;
    if let Some(address) = &plan.address {
        resource(text, "vip", "address")?;
        writeln!(text, "  address = {}", quoted(address))?;
        interface(text, plan)?;
    }
    if let Some(database) = &plan.database {
        let kind = match database.engine {
            Engine::Postgresql => "postgresql",
            Engine::Mariadb => "mariadb",
        };
        resource(text, "db", kind)?;
        writeln!(text, "  version = {}\n  data_dir = {}", quoted(&database.version), quoted(&database.data_dir))?;
        if database.engine == Engine::Mariadb {
            writeln!(text, "  # TCP port on which the agents give each other copies, encrypted, on the links above")?;
            writeln!(text, "  copy_port = {MARIADB_COPY_PORT}")?;
        }
        if let Some(port) = database.port {
            writeln!(text, "  port = {port}")?;
        }
    }
    if plan.oar {
        resource(text, "oar-server", "service")?;
        writeln!(
            text,
            "  profile = \"oar\"              # /usr/sbin/Almighty, its checks, its repair after a takeover"
        )?;
    }
    if let Some(address) = &plan.reader_address {
        resource(text, "readers", "address")?;
        writeln!(text, "  address = {}", quoted(address))?;
        writeln!(text, "  follows = \"standby\"          # read-only: an in-sync copy, the owner when there is none")?;
        interface(text, plan)?;
    }
    Ok(())
}

fn resource(text: &mut String, name: &str, kind: &str) -> std::fmt::Result {
    write!(text, "\n  [[group.resource]]\n  name = {}\n  kind = {}\n", quoted(name), quoted(kind))
}

fn interface(text: &mut String, plan: &Plan) -> std::fmt::Result {
    match &plan.interface {
        Some(interface) => writeln!(text, "  interface = {}", quoted(interface)),
        None => Ok(()),
    }
}

fn quoted(text: &str) -> String {
    toml::Value::String(text.to_owned()).to_string()
}
