//! Running cases one after the other, storing every run, going on after an interruption.

use super::bed::Bed;
use super::case::{Demands, run};
use super::{Row, report, rows};
use crate::machine;
use crate::paths::Paths;
use crate::results::{CaseKey, Results, Run};
use anyhow::{Result, bail};
use std::path::PathBuf;

const TITLE: &str = "Fault matrix";

/// Arguments of `lab matrix`.
#[derive(Debug, clap::Args)]
pub struct MatrixArgs {
    /// Only this row (`8b`) or case (`8b owner carrier`); may be repeated
    #[arg(long, value_name = "ROW")]
    only: Vec<String>,
    /// How many runs of each case this build shall have in the end
    #[arg(long, default_value_t = 1)]
    repeat: usize,
    /// List the cases and run none
    #[arg(long)]
    list: bool,
    /// Have users ask and submit all the time; outages are then measured, but not limited
    #[arg(long)]
    users: bool,
    /// Run none; write the page of all engines and layouts from the runs there are
    #[arg(long)]
    report: bool,
    /// Directory of the results
    #[arg(long, default_value = "docs/results")]
    results: PathBuf,
}

/// Runs the cases that are asked for and not yet recorded. True if every run passed.
pub fn main(args: &MatrixArgs) -> Result<bool> {
    let mut chosen = chosen(&args.only)?;
    if args.list {
        for row in &chosen {
            println!("{:<22} {}", row.id, row.title);
        }
        return Ok(true);
    }
    if args.report {
        let dir = Paths::find()?.workspace.join(&args.results);
        print!("{}", report::write(&dir)?);
        return Ok(true);
    }
    let bed = Bed::open()?;
    chosen.retain(|row| row.layouts.contains(&bed.shape.layout) && (!row.disks || bed.shape.disks));
    if chosen.is_empty() {
        bail!("no such case here\nhint: cargo xtask lab up --layout two|four|four-plain; row 21 also needs --disks");
    }
    let paths = bed.lab.paths();
    let build = machine::build(paths)?;
    let engine = bed.shape.db;
    let title = format!("{TITLE}, {}", engine.title());
    let dir = paths.workspace.join(&args.results);
    let mut results = Results::open(&dir.join(report::file(engine)), &title)?;
    let page = dir.join(format!("fault-matrix-{}.md", engine.name()));
    results.set_machine(machine::facts(&paths.run)?);
    let mut all_passed = true;
    for row in &chosen {
        let key = CaseKey {
            row: row.id.to_owned(),
            title: row.title.to_owned(),
            variant: format!("{}{}", bed.variant(), if args.users { report::USERS } else { "" }),
        };
        for _ in results.runs_of_build(&key, &build)..args.repeat {
            let (run, _) = run(&bed, row, &build, if args.users { Demands::Users } else { Demands::All })?;
            println!("{}", line(row, &run));
            all_passed &= run.passed;
            results.append(&key, run)?;
            results.write_markdown_as(&page)?;
        }
    }
    report::write(&dir)?;
    Ok(all_passed)
}

fn chosen(only: &[String]) -> Result<Vec<Row>> {
    let all = rows();
    if let Some(unknown) = only.iter().find(|o| !all.iter().any(|r| r.is_meant_by(o))) {
        bail!("no row or case {unknown:?}\nhint: cargo xtask lab matrix --list");
    }
    Ok(all.into_iter().filter(|r| only.is_empty() || only.iter().any(|o| r.is_meant_by(o))).collect())
}

/// One line per case.
fn line(row: &Row, run: &Run) -> String {
    let verdict = if run.passed { "pass" } else { "FAIL" };
    let outage = run.outage_ms.map_or_else(|| "-".to_owned(), |ms| format!("{ms:.0} ms"));
    let mut line = format!(
        "{verdict}  {:<18} {:<52} outage {outage:>8}  lost {}  {:>5.1} s",
        row.id, row.title, run.lost, run.took_s
    );
    for failure in &run.failures {
        line += &format!("\n      {failure}");
    }
    line
}
