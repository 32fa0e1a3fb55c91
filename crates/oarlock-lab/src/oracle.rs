//! The planner against another one: random clusters, ours and Pacemaker's `crm_simulate`.
//!
//! Each case is put to both, after translation. Where they differ there must be a reason that is
//! known and wanted (`reason::Reason`), and with that reason written into the translation
//! Pacemaker must come to the same end. Nothing of Pacemaker is installed or started as a service.

mod case;
mod ours;
mod package;
mod reason;
mod translate;

use std::collections::BTreeMap;
use std::time::Instant;

use anyhow::{Result, bail};
use clap::Args;

use case::Case;
use package::Simulator;
use reason::Reason;

/// Cases that are part of the test command.
pub const CASES: u64 = 300;

/// Compare the planner with Pacemaker's
#[derive(Debug, Clone, Args)]
pub struct Arguments {
    /// How many random clusters
    #[arg(long, default_value_t = CASES)]
    pub cases: u64,
    /// Number of the first one; each is the same every time
    #[arg(long, default_value_t = 1)]
    pub first: u64,
    /// Print each cluster with both answers, and what Pacemaker was given
    #[arg(long)]
    pub show: bool,
}

/// How a comparison ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    /// The same, or different for reasons that are listed.
    Agreed,
    /// Some cases differ for no known reason.
    Differed,
    /// There is no Pacemaker to ask, and why.
    Skipped(String),
}

/// Where each group ends up: the position of its node among the case's, or nowhere.
type Places = Vec<Option<usize>>;

/// Compares, and prints one line of counts, after one for each reason and each unexplained case.
///
/// # Errors
/// When Pacemaker's program fails, or says what is not understood.
pub fn run(arguments: &Arguments) -> Result<Verdict> {
    let began = Instant::now();
    let simulator = match package::simulator() {
        Ok(simulator) => simulator,
        Err(error) => return Ok(Verdict::Skipped(format!("crm_simulate cannot be had: {error:#}"))),
    };
    let (mut same, mut wanted, mut unexplained) = (0_u64, 0_u64, 0_u64);
    let mut by_reason: BTreeMap<Reason, u64> = BTreeMap::new();
    for number in arguments.first..arguments.first + arguments.cases {
        let case = Case::draw(number);
        let ours = ours::places(&case)?;
        let theirs = ask(&simulator, &case, &[])?;
        if arguments.show {
            println!("case {number}: {case:#?}\nours {ours:?}, pacemaker {theirs:?}\n{}", translate::cib(&case, &[]));
        }
        if ours == theirs {
            same += 1;
            continue;
        }
        match explain(&simulator, &case, &ours)? {
            Some(reasons) => {
                wanted += 1;
                reasons.into_iter().for_each(|reason| *by_reason.entry(reason).or_default() += 1);
            }
            None => {
                unexplained += 1;
                println!("case {number}: ours {ours:?}, pacemaker {theirs:?}, for no known reason");
                println!("  reproduce with: cargo xtask oracle --first {number} --cases 1 --show");
            }
        }
    }
    for (reason, count) in by_reason {
        println!("{count:>4} differ: {}", reason.text());
    }
    println!(
        "{} clusters put to the planner and to Pacemaker: {same} the same, {wanted} differ as is meant, \
         {unexplained} otherwise; {:.1} s",
        arguments.cases,
        began.elapsed().as_secs_f64()
    );
    Ok(if unexplained == 0 { Verdict::Agreed } else { Verdict::Differed })
}

/// Reasons that make Pacemaker decide as we do, none of them superfluous.
fn explain(simulator: &Simulator, case: &Case, ours: &Places) -> Result<Option<Vec<Reason>>> {
    let mut reasons: Vec<Reason> = Reason::ALL.into_iter().filter(|reason| reason.applies(case)).collect();
    if ask(simulator, case, &reasons)? != *ours {
        return Ok(None);
    }
    for reason in reasons.clone() {
        let fewer: Vec<Reason> = reasons.iter().copied().filter(|one| *one != reason).collect();
        if ask(simulator, case, &fewer)? == *ours {
            reasons = fewer;
        }
    }
    Ok(Some(reasons))
}

fn ask(simulator: &Simulator, case: &Case, reasons: &[Reason]) -> Result<Places> {
    let input = translate::cib(case, reasons);
    let answer = simulator.ask(&input)?;
    let begins = translate::begins(case, reasons);
    match translate::places(&answer, begins) {
        Some(places) => Ok(places),
        None => bail!("crm_simulate answers what is not understood:\n{answer}\nto:\n{input}"),
    }
}
