//! The whole matrix on one page: each case on each engine and layout, passed, failed, or why not yet.

use super::{Row, order, rows};
use crate::layout::Layout;
use crate::paths::write_atomically;
use crate::plot::grid::{Cell as Square, Grid, Line, Shade};
use crate::results::{Case, Results, Run, table};
use crate::state::Engine;
use crate::stats::Summary;
use anyhow::{Context, Result};
use serde::Serialize;
use std::path::Path;

/// Rows of the matrix that namespace hosts cannot show, and why.
const ELSEWHERE: &[(&str, &str, &str)] = &[
    ("16", "kill -9 the database and unmount its file system", "needs kind filesystem or DRBD, in virtual machines"),
    ("22", "the witness gone for good, replaced by a new one", "no case yet"),
    (
        "24 clock",
        "a clock that steps by an hour; delay bursts, duplicated and reordered datagrams",
        "needs virtual machines",
    ),
    ("27", "the owner paused for 30 s, as in a live migration", "needs virtual machines"),
    ("28", "packages of database and OAR installed anew", "needs virtual machines with systemd"),
];

/// Where each engine's runs are.
pub fn file(engine: Engine) -> &'static str {
    match engine {
        // PostgreSQL's file has had its name from the beginning.
        Engine::Postgresql => "fault-matrix.json",
        Engine::Mariadb => "fault-matrix-mariadb.json",
    }
}

/// Ends the settings of runs with users at work.
pub const USERS: &str = ", users at work";

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Column {
    engine: Engine,
    layout: Layout,
}

impl Column {
    fn title(self) -> String {
        let layout = match self.layout {
            Layout::Two => "2 + witness",
            Layout::Four => "4 + witness",
            Layout::FourPlain => "4",
        };
        format!("{} {layout}", self.engine.title())
    }

    /// Whether a run's settings are this column's.
    fn has(self, variant: &str) -> bool {
        variant.starts_with(&format!("{} servers, {},", self.layout, self.engine.name()))
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
enum Status {
    /// The last run showed everything.
    Pass,
    /// The last run did not.
    Fail,
    /// There is no run.
    NotYet,
    /// It makes no sense here.
    NotApplicable,
}

/// A case in a column. Outages in milliseconds, of all runs that measured one and passed.
#[derive(Debug, Clone, PartialEq, Serialize)]
struct Cell {
    row: String,
    fault: String,
    column: String,
    status: Status,
    reason: Option<String>,
    runs: usize,
    failed_runs: usize,
    n: usize,
    median_ms: Option<f64>,
    max_ms: Option<f64>,
    timing: Option<String>,
    build: Option<String>,
    /// Whether the last run with users at work passed; absent where there was none.
    users: Option<bool>,
    lost_rows: usize,
}

#[derive(Debug, Serialize)]
struct Page {
    schema: u32,
    cells: Vec<Cell>,
}

/// Writes page, picture and cells from the runs in `dir`.
pub fn write(dir: &Path) -> Result<String> {
    let mut cases = Vec::new();
    for engine in [Engine::Postgresql, Engine::Mariadb] {
        cases.extend(Results::open(&dir.join(file(engine)), "")?.cases().iter().cloned());
    }
    let columns = columns(&cases);
    let lines: Vec<(String, String, Vec<Cell>)> = lines(&cases, &columns);
    let cells: Vec<Cell> = lines.iter().flat_map(|line| line.2.iter().cloned()).collect();
    let page = page(&columns, &lines);
    let text = serde_json::to_string_pretty(&Page { schema: 1, cells }).context("encode the cells")?;
    write_atomically(&dir.join("fault-matrix-cells.json"), &(text + "\n"))?;
    write_atomically(&dir.join("fault-matrix.svg"), &picture(&columns, &lines))?;
    write_atomically(&dir.join("fault-matrix.md"), &page)?;
    Ok(page)
}

/// The four that must be, and four servers without a witness where there are runs.
fn columns(cases: &[Case]) -> Vec<Column> {
    let layouts = [Layout::Two, Layout::Four, Layout::FourPlain];
    let all = [Engine::Postgresql, Engine::Mariadb]
        .into_iter()
        .flat_map(|engine| layouts.map(|layout| Column { engine, layout }));
    all.filter(|column| column.layout != Layout::FourPlain || cases.iter().any(|case| column.has(&case.key.variant)))
        .collect()
}

fn lines(cases: &[Case], columns: &[Column]) -> Vec<(String, String, Vec<Cell>)> {
    let known = rows().into_iter().map(|row| (row.id, row.title, Some(row)));
    let elsewhere = ELSEWHERE.iter().map(|(id, title, _)| (*id, *title, None));
    let mut all: Vec<(&str, &str, Option<Row>)> = known.chain(elsewhere).collect();
    all.sort_by_key(|(id, ..)| order(id));
    let line = |(id, title, row): (&str, &str, Option<Row>)| {
        let cells = columns.iter().map(|column| cell(cases, id, title, row.as_ref(), *column)).collect();
        (id.to_owned(), title.to_owned(), cells)
    };
    all.into_iter().map(line).collect()
}

fn cell(cases: &[Case], id: &str, title: &str, row: Option<&Row>, column: Column) -> Cell {
    let all: Vec<&Case> = cases.iter().filter(|c| c.key.row == id && column.has(&c.key.variant)).collect();
    let (at_work, of): (Vec<&Case>, Vec<&Case>) = all.into_iter().partition(|c| c.key.variant.ends_with(USERS));
    let users = at_work.iter().flat_map(|case| &case.runs).max_by_key(|run| run.at_s).map(|run| run.passed);
    let runs: Vec<&Run> = of.iter().flat_map(|case| &case.runs).collect();
    let last = runs.iter().max_by_key(|run| run.at_s);
    let (status, reason) = match (last, row) {
        (Some(run), _) if run.passed => (Status::Pass, None),
        (Some(run), _) => (Status::Fail, Some(run.failures.join("; "))),
        (None, Some(row)) if !row.layouts.contains(&column.layout) => (Status::NotApplicable, None),
        (None, Some(_)) => (Status::NotYet, Some("not run here".to_owned())),
        (None, None) => {
            let reason = ELSEWHERE.iter().find(|(known, ..)| *known == id).map(|known| known.2.to_owned());
            (Status::NotYet, reason)
        }
    };
    // Presets have leases of different lengths: figures are of the one with most runs.
    let timing = |case: &&Case| case.key.variant.split(", ").nth(2).unwrap_or_default().to_owned();
    let most = of.iter().max_by_key(|case| case.runs.len()).map(timing);
    let same = of.iter().filter(|case| Some(timing(case)) == most).flat_map(|case| &case.runs);
    let outages: Vec<f64> = same.filter(|run| run.passed).filter_map(|run| run.outage_ms).collect();
    let summary = Summary::of(&outages);
    Cell {
        row: id.to_owned(),
        fault: title.to_owned(),
        column: column.title(),
        status,
        reason,
        runs: runs.len(),
        failed_runs: runs.iter().filter(|run| !run.passed).count(),
        n: outages.len(),
        median_ms: summary.map(|s| s.median),
        max_ms: summary.map(|s| s.max),
        timing: most,
        build: last.map(|run| run.build.clone()),
        users,
        lost_rows: runs.iter().map(|run| run.lost).sum(),
    }
}

fn words(cell: &Cell) -> String {
    let users = match cell.users {
        Some(true) => "; users: pass",
        Some(false) => "; users: **FAIL**",
        None => "",
    };
    verdict(cell) + users
}

fn verdict(cell: &Cell) -> String {
    match (cell.status, cell.median_ms, cell.max_ms) {
        (Status::NotApplicable, ..) => "–".to_owned(),
        (Status::NotYet, ..) => "not yet".to_owned(),
        (Status::Fail, ..) => format!("**FAIL** ({} of {} runs)", cell.failed_runs, cell.runs),
        (Status::Pass, Some(median), Some(max)) => {
            format!("pass, {median:.0} / {max:.0} ms (n = {}, {})", cell.n, cell.timing.as_deref().unwrap_or_default())
        }
        (Status::Pass, ..) => format!("pass (n = {})", cell.runs),
    }
}

fn page(columns: &[Column], lines: &[(String, String, Vec<Cell>)]) -> String {
    let cells = || lines.iter().flat_map(|line| &line.2);
    let count = |status| cells().filter(|cell| cell.status == status).count();
    let lost: usize = cells().map(|cell| cell.lost_rows).sum();
    let mut page = format!(
        "# Fault matrix\n\n{} cells pass, {} fail, {} not yet; {} runs, {lost} acknowledged rows lost. A cell passes if its last run \
         did. Outages as a writing client saw them: median / maximum of its runs that passed, under the timing preset named. Every \
         run: fault-matrix-postgresql.md, fault-matrix-mariadb.md and the JSON files. Redo this page: cargo xtask lab matrix --report.\n\n\
         ![overview](fault-matrix.svg)\n\n",
        count(Status::Pass),
        count(Status::Fail),
        count(Status::NotYet),
        cells().map(|cell| cell.runs).sum::<usize>(),
    );
    let titles: Vec<String> = columns.iter().map(|column| column.title()).collect();
    let header: Vec<&str> = ["#", "fault"].into_iter().chain(titles.iter().map(String::as_str)).collect();
    let row = |line: &(String, String, Vec<Cell>)| {
        [line.0.clone(), line.1.clone()].into_iter().chain(line.2.iter().map(words)).collect()
    };
    page += &table(&header, &lines.iter().map(row).collect::<Vec<Vec<String>>>());
    let why = |status| {
        let with = cells().filter(move |cell| cell.status == status);
        with.map(|c| format!("- {} on {}: {}\n", c.row, c.column, c.reason.as_deref().unwrap_or("no reason given")))
    };
    let failed: String = why(Status::Fail).collect();
    if !failed.is_empty() {
        page += &format!("\n## What failed last\n\n{failed}");
    }
    let mut reasons: Vec<String> = ELSEWHERE.iter().map(|(id, _, why)| format!("- {id}: {why}\n")).collect();
    let unrun = cells().filter(|cell| cell.reason.as_deref() == Some("not run here")).count();
    if unrun > 0 {
        reasons.push(format!("- {unrun} cells: not run on that engine and layout\n"));
    }
    page + &format!("\n## Not yet\n\n{}", reasons.concat())
}

fn picture(columns: &[Column], lines: &[(String, String, Vec<Cell>)]) -> String {
    let square = |cell: &Cell| {
        let shade = match cell.status {
            Status::Pass => Shade::Good,
            Status::Fail => Shade::Bad,
            Status::NotYet => Shade::Open,
            Status::NotApplicable => Shade::None,
        };
        let text = match cell.status {
            Status::Pass => cell.median_ms.map_or_else(|| "pass".to_owned(), |ms| format!("{ms:.0} ms")),
            Status::Fail => "FAIL".to_owned(),
            Status::NotYet => "not yet".to_owned(),
            Status::NotApplicable => String::new(),
        };
        Square { shade, text }
    };
    let line = |line: &(String, String, Vec<Cell>)| Line {
        label: line.0.clone(),
        title: line.1.clone(),
        cells: line.2.iter().map(square).collect(),
    };
    Grid {
        title: "fault matrix: median outage of a writing client".to_owned(),
        columns: columns.iter().map(|column| column.title()).collect(),
        lines: lines.iter().map(line).collect(),
    }
    .draw()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::results::CaseKey;

    fn run(at_s: i64, passed: bool, outage_ms: f64) -> Run {
        Run {
            at_s,
            build: "b".into(),
            passed,
            outage_ms: Some(outage_ms),
            lost: 0,
            took_s: 1.0,
            failures: if passed { Vec::new() } else { vec!["it hung".into()] },
            note: String::new(),
        }
    }

    fn case(row: &str, variant: &str, runs: Vec<Run>) -> Case {
        Case { key: CaseKey { row: row.into(), title: "t".into(), variant: variant.into() }, runs }
    }

    fn found(cases: &[Case], id: &str, layout: Layout) -> Cell {
        let lines = lines(cases, &[Column { engine: Engine::Postgresql, layout }]);
        lines.into_iter().find(|line| line.0 == id).unwrap().2.remove(0)
    }

    #[test]
    fn the_last_run_decides_and_figures_are_of_what_passed() {
        let runs = vec![run(1, false, 900.0), run(2, true, 300.0), run(3, true, 400.0)];
        let cases = [case("2 never", "two servers, postgresql, fast", runs)];
        let cell = found(&cases, "2 never", Layout::Two);
        assert_eq!((cell.status, cell.n, cell.failed_runs), (Status::Pass, 2, 1));
        assert_eq!((cell.median_ms, cell.max_ms), (Some(350.0), Some(400.0)));
        let cases = [case("2 never", "two servers, postgresql, fast", vec![run(5, false, 1.0), run(4, true, 1.0)])];
        assert_eq!(found(&cases, "2 never", Layout::Two).status, Status::Fail);
    }

    #[test]
    fn what_was_not_run_is_not_yet_and_what_makes_no_sense_is_neither() {
        assert_eq!(found(&[], "2 never", Layout::Four).status, Status::NotYet);
        assert_eq!(found(&[], "13", Layout::Two).status, Status::NotApplicable);
        let virtual_machines = found(&[], "27", Layout::Two);
        assert_eq!(virtual_machines.status, Status::NotYet);
        assert!(virtual_machines.reason.unwrap().contains("virtual machines"));
        // A column of four servers is not one of four without a witness.
        let plain = [case("3", "four-plain servers, postgresql, fast", vec![run(1, true, 1.0)])];
        assert_eq!(found(&plain, "3", Layout::Four).status, Status::NotYet);
        assert_eq!(columns(&plain).len(), 5);
    }

    #[test]
    fn page_and_picture_are_written_from_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let page = write(dir.path()).unwrap();
        assert!(page.contains("0 cells pass, 0 fail"), "{page}");
        assert!(dir.path().join("fault-matrix.svg").exists() && dir.path().join("fault-matrix-cells.json").exists());
    }
}
