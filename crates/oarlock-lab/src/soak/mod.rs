//! Random faults, two at a time, under several writers and readers whose histories are checked: was an
//! acknowledged row lost, a row written twice or from nowhere, did two servers acknowledge, did a reader
//! miss what had been acknowledged, did one on a standby show what was then lost or go back, and did the
//! cluster come back by itself.

mod nemesis;

use crate::history::{Stamp, age_on_standbys, outage_around, stale};
use crate::layout::Part;
use crate::machine;
use crate::matrix::bed::{Bed, NODE};
use crate::matrix::trial::{Traces, Trial};
use crate::matrix::verdict::wrong;
use crate::matrix::writers::Writer;
use crate::results::{CaseKey, Results, Run};
use crate::state::Engine;
use anyhow::{Context, Result};
use fastrand::Rng;
use nemesis::Fault;
use std::path::PathBuf;
use std::thread::sleep;
use std::time::{Duration, Instant};

/// Longest wait for a whole cluster, before a round and after it.
const WHOLE: Duration = Duration::from_secs(180);
/// Until clients are served in a whole cluster.
const SERVED: Duration = Duration::from_secs(30);
const COMMAND: Duration = Duration::from_secs(30);

/// Arguments of `lab soak`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// For how long, minutes; the round under way is finished
    #[arg(long, default_value_t = 10)]
    minutes: u64,
    /// The seed of the first round; the next has the next one
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// At most so many rounds
    #[arg(long)]
    rounds: Option<u64>,
    /// Go on after a round that failed
    #[arg(long)]
    keep_going: bool,
    /// Directory of the results
    #[arg(long, default_value = "docs/results")]
    results: PathBuf,
}

/// Runs rounds until the time is over. True if all passed.
pub fn main(args: &Args) -> Result<bool> {
    let bed = Bed::open()?;
    let paths = bed.lab.paths();
    let timing = bed.shape.timing;
    let (name, title) = match bed.shape.db {
        Engine::Postgresql => (format!("soak-{timing}.json"), format!("Soak, {timing}")),
        Engine::Mariadb => (format!("soak-mariadb-{timing}.json"), format!("Soak, MariaDB, {timing}")),
    };
    let mut results = Results::open(&paths.workspace.join(&args.results).join(name), &title)?;
    results.set_machine(machine::facts(&paths.run)?);
    let title = "rounds of 2 or 4 random faults, two at a time; the longest outage of each".to_owned();
    let key = CaseKey { row: "soak".to_owned(), title, variant: bed.variant() };
    let end = Instant::now() + Duration::from_secs(args.minutes * 60);
    let (mut passed, mut failed) = (0, 0);
    for seed in args.seed..args.seed.saturating_add(args.rounds.unwrap_or(u64::MAX)) {
        if Instant::now() >= end {
            break;
        }
        let run = round(&bed, seed)?;
        let verdict = if run.passed { "pass" } else { "FAIL" };
        let outage = run.outage_ms.map_or_else(|| "-".to_owned(), |ms| format!("{ms:.0} ms"));
        println!("{verdict}  seed {seed}  outage {outage:>8}  lost {}  {:>5.1} s  {}", run.lost, run.took_s, run.note);
        run.failures.iter().for_each(|failure| println!("      {failure}"));
        let fine = run.passed;
        results.append(&key, run)?;
        results.write_markdown()?;
        if fine {
            passed += 1;
            continue;
        }
        failed += 1;
        println!("      again with: cargo xtask lab soak --seed {seed} --rounds 1");
        if !args.keep_going {
            break;
        }
    }
    println!("{passed} rounds passed, {failed} failed");
    Ok(failed == 0)
}

/// One round, from a whole cluster to a whole cluster.
fn round(bed: &Bed, seed: u64) -> Result<Run> {
    let at = Stamp::now();
    let id = format!("soak-{seed}-{}", at.wall_us / 1_000);
    let dir = bed.lab.paths().target.join("lab/soak").join(&id);
    std::fs::create_dir_all(&dir).with_context(|| format!("create {}", dir.display()))?;
    let cluster = bed.restore(WHOLE).context("the round cannot begin")?;
    // Readers go through all rows of the table, which therefore begins empty.
    let empty = match bed.shape.db {
        Engine::Postgresql => "PGPASSWORD=bench psql -h oar -U bench bench -qc 'truncate bench.rows' || true",
        Engine::Mariadb => "mariadb -h oar -u bench -pbench bench -e 'truncate bench.rows' || true",
    };
    bed.shell(NODE, empty, COMMAND)?;
    let users = Writer::of_set_test(bed, NODE, &format!("{id}-users"), &dir)?;
    let mut trial = Trial::begin_with(bed, &cluster, Part::Database, users, &id, &dir)?;
    trial.watch_servers()?;
    let faults = nemesis::draw(&mut Rng::with_seed(seed), &bed.servers(), bed.shape.disks);
    let faults: Vec<Fault> = faults.into_iter().map(|fault| placed(bed, fault)).collect();
    let begun = Stamp::now();
    play(&mut trial, &faults);
    let whole = bed.restore(WHOLE).and_then(|_| trial.until_served(SERVED));
    let mut run = Run {
        at_s: at.wall_us / 1_000_000,
        build: machine::build(bed.lab.paths())?,
        passed: false,
        outage_ms: None,
        lost: 0,
        took_s: 0.0,
        failures: whole.err().map(|error| format!("{error:#}")).into_iter().collect(),
        note: faults.iter().map(ToString::to_string).collect::<Vec<_>>().join(", "),
    };
    match trial.end() {
        Ok(traces) => judge(&traces, begun, &mut run),
        Err(error) => run.failures.push(format!("no rows compared: {error:#}")),
    }
    run.failures.append(&mut trial.failures);
    run.passed = run.failures.is_empty();
    run.took_s = Stamp::now().ms_since(at) / 1_000.0;
    Ok(run)
}

/// What happens to a database happens where one is.
fn placed(bed: &Bed, fault: Fault) -> Fault {
    let copies = bed.database_servers();
    if !nemesis::of_database(&fault.what) || copies.contains(&fault.host) {
        return fault;
    }
    let place = bed.servers().iter().position(|server| *server == fault.host).unwrap_or_default();
    Fault { host: copies[place % copies.len()], ..fault }
}

/// Begins and ends the faults, each at its time.
fn play(trial: &mut Trial<'_>, faults: &[Fault]) {
    let begins = faults.iter().map(|fault| (fault.from, true, fault));
    let ends = faults.iter().map(|fault| (fault.until, false, fault));
    let mut steps: Vec<_> = begins.chain(ends).collect();
    steps.sort_by_key(|(at, begins, _)| (*at, *begins));
    let start = Instant::now();
    for (at, begins, fault) in steps {
        sleep(at.saturating_sub(start.elapsed()));
        let done = if begins { fault.begin(trial) } else { fault.end(trial) };
        // One fault may make another impossible: a host that is off has no agent to kill.
        if let Err(error) = done {
            trial.notes.push(format!("{fault}: {error:#}"));
        }
    }
}

fn judge(traces: &Traces, begun: Stamp, run: &mut Run) {
    run.lost = traces.lost;
    run.failures.extend(wrong(traces));
    let users = &traces.users;
    run.outage_ms = outage_around(users, begun, users.last_instant()).map(|gap| gap.ms());
    let stale = stale(users);
    if let Some(first) = stale.first() {
        run.failures.push(format!("{} of {} reads were stale, the first: {first:?}", stale.len(), users.reads.len()));
    }
    let (acked, attempts) = (users.acked().count(), users.attempts.len());
    run.note += &format!("; {acked} of {attempts} rows acknowledged, {} reads", users.reads.len());
    if let Some(age) = age_on_standbys(users) {
        run.note += &format!(", {} on standbys (up to {:.0} ms old, median {:.0} ms)", age.n, age.max, age.median);
    }
}
