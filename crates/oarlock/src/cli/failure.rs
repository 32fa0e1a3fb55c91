//! How a command ends.

use super::style::Style;
use crate::causes::with_causes;
use std::error::Error;
use std::process::ExitCode;

/// Exit codes, documented and stable.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Code {
    /// Done.
    Done = 0,
    /// It was understood, and the answer is no.
    Negative = 1,
    /// The command or the configuration is wrong.
    Usage = 2,
    /// No majority could be reached in time.
    NoQuorum = 3,
    /// It would have risked data.
    Unsafe = 4,
    /// The program failed.
    Internal = 5,
}

impl From<Code> for ExitCode {
    fn from(code: Code) -> ExitCode {
        ExitCode::from(code as u8)
    }
}

/// Why a command failed, for people.
#[derive(Debug)]
pub struct Failure {
    /// The exit code.
    pub code: Code,
    problems: Vec<Problem>,
}

#[derive(Debug)]
struct Problem {
    text: String,
    hint: Option<String>,
}

impl Failure {
    /// With one problem.
    pub fn new(code: Code, text: impl Into<String>) -> Failure {
        Failure { code, problems: vec![Problem { text: text.into(), hint: None }] }
    }

    /// With many.
    pub fn many(code: Code, texts: Vec<String>) -> Failure {
        Failure { code, problems: texts.into_iter().map(|text| Problem { text, hint: None }).collect() }
    }

    /// From an error with its causes.
    pub fn from_error(code: Code, error: &(dyn Error + 'static)) -> Failure {
        Failure::new(code, with_causes(error))
    }

    /// With advice to the last problem.
    #[must_use]
    pub fn hint(mut self, hint: impl Into<String>) -> Failure {
        if let Some(problem) = self.problems.last_mut() {
            problem.hint = Some(hint.into());
        }
        self
    }

    /// The first problem, without its hint.
    pub fn words(&self) -> String {
        self.problems.first().map(|problem| problem.text.clone()).unwrap_or_default()
    }

    /// Prints it on standard error.
    pub fn print(&self, style: Style) {
        for problem in &self.problems {
            eprintln!("{}: {}", style.bad("error"), problem.text);
            if let Some(hint) = &problem.hint {
                eprintln!("  hint: {hint}");
            }
        }
    }
}
