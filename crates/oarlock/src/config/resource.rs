//! `[[group.resource]]`.

use super::cluster::truncated;
use super::mariadb;
use super::names::nearest;
use super::network;
use super::problem::Problem;
use super::reader::{Located, Section};
use super::schema::{self, SectionSchema};
use super::service;
use super::settings::{AddressSettings, PostgresqlSettings, ResourceKind, ResourceSettings};
use std::path::{Component, PathBuf};
use std::time::Duration;

/// Longest name of a network interface, in characters (IFNAMSIZ - 1).
const INTERFACE_MAX_CHARS: usize = 15;

/// Versions of PostgreSQL that the whole product is tested with.
const TESTED_VERSIONS: [u16; 2] = [15, 17];

/// The resources of a group, each opened with the keys of its kind.
pub fn sections<'t>(group: &Section<'t>) -> Vec<Section<'t>> {
    group.sections_by("resource", schema::RESOURCE_TITLE, |kind, line| schema_of(group, kind, line))
}

/// The keys of a kind; `None`, with a problem noted, when there is no such kind.
fn schema_of(group: &Section<'_>, kind: Option<&str>, line: u32) -> Option<&'static SectionSchema> {
    match kind {
        Some("address") => Some(&schema::ADDRESS),
        Some("postgresql") => Some(&schema::POSTGRESQL),
        Some("mariadb") => Some(&schema::MARIADB),
        Some("service") => Some(&schema::SERVICE),
        Some(other) => {
            let problem = Problem::error(line, format!("unknown kind \"{other}\""));
            group.reader.report(match nearest(other, schema::KINDS) {
                Some(meant) => problem.hint(format!("did you mean \"{meant}\"?")),
                None => problem.hint(format!("one of: {}", schema::KINDS.join(", "))),
            });
            None
        }
        None => {
            group.reader.report(
                Problem::error(line, format!("{} lacks \"kind\"", schema::RESOURCE_TITLE))
                    .hint(format!("one of: {}", schema::KINDS.join(", "))),
            );
            None
        }
    }
}

/// One resource; `None` when its settings could not be read (the problem is noted).
pub fn read(section: &Section<'_>, name: String) -> Option<ResourceSettings> {
    let kind = match section.text("kind")?.value.as_str() {
        "address" => read_address(section).map(ResourceKind::Address),
        "postgresql" => read_postgresql(section).map(ResourceKind::Postgresql),
        "mariadb" => mariadb::read(section).map(ResourceKind::Mariadb),
        _ => service::read(section).map(ResourceKind::Service),
    };
    Some(ResourceSettings { name, kind: kind? })
}

fn read_address(section: &Section<'_>) -> Option<AddressSettings> {
    let interface = section.text("interface");
    if let Some(interface) = &interface
        && (interface.value.is_empty()
            || interface.value.len() > INTERFACE_MAX_CHARS
            || interface.value.contains(|c: char| c.is_whitespace() || c == '/'))
    {
        section.reader.error(interface.line, format!("\"{}\" is not the name of an interface", interface.value));
    }
    let follows = section.choice("follows", &[("owner", false), ("standby", true)]);
    let text = section.required_text("address")?;
    match network::parse_prefixed(&text.value) {
        Ok((address, prefix)) => Some(AddressSettings {
            address,
            prefix,
            interface: interface.map(|interface| interface.value),
            follows_standby: follows.is_some_and(|follows| follows.value),
        }),
        Err(fault) => {
            section.reader.error(text.line, format!("address \"{}\" {fault}", text.value));
            None
        }
    }
}

/// A path that must be absolute and plain.
pub fn path(section: &Section<'_>, key: &str) -> Option<PathBuf> {
    let text = section.text(key)?;
    let path = PathBuf::from(&text.value);
    if !path.is_absolute() || path.components().any(|part| part == Component::ParentDir) || text.value.contains('\0') {
        section.reader.error(text.line, format!("{key} \"{}\" is not an absolute path without \"..\"", text.value));
        return None;
    }
    Some(path)
}

/// A system user by name.
pub fn user(section: &Section<'_>, default: &str) -> String {
    let Some(Located { value, line }) = section.text("user") else { return default.to_owned() };
    if value.is_empty() || value.contains(|c: char| c.is_whitespace() || matches!(c, ':' | '/' | '\0')) {
        section.reader.error(line, format!("\"{value}\" is not the name of a user"));
    }
    value
}

fn read_version(section: &Section<'_>) -> Option<u16> {
    // DESIGN writes it as a string; a bare number is as clear, and a common slip.
    let text = section.required_text_or_integer("version")?;
    match text.value.parse::<u16>() {
        Ok(version @ 13..=18) => {
            if !TESTED_VERSIONS.contains(&version) {
                section.reader.report(
                    Problem::warning(text.line, format!("PostgreSQL {version} was not tested with this release"))
                        .hint("15 and 17 were"),
                );
            }
            Some(version)
        }
        _ => {
            section.reader.report(
                Problem::error(text.line, format!("PostgreSQL version \"{}\"", text.value))
                    .hint("the major version alone, 13 to 18"),
            );
            None
        }
    }
}

fn read_postgresql(section: &Section<'_>) -> Option<PostgresqlSettings> {
    let version = read_version(section);
    if !section.has("data_dir") {
        section.missing("data_dir");
    }
    let data_dir = path(section, "data_dir");
    let port = section.integer("port", 1..=u64::from(u16::MAX)).map_or(5432, |port| truncated(port.value));
    let listen_addresses = section.text("listen_addresses").map_or_else(|| "*".to_owned(), |text| text.value);
    let bin_dir = path(section, "bin_dir");
    let config_file = path(section, "config_file");
    let hba_file = path(section, "hba_file");
    let user = user(section, "postgres");
    if user == "root" {
        section.reader.error(section.line_of("user"), "PostgreSQL refuses to run as \"root\"");
    }
    let divergent_limit_mib = section.integer("divergent_limit_mib", 0..=1_048_576).map_or(1024, |limit| limit.value);
    let probe_deadline_ms = section.integer("probe_deadline_ms", 100..=600_000).map(|limit| limit.value);
    Some(PostgresqlSettings {
        version: version?,
        data_dir: data_dir?,
        port,
        listen_addresses,
        bin_dir,
        config_file,
        hba_file,
        user,
        divergent_limit_bytes: divergent_limit_mib * 1024 * 1024,
        probe_deadline: Duration::from_millis(probe_deadline_ms.unwrap_or(0)),
    })
}
