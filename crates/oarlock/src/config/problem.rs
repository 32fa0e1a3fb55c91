//! What is wrong with a configuration.

use std::fmt;

/// How bad a problem is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Severity {
    /// The configuration can be used, but the administrator should know.
    Warning,
    /// The configuration cannot be used.
    Error,
}

/// One problem, at one line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// Line in the file, from 1.
    pub line: u32,
    /// How bad it is.
    pub severity: Severity,
    /// What is wrong, with the value.
    pub text: String,
    /// What the administrator can do.
    pub hint: Option<String>,
}

impl Problem {
    /// A problem that makes the configuration unusable.
    pub fn error(line: u32, text: impl Into<String>) -> Problem {
        Problem { line, severity: Severity::Error, text: text.into(), hint: None }
    }

    /// A problem that does not.
    pub fn warning(line: u32, text: impl Into<String>) -> Problem {
        Problem { line, severity: Severity::Warning, text: text.into(), hint: None }
    }

    /// With advice.
    #[must_use]
    pub fn hint(mut self, hint: impl Into<String>) -> Problem {
        self.hint = Some(hint.into());
        self
    }
}

/// All problems of one file, in the order of its lines.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problems {
    file: String,
    list: Vec<Problem>,
}

impl Problems {
    /// The problems of `file`, in any order.
    pub fn new(file: &str, mut list: Vec<Problem>) -> Problems {
        list.sort_by(|a, b| (a.line, &a.text).cmp(&(b.line, &b.text)));
        list.dedup();
        Problems { file: file.to_owned(), list }
    }

    /// True when the configuration cannot be used.
    pub fn has_errors(&self) -> bool {
        self.list.iter().any(|problem| problem.severity == Severity::Error)
    }

    /// The problems, by line.
    pub fn list(&self) -> &[Problem] {
        &self.list
    }

    /// The problems themselves.
    pub fn into_list(self) -> Vec<Problem> {
        self.list
    }
}

impl fmt::Display for Problems {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (position, problem) in self.list.iter().enumerate() {
            if position > 0 {
                writeln!(f)?;
            }
            let severity = if problem.severity == Severity::Warning { "warning: " } else { "" };
            write!(f, "{}:{}: {severity}{}", self.file, problem.line, problem.text)?;
            if let Some(hint) = &problem.hint {
                write!(f, "\n  hint: {hint}")?;
            }
        }
        Ok(())
    }
}

impl std::error::Error for Problems {}
