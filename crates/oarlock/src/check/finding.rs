//! What a check finds.

use serde::Serialize;
use std::fmt;

/// How bad it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Severity {
    /// A takeover fails or is unsafe.
    Error,
    /// It works, with a disadvantage the administrator should know.
    Warning,
}

/// One thing.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// How bad.
    pub severity: Severity,
    /// What was looked at.
    pub area: String,
    /// What is wrong, with the value.
    pub text: String,
    /// What to do about it.
    pub hint: Option<String>,
}

/// Everything found, and what was looked at.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Report {
    /// What is wrong.
    pub findings: Vec<Finding>,
    /// Areas that were looked at.
    pub looked_at: Vec<String>,
}

impl fmt::Display for Severity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Severity::Error => "error",
            Severity::Warning => "warning",
        })
    }
}

impl Report {
    /// Findings of one area.
    pub fn area(&mut self, area: &str) -> Area<'_> {
        if !self.looked_at.iter().any(|known| known == area) {
            self.looked_at.push(area.to_owned());
        }
        Area { report: self, area: area.to_owned() }
    }

    /// How many findings are errors, and how many warnings.
    pub fn counts(&self) -> (usize, usize) {
        let errors = self.findings.iter().filter(|finding| finding.severity == Severity::Error).count();
        (errors, self.findings.len() - errors)
    }
}

/// Collects the findings of one area.
#[derive(Debug)]
pub struct Area<'r> {
    report: &'r mut Report,
    area: String,
}

impl Area<'_> {
    /// Something that makes a takeover fail or unsafe.
    pub fn error(&mut self, text: impl Into<String>, hint: impl Into<String>) {
        self.push(Severity::Error, text.into(), hint.into());
    }

    /// Something that should be known.
    pub fn warning(&mut self, text: impl Into<String>, hint: impl Into<String>) {
        self.push(Severity::Warning, text.into(), hint.into());
    }

    fn push(&mut self, severity: Severity, text: String, hint: String) {
        let hint = (!hint.is_empty()).then_some(hint);
        self.report.findings.push(Finding { severity, area: self.area.clone(), text, hint });
    }
}
