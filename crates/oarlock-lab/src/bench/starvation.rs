//! Whether a machine that is short of processor time is taken for dead.

use crate::history::Stamp;
use crate::layout::Part;
use crate::machine;
use crate::matrix::bed::{Bed, FRONTEND};
use crate::matrix::trial::Trial;
use crate::results::{CaseKey, Results, Run};
use anyhow::{Context, Result};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

/// Longest wait for a whole cluster.
const WHOLE: Duration = Duration::from_secs(120);
/// Between two lines of progress.
const PROGRESS: Duration = Duration::from_secs(60);

/// Arguments of `bench starvation`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// For how long, minutes; runs add up
    #[arg(long, default_value_t = 5)]
    minutes: u64,
    /// Busy loops per core
    #[arg(long, default_value_t = 4)]
    loops: usize,
    /// Directory of the results
    #[arg(long, default_value = "docs/results")]
    results: PathBuf,
}

/// Processes that do nothing but burn processor time; killed when dropped.
struct Burners(Vec<Child>);

impl Burners {
    fn start(count: usize) -> Result<Burners> {
        let mut burners = Burners(Vec::new());
        for _ in 0..count {
            let mut command = Command::new("sh");
            command.args(["-c", "while :; do :; done"]).stdin(Stdio::null());
            burners.0.push(command.spawn().context("start a busy loop")?);
        }
        Ok(burners)
    }
}

impl Drop for Burners {
    fn drop(&mut self) {
        for child in &mut self.0 {
            // One that has ended by itself needs no killing.
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

/// Runs it. True if the group stayed where it was and no row was lost.
pub fn main(args: &Args) -> Result<bool> {
    let bed = Bed::open()?;
    let cluster = bed.restore(WHOLE)?;
    let paths = bed.lab.paths();
    let at = Stamp::now();
    let id = format!("starvation-{}", at.wall_us / 1_000);
    let dir = paths.target.join("lab/matrix").join(&id);
    let mut trial = Trial::begin(&bed, &cluster, (Part::Database, FRONTEND), &id, &dir)?;
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    trial.mark(format!("{} busy loops", args.loops * cores));
    let burners = Burners::start(args.loops * cores)?;
    wait(Duration::from_secs(args.minutes * 60));
    drop(burners);
    trial.until_served(WHOLE)?;
    let traces = trial.end()?;
    let longest = crate::history::outage_around(&traces.users, at, traces.users.last_instant()).map(|gap| gap.ms());
    let key = CaseKey {
        row: "starvation".to_owned(),
        title: format!("{} busy loops per core", args.loops),
        variant: bed.variant(),
    };
    let run = Run {
        at_s: at.wall_us / 1_000_000,
        build: machine::build(paths)?,
        passed: traces.changes == 0 && traces.lost == 0,
        outage_ms: longest,
        lost: traces.lost,
        took_s: Stamp::now().ms_since(at) / 1_000.0,
        failures: if traces.changes == 0 { Vec::new() } else { vec![format!("{} false moves", traces.changes)] },
        note: format!("{} minutes, {} changes of ownership", args.minutes, traces.changes),
    };
    let passed = run.passed;
    let words = format!("{}; longest wait for a commit {:.0} ms", run.note, longest.unwrap_or_default());
    let file = paths.workspace.join(&args.results).join(format!("starvation-{}.json", bed.shape.timing));
    let mut results = Results::open(&file, &format!("Starved of processor time, {}", bed.shape.timing))?;
    results.set_machine(machine::facts(&paths.run)?);
    results.append(&key, run)?;
    results.write_markdown()?;
    println!("{words}, lost {}", traces.lost);
    Ok(passed)
}

fn wait(total: Duration) {
    let begun = Instant::now();
    while let Some(left) = total.checked_sub(begun.elapsed()).filter(|left| !left.is_zero()) {
        println!("{} s to go", left.as_secs());
        sleep(left.min(PROGRESS));
    }
}
