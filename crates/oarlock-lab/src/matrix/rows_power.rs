//! Rows 1, 2, 3 and 15: planned switchovers and lost power.

use super::Row;
use super::bed::{FRONTEND, NODE};
use super::settings::Failback;
use super::trial::Trial;
use super::verdict::Outage;
use anyhow::{Context, Result};
use std::time::Duration;

const TAKEOVER: Duration = Duration::from_secs(30);
const COLD_START: Duration = Duration::from_secs(60);

/// The cases of this file.
pub const ROWS: &[Row] = &[
    Row::new("1 never", "standby the owner, bring it back, failback never", |t| standby_owner(t, Failback::Never))
        .with(Outage::AtMost(300.0))
        .moves(),
    Row::new("1 auto", "standby the owner, bring it back, failback auto", |t| standby_owner(t, Failback::Auto))
        .with(Outage::AtMost(300.0))
        .stays(),
    Row::new("2 never", "power off the owner, power on, failback never", |t| power_off_owner(t, Failback::Never))
        .heals_in(90)
        .moves(),
    Row::new("2 auto", "power off the owner, power on, failback auto", |t| power_off_owner(t, Failback::Auto))
        .heals_in(90)
        .stays(),
    Row::new("1 oar never", "standby the owner of OAR's group, bring it back", |t| standby_owner(t, Failback::Never))
        .oar_apart()
        .moves(),
    Row::new("1 oar auto", "the same, failback auto", |t| standby_owner(t, Failback::Auto)).oar_apart().stays(),
    Row::new("2 oar never", "power off the owner of OAR's group, power on", |t| power_off_owner(t, Failback::Never))
        .oar_apart()
        .heals_in(90)
        .moves(),
    Row::new("2 oar auto", "the same, failback auto", |t| power_off_owner(t, Failback::Auto))
        .oar_apart()
        .heals_in(90)
        .stays(),
    Row::new("3 oar", "power off the standby of OAR's group, power on", power_off_standby)
        .oar_apart()
        .heals_in(90)
        .stays(),
    Row::new("3", "power off the standby, power on", power_off_standby)
        .heals_in(90)
        .with(Outage::LeasePlus(300.0))
        .stays(),
    Row::new("15 owner first", "all servers off at once, the owner on first", |t| all_off(t, Order::OwnerFirst))
        .heals_in(120)
        .forgets(),
    Row::new("15 standby first", "all servers off at once, the standby on first", |t| all_off(t, Order::StandbyFirst))
        .heals_in(120)
        .forgets(),
    Row::new("15 together", "all servers off at once, on at once", |t| all_off(t, Order::Together))
        .heals_in(120)
        .forgets(),
    Row::new("15 with witness", "all servers and the witness off at once, on at once", everything_off)
        .only(super::WITNESS)
        .heals_in(120)
        .forgets()
        .users_at(NODE),
];

fn standby_owner(trial: &mut Trial<'_>, failback: Failback) -> Result<()> {
    let owner = prefer_owner(trial, failback)?;
    trial.mark(format!("standby {owner}"));
    trial.bed.request(FRONTEND, &["standby", &owner])?;
    trial.until_moved(TAKEOVER)?;
    trial.until_served(TAKEOVER)?;
    trial.mark(format!("online {owner}"));
    trial.bed.request(FRONTEND, &["online", &owner])?;
    await_failback(trial, failback, &owner)
}

fn power_off_owner(trial: &mut Trial<'_>, failback: Failback) -> Result<()> {
    let owner = prefer_owner(trial, failback)?;
    trial.power_off(&[&owner])?;
    trial.until_served(TAKEOVER)?;
    trial.until_moved(TAKEOVER)?;
    trial.power_on(&[&owner])?;
    await_failback(trial, failback, &owner)
}

/// Sets the failback. With `auto` the owner must also be the preferred node, else nothing would
/// come back to it.
fn prefer_owner(trial: &mut Trial<'_>, failback: Failback) -> Result<String> {
    let group = trial.group();
    trial.bed.set_failback(group.name, failback)?;
    let preferred = (*group.hosts.first().context("a group without hosts")?).to_owned();
    if failback == Failback::Auto && trial.owner != preferred {
        trial
            .bed
            .until_owner(trial.about, "the return to the preferred node", COLD_START, |owner| owner == preferred)?;
        trial.bed.until_whole(COLD_START)?;
        (trial.owner, trial.standby) = (preferred, trial.owner.clone());
    }
    Ok(trial.owner.clone())
}

fn await_failback(trial: &mut Trial<'_>, failback: Failback, first: &str) -> Result<()> {
    match failback {
        Failback::Never => trial.until_served(TAKEOVER),
        Failback::Auto => {
            trial
                .bed
                .until_owner(trial.about, "the return to the preferred node", COLD_START, |owner| owner == first)?;
            // Set back before the move at the end, which would be undone at once otherwise.
            trial.bed.set_failback(trial.group().name, Failback::Never)
        }
    }
}

fn power_off_standby(trial: &mut Trial<'_>) -> Result<()> {
    let standby = trial.standby.clone();
    trial.power_off(&[&standby])?;
    trial.until_served(TAKEOVER)?;
    trial.power_on(&[&standby])
}

#[derive(Clone, Copy)]
enum Order {
    OwnerFirst,
    StandbyFirst,
    Together,
}

/// With one copy's server back, the witness and it are a majority, with four servers the witness, it and
/// those of OAR: it must serve, since both copies were in sync when the power went.
fn all_off(trial: &mut Trial<'_>, order: Order) -> Result<()> {
    let (owner, standby) = (trial.owner.clone(), trial.standby.clone());
    let servers = trial.bed.servers();
    trial.power_off(&servers)?;
    let (first, second) = match order {
        Order::Together => return trial.power_on(&servers),
        Order::OwnerFirst => (owner, standby),
        Order::StandbyFirst => (standby, owner),
    };
    let early: Vec<&str> = servers.into_iter().filter(|server| *server != second).collect();
    trial.power_on(&early)?;
    trial.bed.until_owner(trial.about, "a cold start", COLD_START, |owner| owner == first)?;
    trial.until_served(COLD_START)?;
    trial.power_on(&[&second])
}

fn everything_off(trial: &mut Trial<'_>) -> Result<()> {
    let hosts = [&trial.bed.servers()[..], &[FRONTEND]].concat();
    trial.power_off(&hosts)?;
    trial.power_on(&hosts)
}
