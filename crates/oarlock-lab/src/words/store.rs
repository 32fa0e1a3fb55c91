//! What came of each word: a JSON file that grows by one word at a time, and its page.

use crate::paths::write_atomically;
use crate::results::table;
use anyhow::{Context, Result, bail};
use oarlock_words::Word;
use serde::{Deserialize, Serialize};
use std::path::{Path, PathBuf};

const SCHEMA: u32 = 1;

/// How a word went.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Played {
    /// The word.
    pub word: String,
    /// Under which settings.
    pub variant: String,
    /// When it began, seconds since 1970.
    pub at_s: i64,
    /// Which build ran.
    pub build: String,
    /// Whether everything was as it must be.
    pub passed: bool,
    /// What came of each step, in words; refusals with their reason.
    pub steps: Vec<String>,
    /// Rows whose acknowledgement reached the client.
    pub acknowledged: usize,
    /// Those of them that were missing in the end.
    pub lost: usize,
    /// How long it took, seconds.
    pub took_s: f64,
    /// What went wrong.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub failures: Vec<String>,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
struct Stored {
    schema: u32,
    title: String,
    #[serde(default)]
    machine: Vec<String>,
    words: Vec<Played>,
}

/// A file of words.
#[derive(Debug)]
pub struct Store {
    path: PathBuf,
    stored: Stored,
}

impl Store {
    /// Opens a file, or begins one if there is none. One that cannot be understood is left alone.
    pub fn open(path: &Path, title: &str) -> Result<Store> {
        let named = || format!("results file {}", path.display());
        let stored: Stored = match std::fs::read_to_string(path) {
            Ok(text) => serde_json::from_str(&text).with_context(named)?,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                Stored { schema: SCHEMA, title: title.to_owned(), machine: Vec::new(), words: Vec::new() }
            }
            Err(error) => return Err(error).with_context(named),
        };
        if stored.schema != SCHEMA {
            bail!("{}: schema {}, not {SCHEMA}", named(), stored.schema);
        }
        Ok(Store { path: path.to_owned(), stored })
    }

    /// Whether a build has played a word, passed or not.
    pub fn has(&self, word: &Word, variant: &str, build: &str) -> bool {
        let word = word.to_string();
        self.stored.words.iter().any(|played| played.word == word && played.variant == variant && played.build == build)
    }

    /// Replaces the facts about the machine; written with the next word.
    pub fn set_machine(&mut self, facts: Vec<String>) {
        self.stored.machine = facts;
    }

    /// Adds a word, and writes file and page.
    pub fn append(&mut self, played: Played) -> Result<()> {
        self.stored.words.push(played);
        if let Some(directory) = self.path.parent() {
            std::fs::create_dir_all(directory).with_context(|| format!("create {}", directory.display()))?;
        }
        let text = serde_json::to_string_pretty(&self.stored).context("encode the results")?;
        write_atomically(&self.path, &(text + "\n"))?;
        write_atomically(&self.path.with_extension("md"), &self.page())
    }

    fn page(&self) -> String {
        let mut page = format!("# {}\n\n", self.stored.title);
        for fact in &self.stored.machine {
            page += &format!("- {fact}\n");
        }
        let words = &self.stored.words;
        let passed = words.iter().filter(|played| played.passed).count();
        let rows: usize = words.iter().map(|played| played.acknowledged).sum();
        let lost: usize = words.iter().map(|played| played.lost).sum();
        page += &format!(
            "\n{passed} of {} passed; {rows} rows acknowledged, {lost} of them lost. Each word begins with both servers on and \
             the first serving (M), and ends with both on and compared: S stands by, X is off.\n\n",
            words.len()
        );
        let header = ["word", "what came of each step", "verdict", "rows", "lost", "s", "settings", "build"];
        page + &table(&header, &words.iter().map(cells).collect::<Vec<_>>())
    }
}

fn cells(played: &Played) -> Vec<String> {
    let verdict = if played.passed { "pass".to_owned() } else { format!("FAIL: {}", played.failures.join("; ")) };
    vec![
        played.word.clone(),
        played.steps.join("; "),
        verdict,
        played.acknowledged.to_string(),
        played.lost.to_string(),
        format!("{:.1}", played.took_s),
        played.variant.clone(),
        played.build.clone(),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_later_start_finds_what_was_played() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("results/words.json");
        let played = Played {
            word: "MX,XX,XM".into(),
            variant: "v".into(),
            at_s: 1,
            build: "b".into(),
            passed: false,
            steps: vec!["1 serves".into(), "off".into(), "2 refuses: why | not".into()],
            acknowledged: 7,
            lost: 1,
            took_s: 2.0,
            failures: vec!["rows are wrong".into()],
        };
        Store::open(&path, "Words").unwrap().append(played).unwrap();
        let again = Store::open(&path, "ignored").unwrap();
        let word: Word = "MX,XX,XM".parse().unwrap();
        assert!(again.has(&word, "v", "b") && !again.has(&word, "v", "c"));
        let page = std::fs::read_to_string(path.with_extension("md")).unwrap();
        assert!(page.contains("0 of 1 passed; 7 rows acknowledged, 1 of them lost."), "{page}");
        assert!(page.contains("2 refuses: why \\| not | FAIL: rows are wrong | 7 | 1 | 2.0 |"), "{page}");
    }
}
