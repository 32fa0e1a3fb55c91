//! `oarlock apply`.

use super::args::Global;
use super::ask::{ACT_DEADLINE, ask, unexpected};
use super::failure::{Code, Failure};
use super::output::{emit, emit_json};
use crate::causes::with_causes;
use crate::config::{self, ConfigError, Severity, TEXT_MAX_BYTES};
use crate::control::{Request, Response};
use std::io::Read;
use std::path::Path;

/// Checks the file here, with its name in the problems, then everywhere.
pub fn run(global: &Global, file: &Path, dry_run: bool) -> Result<Code, Failure> {
    let (name, text) = read(file)?;
    let settings = config::parse(&name, &text).map_err(|problems| wrong(&ConfigError::Wrong(problems)))?;
    for warning in &settings.warnings {
        eprintln!("{name}:{}: warning: {}", warning.line, warning.text);
        if let Some(hint) = &warning.hint {
            eprintln!("  hint: {hint}");
        }
    }
    match ask(global, &Request::Apply { text, dry_run }, ACT_DEADLINE)? {
        response @ (Response::Done { .. } | Response::Text { .. }) if global.json => emit_json(&response)?,
        Response::Text { lines } => emit(&(lines.join("\n") + "\n"))?,
        Response::Done { note } => {
            let done = if dry_run { "valid on every node that answered; nothing was changed" } else { "applied" };
            emit(&format!("{}\n", note.as_deref().unwrap_or(done)))?;
        }
        _ => return Err(unexpected()),
    }
    Ok(Code::Done)
}

/// A configuration that cannot be used, for people.
pub fn wrong(error: &ConfigError) -> Failure {
    match error {
        ConfigError::Wrong(problems) => {
            eprintln!("{problems}");
            let errors = problems.list().iter().filter(|problem| problem.severity == Severity::Error);
            let count = errors.count();
            let s = if count == 1 { "" } else { "s" };
            Failure::new(Code::Usage, format!("the configuration has {count} problem{s}; nothing was changed"))
        }
        ConfigError::Unreadable { .. } => Failure::new(Code::Usage, with_causes(error)),
    }
}

fn read(file: &Path) -> Result<(String, String), Failure> {
    let name = if file == Path::new("-") { "standard input".to_owned() } else { file.display().to_string() };
    let mut bytes = Vec::new();
    let limit = TEXT_MAX_BYTES as u64 + 1;
    let read = if file == Path::new("-") {
        std::io::stdin().lock().take(limit).read_to_end(&mut bytes)
    } else {
        std::fs::File::open(file).and_then(|file| file.take(limit).read_to_end(&mut bytes))
    };
    read.map_err(|error| Failure::new(Code::Usage, format!("cannot read {name}: {error}")))?;
    let text = String::from_utf8(bytes).map_err(|_| Failure::new(Code::Usage, format!("{name} is not UTF-8 text")))?;
    Ok((name, text))
}
