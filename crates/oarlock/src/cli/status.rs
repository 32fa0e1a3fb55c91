//! `oarlock status`.

use super::args::Global;
use super::ask::{LOOK_DEADLINE, ask, unexpected};
use super::failure::{Code, Failure};
use super::output::{Table, emit, emit_json, wrap};
use super::style::Style;
use crate::control::status::{GroupStatus, MemberStatus, ResourceStatus, StatusReport};
use crate::control::{Request, Response};
use std::fmt::Write;
use std::io::IsTerminal;
use std::time::Duration;

/// Between two looks of `--watch`.
const WATCH_INTERVAL: Duration = Duration::from_secs(1);
/// Width of the text under a group's line, in columns.
const REASON_WIDTH: usize = 76;

/// Shows it once, or again and again.
pub fn run(global: &Global, watch: bool) -> Result<Code, Failure> {
    if !watch {
        let report = fetch(global)?;
        show(global, &report)?;
        return Ok(if report.quorum { Code::Done } else { Code::NoQuorum });
    }
    let terminal = std::io::stdout().is_terminal();
    loop {
        let report = fetch(global);
        if terminal && !global.json {
            // Home, then clear: less flicker than the other way round.
            emit("\x1b[H\x1b[2J")?;
        }
        match report {
            Ok(report) => show(global, &report)?,
            // An agent that restarts is back in a moment.
            Err(failure) => failure.print(Style::of_stderr()),
        }
        std::thread::sleep(WATCH_INTERVAL);
    }
}

/// Asks the agent for it.
pub fn fetch(global: &Global) -> Result<StatusReport, Failure> {
    match ask(global, &Request::Status, LOOK_DEADLINE)? {
        Response::Status { status } => Ok(status),
        _ => Err(unexpected()),
    }
}

fn show(global: &Global, report: &StatusReport) -> Result<(), Failure> {
    if global.json { emit_json(report) } else { emit(&render(report, Style::of_stdout())) }
}

/// The report for people.
pub fn render(report: &StatusReport, style: Style) -> String {
    let quorum = if report.quorum { style.good("yes") } else { style.bad("NO") };
    let leader = report.leader.as_deref().unwrap_or("none");
    let mut text = format!(
        "cluster {}   quorum {quorum}   leader {leader}   configuration {}\n\n",
        style.head(&report.cluster),
        report.generation
    );
    text += &nodes(report, style);
    for group in &report.groups {
        text.push('\n');
        text += &self::group(group, style);
    }
    text
}

fn nodes(report: &StatusReport, style: Style) -> String {
    // Shown where somebody has one: most clusters have none.
    let watchdogs = report.nodes.iter().any(|node| node.watchdog);
    let mut columns = vec!["NODE", "ROLE", "STATE", "REALTIME", "LINKS"];
    if watchdogs {
        columns.insert(4, "WATCHDOG");
    }
    let mut table = Table::new(&columns, 0);
    for node in &report.nodes {
        let state = if node.state == "offline" { "OFFLINE".to_owned() } else { node.state.clone() };
        let told = |granted: bool| match (node.state.as_str(), granted) {
            ("offline", _) => "-".to_owned(),
            (_, true) => "yes".to_owned(),
            (_, false) => "no".to_owned(),
        };
        let links: Vec<String> =
            node.links.iter().map(|link| format!("{} {}", link.address, if link.up { "up" } else { "DOWN" })).collect();
        let mut row = vec![node.name.clone(), node.role.clone(), state, told(node.realtime), links.join(", ")];
        if watchdogs {
            row.insert(4, told(node.watchdog));
        }
        table.row(row);
    }
    table.render(|row, column, cell| paint(style, row, column == 2, cell))
}

fn group(group: &GroupStatus, style: Style) -> String {
    let state = match group.state.as_str() {
        "started" => style.good("started"),
        "blocked" => style.bad("BLOCKED"),
        other => style.warn(other),
    };
    let owner = group.owner.as_ref().map(|owner| format!(" on {}", style.head(owner))).unwrap_or_default();
    // Writing to a String cannot fail.
    let mut text = String::new();
    let _ = writeln!(text, "group {}: {state}{owner}, epoch {}", style.head(&group.name), group.epoch);
    for line in group.reason.iter().flat_map(|reason| wrap(reason, REASON_WIDTH)) {
        let _ = writeln!(text, "  {line}");
    }
    let mut table = Table::new(&["RESOURCE", "KIND", "STATE", "FAILURES", "COPIES"], 2);
    for resource in &group.resources {
        let copies = copies(resource);
        let mut cells = [&resource.name, &resource.kind, &resource.state].map(String::clone);
        let mut failures = resource.failures.to_string();
        for copy in copies {
            let [name, kind, state] = std::mem::take(&mut cells);
            table.row([name, kind, state, std::mem::take(&mut failures), copy]);
        }
    }
    text + &table.render(|row, column, cell| paint(style, row, column == 2, cell))
}

/// One line per node that has a part in the resource; one empty line when none has.
fn copies(resource: &ResourceStatus) -> Vec<String> {
    let mut lines = Vec::new();
    for member in &resource.members {
        let (role, part) = match member.role.as_str() {
            "none" | "" => (String::new(), false),
            role => (format!("{role}, "), true),
        };
        let in_sync = match (part, member.in_sync) {
            (false, false) => "",
            (_, true) => ", in sync",
            (true, false) => ", NOT in sync",
        };
        let lag = lag(member).map_or_else(String::new, |lag| format!(", {lag} behind"));
        lines.push(format!("{}: {role}{}{in_sync}{lag}", member.node, member.state));
    }
    if lines.is_empty() {
        lines.push(String::new());
    }
    lines
}

/// How far a standby is behind, in its engine's own unit.
fn lag(member: &MemberStatus) -> Option<String> {
    let counted = match (member.lag_bytes, member.lag_transactions) {
        (Some(count), _) if count > 0 => bytes(count),
        (None, Some(1)) => "1 transaction".to_owned(),
        (None, Some(count)) if count > 0 => format!("{count} transactions"),
        _ => return None,
    };
    (member.role == "standby").then_some(counted)
}

fn bytes(count: u64) -> String {
    const UNITS: [&str; 4] = ["KiB", "MiB", "GiB", "TiB"];
    if count < 1024 {
        return format!("{count} B");
    }
    let power = (u64::BITS - 1 - count.leading_zeros()) / 10;
    let unit = usize::try_from(power - 1).unwrap_or(0).min(UNITS.len() - 1);
    let tenths = u128::from(count) * 10 / (1u128 << (10 * (unit + 1)));
    format!("{}.{} {}", tenths / 10, tenths % 10, UNITS[unit])
}

fn paint(style: Style, row: usize, is_state: bool, cell: &str) -> String {
    if row == 0 {
        return style.head(cell);
    }
    if !is_state {
        return cell.to_owned();
    }
    match cell {
        "online" | "started" | "up" | "open" => style.good(cell),
        "OFFLINE" | "failed" | "blocked" => style.bad(cell),
        _ => style.warn(cell),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_readable() {
        for (count, expected) in [
            (0, "0 B"),
            (1023, "1023 B"),
            (1024, "1.0 KiB"),
            (1536, "1.5 KiB"),
            (5 << 20, "5.0 MiB"),
            (u64::MAX, "16777215.9 TiB"),
        ] {
            assert_eq!(bytes(count), expected);
        }
    }

    #[test]
    fn a_report_fits_the_screen() {
        let report: StatusReport = serde_json::from_str(include_str!("../../tests/fixtures/status.json")).unwrap();
        let text = render(&report, Style::PLAIN);
        assert!(text.lines().all(|line| line.chars().count() <= 80), "{text}");
        insta::assert_snapshot!(text);
    }

    #[test]
    fn a_standby_is_behind_in_the_unit_of_its_engine() {
        let member = |lag_bytes, lag_transactions| MemberStatus {
            role: "standby".to_owned(),
            lag_bytes,
            lag_transactions,
            ..MemberStatus::default()
        };
        assert_eq!(lag(&member(Some(2048), None)).as_deref(), Some("2.0 KiB"));
        assert_eq!(lag(&member(None, Some(1))).as_deref(), Some("1 transaction"));
        assert_eq!(lag(&member(None, Some(9))).as_deref(), Some("9 transactions"));
        assert_eq!((lag(&member(Some(0), None)), lag(&member(None, Some(0)))), (None, None));
        assert_eq!(lag(&MemberStatus { lag_bytes: Some(9), ..MemberStatus::default() }), None);
    }

    #[test]
    fn the_stable_form_stays() {
        let text = include_str!("../../tests/fixtures/status.json");
        let report: StatusReport = serde_json::from_str(text).unwrap();
        let compact: serde_json::Value = serde_json::from_str(text).unwrap();
        assert_eq!(serde_json::to_value(&report).unwrap(), compact);
    }
}
