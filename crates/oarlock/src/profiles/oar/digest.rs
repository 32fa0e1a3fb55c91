//! What must be the same on all servers that take turns in running OAR, made comparable without
//! carrying it around.
//!
//! A digest of a file with a password in it lets its reader test guesses: it travels sealed only.

use super::check::Finding;
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};
use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

/// More files than all of OAR's configuration has.
const MAX_FILES: usize = 256;
/// Longer files are compared by their beginning, in bytes.
const MAX_BYTES: u64 = 1 << 20;
/// Deeper than any of these directories.
const MAX_DEPTH: usize = 4;

/// One machine's files.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct OarDigest {
    /// By path.
    files: BTreeMap<String, FileDigest>,
}

/// One file.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct FileDigest {
    sha256: [u8; 32],
    /// Permission bits.
    mode: u32,
    owner: u32,
    group: u32,
}

/// Files that are alike on all servers, and what becomes of a difference.
const PLACES: [(&str, &str); 3] = [
    ("etc/oar", "the server behaves differently after a takeover"),
    ("var/lib/oar/.ssh", "the server cannot reach its nodes, or they not it, after a takeover"),
    ("etc/ssh", "clients refuse the service name after a takeover because its ssh host key has changed"),
];

/// Digests this machine's files; `root` is `/`. Reads the disk: not for the agent's own thread.
/// What cannot be read counts as absent.
pub fn digest(root: &Path) -> OarDigest {
    let mut files = BTreeMap::new();
    for (place, _) in PLACES {
        let mut found = Vec::new();
        list(&root.join(place), 0, &mut found);
        for path in found {
            let Ok(name) = path.strip_prefix(root).map(|name| format!("/{}", name.display())) else { continue };
            if counts(place, &path)
                && files.len() < MAX_FILES
                && let Ok(file) = digest_file(&path)
            {
                files.insert(name, file);
            }
        }
    }
    OarDigest { files }
}

/// What differs between two servers, each with its name.
pub fn compare(a: (&str, &OarDigest), b: (&str, &OarDigest)) -> Vec<Finding> {
    let names: BTreeSet<&String> = a.1.files.keys().chain(b.1.files.keys()).collect();
    let mut findings = Vec::new();
    for name in names {
        let difference = match (a.1.files.get(name), b.1.files.get(name)) {
            (Some(ours), Some(theirs)) if ours == theirs => continue,
            (Some(ours), Some(theirs)) if ours.sha256 != theirs.sha256 => {
                format!("differs between {} and {}", a.0, b.0)
            }
            (Some(ours), Some(theirs)) => format!("{} on {}, {} on {}", ours.rights(), a.0, theirs.rights(), b.0),
            (Some(_), None) => format!("is on {}, not on {}", a.0, b.0),
            (None, _) => format!("is on {}, not on {}", b.0, a.0),
        };
        let place = PLACES.iter().find(|(place, _)| name[1..].starts_with(place));
        let consequence = place.map_or("", |(_, consequence)| *consequence);
        let text = format!("{name} {difference}: {consequence}");
        let hint = "copy it from the server that is right, with owner and mode (rsync -a)";
        findings.push(if is_host_key(name) { Finding::warning(text, hint) } else { Finding::error(text, hint) });
    }
    findings
}

impl FileDigest {
    fn rights(&self) -> String {
        format!("has owner {}:{} and mode {:04o}", self.owner, self.group, self.mode)
    }
}

fn is_host_key(name: &str) -> bool {
    name.starts_with("/etc/ssh/")
}

fn counts(place: &str, path: &Path) -> bool {
    let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
    match place {
        // Of ssh only what identifies the host; the private halves follow the public ones.
        "etc/ssh" => name.starts_with("ssh_host_") && name.ends_with(".pub"),
        // Grows by itself.
        "var/lib/oar/.ssh" => !name.starts_with("known_hosts"),
        // Left by editors and package upgrades.
        _ => !["~", ".dpkg-old", ".dpkg-dist", ".rpmsave", ".rpmnew", ".swp"].iter().any(|end| name.ends_with(end)),
    }
}

fn list(directory: &Path, depth: usize, into: &mut Vec<PathBuf>) {
    let Ok(entries) = fs::read_dir(directory) else { return };
    let mut paths: Vec<PathBuf> = entries.flatten().map(|entry| entry.path()).collect();
    paths.sort();
    for path in paths {
        match fs::metadata(&path) {
            Ok(metadata) if metadata.is_file() => into.push(path),
            Ok(metadata) if metadata.is_dir() && depth < MAX_DEPTH => list(&path, depth + 1, into),
            Ok(_) | Err(_) => {}
        }
    }
}

fn digest_file(path: &Path) -> io::Result<FileDigest> {
    let metadata = fs::metadata(path)?;
    let mut bytes = Vec::new();
    io::Read::read_to_end(&mut io::Read::take(fs::File::open(path)?, MAX_BYTES), &mut bytes)?;
    Ok(FileDigest {
        sha256: Sha256::digest(&bytes).into(),
        mode: metadata.mode() & 0o7777,
        owner: metadata.uid(),
        group: metadata.gid(),
    })
}

#[cfg(test)]
mod tests {
    use super::super::check::Severity;
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    fn machine() -> tempfile::TempDir {
        let root = tempfile::tempdir().unwrap();
        for (name, text) in [
            ("etc/oar/oar.conf", "DB_TYPE=Pg"),
            ("etc/oar/check.d/test", "x"),
            ("var/lib/oar/.ssh/id_rsa", "key"),
            ("var/lib/oar/.ssh/known_hosts", "grows"),
            ("etc/ssh/ssh_host_rsa_key.pub", "host"),
            ("etc/ssh/ssh_host_rsa_key", "private"),
            ("etc/ssh/sshd_config", "Port 22"),
        ] {
            fs::create_dir_all(root.path().join(name).parent().unwrap()).unwrap();
            fs::write(root.path().join(name), text).unwrap();
        }
        root
    }

    fn differences(change: impl FnOnce(&Path)) -> Vec<(Severity, String)> {
        let (one, other) = (machine(), machine());
        change(other.path());
        let (one, other) = (digest(one.path()), digest(other.path()));
        let start =
            |finding: Finding| (finding.severity, finding.text.split(": ").next().unwrap_or_default().to_owned());
        compare(("server1", &one), ("server2", &other)).into_iter().map(start).collect()
    }

    #[test]
    fn equal_machines_do_not_differ() {
        assert_eq!(differences(|_| {}), []);
        let files = digest(machine().path()).files;
        let expected =
            ["/etc/oar/check.d/test", "/etc/oar/oar.conf", "/etc/ssh/ssh_host_rsa_key.pub", "/var/lib/oar/.ssh/id_rsa"];
        assert_eq!(files.keys().collect::<Vec<_>>(), expected.iter().collect::<Vec<_>>());
    }

    #[test]
    fn differences_are_named() {
        let text = |text: &str| (Severity::Error, text.to_owned());
        let write = |name: &'static str| move |root: &Path| fs::write(root.join(name), "other").unwrap();
        assert_eq!(
            differences(write("etc/oar/oar.conf")),
            [text("/etc/oar/oar.conf differs between server1 and server2")]
        );
        assert_eq!(differences(write("etc/oar/new")), [text("/etc/oar/new is on server2, not on server1")]);
        assert_eq!(
            differences(|root| fs::remove_file(root.join("var/lib/oar/.ssh/id_rsa")).unwrap()),
            [text("/var/lib/oar/.ssh/id_rsa is on server1, not on server2")]
        );
        let key = "/etc/ssh/ssh_host_rsa_key.pub differs between server1 and server2".to_owned();
        assert_eq!(differences(write("etc/ssh/ssh_host_rsa_key.pub")), [(Severity::Warning, key)]);
    }

    #[test]
    fn other_rights_are_a_difference() {
        let found = differences(|root| {
            let open = fs::Permissions::from_mode(0o666);
            fs::set_permissions(root.join("etc/oar/oar.conf"), open).unwrap();
        });
        assert_eq!(found.len(), 1);
        assert!(found[0].1.ends_with("and mode 0666 on server2"), "{found:?}");
    }

    #[test]
    fn a_machine_without_oar_has_an_empty_digest() {
        assert_eq!(digest(Path::new("/no/such/root")), OarDigest::default());
    }
}
