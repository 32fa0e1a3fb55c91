//! Row 26: what an agent remembers is damaged, cut short or gone, or has no room.

use super::Row;
use super::bed::FRONTEND;
use super::trial::Trial;
use super::verdict::Outage;
use anyhow::{Result, bail};
use std::time::Duration;

const COMMAND: Duration = Duration::from_secs(30);
const WHOLE: Duration = Duration::from_secs(60);

const CORRUPT: &str = "for f in $(find /var/lib/oarlock -type f); do \
    dd if=/dev/urandom of=$f bs=64 seek=1 count=1 conv=notrunc status=none; done";
const TRUNCATE: &str = "find /var/lib/oarlock -type f -exec truncate -s 20 {} +";
const LOSE: &str = "find /var/lib/oarlock -mindepth 1 -delete";

/// The cases of this file.
pub const ROWS: &[Row] = &[
    Row::new("26 corrupted owner", "the owner's agent finds its state damaged", |t| spoil(t, Who::Owner, CORRUPT)),
    Row::new("26 corrupted standby", "the standby's agent finds its state damaged", |t| {
        spoil(t, Who::Standby, CORRUPT)
    })
    .with(Outage::LeasePlus(300.0))
    .stays(),
    Row::new("26 truncated witness", "the witness finds its state cut short", |t| spoil(t, Who::Witness, TRUNCATE))
        .only(super::WITNESS)
        .with(Outage::Unnoticed)
        .stays(),
    Row::new("26 lost witness", "the witness finds no state", |t| spoil(t, Who::Witness, LOSE))
        .only(super::WITNESS)
        .with(Outage::Unnoticed)
        .stays(),
    Row::new("26 disk full", "no room for the state of the standby's agent", fill)
        .with(Outage::LeasePlus(300.0))
        .stays(),
];

#[derive(Clone, Copy)]
enum Who {
    Owner,
    Standby,
    Witness,
}

/// Spoils the state on the disk and makes the agent read it.
fn spoil(trial: &mut Trial<'_>, who: Who, how: &str) -> Result<()> {
    let host = match who {
        Who::Owner => trial.owner.clone(),
        Who::Standby => trial.standby.clone(),
        Who::Witness => FRONTEND.to_owned(),
    };
    trial.mark(format!("state on {host} spoiled"));
    begin_anew(trial, &host, how)?;
    trial.bed.until_whole(WHOLE)?;
    trial.until_served(WHOLE)
}

/// Replaces the agent of `host` by a new one, with something done to its state in between.
fn begin_anew(trial: &Trial<'_>, host: &str, between: &str) -> Result<()> {
    let (agent, _) = trial.bed.agent_and_sentinel(host)?;
    // Stopped first, so that it does not write a good state over a bad one.
    trial.bed.shell(host, &format!("kill -STOP {agent}; {between}; kill -KILL {agent}"), COMMAND)?;
    trial.bed.until("another agent", COMMAND, || match trial.bed.agent_and_sentinel(host)? {
        (pid, _) if pid != agent => Ok(()),
        _ => bail!("the agent of {host} is still {agent}"),
    })
}

/// Gives the state a small disk of its own and fills that.
fn fill(trial: &mut Trial<'_>) -> Result<()> {
    let host = trial.standby.clone();
    let small = "set -e; lab-agent stop; mkdir -p /tmp/state; cp -a /var/lib/oarlock/. /tmp/state; \
        mount -t tmpfs -o size=4m,mode=0700 tmpfs /var/lib/oarlock; cp -a /tmp/state/. /var/lib/oarlock; lab-agent start";
    trial.bed.shell(&host, small, COMMAND)?;
    trial.bed.until_whole(WHOLE)?;
    trial.mark(format!("disk of the state on {host} full"));
    let filled = filled(trial, &host);
    trial.mark(format!("room again on {host}"));
    trial.bed.shell(&host, "rm -f /var/lib/oarlock/filler", COMMAND)?;
    let whole = trial.bed.until_whole(WHOLE).map(drop);
    let undo = "set -e; lab-agent stop; cp -a /var/lib/oarlock/. /tmp/state; umount /var/lib/oarlock; \
        rm -rf /var/lib/oarlock/*; cp -a /tmp/state/. /var/lib/oarlock; rm -rf /tmp/state; lab-agent start";
    trial.bed.shell(&host, undo, COMMAND)?;
    filled.and(whole)
}

fn filled(trial: &mut Trial<'_>, host: &str) -> Result<()> {
    // dd ends with an error when the disk is full: that is what it is for.
    trial.bed.shell(host, "dd if=/dev/zero of=/var/lib/oarlock/filler bs=4k status=none || true", COMMAND)?;
    // Something to remember.
    trial.bed.request(FRONTEND, &["maintenance", "on"])?;
    trial.bed.request(FRONTEND, &["maintenance", "off"])?;
    // The store has its room from the start: it goes on, and so does an agent that begins now.
    begin_anew(trial, host, "true")?;
    trial.bed.until_whole(WHOLE)?;
    trial.until_served(WHOLE)
}
