//! The machine's own apt: where its mirror is, and the few tools the lab needs from it.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, bail};

use crate::deadline::{check, output};
use crate::suite::Suite;

/// How long one apt-get run may take.
const APT: Duration = Duration::from_secs(600);

/// One Debian archive the machine uses, already rewritten to the wanted suite.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Source {
    /// The archive's address.
    pub uri: String,
    /// The suite, for instance `bookworm-security`.
    pub suite: String,
    /// The keyring the machine trusts for it.
    pub keyring: PathBuf,
}

impl Source {
    /// The line for a sources.list.
    #[must_use]
    pub fn line(&self) -> String {
        format!("deb [signed-by={}] {} {} main", self.keyring.display(), self.uri, self.suite)
    }
}

/// The machine's Debian archives for `suite`, the base archive first.
pub fn sources(suite: Suite) -> Result<Vec<Source>> {
    let release = fs::read_to_string("/etc/os-release").context("cannot read /etc/os-release")?;
    let own = release
        .lines()
        .find_map(|line| line.strip_prefix("VERSION_CODENAME="))
        .context("/etc/os-release names no VERSION_CODENAME")?
        .trim_matches('"');
    let mut found = Vec::new();
    let mut files = vec![PathBuf::from("/etc/apt/sources.list")];
    if let Ok(dir) = fs::read_dir("/etc/apt/sources.list.d") {
        files.extend(dir.flatten().map(|entry| entry.path()));
    }
    for file in files {
        let Ok(text) = fs::read_to_string(&file) else {
            continue;
        };
        match file.extension().and_then(|e| e.to_str()) {
            Some("sources") => deb822(&text, own, suite, &mut found),
            Some("list") => one_line(&text, own, suite, &mut found),
            _ => {}
        }
    }
    let wanted = suite.to_string();
    found.sort_by_key(|source: &Source| source.suite.len());
    found.dedup();
    if found.first().map(|s| &s.suite) != Some(&wanted) {
        bail!(
            "no Debian archive for {own} in /etc/apt/sources.list or sources.list.d\nhint: the lab takes its mirror from there"
        );
    }
    Ok(found)
}

/// Entries in the form of paragraphs of `Key: value` lines.
fn deb822(text: &str, own: &str, wanted: Suite, found: &mut Vec<Source>) {
    for paragraph in text.split("\n\n") {
        let field =
            |name: &str| paragraph.lines().find_map(|l| l.strip_prefix(name)?.strip_prefix(':')).map_or("", str::trim);
        let has = |name: &str, word: &str| field(name).split_whitespace().any(|w| w == word);
        if !has("Types", "deb") || !has("Components", "main") || field("Enabled") == "no" {
            continue;
        }
        for suite in field("Suites").split_whitespace() {
            for uri in field("URIs").split_whitespace() {
                push(uri, suite, field("Signed-By"), own, wanted, found);
            }
        }
    }
}

/// Entries in the form `deb [options] uri suite component…`.
fn one_line(text: &str, own: &str, wanted: Suite, found: &mut Vec<Source>) {
    for line in text.lines() {
        let Some(rest) = line.trim().strip_prefix("deb ") else {
            continue;
        };
        let (options, rest) = match rest.trim().strip_prefix('[').and_then(|r| r.split_once(']')) {
            Some((options, rest)) => (options, rest),
            None => ("", rest),
        };
        let keyring = options.split_whitespace().find_map(|o| o.strip_prefix("signed-by="));
        let mut words = rest.split_whitespace();
        let (Some(uri), Some(suite)) = (words.next(), words.next()) else {
            continue;
        };
        if words.any(|word| word == "main") {
            push(uri, suite, keyring.unwrap_or(""), own, wanted, found);
        }
    }
}

fn push(uri: &str, suite: &str, keyring: &str, own: &str, wanted: Suite, found: &mut Vec<Source>) {
    let Some(pocket) = suite.strip_prefix(own).filter(|p| ["", "-updates", "-security"].contains(p)) else {
        return;
    };
    // Another vendor's archive may use Debian's suite names, but not under a Debian path.
    if !uri.contains("debian") {
        return;
    }
    let keyring = if keyring.starts_with('/') {
        PathBuf::from(keyring)
    } else {
        PathBuf::from("/usr/share/keyrings/debian-archive-keyring.gpg")
    };
    found.push(Source { uri: uri.trim_end_matches('/').to_owned(), suite: format!("{wanted}{pocket}"), keyring });
}

/// The machine's apt settings that a host root needs to reach the same mirror.
pub fn settings() -> Result<String> {
    let mut dump = Command::new("apt-config");
    let text = check(dump.arg("dump"), "cannot read apt's settings", Duration::from_secs(30))?;
    let wanted = ["Acquire::http::Proxy ", "Acquire::https::Proxy ", "Acquire::Check-"];
    Ok(text.lines().filter(|l| wanted.iter().any(|w| l.starts_with(w))).map(|l| format!("{l}\n")).collect())
}

/// Installs what is missing of the programs the lab runs on the machine itself.
pub fn ensure_tools() -> Result<()> {
    let tools = [("debootstrap", "debootstrap"), ("ip", "iproute2"), ("nft", "nftables"), ("nsenter", "util-linux")];
    let missing: Vec<&str> = tools.iter().filter(|(p, _)| !on_path(p)).map(|(_, package)| *package).collect();
    install(&missing)
}

/// Installs what is missing of the programs that make and look at packages.
pub fn ensure_packagers() -> Result<()> {
    let tools = [("rpmbuild", "rpm"), ("lintian", "lintian"), ("readelf", "binutils"), ("debootstrap", "debootstrap")];
    let missing: Vec<&str> = tools.iter().filter(|(p, _)| !on_path(p)).map(|(_, package)| *package).collect();
    install(&missing)
}

/// Installs what is missing of the programs that virtual machines take.
pub fn ensure_machine_tools() -> Result<()> {
    let tools =
        [("qemu-system-x86_64", "qemu-system-x86"), ("mke2fs", "e2fsprogs"), ("xz", "xz-utils"), ("zstd", "zstd")];
    let missing: Vec<&str> = tools.iter().filter(|(p, _)| !on_path(p)).map(|(_, package)| *package).collect();
    install(&missing)
}

/// Asked by packages before they start a service; with this answer they do not.
const POLICY: &str = "/usr/sbin/policy-rc.d";

/// Installs the database servers that tests run in directories of their own, where they are missing. No
/// service of theirs is started.
pub fn ensure_databases() -> Result<()> {
    let postgresql = std::fs::read_dir("/usr/lib/postgresql")
        .is_ok_and(|versions| versions.flatten().any(|version| version.path().join("bin/postgres").exists()));
    let wanted = [
        ("postgresql", postgresql),
        ("mariadb-server", on_path("mariadbd")),
        ("mariadb-backup", on_path("mariadb-backup")),
    ];
    let missing: Vec<&str> = wanted.iter().filter(|(_, there)| !there).map(|(package, _)| *package).collect();
    if missing.is_empty() {
        return Ok(());
    }
    // Another's answer, if there is one, stays as it is.
    let ours = !Path::new(POLICY).exists();
    if ours {
        use std::os::unix::fs::PermissionsExt;
        std::fs::write(POLICY, "#!/bin/sh\nexit 101\n")
            .and_then(|()| std::fs::set_permissions(POLICY, std::fs::Permissions::from_mode(0o755)))
            .with_context(|| format!("cannot write {POLICY}"))?;
    }
    let installed = install(&missing);
    if ours {
        std::fs::remove_file(POLICY).with_context(|| format!("cannot remove {POLICY}"))?;
    }
    installed
}

fn install(missing: &[&str]) -> Result<()> {
    if missing.is_empty() {
        return Ok(());
    }
    eprintln!("installing {}", missing.join(", "));
    let install = || {
        let mut apt = Command::new("apt-get");
        apt.env("DEBIAN_FRONTEND", "noninteractive");
        apt.args(["install", "-y", "--no-install-recommends"]).args(missing);
        apt
    };
    if output(&mut install(), None, APT)?.status.success() {
        return Ok(());
    }
    check(Command::new("apt-get").arg("update"), "apt-get update failed", APT)?;
    check(&mut install(), &format!("cannot install {}", missing.join(", ")), APT)?;
    Ok(())
}

fn on_path(program: &str) -> bool {
    ["/usr/sbin", "/usr/bin", "/sbin", "/bin"].iter().any(|dir| Path::new(dir).join(program).exists())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_forms_of_sources_are_read_and_rewritten_to_the_wanted_suite() {
        let mut found = Vec::new();
        let text = "Types: deb\nURIs: http://mirror.test/debian\nSuites: bookworm bookworm-updates\n\
                    Components: main\nSigned-By: /k.gpg\n\nTypes: deb\nURIs: http://other.test/node\n\
                    Suites: nodistro\nComponents: main\n";
        deb822(text, "bookworm", Suite::Trixie, &mut found);
        let list = "# deb http://no.test/debian bookworm main\n\
                    deb [arch=amd64 signed-by=/s.gpg] http://mirror.test/debian-security/ bookworm-security main contrib\n\
                    deb http://vendor.test/apt bookworm main\n";
        one_line(list, "bookworm", Suite::Trixie, &mut found);
        let lines: Vec<String> = found.iter().map(Source::line).collect();
        assert_eq!(
            lines,
            [
                "deb [signed-by=/k.gpg] http://mirror.test/debian trixie main",
                "deb [signed-by=/k.gpg] http://mirror.test/debian trixie-updates main",
                "deb [signed-by=/s.gpg] http://mirror.test/debian-security trixie-security main",
            ]
        );
    }
}
