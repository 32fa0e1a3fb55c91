//! The configuration file: read, checked as a whole, turned into plain settings.
//!
//! [`parse`] goes over the whole text and returns either [`Settings`] or *every* problem found,
//! each with its line, the value and, where one helps, a hint. The keys that exist, with their
//! defaults and their meaning, stand in one table ([`schema`]): the reader refuses what is not in
//! it, and the reference page is printed from it.

pub mod change;
mod cluster;
mod depends;
mod group;
mod mariadb;
mod names;
mod network;
mod node;
mod problem;
mod reader;
pub mod reference;
mod resource;
pub mod schema;
mod service;
mod settings;
#[cfg(test)]
mod tests;
mod timing;
mod watchdog;

pub use cluster::TWO_VOTES;
pub use mariadb::DEFAULT_COPY_PORT as MARIADB_COPY_PORT;
pub use names::nearest;
pub use problem::{Problem, Problems, Severity};
pub use settings::{
    AddressSettings, Arbitration, CheckKind, CheckSettings, GroupSettings, MariadbSettings, MariadbVersion,
    NodeSettings, PostgresqlSettings, Preset, Profile, Program, ResourceKind, ResourceSettings, ServiceSettings,
    Settings,
};
pub use watchdog::WatchdogSettings;

use reader::Reader;
use std::path::{Path, PathBuf};

/// Where the configuration is unless `--config` says otherwise.
pub const DEFAULT_PATH: &str = "/etc/oarlock/oarlock.toml";

/// The UDP port nodes talk on unless `port` says otherwise.
pub const DEFAULT_PORT: u16 = 6700;

/// Largest configuration accepted, in bytes: it travels in one message of the cluster.
pub const TEXT_MAX_BYTES: usize = 128 * 1024;

/// Why a configuration cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The file could not be read.
    #[error("cannot read the configuration {}", path.display())]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: std::io::Error,
    },
    /// It was read and is wrong; everything that is wrong with it.
    #[error("{0}")]
    Wrong(Problems),
}

/// Reads and checks a configuration file.
pub fn load(path: &Path) -> Result<Settings, ConfigError> {
    let unreadable = |source| ConfigError::Unreadable { path: path.to_owned(), source };
    let file = std::fs::File::open(path).map_err(unreadable)?;
    let mut bytes = Vec::new();
    // One byte above the limit is enough to know that it is exceeded.
    std::io::Read::read_to_end(&mut std::io::Read::take(file, TEXT_MAX_BYTES as u64 + 1), &mut bytes)
        .map_err(unreadable)?;
    let text = String::from_utf8(bytes)
        .map_err(|_| unreadable(std::io::Error::new(std::io::ErrorKind::InvalidData, "not UTF-8 text")))?;
    parse(&path.display().to_string(), &text).map_err(ConfigError::Wrong)
}

/// Checks a configuration. `file` is only a name for the problems.
pub fn parse(file: &str, text: &str) -> Result<Settings, Problems> {
    if text.len() > TEXT_MAX_BYTES {
        let problem = Problem::error(1, format!("configuration of {} bytes", text.len()))
            .hint(format!("at most {TEXT_MAX_BYTES} bytes are accepted"));
        return Err(Problems::new(file, vec![problem]));
    }
    let (root, errors) = toml::de::DeTable::parse_recoverable(text);
    let reader = Reader::new(text);
    if !errors.is_empty() {
        // What a broken text seems to say would only give misleading problems.
        for error in &errors {
            reader.syntax(error);
        }
        return Err(Problems::new(file, reader.into_problems()));
    }
    let settings = cluster::read(&reader, &root, text);
    let problems = Problems::new(file, reader.into_problems());
    match settings {
        Some(mut settings) if !problems.has_errors() => {
            settings.warnings = problems.into_list();
            Ok(settings)
        }
        _ => Err(problems),
    }
}
