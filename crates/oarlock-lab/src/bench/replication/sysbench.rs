//! Debian's sysbench on the compute node, against the service address.

use crate::layout::Part;
use crate::matrix::bed::{Bed, NODE};
use crate::root;
use crate::state::Engine;
use anyhow::{Context, Result};
use std::time::Duration;

const THREADS: u32 = 16;
/// sysbench's own defaults, as in 2009: one table of ten thousand rows, of which few are asked for often.
const ROWS: u32 = 10_000;
const PREPARE: Duration = Duration::from_secs(120);
/// For the slowest transactions that still count as done, per 1,000 of them.
const RUN_PER_1000: Duration = Duration::from_secs(60);

/// What a run took.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Taken {
    /// For all transactions, seconds.
    pub seconds: f64,
    /// Transactions a second.
    pub per_second: f64,
    /// What 95 % of the transactions did not exceed, milliseconds.
    pub p95_ms: f64,
}

/// Puts the program where it runs; its packages are fetched first when they are not there.
pub fn install(bed: &Bed) -> Result<()> {
    let paths = bed.lab.paths();
    let layer = root::widen(paths, bed.shape.suite, "sysbench", &["sysbench"])?;
    bed.lab.install(NODE, &layer)
}

/// Makes the table anew.
pub fn prepare(bed: &Bed) -> Result<()> {
    let command = command(bed);
    let script = format!("{command} cleanup && {command} prepare");
    bed.shell(NODE, &script, PREPARE).map(drop).context("prepare sysbench's table")
}

/// So many transactions of sysbench's OLTP read-write mix.
pub fn run(bed: &Bed, transactions: u32) -> Result<Taken> {
    let script = format!("{} --events={transactions} --time=0 run", command(bed));
    let said = bed.shell(NODE, &script, RUN_PER_1000 * transactions.div_ceil(1_000))?;
    parse(&said, transactions).with_context(|| format!("sysbench said: {said}"))
}

fn command(bed: &Bed) -> String {
    let host = bed.group(Part::Database).service;
    let port = bed.shape.db.port();
    let (driver, prefix) = match bed.shape.db {
        Engine::Postgresql => ("pgsql", "--pgsql"),
        Engine::Mariadb => ("mysql", "--mysql"),
    };
    format!(
        "sysbench oltp_read_write --db-driver={driver} {prefix}-host={host} {prefix}-port={port} {prefix}-user=bench \
         {prefix}-password=bench {prefix}-db=bench --threads={THREADS} --tables=1 --table-size={ROWS}"
    )
}

/// Reads the figures; none unless every transaction was done.
fn parse(said: &str, transactions: u32) -> Option<Taken> {
    let after = |label: &str| said.lines().find_map(|line| line.trim().strip_prefix(label)).map(str::trim);
    let mut done = after("transactions:")?.split(['(', ' ']).filter(|word| !word.is_empty());
    if done.next()?.parse::<u32>().ok()? < transactions {
        return None;
    }
    let per_second = done.next()?.parse().ok()?;
    let seconds = after("total time:")?.trim_end_matches('s').parse().ok()?;
    let p95_ms = after("95th percentile:")?.parse().ok()?;
    Some(Taken { seconds, per_second, p95_ms })
}

#[cfg(test)]
mod tests {
    use super::*;

    const SAID: &str = "SQL statistics:
    queries performed:
        total:                           100400
    transactions:                        5020   (829.97 per sec.)
    queries:                             100400 (16599.43 per sec.)

General statistics:
    total time:                          6.0469s
    total number of events:              5020

Latency (ms):
         95th percentile:                       26.20
";

    #[test]
    fn figures_are_read() {
        let taken = Taken { seconds: 6.0469, per_second: 829.97, p95_ms: 26.2 };
        assert_eq!(parse(SAID, 5_000), Some(taken));
        assert_eq!(parse(SAID, 20_000), None);
        assert_eq!(parse("FATAL: cannot connect", 5), None);
    }
}
