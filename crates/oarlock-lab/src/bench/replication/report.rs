//! The runs as they were measured, and what they say: a table and a picture.

use crate::paths::write_atomically;
use crate::plot::bars::{Bar, Chart, Group, Panel};
use crate::results::table;
use crate::state::Engine;
use crate::stats::Summary;
use crate::suite::Suite;
use anyhow::{Context, Result, bail};
use serde::{Deserialize, Serialize};
use std::collections::BTreeSet;
use std::fmt;
use std::path::{Path, PathBuf};

const SCHEMA: u32 = 1;

/// What a commit waits for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Mode {
    /// Its own disk.
    #[default]
    Alone,
    /// The standby's as well.
    Replicated,
    /// That behind a network which others fill.
    Saturated,
}

impl Mode {
    /// In the order of a round.
    pub const ALL: [Mode; 3] = [Mode::Alone, Mode::Replicated, Mode::Saturated];

    fn words(self) -> &'static str {
        match self {
            Mode::Alone => "without replication",
            Mode::Replicated => "with replication",
            Mode::Saturated => "with replication, network saturated",
        }
    }
}

/// One run.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Measured {
    /// Engine.
    pub engine: Engine,
    /// Debian release.
    pub suite: Suite,
    /// What a commit waits for.
    pub mode: Mode,
    /// How many transactions.
    pub transactions: u32,
    /// What was added to every fdatasync and fsync, milliseconds.
    pub slow_disk_ms: u32,
    /// Capacity of the network that others filled, Mbit/s.
    pub capacity_mbit: Option<u32>,
    /// When it ended, seconds since 1970.
    pub at_s: i64,
    /// Which build ran.
    pub build: String,
    /// How long it took, seconds.
    pub seconds: f64,
    /// Transactions a second.
    pub per_second: f64,
    /// What 95 % of the transactions did not exceed, milliseconds.
    pub p95_ms: f64,
    /// From the owner to the standby and back just before, median, milliseconds; absent with the standby off.
    pub round_trip_ms: Option<f64>,
    /// What the standby received for each transaction, bytes, headers and heartbeats included.
    pub received_bytes: Option<u64>,
    /// Write and fdatasync of 8 KiB on the machine's disk just before, median, milliseconds.
    pub fdatasync_ms: f64,
}

impl Measured {
    /// Whether both were measured under the same circumstances.
    fn is_like(&self, other: &Measured) -> bool {
        let key =
            |run: &Measured| (run.engine, run.suite, run.mode, run.transactions, run.slow_disk_ms, run.capacity_mbit);
        key(self) == key(other)
    }
}

impl fmt::Display for Measured {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Measured { transactions, seconds, per_second, p95_ms, .. } = self;
        write!(
            f,
            "{:<10} {:<35} {transactions:>6} transactions {seconds:>8.2} s {per_second:>8.1}/s p95 {p95_ms:>7.2} ms",
            self.engine.title(),
            self.mode.words(),
        )?;
        self.round_trip_ms.map_or(Ok(()), |ms| write!(f, ", round trip {ms:.2} ms"))
    }
}

#[derive(Debug, Serialize, Deserialize)]
struct Stored {
    schema: u32,
    #[serde(default)]
    machine: Vec<String>,
    runs: Vec<Measured>,
}

/// The results file.
#[derive(Debug)]
pub struct Report {
    path: PathBuf,
    stored: Stored,
}

/// One line of the table: the same engine, size and disk in all modes.
type Line = (u32, &'static str, u32);

impl Report {
    /// Opens the file, or begins one if there is none. One that cannot be understood is left alone.
    pub fn open(path: &Path) -> Result<Report> {
        let named = || format!("results file {}", path.display());
        let stored: Stored = match std::fs::read_to_string(path) {
            Ok(text) => serde_json::from_str(&text).with_context(named)?,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                Stored { schema: SCHEMA, machine: Vec::new(), runs: Vec::new() }
            }
            Err(error) => return Err(error).with_context(named),
        };
        if stored.schema != SCHEMA {
            bail!("{}: schema {}, not {SCHEMA}", named(), stored.schema);
        }
        Ok(Report { path: path.to_owned(), stored })
    }

    /// Replaces the facts about the machine; written with the next run.
    pub fn set_machine(&mut self, facts: Vec<String>) {
        self.stored.machine = facts;
    }

    /// How many runs there are of this kind, of whatever build.
    pub fn count(&self, like: &Measured) -> usize {
        self.stored.runs.iter().filter(|run| run.is_like(like)).count()
    }

    /// Adds a run, and writes file, page and picture.
    pub fn append(&mut self, run: Measured) -> Result<()> {
        self.stored.runs.push(run);
        if let Some(directory) = self.path.parent() {
            std::fs::create_dir_all(directory).with_context(|| format!("create {}", directory.display()))?;
        }
        let text = serde_json::to_string_pretty(&self.stored).context("encode the results")?;
        write_atomically(&self.path, &(text + "\n"))?;
        write_atomically(&self.path.with_extension("md"), &self.page())?;
        write_atomically(&self.path.with_extension("svg"), &self.picture())
    }

    fn lines(&self) -> BTreeSet<Line> {
        self.stored.runs.iter().map(|run| (run.slow_disk_ms, run.engine.title(), run.transactions)).collect()
    }

    fn of(&self, line: Line, mode: Mode) -> Vec<&Measured> {
        let matches = |run: &&Measured| (run.slow_disk_ms, run.engine.title(), run.transactions) == line;
        self.stored.runs.iter().filter(matches).filter(|run| run.mode == mode).collect()
    }

    fn summary(&self, line: Line, mode: Mode, value: impl Fn(&Measured) -> f64) -> Option<Summary> {
        Summary::of(&self.of(line, mode).into_iter().map(value).collect::<Vec<_>>())
    }

    /// How much longer a mode takes than none, percent of the medians.
    fn cost_percent(&self, line: Line, mode: Mode) -> Option<f64> {
        let seconds = |mode| self.summary(line, mode, |run| run.seconds).map(|s| s.median);
        Some((seconds(mode)? / seconds(Mode::Alone)? - 1.0) * 100.0)
    }

    /// The page: facts, table, what it consists of.
    pub fn page(&self) -> String {
        let mut page = "# What replication costs\n\n".to_owned();
        for fact in &self.stored.machine {
            page += &format!("- {fact}\n");
        }
        page += "\nsysbench's OLTP read-write mix (18 statements, 4 of them write, one commit), 16 threads on the compute node \
            against the service address, one table of 10,000 rows. Seconds for all transactions: median (shortest to longest, runs). \
            The per cent are of the medians, against the same size without replication. \
            Round trip: with / saturated. kB each: what the standby receives for a transaction. Explained in docs/internals/replication-cost.md.\n\n![transactions a second](replication-cost.svg)\n\n";
        let header = [
            "engine",
            "disk",
            "transactions",
            "without",
            "with",
            "cost",
            "network saturated",
            "cost",
            "round trip, ms",
            "kB each",
            "fdatasync, ms",
        ];
        page + &table(&header, &self.lines().into_iter().map(|line| self.cells(line)).collect::<Vec<_>>())
    }

    fn cells(&self, line: Line) -> Vec<String> {
        let none = || "–".to_owned();
        let seconds = |mode| match self.summary(line, mode, |run| run.seconds) {
            Some(s) => format!("{:.2} s ({:.2}–{:.2}, {})", s.median, s.min, s.max, s.n),
            None => none(),
        };
        let cost = |mode| self.cost_percent(line, mode).map_or_else(none, |cost| format!("{cost:+.0} %"));
        let all = |mode, value: fn(&Measured) -> Option<f64>| {
            let values: Vec<f64> = self.of(line, mode).into_iter().filter_map(value).collect();
            Summary::of(&values).map(|s| s.median)
        };
        let round_trips = [Mode::Replicated, Mode::Saturated]
            .map(|mode| all(mode, |run| run.round_trip_ms).map_or_else(none, |ms| format!("{ms:.2}")));
        let bytes = all(Mode::Replicated, |run| run.received_bytes.map(|bytes| bytes as f64));
        let disks: Vec<f64> = Mode::ALL.iter().filter_map(|mode| all(*mode, |run| Some(run.fdatasync_ms))).collect();
        let disk = Summary::of(&disks).map_or_else(none, |s| format!("{:.2}", s.median));
        vec![
            line.1.to_owned(),
            if line.0 == 0 { "as it is".to_owned() } else { format!("+ {} ms", line.0) },
            line.2.to_string(),
            seconds(Mode::Alone),
            seconds(Mode::Replicated),
            cost(Mode::Replicated),
            seconds(Mode::Saturated),
            cost(Mode::Saturated),
            round_trips.join(" / "),
            bytes.map_or_else(none, |bytes| format!("{:.1}", bytes / 1_000.0)),
            disk,
        ]
    }

    /// Transactions a second, a panel per engine and disk.
    fn picture(&self) -> String {
        let lines = self.lines();
        let kinds: BTreeSet<(u32, &str)> = lines.iter().map(|line| (line.0, line.1)).collect();
        let panels = kinds.into_iter().map(|(slow_ms, engine)| Panel {
            title: if slow_ms == 0 { engine.to_owned() } else { format!("{engine}, disk {slow_ms} ms slower") },
            groups: lines
                .iter()
                .filter(|line| (line.0, line.1) == (slow_ms, engine))
                .map(|line| Group { label: format!("{} transactions", line.2), bars: self.bars(*line) })
                .collect(),
        });
        Chart {
            title: "transactions a second".to_owned(),
            legend: Mode::ALL.map(|mode| mode.words().to_owned()).to_vec(),
            panels: panels.collect(),
        }
        .draw()
    }

    fn bars(&self, line: Line) -> Vec<Option<Bar>> {
        let bar = |mode| {
            let summary = self.summary(line, mode, |run| run.per_second)?;
            let cost = self.cost_percent(line, mode).filter(|_| mode != Mode::Alone);
            let label = cost.map_or_else(
                || format!("{:.0}", summary.median),
                |cost| format!("{:.0} ({cost:+.0} %)", summary.median),
            );
            Some(Bar { value: summary.median, from: summary.min, to: summary.max, label })
        };
        Mode::ALL.map(bar).to_vec()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run(mode: Mode, seconds: f64) -> Measured {
        let per_second = 5_000.0 / seconds;
        Measured { mode, transactions: 5_000, seconds, per_second, fdatasync_ms: 0.04, ..Measured::default() }
    }

    #[test]
    fn a_later_start_finds_every_run_and_the_cost_is_of_medians() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("results/cost.json");
        let mut report = Report::open(&path).unwrap();
        for seconds in [10.0, 11.0, 9.0] {
            report.append(run(Mode::Alone, seconds)).unwrap();
        }
        report.append(run(Mode::Replicated, 12.0)).unwrap();
        report.append(Measured { capacity_mbit: Some(100), ..run(Mode::Saturated, 25.0) }).unwrap();
        let again = Report::open(&path).unwrap();
        assert_eq!(again.count(&run(Mode::Alone, 0.0)), 3);
        assert_eq!(again.count(&run(Mode::Saturated, 0.0)), 0, "another capacity");
        let page = std::fs::read_to_string(path.with_extension("md")).unwrap();
        let line = "| PostgreSQL | as it is | 5000 | 10.00 s (9.00–11.00, 3) | 12.00 s (12.00–12.00, 1) | +20 % | 25.00 s (25.00–25.00, 1) | +150 % |";
        assert!(page.contains(line), "{page}");
        assert!(std::fs::read_to_string(path.with_extension("svg")).unwrap().contains("417 (+20 %)"));
    }
}
