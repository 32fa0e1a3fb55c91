//! The command line of the simulator.

use crate::run::{Plan, Verdict};
use crate::scenario::Layout;
use crate::shrink::shrink;
use crate::words::{Course, Pace, Survey, Word};
use clap::Parser;
use oarlock_core::Rules;
use serde::{Deserialize, Serialize};
use std::process::ExitCode;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// Runs the deterministic simulator.
#[derive(Debug, Parser)]
#[command(name = "cargo xtask sim", bin_name = "cargo xtask sim")]
struct Arguments {
    /// Seeds to run, the last one included
    #[arg(long, value_name = "A..B", default_value = "1..200", value_parser = range)]
    seeds: (u64, u64),
    /// One seed only
    #[arg(long, conflicts_with = "seeds")]
    seed: Option<u64>,
    /// Machines: two (servers and a witness), four (and a witness), four-plain (without)
    #[arg(long, default_value = "two")]
    layout: Layout,
    /// Stop after this many minutes
    #[arg(long)]
    minutes: Option<u64>,
    /// Go on after a failure and list them all
    #[arg(long)]
    keep_going: bool,
    /// Print every event of the seed
    #[arg(long, requires = "seed")]
    trace: bool,
    /// Print every message as well
    #[arg(long, requires = "trace")]
    messages: bool,
    /// Leave out what faults it does not take for the seed to fail, and list the rest
    #[arg(long, requires = "seed")]
    shrink: bool,
    /// No faults: a cluster that comes up and serves
    #[arg(long)]
    quiet: bool,
    /// Threads; all cores when absent
    #[arg(long)]
    threads: Option<usize>,
    /// Go on where an earlier run of this layout ended
    #[arg(long, conflicts_with = "seeds")]
    resume: bool,
    /// One state word of the two database machines, as in MS,XX,XM
    #[arg(long, conflicts_with_all = ["seeds", "words"])]
    word: Option<Word>,
    /// All state words up to so many letters
    #[arg(long, value_name = "LETTERS", conflicts_with_all = ["seeds", "seed"])]
    words: Option<usize>,
    /// The steps of a word follow each other without waiting for what comes of them
    #[arg(long)]
    hasty: bool,
    /// Switch a rule of the core off, to see a checker catch it, as in stop_wait
    #[arg(long, value_name = "RULE", value_parser = rules)]
    without: Option<Rules>,
    /// In a word's XX the witness loses its power as well
    #[arg(long)]
    witness_too: bool,
}

/// What is kept between runs of one layout.
#[derive(Debug, Default, Serialize, Deserialize)]
struct Summary {
    seeds: u64,
    next_seed: u64,
    simulated_hours: f64,
    minutes: f64,
    #[serde(default)]
    core_seconds: f64,
    acknowledged: u64,
    longest_settling_s: f64,
    /// Which seed that was.
    #[serde(default)]
    longest_seed: u64,
    failures: Vec<(u64, String)>,
}

fn range(text: &str) -> Result<(u64, u64), String> {
    let wrong = || format!("seeds {text:?} are not of the form A..B");
    let (first, last) = text.split_once("..").ok_or_else(wrong)?;
    let (first, last) = (first.parse().map_err(|_| wrong())?, last.parse().map_err(|_| wrong())?);
    if first <= last { Ok((first, last)) } else { Err(wrong()) }
}

fn rules(name: &str) -> Result<Rules, String> {
    Rules::without(name).ok_or_else(|| format!("there is no rule {name:?}"))
}

/// Runs what the command line asks for; 1 when a rule was broken.
pub fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let pace = if arguments.hasty { Pace::Hasty } else { Pace::Settled };
    if let Some(longest) = arguments.words {
        return words(&arguments, longest, pace);
    }
    if let Some(word) = &arguments.word {
        return one_word(&arguments, word, pace);
    }
    if let Some(seed) = arguments.seed {
        let plan = Plan {
            tracing: arguments.trace,
            tracing_messages: arguments.messages,
            faults: !arguments.quiet,
            rules: arguments.without.unwrap_or_default(),
            ..Plan::new(seed, arguments.layout)
        };
        return if arguments.shrink { shrunk(&plan) } else { one(&plan) };
    }
    many(&arguments)
}

fn one_word(arguments: &Arguments, word: &Word, pace: Pace) -> ExitCode {
    let plan = Plan {
        tracing: arguments.trace,
        tracing_messages: arguments.messages,
        ..Plan::new(arguments.seed.unwrap_or(1), arguments.layout)
    };
    let told = Course { word: word.clone(), plan, pace, witness: arguments.witness_too }.play();
    println!(
        "{} steps accepted, {} refused, {} writes acknowledged",
        told.accepted,
        told.refused.len(),
        told.acknowledged
    );
    for reason in &told.refused {
        println!("refused: {reason}");
    }
    match told.wrong {
        None => ExitCode::SUCCESS,
        Some((step, text)) => {
            println!("FAILED word {word} step {step}: {text}");
            ExitCode::FAILURE
        }
    }
}

fn words(arguments: &Arguments, longest: usize, pace: Pace) -> ExitCode {
    let cores = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    let threads = arguments.threads.unwrap_or(cores);
    let began = Instant::now();
    let survey = Survey::of(longest, arguments.layout, pace, arguments.witness_too, threads);
    for wrong in &survey.wrong {
        println!("FAILED {wrong}");
    }
    println!("layout {}: {survey}; {:.1} s", arguments.layout, began.elapsed().as_secs_f64());
    if survey.wrong.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

fn shrunk(plan: &Plan) -> ExitCode {
    let Some(shrunk) = shrink(plan) else {
        println!("seed {} does not fail", plan.seed);
        return ExitCode::SUCCESS;
    };
    let (left, all) = (shrunk.verdict.list.len(), shrunk.verdict.struck);
    println!("seed {} layout {}: {left} of {all} faults, {} runs", plan.seed, plan.layout, shrunk.runs);
    for line in &shrunk.verdict.list {
        println!("{line}");
    }
    println!("FAILED {}", shrunk.verdict.broken.unwrap_or_default());
    if plan.tracing {
        let _ = shrunk.plan.run();
    }
    ExitCode::FAILURE
}

fn one(plan: &Plan) -> ExitCode {
    let verdict = plan.run();
    println!(
        "seed {}: {} events, {:.1} s simulated, {} writes acknowledged, settled after {:.1} s",
        plan.seed,
        verdict.events,
        verdict.simulated_us as f64 / 1e6,
        verdict.acknowledged,
        verdict.settled_us as f64 / 1e6,
    );
    match verdict.broken {
        None => ExitCode::SUCCESS,
        Some(broken) => {
            println!("FAILED {broken}");
            ExitCode::FAILURE
        }
    }
}

fn many(arguments: &Arguments) -> ExitCode {
    let layout = arguments.layout;
    let path = format!("target/sim/{layout}.json");
    let mut summary: Summary =
        std::fs::read_to_string(&path).ok().and_then(|text| serde_json::from_str(&text).ok()).unwrap_or_default();
    let (first, last) = if arguments.resume { (summary.next_seed.max(1), u64::MAX - 1) } else { arguments.seeds };
    let began = Instant::now();
    let until = arguments.minutes.map(|minutes| began + Duration::from_secs(60 * minutes));
    let next = AtomicU64::new(first);
    let stop = AtomicU64::new(u64::MAX);
    let shared = Mutex::new((Summary::default(), Instant::now()));
    let cores = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    std::thread::scope(|scope| {
        for _ in 0..arguments.threads.unwrap_or(cores) {
            scope.spawn(|| {
                loop {
                    let busy = Busy::now();
                    let seed = next.fetch_add(1, Ordering::Relaxed);
                    let late = until.is_some_and(|until| Instant::now() >= until);
                    if seed > last || late || seed > stop.load(Ordering::Relaxed) {
                        return;
                    }
                    let rules = arguments.without.unwrap_or_default();
                    let plan = Plan { faults: !arguments.quiet, rules, ..Plan::new(seed, layout) };
                    let verdict = std::panic::catch_unwind(|| plan.run()).unwrap_or_else(|_| Verdict::panicked());
                    if verdict.broken.is_some() && !arguments.keep_going {
                        stop.fetch_min(seed, Ordering::Relaxed);
                    }
                    count(&shared, seed, layout, &verdict, busy.seconds_since());
                }
            });
        }
    });
    let (done, _) = shared.into_inner().unwrap_or_else(std::sync::PoisonError::into_inner);
    report(&done, layout, began);
    let failed = !done.failures.is_empty();
    summary.add(done, began.elapsed());
    let saved = serde_json::to_string_pretty(&summary).map_err(std::io::Error::other).and_then(|text| {
        std::fs::create_dir_all("target/sim")?;
        std::fs::write(&path, text)
    });
    if let Err(error) = saved {
        eprintln!("cannot save the summary to {path}: {error}");
    }
    if failed { ExitCode::FAILURE } else { ExitCode::SUCCESS }
}

fn count(shared: &Mutex<(Summary, Instant)>, seed: u64, layout: Layout, verdict: &Verdict, core_seconds: f64) {
    let mut guard = shared.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
    let (summary, printed) = &mut *guard;
    summary.seeds += 1;
    summary.next_seed = summary.next_seed.max(seed + 1);
    summary.core_seconds += core_seconds;
    summary.simulated_hours += verdict.simulated_us as f64 / 3.6e9;
    summary.acknowledged += verdict.acknowledged;
    summary.settled(verdict.settled_us as f64 / 1e6, seed);
    if let Some(broken) = &verdict.broken {
        println!("seed {seed} FAILED {broken}");
        println!("  reproduce with: cargo xtask sim --seed {seed} --layout {layout} --trace");
        summary.failures.push((seed, broken.clone()));
    }
    if printed.elapsed() >= Duration::from_secs(5) {
        *printed = Instant::now();
        println!(
            "{} seeds, {:.1} h simulated, {} failed",
            summary.seeds,
            summary.simulated_hours,
            summary.failures.len()
        );
    }
}

fn report(done: &Summary, layout: Layout, began: Instant) {
    let minutes = began.elapsed().as_secs_f64() / 60.0;
    println!(
        "layout {layout}: {} seeds, {} failed, {:.2} h simulated in {minutes:.2} min, {} writes acknowledged, longest settling {:.1} s (seed {})",
        done.seeds,
        done.failures.len(),
        done.simulated_hours,
        done.acknowledged,
        done.longest_settling_s,
        done.longest_seed,
    );
    let seconds = done.core_seconds.max(1e-9);
    println!(
        "on one core: {:.1} seeds a second, {:.1} h simulated a minute",
        done.seeds as f64 / seconds,
        done.simulated_hours * 60.0 / seconds,
    );
}

/// What a thread has used of its core: on a busy machine less than has passed.
enum Busy {
    /// As the kernel counts it, in nanoseconds.
    Used(u64),
    /// Where the kernel does not say.
    Passed(Instant),
}

impl Busy {
    fn now() -> Busy {
        Busy::used_ns().map_or_else(|| Busy::Passed(Instant::now()), Busy::Used)
    }

    fn used_ns() -> Option<u64> {
        let text = std::fs::read_to_string("/proc/thread-self/schedstat").ok()?;
        text.split_whitespace().next()?.parse().ok()
    }

    fn seconds_since(&self) -> f64 {
        match self {
            Busy::Used(before) => Busy::used_ns().unwrap_or(*before).saturating_sub(*before) as f64 / 1e9,
            Busy::Passed(since) => since.elapsed().as_secs_f64(),
        }
    }
}

impl Summary {
    fn settled(&mut self, seconds: f64, seed: u64) {
        if seconds > self.longest_settling_s {
            (self.longest_settling_s, self.longest_seed) = (seconds, seed);
        }
    }

    fn add(&mut self, done: Summary, took: Duration) {
        self.seeds += done.seeds;
        self.next_seed = self.next_seed.max(done.next_seed);
        self.simulated_hours += done.simulated_hours;
        self.minutes += took.as_secs_f64() / 60.0;
        self.core_seconds += done.core_seconds;
        self.acknowledged += done.acknowledged;
        self.settled(done.longest_settling_s, done.longest_seed);
        self.failures.extend(done.failures);
    }
}

impl Verdict {
    fn panicked() -> Verdict {
        let broken = Some("panic: see above".to_owned());
        Verdict { broken, events: 0, simulated_us: 0, acknowledged: 0, settled_us: 0, struck: 0, list: Vec::new() }
    }
}
