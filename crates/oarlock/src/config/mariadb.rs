//! `[[group.resource]]` of kind `mariadb`.

use super::cluster::truncated;
use super::problem::Problem;
use super::reader::Section;
use super::resource::{path, user};
use super::settings::{MariadbSettings, MariadbVersion};
use std::time::Duration;

/// What the whole product is tested with.
const TESTED: MariadbVersion = MariadbVersion { major: 10, minor: 11 };
/// Its options are those that the agent imposes.
const OLDEST: MariadbVersion = MariadbVersion { major: 10, minor: 6 };
/// The server's own custom.
const DEFAULT_PORT: u16 = 3306;
/// Where an agent gives copies away unless `copy_port` says otherwise: what other tools for copies of
/// MariaDB use.
pub const DEFAULT_COPY_PORT: u16 = 4444;

/// One server; `None` when its settings could not be read (the problem is noted).
pub fn read(section: &Section<'_>) -> Option<MariadbSettings> {
    let version = read_version(section);
    if !section.has("data_dir") {
        section.missing("data_dir");
    }
    let data_dir = path(section, "data_dir");
    let port =
        |key, default| section.integer(key, 1..=u64::from(u16::MAX)).map_or(default, |port| truncated(port.value));
    let (own, copies) = (port("port", DEFAULT_PORT), port("copy_port", DEFAULT_COPY_PORT));
    if own == copies {
        section.reader.report(
            Problem::error(section.line_of("copy_port"), format!("copy_port {copies} is also the server's own port"))
                .hint("the server has one, the agent beside it another"),
        );
    }
    let listen_addresses = section.text("listen_addresses").map_or_else(|| "*".to_owned(), |text| text.value);
    if listen_addresses.contains(['\n', '\r', '\0']) {
        section.reader.error(section.line_of("listen_addresses"), "listen_addresses holds the end of a line");
    }
    let bin_dir = path(section, "bin_dir");
    let config_file = path(section, "config_file");
    let user = user(section, "mysql");
    if user == "root" {
        section.reader.error(section.line_of("user"), "MariaDB shall not run as \"root\"");
    }
    let divergent_limit_mib = section.integer("divergent_limit_mib", 0..=1_048_576).map_or(1024, |limit| limit.value);
    let probe_deadline_ms = section.integer("probe_deadline_ms", 100..=600_000).map(|limit| limit.value);
    Some(MariadbSettings {
        version: version?,
        data_dir: data_dir?,
        port: own,
        copy_port: copies,
        listen_addresses,
        bin_dir,
        config_file,
        user,
        divergent_limit_bytes: divergent_limit_mib * 1024 * 1024,
        probe_deadline: Duration::from_millis(probe_deadline_ms.unwrap_or(0)),
    })
}

fn read_version(section: &Section<'_>) -> Option<MariadbVersion> {
    let text = section.required_text("version")?;
    match text.value.parse::<MariadbVersion>() {
        Ok(version) if version >= OLDEST => {
            if version != TESTED {
                section.reader.report(
                    Problem::warning(text.line, format!("MariaDB {version} was not tested with this release"))
                        .hint(format!("{TESTED} was")),
                );
            }
            Some(version)
        }
        _ => {
            section.reader.report(
                Problem::error(text.line, format!("MariaDB version \"{}\"", text.value))
                    .hint(format!("the first two numbers, for instance \"{TESTED}\"; {OLDEST} or newer")),
            );
            None
        }
    }
}
