//! Rows 13 and 14, and what else only four servers have: the database and OAR fail apart from each other.

use super::Row;
use super::bed::FRONTEND;
use super::trial::Trial;
use super::verdict::Outage;
use crate::jobs;
use crate::layout::{Layout, Part};
use anyhow::{Context, Result, bail};
use std::time::Duration;

const TAKEOVER: Duration = Duration::from_secs(30);
const COLD_START: Duration = Duration::from_secs(60);
/// Voters shrink one after the other, each a good while after its death.
const SHRUNK: Duration = Duration::from_secs(60);
const ENDED: Duration = Duration::from_secs(90);

/// The cases of this file.
pub const ROWS: &[Row] = &[
    Row::new("1 database", "a move of the database leaves OAR's server alone", move_database)
        .only(super::APART)
        .with(Outage::AtMost(300.0))
        .moves(),
    Row::new("13", "power off both owners at once, power on", both_owners_off)
        .only(&[Layout::Four])
        .heals_in(120)
        .moves(),
    Row::new("14", "both owners off, then the other database server, which returns alone", database_off)
        .only(&[Layout::Four])
        .heals_in(150)
        .forgets()
        .moves(),
    Row::new("14 plain", "four servers, no witness: one after the other off, down to two", one_after_the_other)
        .only(&[Layout::FourPlain])
        .heals_in(150)
        .moves(),
];

/// Almighty must be the same process before and after.
fn move_database(trial: &mut Trial<'_>) -> Result<()> {
    let oar = trial.bed.owner(Part::Oar)?;
    let before = trial.bed.almighty(&oar)?;
    let to = trial.standby.clone();
    trial.mark(format!("move of the database to {to}"));
    trial.bed.request(FRONTEND, &["move", trial.group().name, &to])?;
    trial.until_moved(TAKEOVER)?;
    trial.until_served(TAKEOVER)?;
    run_job(trial)?;
    let after = trial.bed.almighty(&oar)?;
    trial.demand(after == before, || format!("Almighty on {oar} was {before} and is {after}"));
    Ok(())
}

fn both_owners_off(trial: &mut Trial<'_>) -> Result<()> {
    let (database, oar) = (trial.owner.clone(), trial.bed.owner(Part::Oar)?);
    trial.power_off(&[&database, &oar])?;
    trial.until_served(TAKEOVER)?;
    trial.until_moved(TAKEOVER)?;
    trial.bed.until_owner(Part::Oar, "a takeover of OAR", TAKEOVER, |owner| owner != oar)?;
    run_job(trial)?;
    trial.power_on(&[&database, &oar])
}

/// With three voters left two are a majority: OAR's server and the witness go on without any database.
fn database_off(trial: &mut Trial<'_>) -> Result<()> {
    let (first, second, oar) = (trial.owner.clone(), trial.standby.clone(), trial.bed.owner(Part::Oar)?);
    trial.power_off(&[&first, &oar])?;
    trial.until_served(TAKEOVER)?;
    let left = trial.bed.until_owner(Part::Oar, "a takeover of OAR", TAKEOVER, |owner| owner != oar)?;
    trial.bed.until("three voters", SHRUNK, || three_voters(trial))?;
    let before = trial.bed.almighty(&left)?;
    trial.power_off(&[&second])?;
    until_blocked(trial)?;
    // The copy that was left behind may not serve, whoever else is gone.
    trial.power_on(&[&first])?;
    until_online(trial, &first)?;
    until_blocked(trial)?;
    trial.power_on(&[&second])?;
    trial.bed.until_owner(Part::Database, "the copy that has every row", COLD_START, |owner| owner == second)?;
    trial.until_served(COLD_START)?;
    run_job(trial)?;
    let after = trial.bed.almighty(&left)?;
    trial.demand(after == before, || format!("Almighty on {left} was {before} and is {after}"));
    trial.power_on(&[&oar])
}

/// Four votes need three; once one server is proven dead and the voters are three, another may go.
fn one_after_the_other(trial: &mut Trial<'_>) -> Result<()> {
    let (database, oar) = (trial.owner.clone(), trial.bed.owner(Part::Oar)?);
    trial.power_off(&[&database])?;
    trial.until_served(TAKEOVER)?;
    trial.until_moved(TAKEOVER)?;
    trial.bed.until("three voters", SHRUNK, || three_voters(trial))?;
    trial.power_off(&[&oar])?;
    trial.until_served(TAKEOVER)?;
    trial.bed.until_owner(Part::Oar, "a takeover of OAR", TAKEOVER, |owner| owner != oar)?;
    run_job(trial)?;
    trial.power_on(&[&database, &oar])
}

fn three_voters(trial: &Trial<'_>) -> Result<()> {
    let events = trial.bed.request(FRONTEND, &["events"])?;
    let said = events.lines().rfind(|line| line.contains("voters are")).unwrap_or_default();
    let count = said.split_once("voters are").map_or(0, |(_, list)| list.split(',').count());
    if count == 3 { Ok(()) } else { bail!("the last event about voters: {said:?}") }
}

fn until_blocked(trial: &Trial<'_>) -> Result<()> {
    trial.bed.until("the database is refused with a reason", TAKEOVER, || {
        let cluster = trial.bed.cluster()?;
        let group = cluster.group().context("no group with a database")?;
        match (group.state.as_str(), &group.reason) {
            ("blocked", Some(_)) => Ok(()),
            (state, reason) => bail!("{} is {state}: {reason:?}", group.name),
        }
    })
}

fn until_online(trial: &Trial<'_>, name: &str) -> Result<()> {
    trial.bed.until("the server is back", COLD_START, || {
        let cluster = trial.bed.cluster()?;
        let node = cluster.nodes.iter().find(|node| node.name == name).context("no such node")?;
        if node.state == "online" { Ok(()) } else { bail!("{name} is {}", node.state) }
    })
}

/// OAR's server works, whatever it is connected to.
fn run_job(trial: &Trial<'_>) -> Result<()> {
    let frontend = trial.bed.host(FRONTEND)?;
    let job = jobs::submit(&frontend, "true")?;
    jobs::until(&frontend, &job, "Terminated", ENDED)
}
