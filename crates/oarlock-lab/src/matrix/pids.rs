//! Finding the processes that faults are aimed at, by what they are and not by guesses.

use super::bed::Bed;
use crate::layout::Part;
use crate::state::Engine;
use anyhow::{Context, Result};
use std::time::Duration;

const COMMAND: Duration = Duration::from_secs(5);

/// One line of a host's process table.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Entry {
    pid: i32,
    parent: i32,
    name: String,
    args: String,
}

fn parse(table: &str) -> Vec<Entry> {
    let line = |line: &str| {
        let mut fields = line.split_whitespace();
        Some(Entry {
            pid: fields.next()?.parse().ok()?,
            parent: fields.next()?.parse().ok()?,
            name: fields.next()?.to_owned(),
            args: fields.collect::<Vec<_>>().join(" "),
        })
    };
    table.lines().filter_map(line).collect()
}

/// The agent is the `oarlock` whose parent is an `oarlock` too: its sentinel.
fn agent_and_sentinel(table: &[Entry]) -> Option<(i32, i32)> {
    let is_ours = |pid: i32| table.iter().any(|e| e.pid == pid && e.name == "oarlock");
    let agent = table.iter().find(|e| e.name == "oarlock" && is_ours(e.parent))?;
    Some((agent.pid, agent.parent))
}

/// OAR's main process is the one without a role in its title; its children carry theirs.
fn almighty(table: &[Entry]) -> Option<i32> {
    let main = table.iter().find(|e| e.args.ends_with("Almighty") && !e.args.starts_with("sh "));
    main.map(|e| e.pid)
}

impl Bed {
    fn processes(&self, host: &str) -> Result<Vec<Entry>> {
        let table = self.host(host)?.run(&["ps", "-eo", "pid=,ppid=,comm=,args="], COMMAND)?;
        Ok(parse(&table))
    }

    /// The pids of agent and sentinel in a host.
    pub fn agent_and_sentinel(&self, host: &str) -> Result<(i32, i32)> {
        let found = agent_and_sentinel(&self.processes(host)?);
        found.with_context(|| format!("no agent under its sentinel on {host}"))
    }

    /// The pid of OAR's main process in a host.
    pub fn almighty(&self, host: &str) -> Result<i32> {
        almighty(&self.processes(host)?).with_context(|| format!("no Almighty on {host}"))
    }

    /// The pid of the database's main process in a host, from its own pid file.
    pub fn postmaster(&self, host: &str) -> Result<i32> {
        let file = match self.shape.db {
            Engine::Postgresql => "/var/lib/postgresql/*/main/postmaster.pid".to_owned(),
            Engine::Mariadb => format!("/run/oarlock/{}-db/mariadb.pid", self.group(Part::Database).name),
        };
        let text = self.shell(host, &format!("head -n 1 {file}"), COMMAND)?;
        text.trim().parse().with_context(|| format!("pid file of {} on {host}: {text:?}", self.shape.db.title()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TABLE: &str = "
      1     0 tini            /usr/bin/tini -- /usr/local/sbin/lab-boot
     40     1 lab-agent       /bin/sh /usr/local/sbin/lab-agent supervise
     41    40 oarlock         /usr/sbin/oarlock agent
     42    41 oarlock         /usr/sbin/oarlock agent
     60     1 Almighty        Almighty
     61    60 Almighty: appen Almighty: appendice
     90    80 oarlock         /usr/sbin/oarlock status --json
";

    #[test]
    fn tells_agent_and_sentinel_from_commands() {
        assert_eq!(agent_and_sentinel(&parse(TABLE)), Some((42, 41)));
        assert_eq!(agent_and_sentinel(&parse("1 0 tini tini\n90 80 oarlock oarlock status")), None);
    }

    #[test]
    fn tells_oars_main_process_from_its_children() {
        assert_eq!(almighty(&parse(TABLE)), Some(60));
        assert_eq!(almighty(&parse("61 60 Almighty: Almighty: bipbip")), None);
        assert_eq!(almighty(&parse("70 1 perl /usr/bin/perl /usr/sbin/Almighty")), Some(70));
    }
}
