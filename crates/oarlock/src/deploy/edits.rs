//! Changes of other programs' files, as functions from text to text.

use std::fmt::Write as _;
use std::net::IpAddr;

/// `/etc/hosts` with `name` meaning `address` and nothing else.
#[must_use]
pub fn hosts(text: &str, name: &str, address: IpAddr) -> String {
    let mut lines = Vec::new();
    let mut there = false;
    for line in text.lines() {
        let (entry, comment) = line.split_at(line.find('#').unwrap_or(line.len()));
        let words: Vec<&str> = entry.split_whitespace().collect();
        let own = words.first().and_then(|word| word.parse::<IpAddr>().ok()) == Some(address);
        if !words.iter().skip(1).any(|word| *word == name) {
            lines.push(line.to_owned());
        } else if own {
            there = true;
            lines.push(line.to_owned());
        } else {
            // Another address of that name; the other names of the line keep it.
            let rest: Vec<&str> = words.iter().copied().filter(|word| *word != name).collect();
            if rest.len() > 1 {
                lines.push(format!("{}\t{}{comment}", rest[0], rest[1..].join(" ")));
            }
        }
    }
    if !there {
        lines.push(format!("{address}\t{name}"));
    }
    lines.join("\n") + "\n"
}

/// A file of `KEY="value"` lines with some of them set: each where it stands last, at the end where it
/// does not stand. What a shell would read in the value is refused by the caller.
#[must_use]
pub fn settings(text: &str, set: &[(&str, &str)]) -> String {
    let mut lines: Vec<String> = text.lines().map(str::to_owned).collect();
    for (key, value) in set {
        let is_key = |line: &String| {
            let bare = line.trim_start();
            bare.strip_prefix(key).is_some_and(|rest| rest.trim_start().starts_with('='))
        };
        let wanted = format!("{key}=\"{value}\"");
        match lines.iter().rposition(is_key) {
            Some(last) => {
                let held = lines.get(last).is_some_and(|line| holds(line, value));
                if !held && let Some(line) = lines.get_mut(last) {
                    *line = wanted;
                }
            }
            None => lines.push(wanted),
        }
    }
    lines.join("\n") + "\n"
}

/// Whether a line has this value already, quoted or not.
fn holds(line: &str, value: &str) -> bool {
    let Some((_, found)) = line.split_once('=') else { return false };
    let found = found.split('#').next().unwrap_or_default().trim();
    found.trim_matches(['"', '\'']) == value
}

/// `start.conf` of one of Debian's database clusters: `disabled` when nobody but oarlock starts it, or `auto`.
#[must_use]
pub fn start(text: &str, word: &str) -> String {
    let comments = text.lines().filter(|line| line.trim_start().starts_with('#'));
    let kept: String = comments.map(|line| format!("{line}\n")).collect();
    kept + word + "\n"
}

/// Who may log in to which database from where.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Access<'a> {
    /// The database.
    pub database: &'a str,
    /// Roles.
    pub roles: &'a [&'a str],
    /// Network or host, with the length of its prefix.
    pub from: &'a [String],
}

/// `pg_hba.conf` that lets some in with their passwords, however these were hashed.
#[must_use]
pub fn access(text: &str, access: &Access<'_>) -> String {
    let mut text = text.to_owned();
    if !text.is_empty() && !text.ends_with('\n') {
        text.push('\n');
    }
    for from in access.from {
        let words = ["host", access.database, &access.roles.join(","), from, "md5"];
        let there = text.lines().any(|line| {
            let line = line.split('#').next().unwrap_or_default();
            line.split_whitespace().eq(words.iter().copied())
        });
        if !there {
            let _ = writeln!(text, "{}", words.join("\t"));
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_means_the_service_address_alone() {
        let address: IpAddr = "10.0.0.100".parse().unwrap();
        let text = "127.0.0.1 localhost\n10.0.0.1 server1 oar # old\n10.0.0.9\toar\n";
        let once = hosts(text, "oar", address);
        assert_eq!(once, "127.0.0.1 localhost\n10.0.0.1\tserver1# old\n10.0.0.100\toar\n");
        assert_eq!(hosts(&once, "oar", address), once);
        assert_eq!(hosts("", "oar", address), "10.0.0.100\toar\n");
        assert_eq!(hosts("10.0.0.100 vip oar\n", "oar", address), "10.0.0.100 vip oar\n");
    }

    #[test]
    fn settings_are_set_where_they_stand_last() {
        let text = "# oar\nDB_HOSTNAME=\"localhost\"\nDB_HOSTNAME=\"db\"\nDETACH_JOB_FROM_SERVER=1 # yes\n";
        let set = [("DB_HOSTNAME", "oar"), ("DETACH_JOB_FROM_SERVER", "1"), ("SERVER_HOSTNAME", "oar")];
        let once = settings(text, &set);
        let expected = "# oar\nDB_HOSTNAME=\"localhost\"\nDB_HOSTNAME=\"oar\"\nDETACH_JOB_FROM_SERVER=1 # yes\n\
            SERVER_HOSTNAME=\"oar\"\n";
        assert_eq!(once, expected);
        assert_eq!(settings(&once, &set), once);
    }

    #[test]
    fn a_commented_setting_does_not_count() {
        assert_eq!(settings("#A=\"1\"\nAB=2\n", &[("A", "1")]), "#A=\"1\"\nAB=2\nA=\"1\"\n");
    }

    #[test]
    fn nobody_else_starts_the_database() {
        assert_eq!(start("# auto, manual or disabled\nauto\n", "disabled"), "# auto, manual or disabled\ndisabled\n");
        assert_eq!(start("", "disabled"), "disabled\n");
    }

    #[test]
    fn access_is_added_once() {
        let from = ["10.0.0.0/24".to_owned(), "192.168.0.1/32".to_owned()];
        let wanted = Access { database: "oar", roles: &["oar", "oar_ro"], from: &from };
        let once = access("local all all peer", &wanted);
        assert_eq!(
            once,
            "local all all peer\nhost\toar\toar,oar_ro\t10.0.0.0/24\tmd5\nhost\toar\toar,oar_ro\t192.168.0.1/32\tmd5\n"
        );
        assert_eq!(access(&once, &wanted), once);
    }
}
