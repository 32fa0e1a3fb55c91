//! How long a writing client is refused, for each kind of failure.

use crate::machine;
use crate::matrix::bed::Bed;
use crate::matrix::case::{Demands, PICTURE, run};
use crate::matrix::rows_oar::submit_through_takeover;
use crate::matrix::trial::Trial;
use crate::matrix::{Row, row};
use crate::results::{CaseKey, Results};
use crate::state::{Engine, Timing};
use anyhow::{Context, Result, bail};
use std::path::{Path, PathBuf};

/// Arguments of `bench failover`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// The timing preset that the lab must be up with (default: the one it is up with)
    #[arg(long, value_enum)]
    timing: Option<Timing>,
    /// How many runs of each kind this build shall have in the end (default: 20 power-offs, 10 of the others)
    #[arg(long)]
    n: Option<usize>,
    /// Only this kind; may be repeated
    #[arg(long, value_enum)]
    only: Vec<Kind>,
    /// Directory of the results
    #[arg(long, default_value = "docs/results")]
    results: PathBuf,
}

/// What fails.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum Kind {
    /// The owner's power
    Poweroff,
    /// The owner's database, by kill -9
    #[value(alias = "kill-database")]
    KillPostgres,
    /// Nothing: a planned move
    Move,
    /// The owner's agent, by kill -9
    KillAgent,
    /// The owner's sentinel, by kill -9
    KillSentinel,
    /// The standby's power
    StandbyLoss,
    /// The owner's power; measured is from the first row acknowledged again to an answer of oarsub
    Oarsub,
}

const KINDS: [Kind; 7] = [
    Kind::Poweroff,
    Kind::KillPostgres,
    Kind::Move,
    Kind::KillAgent,
    Kind::KillSentinel,
    Kind::StandbyLoss,
    Kind::Oarsub,
];

impl Kind {
    fn name(self) -> &'static str {
        match self {
            Kind::Poweroff => "poweroff",
            Kind::KillPostgres => "kill-postgres",
            Kind::Move => "move",
            Kind::KillAgent => "kill-agent",
            Kind::KillSentinel => "kill-sentinel",
            Kind::StandbyLoss => "standby-loss",
            Kind::Oarsub => "oarsub",
        }
    }

    /// The case of the matrix that does it, so that both do the same.
    fn row(self) -> Result<Row> {
        let id = match self {
            Kind::Poweroff => "2 never",
            Kind::KillPostgres => "5 kill",
            Kind::KillAgent => "20 agent owner",
            Kind::KillSentinel => "20 sentinel owner",
            Kind::StandbyLoss => "3",
            Kind::Oarsub => {
                let title = "oarsub answered, counted from the first row acknowledged after a power-off";
                return Ok(Row::new("oarsub", title, submit_through_takeover));
            }
            Kind::Move => return Ok(Row::new("move", "planned move", |t: &mut Trial<'_>| t.move_to_rejoined())),
        };
        row(id).with_context(|| format!("the matrix has no case {id:?}"))
    }

    fn runs(self) -> usize {
        if self == Kind::Poweroff { 20 } else { 10 }
    }
}

/// Runs it. True if every run kept every row and healed.
pub fn main(args: &Args) -> Result<bool> {
    let bed = Bed::open()?;
    let timing = bed.shape.timing;
    if args.timing.is_some_and(|wanted| wanted != timing) {
        bail!("the lab is up with timing {timing}\nhint: cargo xtask lab down, then lab up --timing …");
    }
    let paths = bed.lab.paths();
    let build = machine::build(paths)?;
    let dir = paths.workspace.join(&args.results);
    let (name, title) = match bed.shape.db {
        Engine::Postgresql => (format!("failover-{timing}"), format!("Failover, {timing}")),
        Engine::Mariadb => (format!("failover-mariadb-{timing}"), format!("Failover, MariaDB, {timing}")),
    };
    let mut results = Results::open(&dir.join(format!("{name}.json")), &title)?;
    results.set_machine(machine::facts(&paths.run)?);
    let mut all_passed = true;
    for kind in KINDS.into_iter().filter(|k| args.only.is_empty() || args.only.contains(k)) {
        let row = kind.row()?;
        let key = CaseKey { row: kind.name().to_owned(), title: row.title.to_owned(), variant: bed.variant() };
        let mut pictures = Vec::new();
        for _ in results.runs_of_build(&key, &build)..args.n.unwrap_or(kind.runs()) {
            let (run, run_dir) = run(&bed, &row, &build, Demands::RowsOnly)?;
            let outage = run.outage_ms.map_or_else(|| "-".to_owned(), |ms| format!("{ms:.0}"));
            println!("{:<14} outage {outage:>6} ms  lost {}  {}", kind.name(), run.lost, run.failures.join("; "));
            pictures.extend(run.outage_ms.map(|ms| (ms, run_dir.join(PICTURE))));
            all_passed &= run.passed;
            results.append(&key, run)?;
        }
        keep_median(&dir.join(format!("{name}-{}.svg", kind.name())), pictures)?;
    }
    results.write_markdown()?;
    print!("{}", results.markdown());
    Ok(all_passed)
}

/// Keeps the picture of the run in the middle, which is what a reader should take for typical.
fn keep_median(target: &Path, mut pictures: Vec<(f64, PathBuf)>) -> Result<()> {
    pictures.sort_by(|a, b| a.0.total_cmp(&b.0));
    if let Some((_, picture)) = pictures.get(pictures.len() / 2) {
        std::fs::copy(picture, target).with_context(|| format!("copy {}", picture.display()))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_kind_has_its_case() {
        for kind in KINDS {
            assert!(kind.row().is_ok(), "{kind:?}");
        }
    }
}
