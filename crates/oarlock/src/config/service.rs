//! `[[group.resource]]` of kind `service`.

use super::problem::Problem;
use super::reader::Section;
use super::resource::{path, user};
use super::schema;
use super::settings::{CheckKind, CheckSettings, Profile, Program, ServiceSettings};
use std::path::PathBuf;
use std::time::Duration;

/// Longest of any time of a service, in milliseconds: an hour.
const TIME_MAX_MS: u64 = 3_600_000;

/// Reads a service; `None` when it cannot be run (the problem is noted).
pub fn read(section: &Section<'_>) -> Option<ServiceSettings> {
    let profile = section.choice("profile", &[("oar", Profile::Oar)]);
    let profile = profile.map(|profile| profile.value);
    let program = read_program(section, profile);
    let config_file = path(section, "config_file");
    if section.has("config_file") && profile.is_none() {
        section.reader.report(
            Problem::error(section.line_of("config_file"), "\"config_file\" without a profile that reads it")
                .hint("remove it, or add profile = \"oar\""),
        );
    }
    let default_file = profile.map(|Profile::Oar| PathBuf::from("/etc/oar/oar.conf"));
    let default_user = match profile {
        Some(Profile::Oar) => "oar",
        None => "root",
    };
    let millis = |key: &str, least: u64, default: u64| {
        Duration::from_millis(section.integer(key, least..=TIME_MAX_MS).map_or(default, |time| time.value))
    };
    let failures = section.integer("check_failures", 1..=100).and_then(|count| u32::try_from(count.value).ok());
    Some(ServiceSettings {
        profile,
        config_file: config_file.or(default_file),
        user: user(section, default_user),
        environment: read_environment(section),
        working_dir: path(section, "working_dir").unwrap_or_else(|| PathBuf::from("/")),
        check: CheckSettings {
            kind: read_check(section),
            interval: millis("check_interval_ms", 50, 1000),
            timeout: millis("check_timeout_ms", 10, 3000),
            failures: failures.unwrap_or(2),
        },
        start_timeout: millis("start_timeout_ms", 100, 30_000),
        stop_timeout: millis("stop_timeout_ms", 0, 10_000),
        program: program?,
    })
}

fn read_program(section: &Section<'_>, profile: Option<Profile>) -> Option<Program> {
    let parts = ["start", "stop", "status"];
    let commands = parts.map(|key| argv(section, key));
    let given: Vec<&str> = parts.into_iter().filter(|key| section.has(key)).collect();
    if section.has("command") && !given.is_empty() {
        section.reader.report(
            Problem::error(section.line_of(given[0]), format!("both \"command\" and \"{}\"", given[0]))
                .hint("either one program that stays in the foreground, or start, stop and status"),
        );
        return None;
    }
    if !given.is_empty() {
        for key in parts.into_iter().filter(|key| !section.has(key)) {
            section.reader.report(
                Problem::error(section.line_of(given[0]), format!("\"{}\" without \"{key}\"", given[0]))
                    .hint("start, stop and status belong together"),
            );
        }
        let [start, stop, status] = commands;
        return Some(Program::Commands { start: start?, stop: stop?, status: status? });
    }
    if section.has("command") {
        return argv(section, "command").map(Program::Command);
    }
    match profile {
        Some(Profile::Oar) => Some(Program::Command(vec!["/usr/sbin/Almighty".to_owned()])),
        None => {
            // A misspelt profile is a problem of its own; no need for a second one.
            if !section.has("profile") {
                section.reader.report(
                    Problem::error(section.line, "service without a program")
                        .hint("give command, or start, stop and status, or profile = \"oar\""),
                );
            }
            None
        }
    }
}

/// A program with its arguments. The program is an absolute path: root runs it, whatever PATH says.
fn argv(section: &Section<'_>, key: &str) -> Option<Vec<String>> {
    let list = section.texts(key)?;
    let Some(program) = list.value.first() else {
        section.reader.error(list.line, format!("\"{key}\" is empty"));
        return None;
    };
    if !program.value.starts_with('/') {
        section.reader.report(
            Problem::error(program.line, format!("{key} \"{}\" is not an absolute path", program.value))
                .hint("write the program and each of its arguments as a string of its own"),
        );
        return None;
    }
    if let Some(bad) = list.value.iter().find(|argument| argument.value.contains('\0')) {
        section.reader.error(bad.line, format!("\"{key}\" holds a NUL character"));
        return None;
    }
    Some(list.value.into_iter().map(|argument| argument.value).collect())
}

fn read_environment(section: &Section<'_>) -> Vec<(String, String)> {
    let pairs = section.text_map("environment").unwrap_or_default();
    for (name, value) in &pairs {
        if name.is_empty() || name.contains(['=', '\0']) || value.contains('\0') {
            section.reader.error(section.line_of("environment"), format!("\"{name}\" is not the name of a variable"));
        }
    }
    pairs
}

fn read_check(section: &Section<'_>) -> Option<CheckKind> {
    let check = section.section("check", &schema::CHECK)?;
    let ways: Vec<&str> = ["command", "tcp", "http", "sql"].into_iter().filter(|way| check.has(way)).collect();
    if ways.len() != 1 {
        let text = if ways.is_empty() {
            "\"check\" says nothing".to_owned()
        } else {
            format!("\"check\" says {}", ways.join(" and "))
        };
        section.reader.report(Problem::error(check.line, text).hint("exactly one of command, tcp, http, sql"));
        return None;
    }
    if check.has("connection") && ways[0] != "sql" {
        section.reader.error(check.line_of("connection"), "\"connection\" is only for a check by sql");
    }
    match ways[0] {
        "command" => argv(&check, "command").map(CheckKind::Command),
        "tcp" => read_tcp(&check),
        "http" => read_http(&check),
        _ => {
            let connection = check.required_text("connection");
            let query = check.text("sql")?.value;
            Some(CheckKind::Sql { connection: connection?.value, query })
        }
    }
}

fn read_tcp(check: &Section<'_>) -> Option<CheckKind> {
    let text = check.text("tcp")?;
    if is_host_port(&text.value) {
        return Some(CheckKind::Tcp(text.value));
    }
    let problem = Problem::error(text.line, format!("tcp \"{}\" is not host:port", text.value));
    check.reader.report(problem.hint("for example: \"127.0.0.1:80\" or \"[::1]:80\""));
    None
}

fn is_host_port(text: &str) -> bool {
    text.parse::<std::net::SocketAddr>().is_ok()
        || text.rsplit_once(':').is_some_and(|(host, port)| {
            !host.is_empty() && !host.contains([':', '/', ' ']) && port.parse::<u16>().is_ok_and(|port| port > 0)
        })
}

fn read_http(check: &Section<'_>) -> Option<CheckKind> {
    let text = check.text("http")?;
    let rest = text.value.strip_prefix("http://");
    if rest.is_some_and(|rest| !rest.is_empty() && !rest.starts_with('/') && !rest.contains(char::is_whitespace)) {
        return Some(CheckKind::Http(text.value));
    }
    let problem = Problem::error(text.line, format!("http \"{}\" is not a URL that can be checked", text.value));
    let hint = if text.value.starts_with("https://") {
        "https is not spoken here; check by command, for instance with curl"
    } else {
        "for example: \"http://127.0.0.1/health\""
    };
    check.reader.report(problem.hint(hint));
    None
}
