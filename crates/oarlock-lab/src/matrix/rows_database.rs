//! Rows 4, 5, 17, 18 and the database's part of 19: what happens to the services themselves.

use super::Row;
use super::trial::Trial;
use super::verdict::Outage;
use crate::state::Engine;
use anyhow::{Result, bail};
use std::time::Duration;

const COMMAND: Duration = Duration::from_secs(30);
const TAKEOVER: Duration = Duration::from_secs(30);

/// The cases of this file.
pub const ROWS: &[Row] = &[
    Row::new("4", "kill -9 Almighty", kill_almighty).about_oar().with(Outage::Unnoticed).stays(),
    Row::new("5 kill", "kill -9 the database", |t| end_database(t, "KILL")),
    Row::new("5 term", "TERM to the database behind our back", |t| end_database(t, "TERM")),
    Row::new("5 stop", "an orderly stop of the database behind our back", stop_database_cleanly),
    Row::new("17", "replication cut by a firewall while both nodes live", cut_replication).stays(),
    Row::new("19 database", "SIGSTOP the database", freeze_database).heals_in(90).moves(),
];

fn kill_almighty(trial: &mut Trial<'_>) -> Result<()> {
    let owner = trial.owner.clone();
    let killed = trial.bed.almighty(&owner)?;
    trial.mark(format!("kill -9 Almighty on {owner}"));
    trial.bed.host(&owner)?.signal(killed, "KILL")?;
    trial.bed.until("another Almighty", COMMAND, || match trial.bed.almighty(&owner)? {
        pid if pid != killed => Ok(()),
        pid => bail!("Almighty is still {pid}"),
    })?;
    trial.until_served(TAKEOVER)
}

fn end_database(trial: &mut Trial<'_>, signal: &str) -> Result<()> {
    let owner = trial.owner.clone();
    let postmaster = trial.bed.postmaster(&owner)?;
    trial.mark(format!("{signal} to {} on {owner}", trial.bed.shape.db.title()));
    trial.bed.host(&owner)?.signal(postmaster, signal)?;
    trial.until_served(TAKEOVER)
}

fn stop_database_cleanly(trial: &mut Trial<'_>) -> Result<()> {
    let owner = trial.owner.clone();
    let (program, stop) = match trial.bed.shape.db {
        Engine::Postgresql => (
            "pg_ctl stop",
            "bin=$(ls -d /usr/lib/postgresql/*/bin) data=$(ls -d /var/lib/postgresql/*/main); \
             runuser -u postgres -- $bin/pg_ctl stop -m fast -w -t 20 -D $data",
        ),
        Engine::Mariadb => ("mariadb-admin shutdown", "timeout 20 mariadb-admin --user=root shutdown"),
    };
    trial.mark(format!("{program} on {owner}"));
    trial.bed.shell(&owner, stop, COMMAND)?;
    trial.until_served(TAKEOVER)
}

/// The loss of redundancy is shown within this.
const ALARM: Duration = Duration::from_secs(2);

/// Drops the database's port between the servers on both links; everything else passes.
fn cut_replication(trial: &mut Trial<'_>) -> Result<()> {
    let owner = trial.owner.clone();
    let standby = trial.standby.clone();
    let spec = trial.bed.host(&standby)?;
    let addresses: Vec<String> = spec.spec().links().iter().map(|l| spec.spec().address(*l).to_string()).collect();
    let peers = addresses.join(", ");
    let port = trial.bed.shape.db.port();
    let add = format!(
        "nft 'table ip lab_fault {{ chain in {{ type filter hook input priority 0; \
         ip saddr {{ {peers} }} tcp dport {port} drop; }}; chain out {{ type filter hook output priority 0; \
         ip daddr {{ {peers} }} tcp sport {port} drop; }}; }}'"
    );
    trial.mark(format!("replication of {standby} cut"));
    trial.bed.shell(&owner, &add, COMMAND)?;
    let seen = trial.bed.until("the standby leaves the in-sync set", ALARM, || {
        let cluster = trial.bed.cluster()?;
        match cluster.in_sync_standbys().as_slice() {
            [] => Ok(()),
            left => bail!("in sync: {left:?}"),
        }
    });
    let told = trial.bed.shell(&owner, "oarlock events | tail -n 20", COMMAND)?;
    let alone = format!("every acknowledged write is on {owner}\n");
    trial.demand(told.contains(&alone), || format!("no event says so: {told}"));
    let refused = trial.bed.host(&owner)?.exec(&["oarlock", "move", trial.group().name, &standby], COMMAND)?;
    trial.demand(!refused.status.success(), || format!("the group was moved onto the stale copy of {standby}"));
    let served = trial.until_served(TAKEOVER);
    trial.mark("replication healed");
    trial.bed.shell(&owner, "nft delete table ip lab_fault", COMMAND)?;
    // Healed first, so that a failure here does not spoil the next case.
    seen.and(served)
}

fn freeze_database(trial: &mut Trial<'_>) -> Result<()> {
    let owner = trial.owner.clone();
    let freeze = match trial.bed.shape.db {
        Engine::Postgresql => "for pid in $(pgrep -u postgres); do kill -STOP $pid; done",
        Engine::Mariadb => "kill -STOP $(pgrep -x mariadbd)",
    };
    trial.mark(format!("SIGSTOP to {} on {owner}", trial.bed.shape.db.title()));
    trial.bed.shell(&owner, freeze, COMMAND)?;
    trial.until_served(TAKEOVER)?;
    trial.until_moved(TAKEOVER).map(drop)
}
