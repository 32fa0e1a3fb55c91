//! Services that the system starts at boot although oarlock manages them: two starters, two truths.

use super::{Report, Subject};
use crate::config::PostgresqlSettings;
use std::fs;
use std::path::PathBuf;

/// Checks what starts a database beside us.
pub fn check_postgresql(subject: &Subject, name: &str, database: &PostgresqlSettings, report: &mut Report) {
    let mut area = report.area("boot");
    // Debian: each database cluster says whether it is started.
    let start = debian_dir(subject, database).map(|directory| directory.join("start.conf"));
    let text = start.as_ref().and_then(|start| fs::read_to_string(start).ok());
    let word = text.and_then(|text| start_word(&text));
    if let (Some("auto"), Some(start)) = (word.as_deref(), &start) {
        let start = start.display();
        area.error(
            format!("{start} says \"auto\": the system starts \"{name}\" at boot, beside oarlock"),
            format!("write \"disabled\" into it: echo disabled > {start}"),
        );
    }
    // Red Hat: a unit for each version. Debian's of that name only starts those that say "auto".
    let debian = word.is_some() || subject.system("usr/share/postgresql-common").exists();
    for unit in ["postgresql.service".to_owned(), format!("postgresql-{}.service", database.version)] {
        let wanted = subject.system(&format!("etc/systemd/system/multi-user.target.wants/{unit}"));
        if !debian && wanted.symlink_metadata().is_ok() {
            area.error(
                format!("{unit} is enabled: the system starts a database at boot, beside oarlock"),
                format!("systemctl disable {unit}"),
            );
        }
    }
}

/// Debian's directory of the configuration of this database, if it is one of Debian's.
pub fn debian_dir(subject: &Subject, database: &PostgresqlSettings) -> Option<PathBuf> {
    let name = database.data_dir.file_name()?.to_str()?;
    let directory = subject.system(&format!("etc/postgresql/{}/{name}", database.version));
    let text = fs::read_to_string(directory.join("postgresql.conf")).ok()?;
    let own = data_directory(&text)?;
    (own == database.data_dir).then_some(directory)
}

/// What `data_directory` is set to; the last setting wins.
fn data_directory(text: &str) -> Option<PathBuf> {
    text.lines().rev().find_map(|line| {
        let rest = line.trim_start().strip_prefix("data_directory")?.trim_start();
        let rest = rest.strip_prefix('=').unwrap_or(rest).trim_start();
        Some(PathBuf::from(rest.strip_prefix('\'')?.split('\'').next()?))
    })
}

/// The one word of a `start.conf` that is no comment.
fn start_word(text: &str) -> Option<String> {
    let mut lines = text.lines().map(|line| line.split('#').next().unwrap_or_default().trim());
    Some(lines.find(|line| !line.is_empty())?.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_data_directory_is_found() {
        let text =
            "#data_directory = '/no'\n data_directory = '/a'   # x\ndata_directory '/b'\ndata_directory_mode = 1\n";
        assert_eq!(data_directory(text), Some(PathBuf::from("/b")));
        assert_eq!(data_directory("port = 5432\n"), None);
    }

    #[test]
    fn the_word_is_found_among_comments() {
        assert_eq!(start_word("# auto\n\n  manual # by hand\n").as_deref(), Some("manual"));
        assert_eq!(start_word("auto"), Some("auto".to_owned()));
        assert_eq!(start_word("# nothing\n"), None);
    }
}
