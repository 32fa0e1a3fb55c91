//! State words on real processes: two servers lose and get their power in a given order, and after
//! each step what must be is (see [`oarlock_words`]).

mod play;
mod store;

use crate::matrix::bed::Bed;
use crate::{history::Stamp, machine};
use anyhow::{Result, bail};
use oarlock_words::{Word, choose};
use std::path::PathBuf;
use std::time::Duration;
use store::{Played, Store};

/// Longest wait for a whole cluster before a word.
const WHOLE: Duration = Duration::from_secs(120);
/// Letters of the longest word.
const LONGEST: usize = 5;

/// Arguments of `lab words`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Only this word, as in MS,MX,XX,XM; may be repeated
    #[arg(long, value_name = "WORD")]
    only: Vec<Word>,
    /// How many words of up to five letters: first those that together take every step there is, then drawn ones
    #[arg(long, default_value_t = 30)]
    count: usize,
    /// Draws the words, and how long all is off
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Directory of the results
    #[arg(long, default_value = "docs/results")]
    results: PathBuf,
}

/// Plays the words that this build has not played yet. True if every one went as it must.
pub fn main(args: &Args) -> Result<bool> {
    let bed = Bed::open()?;
    let mut rng = fastrand::Rng::with_seed(args.seed);
    let words =
        if args.only.is_empty() { choose(args.count, LONGEST, |below| rng.usize(0..below)) } else { args.only.clone() };
    if words.is_empty() {
        bail!("no words are asked for");
    }
    let paths = bed.lab.paths();
    let build = machine::build(paths)?;
    let file = paths.workspace.join(&args.results).join(format!("words-{}.json", bed.shape.db.name()));
    let mut store = Store::open(&file, &format!("State words, {}", bed.shape.db.title()))?;
    store.set_machine(machine::facts(&paths.run)?);
    // Undoes what another command may have left; from here on each word leaves a whole cluster.
    bed.restore(WHOLE)?;
    let (begun, mut failed) = (Stamp::now(), 0);
    for word in &words {
        if store.has(word, &bed.variant(), &build) {
            println!("done  {word} (by this build)");
            continue;
        }
        let played = play::play(&bed, word, &build, &mut rng)?;
        println!("{}", line(&played));
        let passed = played.passed;
        // Before anything else that may fail.
        store.append(played)?;
        if !passed {
            failed += 1;
            bed.restore(WHOLE)?;
        }
    }
    let seconds = Stamp::now().ms_since(begun) / 1_000.0;
    println!("{} words on {}, {failed} failed, {seconds:.0} s", words.len(), bed.shape.db.title());
    Ok(failed == 0)
}

/// One line per word; below it what went wrong.
fn line(played: &Played) -> String {
    let verdict = if played.passed { "pass" } else { "FAIL" };
    let mut line = format!(
        "{verdict}  {:<15} {:<60} rows {:>5}  lost {}  {:>5.1} s",
        played.word,
        played.steps.join("; "),
        played.acknowledged,
        played.lost,
        played.took_s
    );
    for failure in &played.failures {
        line += &format!("\n      {failure}");
    }
    line
}
