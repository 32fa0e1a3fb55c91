//! What replication costs: sysbench's OLTP mix without a standby, with one, and with one behind a network that
//! others fill. The benchmark of 2009, on our own cluster.

mod network;
mod report;
mod slow_disk;
mod sysbench;

use crate::history::Stamp;
use crate::layout::Part;
use crate::machine;
use crate::matrix::bed::Bed;
use crate::state::Engine;
use anyhow::{Context, Result, bail, ensure};
use network::{Saturated, received_bytes, round_trip_ms};
use report::{Measured, Mode, Report};
use std::path::PathBuf;
use std::time::Duration;

/// Longest wait for a whole cluster, or for one that is as a mode wants it.
const WHOLE: Duration = Duration::from_secs(120);
/// Transactions before a series, so that the first run finds the same as the others.
const WARM_UP: u32 = 1_000;

/// Arguments of `bench replication`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// The engine that must be up
    #[arg(long, value_enum)]
    engine: Option<Engine>,
    /// How many transactions a run has; may be repeated (default: 5000, 20000 and 80000)
    #[arg(long)]
    transactions: Vec<u32>,
    /// How many runs of each
    #[arg(long, default_value_t = 3)]
    n: usize,
    /// The capacity of the network that others fill, Mbit/s
    #[arg(long, default_value_t = 100)]
    capacity_mbit: u32,
    /// Add so many milliseconds to every fdatasync and fsync of the servers (default size: 5000 alone)
    #[arg(long, default_value_t = 0)]
    slow_disk_ms: u32,
    /// Directory of the results
    #[arg(long, default_value = "docs/results")]
    results: PathBuf,
}

impl Args {
    fn sizes(&self) -> Vec<u32> {
        match (&self.transactions[..], self.slow_disk_ms) {
            ([], 0) => vec![5_000, 20_000, 80_000],
            ([], _) => vec![5_000],
            (given, _) => given.to_vec(),
        }
    }
}

/// Measures what is not recorded yet, one round of all modes after the other. True if all was measured.
pub fn main(args: &Args) -> Result<bool> {
    let bed = Bed::open()?;
    if args.engine.is_some_and(|engine| engine != bed.shape.db) {
        bail!("the lab is up with {}\nhint: cargo xtask lab down, then lab up --db …", bed.shape.db.title());
    }
    let paths = bed.lab.paths();
    let mut report = Report::open(&paths.workspace.join(&args.results).join("replication-cost.json"))?;
    report.set_machine(machine::facts(&paths.run)?);
    bed.restore(WHOLE)?;
    sysbench::install(&bed)?;
    if args.slow_disk_ms > 0 {
        slow_disk::set(&bed, args.slow_disk_ms)?;
    }
    let measured = rounds(&bed, args, &mut report);
    let undone = if args.slow_disk_ms > 0 { slow_disk::set(&bed, 0) } else { Ok(()) };
    measured.and(undone)?;
    print!("{}", report.page());
    Ok(true)
}

fn rounds(bed: &Bed, args: &Args, report: &mut Report) -> Result<()> {
    for round in 0..args.n {
        for mode in Mode::ALL {
            let open: Vec<u32> =
                args.sizes().into_iter().filter(|size| report.count(&key(bed, args, mode, *size)) <= round).collect();
            if !open.is_empty() {
                series(bed, args, mode, &open, report)?;
            }
        }
    }
    Ok(())
}

/// What a run is about, with nothing measured yet.
fn key(bed: &Bed, args: &Args, mode: Mode, transactions: u32) -> Measured {
    Measured {
        engine: bed.shape.db,
        suite: bed.shape.suite,
        mode,
        transactions,
        slow_disk_ms: args.slow_disk_ms,
        capacity_mbit: (mode == Mode::Saturated).then_some(args.capacity_mbit),
        ..Measured::default()
    }
}

/// Runs of one mode, one per size, on a table that is made anew.
fn series(bed: &Bed, args: &Args, mode: Mode, sizes: &[u32], report: &mut Report) -> Result<()> {
    let cluster = bed.until_whole(WHOLE)?;
    let owner = cluster.owner().context("a whole cluster has an owner")?.to_owned();
    let standby = bed.peer(&owner)?;
    let build = machine::build(bed.lab.paths())?;
    let disk_ms = machine::fdatasync_ms(&bed.lab.paths().run)?.median;
    if mode == Mode::Alone {
        // A node on standby goes on replicating, so that it can take over: only one that is off does not.
        bed.lab.poweroff(&[standby])?;
        bed.until("an owner that acknowledges alone", WHOLE, || as_wanted(bed, mode, &owner))?;
    }
    sysbench::prepare(bed)?;
    let saturated =
        if mode == Mode::Saturated { Some(Saturated::begin(bed, &owner, standby, args.capacity_mbit)?) } else { None };
    let measured = (|| {
        sysbench::run(bed, WARM_UP)?;
        for size in sizes {
            let replicated = mode != Mode::Alone;
            let round_trip_ms = replicated.then(|| round_trip_ms(bed, &owner, standby)).transpose()?;
            let before = replicated.then(|| received_bytes(bed, standby)).transpose()?;
            let taken = sysbench::run(bed, *size)?;
            let after = replicated.then(|| received_bytes(bed, standby)).transpose()?;
            as_wanted(bed, mode, &owner).context("the cluster changed while it was measured")?;
            let run = Measured {
                at_s: Stamp::now().wall_us / 1_000_000,
                build: build.clone(),
                seconds: taken.seconds,
                per_second: taken.per_second,
                p95_ms: taken.p95_ms,
                round_trip_ms,
                // Under a flood the counter tells of that.
                received_bytes: before
                    .zip(after)
                    .filter(|_| mode == Mode::Replicated)
                    .map(|(before, after)| after.saturating_sub(before) / u64::from(*size)),
                fdatasync_ms: disk_ms,
                ..key(bed, args, mode, *size)
            };
            println!("{run}");
            report.append(run)?;
        }
        Ok(())
    })();
    drop(saturated);
    if mode == Mode::Alone {
        bed.lab.poweron(&[standby])?;
    }
    measured
}

/// The owner is the same, and the set of copies that a commit waits for is the one that is measured.
fn as_wanted(bed: &Bed, mode: Mode, owner: &str) -> Result<()> {
    let cluster = bed.cluster()?;
    let group = cluster.named(bed.group(Part::Database).name).context("no group")?;
    let (state, at) = (group.state.as_str(), group.owner.as_deref());
    ensure!(state == "started" && at == Some(owner), "{} is {state} at {at:?}, not at {owner}", group.name);
    let standbys = cluster.in_sync_standbys().len();
    let wanted = usize::from(mode != Mode::Alone);
    ensure!(standbys == wanted, "{standbys} standbys are in sync, not {wanted}");
    Ok(())
}
