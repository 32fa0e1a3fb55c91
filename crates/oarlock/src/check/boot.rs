//! Services that the system starts at boot although oarlock manages them: two starters, two truths.

use super::{Report, Subject};
use crate::config::PostgresqlSettings;
use std::fs;

/// Checks what starts a database beside us.
pub fn check_postgresql(subject: &Subject, name: &str, database: &PostgresqlSettings, report: &mut Report) {
    let mut area = report.area("boot");
    // Debian: each database cluster says whether it is started.
    let directory = database.data_dir.file_name().and_then(|name| name.to_str()).unwrap_or("main");
    let start = format!("etc/postgresql/{}/{directory}/start.conf", database.version);
    let word = fs::read_to_string(subject.system(&start)).ok().and_then(|text| start_word(&text));
    if word.as_deref() == Some("auto") {
        area.error(
            format!("/{start} says \"auto\": the system starts \"{name}\" at boot, beside oarlock"),
            format!("write \"disabled\" into it: echo disabled > /{start}"),
        );
    }
    // Red Hat: a unit for each version.
    for unit in ["postgresql.service".to_owned(), format!("postgresql-{}.service", database.version)] {
        let wanted = subject.system(&format!("etc/systemd/system/multi-user.target.wants/{unit}"));
        let debian = word.is_some();
        if !debian && wanted.symlink_metadata().is_ok() {
            area.error(
                format!("{unit} is enabled: the system starts a database at boot, beside oarlock"),
                format!("systemctl disable {unit}"),
            );
        }
    }
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
    fn the_word_is_found_among_comments() {
        assert_eq!(start_word("# auto\n\n  manual # by hand\n").as_deref(), Some("manual"));
        assert_eq!(start_word("auto"), Some("auto".to_owned()));
        assert_eq!(start_word("# nothing\n"), None);
    }
}
