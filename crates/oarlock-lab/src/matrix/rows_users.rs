//! What else befalls users: their compute node dies, and a setting with which jobs never end is pointed out.

use super::Row;
use super::bed::{FRONTEND, NODE};
use super::trial::Trial;
use super::verdict::Outage;
use crate::jobs;
use crate::layout::Part;
use anyhow::{Context, Result};
use std::time::Duration;

const COMMAND: Duration = Duration::from_secs(30);
const TAKEOVER: Duration = Duration::from_secs(30);
const STARTED: Duration = Duration::from_secs(60);
/// Until OAR has noticed that a node is gone, and until it believes that it is back.
const NOTICED: Duration = Duration::from_secs(150);
const ENDED: Duration = Duration::from_secs(150);
const CONF: &str = "/etc/oar/oar.conf";

/// The cases of this file.
pub const ROWS: &[Row] = &[
    Row::new("11", "jobs bound to the server (DETACH_JOB_FROM_SERVER=0): check says so", detached)
        .with(Outage::Unnoticed)
        .stays(),
    Row::new("29 node", "power off the compute node under a job, power on", |t| node_off(t, false))
        .own_jobs()
        .heals_in(90)
        .with(Outage::Unnoticed)
        .stays(),
    Row::new("29 node and owner", "power off the compute node and the owner at once", |t| node_off(t, true))
        .own_jobs()
        .heals_in(90)
        .moves(),
];

/// `check` names the setting and what to write instead.
fn detached(trial: &mut Trial<'_>) -> Result<()> {
    let owner = trial.bed.owner(Part::Oar)?;
    trial.mark(format!("DETACH_JOB_FROM_SERVER=0 on {owner}"));
    let spoil = format!(
        "cp -p {CONF} /tmp/oar.conf && sed -i 's/^DETACH_JOB_FROM_SERVER=.*/DETACH_JOB_FROM_SERVER=\"0\"/' {CONF}"
    );
    trial.bed.shell(&owner, &spoil, COMMAND)?;
    let checked = trial.bed.host(&owner)?.exec(&["oarlock", "check"], COMMAND);
    trial.bed.shell(&owner, &format!("cp -p /tmp/oar.conf {CONF}"), COMMAND)?;
    let checked = checked?;
    let said = checked.stdout + &checked.stderr;
    trial.demand(said.contains("DETACH_JOB_FROM_SERVER"), || format!("check does not name the setting: {said}"));
    trial.until_served(TAKEOVER)
}

/// The job is gone with its node. What was submitted meanwhile runs when the node is back.
fn node_off(trial: &mut Trial<'_>, owner_too: bool) -> Result<()> {
    let frontend = trial.bed.host(FRONTEND)?;
    let job = jobs::submit(&frontend, "sleep 600")?;
    jobs::until(&frontend, &job, "Running", STARTED)?;
    let owner = trial.owner.clone();
    if owner_too {
        trial.power_off(&[NODE, &owner])?;
        trial.until_served(TAKEOVER)?;
        trial.until_moved(TAKEOVER)?;
    } else {
        trial.power_off(&[NODE])?;
    }
    // Accepted although nothing can run; the job whose node is gone, OAR goes on trying to end.
    let next = jobs::submit(&frontend, "true")?;
    frontend.run_as(jobs::USER, &format!("oardel {job}"), COMMAND)?;
    if owner_too {
        trial.power_on(&[NODE, &owner])?;
    } else {
        trial.power_on(&[NODE])?;
    }
    // OAR leaves a node that it suspected to its administrator, with or without a takeover.
    let at = trial.bed.owner(Part::Oar)?;
    trial.bed.until("the node is alive for OAR", NOTICED, || {
        trial.bed.shell(&at, &format!("oarnodesetting -h {NODE} -s Alive"), COMMAND)
    })?;
    let state = jobs::state(&frontend, &job)?;
    trial.notes.push(format!("the job whose node was gone is {state}"));
    jobs::until(&frontend, &next, "Terminated", ENDED).context("the job that waited for the node")
}
