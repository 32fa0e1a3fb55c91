//! `oarlock check`.

use super::args::Global;
use super::ask::LOOK_DEADLINE;
use super::failure::{Code, Failure};
use super::output::{emit, emit_json};
use super::style::Style;
use crate::check::{self, Report, Severity, Subject};
use crate::config;
use crate::control::{ControlClient, Request, Response, socket_path};
use serde_json::json;
use std::fmt::Write;
use std::path::{Path, PathBuf};

/// Looks at everything and lists what is wrong; an error makes it exit with 1.
pub fn run(global: &Global, peers: bool, digest: bool) -> Result<Code, Failure> {
    if digest {
        emit_json(&check::oar::digest(Path::new("/")))?;
        return Ok(Code::Done);
    }
    let settings = config::load(&global.config).map_err(|error| super::apply::wrong(&error))?;
    let agent = match ask(global, &Request::Info) {
        Some(Response::Info { info }) => Some(info),
        _ => None,
    };
    let status = match agent.as_ref().and_then(|_| ask(global, &Request::Status)) {
        Some(Response::Status { status }) => Some(status),
        _ => None,
    };
    let subject = Subject {
        config: global.config.clone(),
        run_dir: global.run_dir.clone(),
        root: PathBuf::from("/"),
        settings,
        agent,
        status,
    };
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|error| Failure::from_error(Code::Internal, &error))?;
    let mut report = runtime.block_on(check::run(&subject));
    if peers {
        super::peers::compare(&subject, &mut report);
    }
    if global.json {
        emit_json(&json!({"schema": 1, "findings": report.findings, "looked_at": report.looked_at}))?;
    } else {
        emit(&text(&report, Style::of_stdout()))?;
    }
    Ok(if report.counts().0 > 0 { Code::Negative } else { Code::Done })
}

/// An agent that is not there is a finding, not a failure.
fn ask(global: &Global, request: &Request) -> Option<Response> {
    ControlClient::connect(&socket_path(&global.run_dir), LOOK_DEADLINE).ok()?.ask(request).ok()
}

fn text(report: &Report, style: Style) -> String {
    let mut text = String::new();
    for finding in &report.findings {
        let severity = match finding.severity {
            Severity::Error => style.bad("error"),
            Severity::Warning => style.warn("warning"),
        };
        // Writing to a String cannot fail.
        let _ = writeln!(text, "{severity}: {}: {}", finding.area, finding.text);
        if let Some(hint) = &finding.hint {
            let _ = writeln!(text, "  hint: {hint}");
        }
    }
    let good: Vec<&str> = report
        .looked_at
        .iter()
        .map(String::as_str)
        .filter(|area| !report.findings.iter().any(|finding| finding.area == *area))
        .collect();
    if !good.is_empty() {
        let _ = writeln!(text, "{}: {}", style.good("good"), good.join(", "));
    }
    let (errors, warnings) = report.counts();
    let _ = writeln!(text, "{errors} errors, {warnings} warnings");
    text
}
