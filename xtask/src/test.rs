//! `cargo xtask test`: everything that must hold, one line per case, then one summary.

use std::io::{BufRead, BufReader};
use std::process::{Command, ExitCode, Stdio};
use std::time::Instant;

use anyhow::{Context, Result};
use oarlock_lab::apt;
use oarlock_lab::oracle::{self, Arguments, Verdict};

/// Seeds of the simulator per layout; long ranges are run by hand (`cargo xtask sim`).
const SEEDS: [(&str, &str); 3] = [("two", "0..5000"), ("four", "0..5000"), ("four-plain", "0..1000")];
/// How long each decoder is fuzzed, in seconds; long runs are done by hand (`cargo xtask fuzz`).
const FUZZ_S: &str = "2";
/// Cases of the fault matrix that run here; the others need `cargo xtask lab matrix`.
const CASES: &[&str] = &[
    "2 never",
    "3",
    "4",
    "5 kill",
    "7 both",
    "8b owner frames",
    "12 poweroff",
    "19 database",
    "20 agent owner",
    "20 sentinel owner",
];
/// Those of them that run on MariaDB too.
const CASES_ON_MARIADB: &[&str] = &["2 never", "5 kill", "19 database"];
/// Those that only four servers have.
const CASES_ON_FOUR: &[&str] = &["1 database", "13"];
/// State words that run here; thirty per engine with `cargo xtask lab words`.
const WORDS: &[&str] = &["MX,SM", "MS,MX,XX,XM", "SM,XX,MS"];
/// First seed of the soak.
const SOAK_SEED: &str = "1";
/// Where the verdicts of these cases go; docs/results holds those of whole campaigns.
const RESULTS: &str = "target/lab/test-results";

/// What was seen so far.
#[derive(Default)]
struct Tally {
    passed: u64,
    failed: u64,
    skipped: u64,
}

/// Runs all steps; a failed one does not keep the others from being seen.
///
/// # Errors
/// When cargo itself cannot be started.
pub fn run(only_quick: bool) -> Result<ExitCode> {
    let start = Instant::now();
    let mut tally = Tally::default();
    let warnings = ["clippy", "--workspace", "--all-targets", "--", "--deny", "warnings"];
    step(&mut tally, "format", &["fmt", "--all", "--check"], &[])?;
    step(&mut tally, "lints", &warnings, &[])?;
    step(&mut tally, "build", &["build", "--release", "--workspace", "--all-targets"], &[])?;
    if let Err(error) = apt::ensure_databases() {
        println!("tests on a server that is not there skip themselves: {error:#}");
    }
    step(&mut tally, "unit tests", &["test", "--release", "--workspace", "--no-fail-fast"], &[])?;
    let docs = ["doc", "--release", "--workspace", "--no-deps", "--quiet"];
    step(&mut tally, "documentation", &docs, &[("RUSTDOCFLAGS", "-D warnings")])?;
    for (layout, seeds) in SEEDS {
        let sim = ["xtask", "sim", "--seeds", seeds, "--layout", layout];
        step(&mut tally, &format!("simulator, layout {layout}"), &sim, &[])?;
    }
    step(&mut tally, "packages (cargo xtask dist --check puts them on machines)", &["xtask", "dist", "--quick"], &[])?;
    fuzzing(&mut tally)?;
    planner(&mut tally);
    if only_quick {
        skip(&mut tally, "lab", "left out with --quick");
    } else {
        lab(&mut tally)?;
    }
    println!("\nall steps took {} s", start.elapsed().as_secs());
    println!("{} passed, {} failed, {} skipped", tally.passed, tally.failed, tally.skipped);
    Ok(if tally.failed == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn lab(tally: &mut Tally) -> Result<()> {
    // Cases that were seen to pass would not run again.
    let _ = std::fs::remove_dir_all(RESULTS);
    step(tally, "a lab from nothing", &["xtask", "lab", "down"], &[])?;
    step(tally, "lab: servers, witness, OAR on PostgreSQL", &["xtask", "lab", "up"], &[])?;
    for case in CASES {
        let matrix = ["xtask", "lab", "matrix", "--only", case, "--results", RESULTS];
        step(tally, &format!("fault matrix, {case}"), &matrix, &[])?;
    }
    let mut words = vec!["xtask", "lab", "words", "--results", RESULTS];
    words.extend(WORDS.iter().flat_map(|word| ["--only", word]));
    step(tally, "state words", &words, &[])?;
    step(tally, "the lab goes away", &["xtask", "lab", "down"], &[])?;
    step(tally, "lab: hosts with disks of their own", &["xtask", "lab", "up", "--disks"], &[])?;
    let soak = ["xtask", "lab", "soak", "--minutes", "2", "--seed", SOAK_SEED, "--keep-going", "--results", RESULTS];
    step(tally, "soak: random faults, two at a time", &soak, &[])?;
    step(tally, "that lab goes away", &["xtask", "lab", "down"], &[])?;
    step(tally, "lab: two servers for OAR, two for its database", &["xtask", "lab", "up", "--layout", "four"], &[])?;
    for case in CASES_ON_FOUR {
        let matrix = ["xtask", "lab", "matrix", "--only", case, "--results", RESULTS];
        step(tally, &format!("fault matrix with four servers, {case}"), &matrix, &[])?;
    }
    step(tally, "that lab goes away too", &["xtask", "lab", "down"], &[])?;
    step(tally, "lab: servers, witness, OAR on MariaDB", &["xtask", "lab", "up", "--db", "mariadb"], &[])?;
    for case in CASES_ON_MARIADB {
        let matrix = ["xtask", "lab", "matrix", "--only", case, "--results", RESULTS];
        step(tally, &format!("fault matrix on MariaDB, {case}"), &matrix, &[])?;
    }
    step(tally, "the last lab goes away", &["xtask", "lab", "down"], &[])?;
    machines(tally)?;
    println!("the other cases: cargo xtask lab up [--db mariadb] [--layout four] && cargo xtask lab matrix");
    Ok(())
}

/// Emulated machines: what namespaces cannot show.
fn machines(tally: &mut Tally) -> Result<()> {
    let name = "virtual machines: power, cables, a DRBD takeover by hand";
    if !cfg!(target_arch = "x86_64") {
        skip(tally, name, "they are emulated for x86_64 only");
        return Ok(());
    }
    step(tally, "no machines of before", &["xtask", "lab", "vm", "down"], &[])?;
    step(tally, name, &["xtask", "lab", "vm", "check"], &[])?;
    step(tally, "virtual machines: a hardware watchdog", &["xtask", "lab", "vm", "run", "watchdog"], &[])
}

/// Each decoder for a few seconds, where libFuzzer can be built.
fn fuzzing(tally: &mut Tally) -> Result<()> {
    let name = "fuzzing, every decoder";
    let mut compiler = Command::new("c++");
    if compiler.arg("--version").stdin(Stdio::null()).stdout(Stdio::null()).status().is_err() {
        skip(tally, name, "no C++ compiler");
        return Ok(());
    }
    step(tally, name, &["xtask", "fuzz", "--seconds", FUZZ_S], &[])
}

/// The planner against Pacemaker's, where Debian's packages can be had.
fn planner(tally: &mut Tally) {
    let name = "planner against Pacemaker's";
    println!("\n== {name}");
    let arguments = Arguments { cases: oracle::CASES, first: 1, show: false };
    let start = Instant::now();
    let verdict = oracle::run(&arguments);
    if let Ok(Verdict::Skipped(reason)) = &verdict {
        return skip(tally, name, reason);
    }
    if let Err(error) = &verdict {
        println!("{error:#}");
    }
    let good = matches!(verdict, Ok(Verdict::Agreed));
    tally.passed += u64::from(good);
    tally.failed += u64::from(!good);
    println!("{}: {name}, {:.1} s", if good { "ok" } else { "FAILED" }, start.elapsed().as_secs_f64());
}

fn skip(tally: &mut Tally, name: &str, reason: &str) {
    tally.skipped += 1;
    println!("skipped {name}: {reason}");
}

/// Runs one step of cargo, passes its lines on, and counts the tests it tells of.
fn step(tally: &mut Tally, name: &str, arguments: &[&str], env: &[(&str, &str)]) -> Result<()> {
    println!("\n== {name}");
    let start = Instant::now();
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let mut child = Command::new(cargo)
        .args(arguments)
        .envs(env.iter().copied())
        .stdout(Stdio::piped())
        .stdin(Stdio::null())
        .spawn()
        .context("cannot start cargo")?;
    let lines = child.stdout.take().context("no output of cargo")?;
    for line in BufReader::new(lines).lines() {
        let line = line.context("cannot read the output of cargo")?;
        count(tally, &line);
        println!("{line}");
    }
    let good = child.wait().context("cannot wait for cargo")?.success();
    let verdict = if good { "ok" } else { "FAILED" };
    if good {
        tally.passed += 1;
    } else {
        tally.failed += 1;
    }
    println!("{verdict}: {name}, {:.1} s", start.elapsed().as_secs_f64());
    Ok(())
}

/// `test result: ok. 12 passed; 0 failed; 1 ignored; …`
fn count(tally: &mut Tally, line: &str) {
    let Some(rest) = line.strip_prefix("test result:") else { return };
    let words: Vec<&str> = rest.split([' ', ';', '.']).filter(|word| !word.is_empty()).collect();
    for pair in words.windows(2) {
        let Ok(number) = pair[0].parse::<u64>() else { continue };
        match pair[1] {
            "passed" => tally.passed += number,
            "failed" => tally.failed += number,
            "ignored" => tally.skipped += number,
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_counts_of_a_test_runner_are_read() {
        let mut tally = Tally::default();
        count(&mut tally, "test result: FAILED. 12 passed; 3 failed; 1 ignored; 0 measured; 0 filtered out");
        assert_eq!((tally.passed, tally.failed, tally.skipped), (12, 3, 1));
        count(&mut tally, "test a_test ... ok");
        assert_eq!((tally.passed, tally.failed, tally.skipped), (12, 3, 1));
    }
}
