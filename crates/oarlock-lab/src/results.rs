//! The results store: a JSON file of runs that grows by one run at a time, and its Markdown.
//!
//! A campaign of cases takes hours and may be interrupted at any point. Every run is written
//! as soon as it is over, in one atomic replacement, and a later start counts what it finds.

use crate::paths::write_atomically;
use crate::stats::Summary;
use anyhow::{Context, Result, bail};
use serde::{Deserialize, Serialize};
use std::fmt::Write as _;
use std::path::{Path, PathBuf};

const SCHEMA: u32 = 1;

/// Which case a run belongs to.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CaseKey {
    /// Number of the fault matrix' row, with its case where it has several ("8b owner").
    pub row: String,
    /// What is done, in a few words.
    pub title: String,
    /// Under which settings ("two postgresql fast").
    pub variant: String,
}

/// One run of one case.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Run {
    /// When it began, seconds since 1970.
    pub at_s: i64,
    /// Which build ran: the commit, marked where the tree was changed.
    pub build: String,
    /// Whether everything demanded held.
    pub passed: bool,
    /// The outage a client saw, milliseconds; absent where none was measured.
    pub outage_ms: Option<f64>,
    /// Acknowledged rows that were missing in the end.
    pub lost: usize,
    /// How long the whole run took, seconds.
    pub took_s: f64,
    /// What failed; empty if it passed.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub failures: Vec<String>,
    /// Anything else worth keeping, in words.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub note: String,
}

/// A case and its runs, oldest first.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Case {
    /// Which case.
    #[serde(flatten)]
    pub key: CaseKey,
    /// Its runs.
    pub runs: Vec<Run>,
}

impl Case {
    /// The outages of all runs that measured one, summarised, milliseconds.
    pub fn outages_ms(&self) -> Option<Summary> {
        let outages: Vec<f64> = self.runs.iter().filter_map(|r| r.outage_ms).collect();
        Summary::of(&outages)
    }
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
struct Stored {
    schema: u32,
    title: String,
    /// Facts about the machine that belong beside the figures, in words.
    #[serde(default)]
    machine: Vec<String>,
    cases: Vec<Case>,
}

/// A results file.
#[derive(Debug)]
pub struct Results {
    path: PathBuf,
    stored: Stored,
}

impl Results {
    /// Opens a results file, or begins one if there is none. A file that cannot be understood
    /// is an error: overwriting it would destroy measurements.
    pub fn open(path: &Path, title: &str) -> Result<Results> {
        let named = || format!("results file {}", path.display());
        let stored = match std::fs::read_to_string(path) {
            Ok(text) => serde_json::from_str(&text).with_context(named)?,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                Stored { schema: SCHEMA, title: title.to_owned(), machine: Vec::new(), cases: Vec::new() }
            }
            Err(error) => return Err(error).with_context(named),
        };
        if stored.schema != SCHEMA {
            bail!("{}: schema {}, not {SCHEMA}", named(), stored.schema);
        }
        let path = path.to_owned();
        Ok(Results { path, stored })
    }

    /// All cases, in the order in which they were first run.
    pub fn cases(&self) -> &[Case] {
        &self.stored.cases
    }

    /// How many runs of a case this build has recorded, passed or not.
    pub fn runs_of_build(&self, key: &CaseKey, build: &str) -> usize {
        let case = self.stored.cases.iter().find(|c| c.key == *key);
        case.map_or(0, |c| c.runs.iter().filter(|r| r.build == build).count())
    }

    /// Replaces the facts about the machine; written with the next run.
    pub fn set_machine(&mut self, facts: Vec<String>) {
        self.stored.machine = facts;
    }

    /// Appends a run and writes the file before returning.
    pub fn append(&mut self, key: &CaseKey, run: Run) -> Result<()> {
        let cases = &mut self.stored.cases;
        match cases.iter_mut().find(|c| c.key == *key) {
            Some(case) => case.runs.push(run),
            None => cases.push(Case { key: key.clone(), runs: vec![run] }),
        }
        let text = serde_json::to_string_pretty(&self.stored).context("encode the results")?;
        replace(&self.path, &(text + "\n"))
    }

    /// Writes a Markdown page beside the JSON file, with the same name.
    pub fn write_markdown(&self) -> Result<()> {
        self.write_markdown_as(&self.path.with_extension("md"))
    }

    /// Writes the Markdown page under another name.
    pub fn write_markdown_as(&self, page: &Path) -> Result<()> {
        replace(page, &self.markdown())
    }

    /// The Markdown page: one line per case.
    pub fn markdown(&self) -> String {
        let mut page = format!("# {}\n\n", self.stored.title);
        for fact in &self.stored.machine {
            // Writing to a String cannot fail.
            let _ = writeln!(page, "- {fact}");
        }
        if !self.stored.machine.is_empty() {
            page.push('\n');
        }
        let header = ["#", "fault", "settings", "passed", "n", "min", "median", "p99", "max", "lost rows"];
        let rows: Vec<Vec<String>> = self.stored.cases.iter().map(row).collect();
        page += &table(&header, &rows);
        let failed: Vec<String> = self.stored.cases.iter().flat_map(failures).collect();
        if !failed.is_empty() {
            let _ = write!(page, "\n## Failed runs\n\n{}", failed.concat());
        }
        page + "\nOutages as a writing client saw them, in milliseconds; n runs measured one.\n"
    }
}

fn row(case: &Case) -> Vec<String> {
    let passed = case.runs.iter().filter(|r| r.passed).count();
    let lost: usize = case.runs.iter().map(|r| r.lost).sum();
    let key = &case.key;
    let mut cells = vec![key.row.clone(), key.title.clone(), key.variant.clone()];
    cells.push(format!("{passed} of {}", case.runs.len()));
    match case.outages_ms() {
        Some(s) => {
            cells.push(s.n.to_string());
            cells.extend([s.min, s.median, s.p99, s.max].map(|ms| format!("{ms:.0}")));
        }
        None => cells.extend(["0", "–", "–", "–", "–"].map(str::to_owned)),
    }
    cells.push(lost.to_string());
    cells
}

fn failures(case: &Case) -> Vec<String> {
    let failed = case.runs.iter().filter(|r| !r.passed);
    let line = |r: &Run| {
        let (row, variant) = (&case.key.row, &case.key.variant);
        format!("- {row} ({variant}), build {}: {}\n", r.build, r.failures.join("; "))
    };
    failed.map(line).collect()
}

/// A Markdown table. Cells are escaped; every row must have as many as the header.
pub fn table(header: &[&str], rows: &[Vec<String>]) -> String {
    let mut text = format!("| {} |\n|", header.join(" | "));
    text += &" --- |".repeat(header.len());
    text.push('\n');
    for row in rows {
        let cells: Vec<String> = row.iter().map(|cell| cell.replace('|', "\\|").replace('\n', " ")).collect();
        let _ = writeln!(text, "| {} |", cells.join(" | "));
    }
    text
}

/// Replaces a file, whose directory need not exist yet.
fn replace(path: &Path, text: &str) -> Result<()> {
    if let Some(directory) = path.parent() {
        std::fs::create_dir_all(directory).with_context(|| format!("create {}", directory.display()))?;
    }
    write_atomically(path, text)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(row: &str) -> CaseKey {
        CaseKey { row: row.into(), title: format!("fault {row}"), variant: "two postgresql fast".into() }
    }

    fn run(build: &str, outage_ms: Option<f64>, failures: &[&str]) -> Run {
        Run {
            at_s: 1,
            build: build.into(),
            passed: failures.is_empty(),
            outage_ms,
            lost: failures.len(),
            took_s: 2.5,
            failures: failures.iter().map(|f| (*f).to_owned()).collect(),
            note: String::new(),
        }
    }

    #[test]
    fn a_later_start_finds_every_run() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("results/matrix.json");
        let mut results = Results::open(&path, "Matrix").unwrap();
        results.append(&key("2"), run("a", Some(300.0), &[])).unwrap();
        results.append(&key("2"), run("b", Some(320.0), &[])).unwrap();
        results.append(&key("4"), run("b", None, &[])).unwrap();

        let again = Results::open(&path, "ignored").unwrap();
        assert_eq!(again.stored, results.stored);
        assert_eq!(again.runs_of_build(&key("2"), "b"), 1);
        assert_eq!(again.runs_of_build(&key("2"), "c"), 0);
        assert_eq!(again.runs_of_build(&key("9"), "b"), 0);
        assert!(!path.with_extension("tmp").exists());
    }

    #[test]
    fn a_damaged_file_is_refused_and_kept() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("matrix.json");
        std::fs::write(&path, "{\"schema\":1").unwrap();
        assert!(Results::open(&path, "Matrix").is_err());
        std::fs::write(&path, r#"{"schema":9,"title":"t","cases":[]}"#).unwrap();
        let error = Results::open(&path, "Matrix").unwrap_err().to_string();
        assert!(error.ends_with("schema 9, not 1"), "{error}");
        assert!(path.exists());
    }

    #[test]
    fn the_page_has_a_line_per_case_and_names_failures() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("matrix.json");
        let mut results = Results::open(&path, "Matrix").unwrap();
        results.set_machine(vec!["fdatasync: median 0.04 ms".into()]);
        for ms in [300.0, 310.0, 420.4] {
            results.append(&key("2"), run("a", Some(ms), &[])).unwrap();
        }
        let failed = run("a", None, &["row 7 lost", "two nodes | one service"]);
        results.append(&key("4"), failed).unwrap();
        results.write_markdown().unwrap();
        let page = std::fs::read_to_string(dir.path().join("matrix.md")).unwrap();
        let expected = "\
# Matrix

- fdatasync: median 0.04 ms

| # | fault | settings | passed | n | min | median | p99 | max | lost rows |
| --- | --- | --- | --- | --- | --- | --- | --- | --- | --- |
| 2 | fault 2 | two postgresql fast | 3 of 3 | 3 | 300 | 310 | 420 | 420 | 0 |
| 4 | fault 4 | two postgresql fast | 0 of 1 | 0 | – | – | – | – | 2 |

## Failed runs

- 4 (two postgresql fast), build a: row 7 lost; two nodes | one service

Outages as a writing client saw them, in milliseconds; n runs measured one.
";
        assert_eq!(page, expected);
    }

    #[test]
    fn cells_cannot_break_the_table() {
        let text = table(&["a", "b"], &[vec!["x|y".into(), "two\nlines".into()]]);
        assert_eq!(text, "| a | b |\n| --- | --- |\n| x\\|y | two lines |\n");
    }
}
