//! Rows 7, 8, 8b and 23: cables.

use super::Row;
use super::bed::{FRONTEND, NODE};
use super::trial::Trial;
use super::verdict::Outage;
use crate::net::{Cut, Direction};
use crate::state::Timing;
use anyhow::Result;
use std::thread::sleep;
use std::time::Duration;

const TAKEOVER: Duration = Duration::from_secs(30);
/// How long cables stay cut, as long as with the rivals measured on the same bench.
const CUT: Duration = Duration::from_secs(30);
/// Each frame passes two cables, so that more of what a node sends to another is lost than this.
const LOSS_PERCENT: u8 = 10;

const fn row(id: &'static str, title: &'static str, fault: fn(&mut Trial<'_>) -> Result<()>) -> Row {
    Row::new(id, title, fault).heals_in(90)
}

/// The cases of this file. The plain asymmetric cuts of row 23 are the one-way cuts of row 7.
pub const ROWS: &[Row] = &[
    row("7 both", "servers cut off from each other", |t| between_servers(t, Who::Owner, Direction::Both)),
    row("7 to standby", "the standby does not hear the owner", |t| between_servers(t, Who::Standby, Direction::In)),
    row("7 to owner", "the owner does not hear the standby", |t| between_servers(t, Who::Owner, Direction::In)),
    row("8 other link", "the owner's link without the service address", |t| one_link(t, 2, false))
        .with(Outage::Unnoticed)
        .stays(),
    row("8 service link", "the owner's link with the service address", |t| one_link(t, 1, false))
        .with(Outage::LeasePlus(1_000.0))
        .moves(),
    row("8 service frames", "the same, carrier kept", |t| one_link(t, 1, true))
        .with(Outage::LeasePlus(1_000.0))
        .moves(),
    row("8b owner carrier", "all links of the owner, carrier lost", |t| isolate(t, Who::Owner, false)).moves(),
    row("8b owner frames", "all links of the owner, carrier kept", |t| isolate(t, Who::Owner, true)).moves(),
    row("8b standby carrier", "all links of the standby, carrier lost", |t| isolate(t, Who::Standby, false))
        .with(Outage::LeasePlus(300.0))
        .stays(),
    row("8b standby frames", "all links of the standby, carrier kept", |t| isolate(t, Who::Standby, true))
        .with(Outage::LeasePlus(300.0))
        .stays(),
    row("8b witness carrier", "all links of the witness, carrier lost", |t| isolate(t, Who::Witness, false))
        .only(super::WITNESS)
        .with(Outage::Unnoticed)
        .users_at(NODE)
        .stays(),
    row("8b witness frames", "all links of the witness, carrier kept", |t| isolate(t, Who::Witness, true))
        .only(super::WITNESS)
        .with(Outage::Unnoticed)
        .users_at(NODE)
        .stays(),
    row("24 loss", "a fifth of what nodes send each other is lost for 30 s", lose_frames),
    row("23 deaf owner", "the owner is heard and hears nobody", |t| one_way(t, Direction::In)).moves(),
    row("23 mute owner", "the owner hears everybody and is heard by nobody", |t| one_way(t, Direction::Out)).moves(),
];

/// Frames of all nodes, at random, both ways. With `balanced` nothing may move.
fn lose_frames(trial: &mut Trial<'_>) -> Result<()> {
    let cut = Cut { keep_carrier: true, loss_percent: Some(LOSS_PERCENT), ..Cut::default() };
    trial.mark(format!("{LOSS_PERCENT} % of the frames lost"));
    for host in trial.bed.voters() {
        trial.bed.lab.cut(host, &cut)?;
    }
    sleep(CUT);
    trial.mark("no more frames lost");
    for host in trial.bed.voters() {
        trial.bed.lab.heal(host, &Cut::default())?;
    }
    let moved = trial.bed.until_owner(trial.about, "an owner", TAKEOVER, |_| true)? != trial.owner;
    trial.demand(!moved || trial.bed.shape.timing == Timing::Fast, || "a false takeover".to_owned());
    trial.until_served(TAKEOVER)
}

#[derive(Clone, Copy)]
enum Who {
    Owner,
    Standby,
    Witness,
}

/// Cuts, keeps it so, heals. Direct writers on the servers watch for a second acknowledger.
fn cut(trial: &mut Trial<'_>, host: &str, cut: &Cut) -> Result<()> {
    trial.mark(format!("cut at {host}"));
    trial.bed.lab.cut(host, cut)?;
    sleep(CUT);
    trial.mark_quiet(format!("healed at {host}"));
    trial.bed.lab.heal(host, &Cut::default())?;
    trial.until_served(TAKEOVER)
}

fn name(trial: &Trial<'_>, who: Who) -> String {
    match who {
        Who::Owner => trial.owner.clone(),
        Who::Standby => trial.standby.clone(),
        Who::Witness => FRONTEND.to_owned(),
    }
}

/// What one server exchanges with the other, on every link; the witness hears both.
fn between_servers(trial: &mut Trial<'_>, at: Who, direction: Direction) -> Result<()> {
    let host = name(trial, at);
    let peer = trial.bed.peer(&host)?.to_owned();
    cut(trial, &host, &Cut { peer: Some(peer), direction, keep_carrier: true, ..Cut::default() })
}

fn one_link(trial: &mut Trial<'_>, link: u8, keep_carrier: bool) -> Result<()> {
    let owner = trial.owner.clone();
    cut(trial, &owner, &Cut { link: Some(link), keep_carrier, ..Cut::default() })
}

fn isolate(trial: &mut Trial<'_>, who: Who, keep_carrier: bool) -> Result<()> {
    let host = name(trial, who);
    cut(trial, &host, &Cut { keep_carrier, ..Cut::default() })
}

fn one_way(trial: &mut Trial<'_>, direction: Direction) -> Result<()> {
    let owner = trial.owner.clone();
    cut(trial, &owner, &Cut { direction, keep_carrier: true, ..Cut::default() })
}
