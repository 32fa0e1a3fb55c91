//! One run of one case, from a whole cluster to its verdict.

use super::Row;
use super::bed::Bed;
use super::trial::{Traces, Trial};
use super::users::Users;
use super::verdict::{NOISE_MS, Ownership, outages, wrong};
use crate::history::{Gap, IdleEvent, Stamp};
use crate::plot::{View, draw};
use crate::results::Run;
use anyhow::{Context, Result};
use std::path::PathBuf;
use std::time::Duration;

/// Longest wait for a whole cluster before a case.
const RESTORE: Duration = Duration::from_secs(120);
/// How far around each mark the picture's close-ups reach, milliseconds.
const CLOSE_UP_MS: (i64, i64) = (500, 2_500);

/// The picture in a run's directory.
pub const PICTURE: &str = "plot.svg";

/// How much is demanded of a run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Demands {
    /// Everything the matrix demands, with writers on every server and a move at the end.
    All,
    /// The same with users whose commands go on all the time. What these cost is not the outage's fault, so that
    /// its limits do not hold.
    Users,
    /// For a benchmark, which shall disturb what it measures as little as it can: that the
    /// cluster heals and no row is lost.
    RowsOnly,
}

/// Runs one case once. An error means that the case could not even begin; whatever goes wrong
/// in the case itself is its verdict.
///
/// Also returns where the run's picture and logs are.
pub fn run(bed: &Bed, row: &Row, build: &str, demands: Demands) -> Result<(Run, PathBuf)> {
    let at = Stamp::now();
    let id = format!("{}-{}", row.id.replace(' ', "-"), at.wall_us / 1_000);
    let dir = bed.lab.paths().target.join("lab/matrix").join(&id);
    let begun = || format!("row {} cannot begin", row.id);
    let cluster = bed.restore(RESTORE).with_context(begun)?;
    let mut trial = Trial::begin(bed, &cluster, (row.about, row.users_at), &id, &dir).with_context(begun)?;
    if demands != Demands::RowsOnly {
        trial.watch_servers().with_context(begun)?;
    }
    let users =
        if demands == Demands::Users { Some(Users::begin(&bed.lab, row.users_at, !row.own_jobs)) } else { None };
    let whole_at = drive(row, &mut trial, demands);
    if let Some(told) = users.map(Users::end).transpose()? {
        trial.failures.extend(told.wrong());
        trial.notes.push(told.to_string());
    }
    let mut run = Run {
        at_s: at.wall_us / 1_000_000,
        build: build.to_owned(),
        passed: false,
        outage_ms: None,
        lost: 0,
        took_s: 0.0,
        failures: Vec::new(),
        note: String::new(),
    };
    match trial.end() {
        Ok(traces) => judge(row, demands, &mut trial, &traces, whole_at, &mut run)?,
        Err(error) => trial.failures.push(format!("no rows compared: {error:#}")),
    }
    run.failures = std::mem::take(&mut trial.failures);
    run.passed = run.failures.is_empty();
    run.note = trial.notes.join("; ");
    run.took_s = Stamp::now().ms_since(at) / 1_000.0;
    Ok((run, dir))
}

/// Fault, healing, and the move at the end. Returns when the cluster was whole again.
fn drive(row: &Row, trial: &mut Trial<'_>, demands: Demands) -> Option<Stamp> {
    if let Err(error) = (row.fault)(trial) {
        trial.failures.push(format!("{error:#}"));
    }
    let whole = match trial.bed.until_whole(Duration::from_secs(row.heal_s)) {
        Ok(whole) => whole,
        Err(error) => {
            trial.failures.push(format!("{error:#}"));
            return None;
        }
    };
    let whole_at = Stamp::now();
    if demands == Demands::RowsOnly {
        return Some(whole_at);
    }
    let owner = whole.owner_of(trial.group().name).unwrap_or("nobody").to_owned();
    let moved = owner != trial.owner;
    match row.ownership {
        Ownership::Moves => trial.demand(moved, || format!("the group did not move away from {owner}")),
        Ownership::Stays => trial.demand(!moved, || format!("the group moved to {owner}")),
        Ownership::Any => {}
    }
    if let Err(error) = trial.move_to_rejoined() {
        trial.failures.push(format!("the move onto the copy that rejoined: {error:#}"));
    }
    Some(whole_at)
}

fn judge(
    row: &Row,
    demands: Demands,
    trial: &mut Trial<'_>,
    traces: &Traces,
    whole_at: Option<Stamp>,
    run: &mut Run,
) -> Result<()> {
    trial.failures.extend(wrong(traces));
    let late = traces.users.idle.iter().filter(|i| i.event == IdleEvent::Late).count();
    trial.demand(late == 0 || row.forgets, || format!("{late} idle connections broke and were not told"));
    run.lost = traces.lost;
    let (before, after): (Vec<_>, Vec<_>) =
        trial.marks.iter().cloned().partition(|m| whole_at.is_none_or(|w| m.at.mono_us <= w.mono_us));
    let last = traces.users.last_instant();
    let mut found = outages(&traces.users, &before, whole_at.unwrap_or(last));
    // A benchmark publishes what its fault cost, not what undoing it cost.
    let measured = if demands == Demands::RowsOnly { 1 } else { found.len() };
    let outage_ms = found.iter().take(measured).filter_map(|(_, gap)| gap.map(|g| g.ms())).reduce(f64::max);
    run.outage_ms = trial.measured_ms.or(outage_ms);
    found.extend(outages(&traces.users, &after, last));
    for (mark, gap) in &found {
        trial.notes.push(describe(&mark.label, gap.as_ref()));
        let Some(gap) = gap.filter(|g| g.ms() > NOISE_MS) else { continue };
        if !gap.ended {
            trial.failures.push(format!("no row was acknowledged any more after {}", mark.label));
        } else if demands == Demands::All && trial.quiet.contains(&mark.at) {
            trial.failures.push(format!("users noticed {}: {:.0} ms", mark.label, gap.ms()));
        }
    }
    let limit = row.outage.limit_ms(trial.bed.lease_ms()).filter(|_| demands == Demands::All);
    if let (Some(limit), Some(ms)) = (limit, run.outage_ms) {
        trial.demand(ms <= limit, || format!("outage {ms:.0} ms, more than {limit:.0} ms"));
    }
    let mut views = vec![View::whole(row.title, &traces.users)];
    let (before_ms, after_ms) = CLOSE_UP_MS;
    views.extend(trial.marks.iter().map(|m| View::around(&m.label, m.at, before_ms, after_ms)));
    let picture = trial.dir().join(PICTURE);
    std::fs::write(&picture, draw(&traces.users, &trial.marks, &views))
        .with_context(|| format!("write {}", picture.display()))
}

fn describe(label: &str, gap: Option<&Gap>) -> String {
    match gap.map(Gap::ms) {
        Some(ms) if ms > NOISE_MS => format!("{label}: {ms:.0} ms"),
        Some(_) => format!("{label}: unnoticed"),
        None => format!("{label}: not measured"),
    }
}
