//! The places beside the data directory, and the steps by which directories change places. Every
//! step is one rename, so that an interruption at any moment leaves something that is recognised.

use super::error::{PgError, Result};
use super::files;
use rustix::time::{ClockId, clock_gettime};
use std::ffi::OsString;
use std::fs::{self, File};
use std::path::{Path, PathBuf};

/// In a new directory that is complete and only has to take its place.
const COMPLETE: &str = "oarlock-complete";

/// Where things are. All names begin with that of the data directory and stay on its file system.
#[derive(Clone, Debug)]
pub(in crate::agents) struct Places {
    /// The data directory.
    pub data: PathBuf,
    /// A new one in the making.
    pub new: PathBuf,
    /// The former one, until the new one is in place: nothing in it is needed that was not saved.
    pub old: PathBuf,
    /// One that can go.
    trash: PathBuf,
    /// A file that says: the data directory is being rewound, it is neither old nor new. Beside
    /// it, because a rewind removes what the source has not.
    rewinding: PathBuf,
}

impl Places {
    pub fn of(data: &Path) -> Places {
        Places {
            data: data.to_owned(),
            new: beside(data, ".oarlock-new"),
            old: beside(data, ".oarlock-old"),
            trash: beside(data, ".oarlock-trash"),
            rewinding: beside(data, ".oarlock-rewinding"),
        }
    }

    /// Finishes or undoes what was interrupted; says what was done. Nothing runs here.
    pub fn tidy(&self) -> Result<Vec<String>> {
        let mut told = Vec::new();
        if self.rewinding.exists() {
            // What had diverged was saved before.
            if !is_absent_or_empty(&self.data)? {
                self.set_aside()?;
                told.push("a rewind was interrupted: that copy is given up for a clone".to_owned());
            }
            self.end_rewind()?;
        }
        if self.new.join(COMPLETE).exists() && is_absent_or_empty(&self.data)? {
            self.take_place()?;
            told.push("a new copy that was complete took its place".to_owned());
        }
        self.discard(&self.new)?;
        self.empty_trash()?;
        Ok(told)
    }

    /// Marks the new directory complete, durably.
    pub fn complete(&self) -> Result<()> {
        let marker = self.new.join(COMPLETE);
        File::create(&marker).and_then(|file| file.sync_all()).map_err(PgError::io("create", &marker))?;
        files::sync_parent(&marker)
    }

    /// The complete new directory becomes the data directory, whose place is free.
    pub fn take_place(&self) -> Result<()> {
        fs::rename(&self.new, &self.data).map_err(PgError::io("move into place", &self.new))?;
        files::sync_parent(&self.data)?;
        files::remove_file(&self.data.join(COMPLETE))
    }

    /// Frees the place of the data directory: it becomes `old`.
    pub fn set_aside(&self) -> Result<()> {
        if is_absent_or_empty(&self.data)? {
            return Ok(());
        }
        self.discard(&self.old)?;
        fs::rename(&self.data, &self.old).map_err(PgError::io("move aside", &self.data))?;
        files::sync_parent(&self.data)
    }

    /// From here on the data directory is neither the old copy nor the new one.
    pub fn begin_rewind(&self) -> Result<()> {
        let marker = &self.rewinding;
        File::create(marker).and_then(|file| file.sync_all()).map_err(PgError::io("create", marker))?;
        files::sync_parent(marker)
    }

    /// The rewound directory is whole again.
    pub fn end_rewind(&self) -> Result<()> {
        files::remove_file(&self.rewinding)?;
        files::sync_parent(&self.rewinding)
    }

    /// Lets a directory go: out of the way at once, removed after that.
    pub fn discard(&self, dir: &Path) -> Result<()> {
        if fs::symlink_metadata(dir).is_err() {
            return Ok(());
        }
        self.empty_trash()?;
        fs::rename(dir, &self.trash).map_err(PgError::io("move aside", dir))?;
        self.empty_trash()
    }

    fn empty_trash(&self) -> Result<()> {
        match fs::remove_dir_all(&self.trash) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                Err(PgError::io("remove", &self.trash)(error))
            }
            _ => Ok(()),
        }
    }
}

/// Whether nothing would be lost by putting something else there.
pub(in crate::agents) fn is_absent_or_empty(dir: &Path) -> Result<bool> {
    match fs::read_dir(dir) {
        Ok(mut entries) => Ok(entries.next().is_none()),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(true),
        Err(error) => Err(PgError::io("read", dir)(error)),
    }
}

/// `DIR` + `suffix`.
pub(in crate::agents) fn beside(dir: &Path, suffix: &str) -> PathBuf {
    let mut name: OsString = dir.file_name().unwrap_or_default().to_owned();
    name.push(suffix);
    dir.with_file_name(name)
}

/// `DIR.KIND-DATE`, one that is not there yet.
pub(in crate::agents) fn dated(dir: &Path, kind: &str) -> Result<PathBuf> {
    let base = beside(dir, &format!(".{kind}-{}", utc_now()));
    let numbered = |number: u32| beside(&base, &format!("-{number}"));
    let names = std::iter::once(base.clone()).chain((2..100).map(numbered));
    let free = names.into_iter().find(|name| fs::symlink_metadata(name).is_err());
    free.ok_or_else(|| PgError::other(format!("too many directories named like {}", base.display())))
}

/// Now, as `20261122T154108Z`: sorts by age.
pub(in crate::agents) fn utc_now() -> String {
    utc(clock_gettime(ClockId::Realtime).tv_sec)
}

fn utc(seconds: i64) -> String {
    let (days, rest) = (seconds.div_euclid(86_400), seconds.rem_euclid(86_400));
    // Days since 0000-03-01 in a calendar of 400-year cycles, where the leap day is a year's last.
    let shifted = days + 719_468;
    let (cycle, day) = (shifted.div_euclid(146_097), shifted.rem_euclid(146_097));
    let year = (day - day / 1_460 + day / 36_524 - day / 146_096) / 365;
    let day_of_year = day - (365 * year + year / 4 - year / 100);
    let month = (5 * day_of_year + 2) / 153;
    let (day, month) = (day_of_year - (153 * month + 2) / 5 + 1, if month < 10 { month + 3 } else { month - 9 });
    let year = year + cycle * 400 + i64::from(month <= 2);
    format!("{year:04}{month:02}{day:02}T{:02}{:02}{:02}Z", rest / 3600, rest / 60 % 60, rest % 60)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dates_are_right() {
        assert_eq!(utc(0), "19700101T000000Z");
        assert_eq!(utc(951_782_400), "20000229T000000Z");
        assert_eq!(utc(1_795_362_068), "20261122T154108Z");
    }

    #[test]
    fn a_complete_clone_takes_its_place() {
        let root = tempfile::tempdir().unwrap();
        let places = Places::of(&root.path().join("main"));
        fs::create_dir(&places.new).unwrap();
        fs::write(places.new.join("PG_VERSION"), "15").unwrap();
        assert_eq!(places.tidy().unwrap(), Vec::<String>::new());
        assert!(!places.new.exists() && !places.data.exists(), "half a clone is discarded");
        fs::create_dir(&places.new).unwrap();
        places.complete().unwrap();
        assert_eq!(places.tidy().unwrap().len(), 1);
        assert!(places.data.exists() && !places.new.exists() && !places.data.join(COMPLETE).exists());
    }

    #[test]
    fn a_complete_clone_never_replaces_data() {
        let root = tempfile::tempdir().unwrap();
        let places = Places::of(&root.path().join("main"));
        fs::create_dir(&places.data).unwrap();
        fs::write(places.data.join("PG_VERSION"), "15").unwrap();
        fs::create_dir(&places.new).unwrap();
        places.complete().unwrap();
        places.tidy().unwrap();
        assert!(places.data.join("PG_VERSION").exists() && !places.new.exists());
    }

    #[test]
    fn an_interrupted_rewind_is_moved_aside() {
        let root = tempfile::tempdir().unwrap();
        let places = Places::of(&root.path().join("main"));
        fs::create_dir(&places.data).unwrap();
        fs::write(places.data.join("PG_VERSION"), "15").unwrap();
        places.begin_rewind().unwrap();
        assert_eq!(places.tidy().unwrap().len(), 1);
        assert!(!places.data.exists() && places.old.exists() && !places.rewinding.exists());
    }
}
