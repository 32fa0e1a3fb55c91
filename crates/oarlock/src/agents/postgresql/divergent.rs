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
pub(in crate::agents) const KIND: &str = "divergent";

/// Where a copy's history leaves that of the primary.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Fork {
    /// On this timeline.
    pub timeline: u32,
    /// From this position on.
    pub position: Position,
}

/// Where `own` leaves `source`; `None` when both are the same history.
pub(super) fn fork(own: &History, source: &History) -> Option<Fork> {
    let mut common =
        Fork { timeline: own.timelines().next().map_or(own.current, |first| first.0), position: Position(0) };
    for (ours, theirs) in own.timelines().zip(source.timelines()) {
        if ours.0 != theirs.0 {
            // Both left the former timeline at the same place, for different ones.
            return Some(common);
        }
        if ours.1 != theirs.1 {
            return Some(Fork { timeline: ours.0, position: ours.1.min(theirs.1) });
        }
        common = Fork { timeline: ours.0, position: ours.1 };
    }
    None
}

/// Timelines of a copy, as its history file lists them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct History {
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

    /// The timelines from a fork on, and from where on each is of interest.
    pub fn after(&self, fork: Fork) -> Vec<(u32, Position)> {
        let begins = std::iter::once(Position(0)).chain(self.past.iter().map(|(_, end)| *end));
        let all = self.timelines().zip(begins).map(|((number, _), begin)| (number, begin.max(fork.position)));
        all.skip_while(|(number, _)| *number != fork.timeline).collect()
    }

    /// Where the current timeline began: that is where a history of it could first differ.
    pub fn newest(&self) -> Fork {
        Fork { timeline: self.current, position: self.past.last().map_or(Position(0), |(_, end)| *end) }
    }

    /// Parses a history file (of timeline `current`; empty for the first and only for that).
    pub fn parse(text: &str, current: u32) -> Result<History> {
        let mut past = Vec::new();
        // The last line may be the reason for which a timeline was left, which may be empty.
        for line in text.lines().filter(|line| !line.trim().is_empty() && !line.starts_with('#')) {
            let mut fields = line.split_whitespace();
            let number = fields.next().and_then(|field| field.parse().ok());
            let end = fields.next().and_then(super::control::parse_lsn);
            let (Some(number), Some(end)) = (number, end) else {
                return Err(PgError::other(format!("the history of timeline {current} says \"{line}\"")));
            };
            past.push((number, end));
        }
        if past.is_empty() != (current == 1) {
            return Err(PgError::other(format!("the history of timeline {current} names {} timelines", past.len())));
        }
        Ok(History { past, current })
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
pub(in crate::agents) fn saved_of(data: &Path, copy: Option<CopyId>, node: &str) -> Result<Option<PathBuf>> {
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
pub(in crate::agents) fn prune(data: &Path, limit_mib: u64) -> Result<Vec<String>> {
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
        // We are two timelines behind, and the one that was followed is not ours.
        assert_eq!(fork(&history(&[], 1), &history(&[(1, 50), (2, 60)], 3)), at(1, 50));
        assert_eq!(fork(&history(&[(1, 50)], 4), &history(&[(1, 50), (2, 60)], 3)), at(1, 50));
        // Nothing in common.
        assert_eq!(fork(&history(&[], 2), &history(&[(1, 50)], 3)), at(2, 0));
        // The same history.
        assert_eq!(fork(&history(&[(1, 40)], 2), &history(&[(1, 40)], 2)), None);
    }

    #[test]
    fn timelines_after_a_fork_begin_where_they_do() {
        let own = history(&[(1, 40), (2, 60)], 4);
        let after = |timeline, position| own.after(Fork { timeline, position: Position(position) });
        assert_eq!(after(2, 50), [(2, Position(50)), (4, Position(60))]);
        assert_eq!(after(1, 30), [(1, Position(30)), (2, Position(40)), (4, Position(60))]);
        assert_eq!(own.newest(), Fork { timeline: 4, position: Position(60) });
    }

    #[test]
    fn a_history_that_cannot_be_read_is_no_history() {
        assert_eq!(History::parse("", 1).unwrap(), history(&[], 1));
        let text = "1\t0/50\tno recovery target specified\n\n2\t0/60\tno recovery target specified\n";
        assert_eq!(History::parse(text, 3).unwrap(), history(&[(1, 0x50), (2, 0x60)], 3));
        assert!(History::parse("", 3).is_err(), "missing");
        assert!(History::parse("1\t0/5", 2).is_ok());
        assert!(History::parse("1\t", 2).is_err(), "cut off");
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
