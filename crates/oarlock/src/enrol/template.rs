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
    /// Service address of the database, with prefix, where nodes are there for it alone.
    pub database_address: Option<String>,
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
    /// What it is for.
    pub role: PlannedRole,
    /// Its public key.
    pub key: PublicKey,
}

/// What a machine is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PlannedRole {
    /// Runs the group; with the database, unless that has machines of its own.
    Server,
    /// Runs the database alone.
    Database,
    /// Votes only.
    Witness,
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
    let _ = cluster(&mut text, plan).and_then(|()| nodes(&mut text, plan)).and_then(|()| groups(&mut text, plan));
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
        if node.role == PlannedRole::Witness {
            writeln!(text, "role = \"witness\"            # votes and remembers, runs nothing")?;
        }
        writeln!(text, "key = {}\n", quoted(&node.key.to_string()))?;
    }
    Ok(())
}

/// Name of the database's group where it has one of its own.
const DATABASE_GROUP: &str = "db";

/// One group; two where the database has machines of its own, the one that the other depends on first.
fn groups(text: &mut String, plan: &Plan) -> std::fmt::Result {
    if plan.address.is_none() && plan.database.is_none() && !plan.oar {
        return Ok(());
    }
    let apart = plan.nodes.iter().any(|node| node.role == PlannedRole::Database);
    writeln!(text, "# What runs together on one node, started in this order and stopped in reverse.")?;
    if apart {
        group(text, plan, DATABASE_GROUP, PlannedRole::Database)?;
        address(text, plan, plan.database_address.as_ref())?;
        database(text, plan)?;
        readers(text, plan)?;
        writeln!(text)?;
    }
    if apart && plan.address.is_none() && !plan.oar {
        return Ok(());
    }
    group(text, plan, &plan.group, PlannedRole::Server)?;
    if apart {
        writeln!(text, "# services start once these groups are up; while they run they bear their absence")?;
        writeln!(text, "depends = [{}]", quoted(DATABASE_GROUP))?;
    }
    address(text, plan, plan.address.as_ref())?;
    if !apart {
        database(text, plan)?;
    }
    if plan.oar {
        resource(text, "oar-server", "service")?;
        writeln!(
            text,
            "  profile = \"oar\"              # /usr/sbin/Almighty, its checks, its repair after a takeover"
        )?;
    }
    if apart { Ok(()) } else { readers(text, plan) }
}

fn group(text: &mut String, plan: &Plan, name: &str, role: PlannedRole) -> std::fmt::Result {
    let nodes: Vec<String> =
        plan.nodes.iter().filter(|node| node.role == role).map(|node| quoted(&node.name)).collect();
    writeln!(text, "[[group]]\nname = {}", quoted(name))?;
    writeln!(text, "nodes = [{}]   # most preferred first", nodes.join(", "))?;
    writeln!(text, "failback = \"never\"             # never: stays where it is; auto: returns to the first node")
}

fn address(text: &mut String, plan: &Plan, address: Option<&String>) -> std::fmt::Result {
    let Some(address) = address else { return Ok(()) };
    resource(text, "vip", "address")?;
    writeln!(text, "  address = {}", quoted(address))?;
    interface(text, plan)
}

fn database(text: &mut String, plan: &Plan) -> std::fmt::Result {
    let Some(database) = &plan.database else { return Ok(()) };
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
    match database.port {
        Some(port) => writeln!(text, "  port = {port}"),
        None => Ok(()),
    }
}

fn readers(text: &mut String, plan: &Plan) -> std::fmt::Result {
    let Some(address) = &plan.reader_address else { return Ok(()) };
    resource(text, "readers", "address")?;
    writeln!(text, "  address = {}", quoted(address))?;
    writeln!(text, "  follows = \"standby\"          # read-only: an in-sync copy, the owner when there is none")?;
    interface(text, plan)
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
