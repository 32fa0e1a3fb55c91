//! What a copy has that the cluster's history has not: saved before it is overwritten.

use super::control::Control;
use super::copy;
use super::error::{PgError, Result};
use super::files;
use super::layout::{beside, dated};
use oarlock_core::ids::CopyId;
use oarlock_core::resource::database::Position;
use std::fs;
use std::path::{Path, PathBuf};

/// The word in the names of the directories.
pub(super) const KIND: &str = "divergent";

/// Where a copy's history leaves that of the primary.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Fork {
    /// On this timeline.
    pub timeline: u32,
    /// From this position on.
    pub position: Position,
}

/// Where `own` leaves `source`; `None` when both are the same history.
pub(super) fn fork(own: &History, source: &History) -> Option<Fork> {
    let mut common = None;
    for (ours, theirs) in own.timelines().zip(source.timelines()) {
        if ours.0 != theirs.0 {
            // Both left the former timeline at the same place, for different ones.
            return common;
        }
        if ours.1 != theirs.1 {
            return Some(Fork { timeline: ours.0, position: ours.1.min(theirs.1) });
        }
        common = Some(Fork { timeline: ours.0, position: ours.1 });
    }
    None
}

/// Timelines of a copy, as its history file lists them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct History {
    /// Former timelines and where each was left.
    pub past: Vec<(u32, Position)>,
    /// The timeline it is on.
    pub current: u32,
}

impl History {
    /// All timelines, oldest first, with where each ends.
    fn timelines(&self) -> impl Iterator<Item = (u32, Position)> {
        self.past.iter().copied().chain([(self.current, Position(u64::MAX))])
    }

    /// Parses a history file (of timeline `current`; empty for the first).
    pub fn parse(text: &str, current: u32) -> History {
        let past = text.lines().filter_map(|line| {
            let mut fields = line.split_whitespace();
            let number = fields.next()?.parse().ok()?;
            Some((number, super::control::parse_lsn(fields.next()?)?))
        });
        History { past: past.collect(), current }
    }
}

/// Copies the WAL from `fork` on, the control file and the histories into a dated directory beside
/// the data directory, with a readable account of it.
pub(super) fn save(data: &Path, control: &Control, fork: Fork, account: &str) -> Result<PathBuf> {
    let target = dated(data, KIND)?;
    let making = beside(&target, ".part");
    fs::create_dir_all(making.join("pg_wal")).map_err(PgError::io("create", &making))?;
    let wal = data.join("pg_wal");
    for entry in fs::read_dir(&wal).map_err(PgError::io("read", &wal))? {
        let entry = entry.map_err(PgError::io("read", &wal))?;
        let name = entry.file_name().to_string_lossy().into_owned();
        if name.ends_with(".history") || is_after(&name, fork, control.segment) {
            let to = making.join("pg_wal").join(&name);
            fs::copy(entry.path(), &to).map_err(PgError::io("save to", &to))?;
        }
    }
    for name in ["global/pg_control", "oarlock-copy-id", "backup_label"] {
        let from = data.join(name);
        if from.exists() {
            let to = making.join(Path::new(name).file_name().unwrap_or_default());
            fs::copy(&from, &to).map_err(PgError::io("save to", &to))?;
        }
    }
    fs::write(making.join("account.txt"), account).map_err(PgError::io("write", &making))?;
    sync_all(&making)?;
    fs::rename(&making, &target).map_err(PgError::io("rename", &making))?;
    files::sync_parent(&target)?;
    Ok(target)
}

/// Whether a WAL file holds anything at or after the fork. Its name is timeline, then number.
fn is_after(name: &str, fork: Fork, segment: u64) -> bool {
    let Some(digits) = name.get(..24).filter(|digits| digits.bytes().all(|byte| byte.is_ascii_hexdigit())) else {
        return false;
    };
    if name.len() > 24 && name.get(24..) != Some(".partial") {
        return false;
    }
    let number = |range| digits.get(range).and_then(|text| u64::from_str_radix(text, 16).ok()).unwrap_or(0);
    let (timeline, high, low) = (number(0..8), number(8..16), number(16..24));
    let segments_per_high = (1u64 << 32) / segment.max(1);
    timeline >= u64::from(fork.timeline) && high * segments_per_high + low >= fork.position.0 / segment.max(1)
}

fn sync_all(dir: &Path) -> Result<()> {
    for entry in fs::read_dir(dir).map_err(PgError::io("read", dir))? {
        let path = entry.map_err(PgError::io("read", dir))?.path();
        if path.is_dir() {
            sync_all(&path)?;
        } else {
            let file = fs::File::open(&path).map_err(PgError::io("open", &path))?;
            file.sync_all().map_err(PgError::io("flush", &path))?;
        }
    }
    files::sync_parent(&dir.join("."))
}

/// Where the tail of `copy` was saved before, if it was: a rewind that fails is followed by a clone.
pub(super) fn saved_of(data: &Path, copy: Option<CopyId>, node: &str) -> Result<Option<PathBuf>> {
    let Some(copy) = copy else { return Ok(None) };
    for dir in list(data)? {
        if copy::read(&dir, node)? == Some(copy) {
            return Ok(Some(dir));
        }
    }
    Ok(None)
}

/// Removes the oldest saved directories until all together are within the limit; never the newest.
/// Says what was removed.
pub(super) fn prune(data: &Path, limit_mib: u64) -> Result<Vec<String>> {
    let mut saved = list(data)?;
    let newest = saved.pop();
    let mut total: u64 = newest.as_deref().map_or(0, size);
    let mut told = Vec::new();
    // From the newest to the oldest, so that the oldest go first.
    while let Some(dir) = saved.pop() {
        total += size(&dir);
        if total > limit_mib * 1024 * 1024 {
            total -= size(&dir);
            fs::remove_dir_all(&dir).map_err(PgError::io("remove", &dir))?;
            told.push(format!("removed {}: saved tails took more than {limit_mib} MiB", dir.display()));
        }
    }
    Ok(told)
}

/// The saved directories, oldest first.
fn list(data: &Path) -> Result<Vec<PathBuf>> {
    let prefix = beside(data, &format!(".{KIND}-"));
    let prefix = prefix.file_name().unwrap_or_default().to_string_lossy().into_owned();
    let parent = data.parent().unwrap_or(Path::new("/"));
    let entries = fs::read_dir(parent).map_err(PgError::io("read", parent))?;
    let names = entries.filter_map(|entry| Some(entry.ok()?.path()));
    let named = |path: &PathBuf| path.file_name().is_some_and(|name| name.to_string_lossy().starts_with(&prefix));
    let mut found: Vec<PathBuf> = names.filter(named).collect();
    found.sort();
    Ok(found)
}

fn size(path: &Path) -> u64 {
    let Ok(metadata) = fs::symlink_metadata(path) else { return 0 };
    if !metadata.is_dir() {
        return metadata.len();
    }
    let entries = fs::read_dir(path).into_iter().flatten();
    entries.filter_map(|entry| Some(size(&entry.ok()?.path()))).sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    const SEGMENT: u64 = 16 * 1024 * 1024;

    fn history(past: &[(u32, u64)], current: u32) -> History {
        History { past: past.iter().map(|(number, end)| (*number, Position(*end))).collect(), current }
    }

    #[test]
    fn forks_are_found() {
        // The other was promoted from our timeline.
        let at = |timeline, position| Some(Fork { timeline, position: Position(position) });
        assert_eq!(fork(&history(&[], 1), &history(&[(1, 50)], 2)), at(1, 50));
        // Both were promoted from timeline 1, we later.
        assert_eq!(fork(&history(&[(1, 70)], 3), &history(&[(1, 50)], 2)), at(1, 50));
        // We were promoted earlier.
        assert_eq!(fork(&history(&[(1, 40)], 2), &history(&[(1, 50)], 3)), at(1, 40));
        // Both left timeline 1 at the same place, each for a timeline of its own.
        assert_eq!(fork(&history(&[(1, 50)], 2), &history(&[(1, 50)], 3)), at(1, 50));
        // Two timelines of the same number.
        assert_eq!(fork(&history(&[(1, 40)], 2), &history(&[(1, 50)], 2)), at(1, 40));
        // The same history.
        assert_eq!(fork(&history(&[(1, 40)], 2), &history(&[(1, 40)], 2)), None);
    }

    #[test]
    fn wal_after_the_fork_is_kept() {
        let fork = Fork { timeline: 2, position: Position(5 * SEGMENT + 17) };
        assert!(is_after("000000020000000000000005", fork, SEGMENT));
        assert!(is_after("000000020000000100000000", fork, SEGMENT));
        assert!(is_after("000000030000000000000005.partial", fork, SEGMENT));
        assert!(!is_after("000000020000000000000004", fork, SEGMENT));
        assert!(!is_after("000000010000000000000009", fork, SEGMENT));
        assert!(!is_after("000000020000000000000005.00000028.backup", fork, SEGMENT));
        assert!(!is_after("archive_status", fork, SEGMENT));
    }

    #[test]
    fn the_newest_is_never_removed() {
        let root = tempfile::tempdir().unwrap();
        let data = root.path().join("main");
        for date in ["20260101T000000Z", "20260102T000000Z", "20260103T000000Z"] {
            let dir = beside(&data, &format!(".{KIND}-{date}"));
            fs::create_dir(&dir).unwrap();
            fs::write(dir.join("wal"), vec![0; 900 * 1024]).unwrap();
        }
        assert_eq!(prune(&data, 1).unwrap().len(), 2);
        assert_eq!(list(&data).unwrap().len(), 1);
        assert_eq!(prune(&data, 0).unwrap().len(), 0);
        assert!(list(&data).unwrap()[0].display().to_string().ends_with("20260103T000000Z"));
    }
}
