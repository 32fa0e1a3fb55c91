//! Who may connect: the generated `pg_hba.conf` and `pg_ident.conf`. Ours first, then, when
//! clients are let in, the administrator's.

use super::error::Result;
use super::files;
use super::session::{AGENT_ROLE, REPLICATION_ROLE, identifier};
use super::settings::{Member, PgSettings};
use sha2::{Digest, Sha256};
use std::fmt::Write;
use std::net::IpAddr;
use std::path::Path;

/// The identity map of our own lines.
const MAP: &str = "oarlock";

/// Whether clients are let in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Clients {
    /// Only the agent and the replication of the other members.
    Closed,
    /// Whoever the administrator's own file lets in.
    Open,
}

/// A database that does not exist. The file of generation n lets only our own role reach its name:
/// the server's answer tells whether it has taken that file over.
pub(super) fn generation_database(generation: u64) -> String {
    format!("oarlock_generation_{generation}")
}

/// What is in a generated file's first line: see [`parse_state`].
pub(crate) fn headline(clients: Clients, generation: u64) -> String {
    let word = match clients {
        Clients::Closed => "closed",
        Clients::Open => "open",
    };
    format!("# Written by oarlock, edits are lost. clients={word} generation={generation}\n")
}

/// Reads back what a former agent wrote.
pub(crate) fn parse_state(hba: &str) -> Option<(Clients, u64)> {
    let line = hba.lines().next()?;
    let generation = line.split_once("generation=")?.1.trim().parse().ok()?;
    let clients = if line.contains("clients=open") { Clients::Open } else { Clients::Closed };
    Some((clients, generation))
}

/// The text of `pg_hba.conf`.
pub(super) fn hba(settings: &PgSettings, members: &[Member], clients: Clients, generation: u64) -> Result<String> {
    let (agent, replication) = (identifier(AGENT_ROLE), identifier(REPLICATION_ROLE));
    let database = identifier(&settings.database);
    let probe = identifier(&generation_database(generation));
    let mut text = headline(clients, generation);
    let _ = writeln!(text, "local {database},{probe} {agent} peer map={MAP}");
    let _ = writeln!(text, "local all,replication {agent} reject\nhost all,replication {agent} all reject");
    for member in members.iter().filter(|member| member.id != settings.node) {
        for link in &member.links {
            let width = if matches!(link, IpAddr::V4(_)) { 32 } else { 128 };
            let _ = writeln!(text, "hostssl {database},replication {replication} {link}/{width} scram-sha-256");
        }
    }
    let _ = writeln!(text, "local all,replication {replication} reject\nhost all,replication {replication} all reject");
    match clients {
        // The administrator's role is needed once, to make ours.
        Clients::Closed => {
            let admin = identifier(&settings.admin_role);
            let _ = writeln!(text, "local {database} {admin} peer map={MAP}");
            text.push_str("local all,replication all reject\nhost all,replication all all reject\n");
        }
        Clients::Open => include(&mut text, settings.version, &settings.files.hba)?,
    }
    Ok(text)
}

/// The text of `pg_ident.conf`; `agent` is the name of the agent's own system user.
pub(super) fn ident(settings: &PgSettings, agent: &str) -> Result<String> {
    let (agent, admin) = (identifier(agent), identifier(&settings.admin_role));
    let mut text = format!("{MAP} {agent} {}\n{MAP} {agent} {admin}\n", identifier(AGENT_ROLE));
    include(&mut text, settings.version, &settings.files.ident)?;
    Ok(text)
}

/// Adds the administrator's file: by reference from version 16 on, before that as a copy.
fn include(text: &mut String, version: u32, path: &Path) -> Result<()> {
    let Some(lines) = files::read_optional(path)? else { return Ok(()) };
    if version >= 16 {
        // So that a change of that file is a change of ours.
        let mark = Sha256::digest(lines.as_bytes());
        let _ = writeln!(text, "# {:02x?}", &mark[..8]);
        let _ = writeln!(text, "include_if_exists {}", identifier(&path.display().to_string()));
        return Ok(());
    }
    let dir = path.parent().unwrap_or(Path::new("/"));
    for line in lines.lines() {
        let _ = writeln!(text, "{}", absolute_references(line, dir));
    }
    Ok(())
}

/// `@file` names are relative to the file they stand in: make them absolute in the copy.
pub(crate) fn absolute_references(line: &str, dir: &Path) -> String {
    let line_starts_comment = line.trim_start().starts_with('#');
    if line_starts_comment || !line.contains('@') {
        return line.to_owned();
    }
    let mut out = String::with_capacity(line.len());
    let mut before = ' ';
    let mut rest = line.chars().peekable();
    while let Some(c) = rest.next() {
        out.push(c);
        if c == '@' && (before.is_whitespace() || before == ',') {
            let quoted = rest.next_if_eq(&'"').is_some();
            out.push_str(if quoted { "\"" } else { "" });
            if rest.peek() != Some(&'/') {
                let _ = write!(out, "{}/", dir.display());
            }
        }
        before = c;
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn references_become_absolute() {
        let dir = Path::new("/etc/pg");
        assert_eq!(absolute_references("local @dbs all peer", dir), "local @/etc/pg/dbs all peer");
        assert_eq!(absolute_references("local a,@\"d b\" all peer", dir), "local a,@\"/etc/pg/d b\" all peer");
        assert_eq!(absolute_references("local @/x all peer", dir), "local @/x all peer");
        assert_eq!(absolute_references("host all u@realm all gss", dir), "host all u@realm all gss");
        assert_eq!(absolute_references("# see @dbs", dir), "# see @dbs");
    }

    #[test]
    fn state_is_read_back() {
        assert_eq!(parse_state(&headline(Clients::Open, 17)), Some((Clients::Open, 17)));
        assert_eq!(parse_state(&headline(Clients::Closed, 1)), Some((Clients::Closed, 1)));
        assert_eq!(parse_state("# something else"), None);
    }
}
