//! The voter's memory (votes, promises, what was in sync) and the certainty that it is the one that
//! belongs here. A memory that is damaged, gone, or was given up by the cluster is set aside, and
//! the voter begins with an empty one, as one whose identity is lost: the core has it let in anew.
//!
//! Two small files say what the store itself cannot know. `voter.lost`, beside the store, is
//! written before a store is set aside, so that a crash in between makes no innocent newcomer of a
//! voter that has forgotten. `voter.id`, beside the key and thus perhaps on another disk, names the
//! store that was made here, so that an emptied directory is no beginning either.

use crate::enrol::{VOTER_FILE, write_file};
use crate::store::{Loaded, Owner, Store, StoreError};
use serde::{Deserialize, Serialize};
use std::io;
use std::path::{Path, PathBuf};

const STORE: &str = "voter";
const LOST: &str = "voter.lost";

/// Where the memory is.
#[derive(Clone, Debug)]
pub struct Memory {
    state_dir: PathBuf,
    known: PathBuf,
}

/// Which store is worth nothing any more.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Note {
    store: String,
    reason: String,
}

/// Why the memory cannot be had. This says nothing about what is in it.
#[derive(Debug, thiserror::Error)]
pub enum MemoryError {
    /// The store.
    #[error("cannot open the voter's memory")]
    Store(#[from] StoreError),
    /// One of the files beside it.
    #[error("cannot {action} {}", path.display())]
    File {
        /// What was tried.
        action: &'static str,
        /// The file.
        path: PathBuf,
        /// Why it failed.
        #[source]
        source: io::Error,
    },
}

impl Memory {
    /// In these directories.
    pub fn new(state_dir: &Path, config_dir: &Path) -> Memory {
        Memory { state_dir: state_dir.to_owned(), known: config_dir.join(VOTER_FILE) }
    }

    /// Opens it. [`Loaded::Doubtful`] comes with a store that is empty and can be written to.
    ///
    /// # Errors
    /// When the disk refuses, or another process has it.
    pub fn open(&self, owner: &Owner) -> Result<(Store, Loaded), MemoryError> {
        let directory = self.state_dir.join(STORE);
        let note = self.note()?;
        let (store, loaded) = Store::open(&directory, owner)?;
        let id = store.id().to_string();
        let lost = match (&loaded, note) {
            (Loaded::Doubtful { reason }, _) => Some(Note { store: id.clone(), reason: reason.clone() }),
            (Loaded::Intact(_), Some(note)) if note.store == id => Some(note),
            (Loaded::Fresh, Some(note)) => Some(note),
            (Loaded::Fresh, None) => {
                let known = self.read(&self.known)?.filter(|known| known.trim() != id);
                known.map(|known| Note { store: known, reason: format!("nothing is left in {}", directory.display()) })
            }
            (Loaded::Intact(_), _) => None,
        };
        let Some(lost) = lost else {
            self.settle(&id)?;
            return Ok((store, loaded));
        };
        self.write_note(&lost)?;
        let doubtful = Loaded::Doubtful { reason: lost.reason };
        if loaded == Loaded::Fresh {
            return Ok((store, doubtful));
        }
        drop(store);
        let aside = Store::set_aside(&directory)?;
        tracing::warn!("the voter's memory was set aside in {}", aside.display());
        Ok((Store::open(&directory, owner)?.0, doubtful))
    }

    /// The memory in this store is worth nothing any more; the next [`Memory::open`] sets it aside.
    ///
    /// # Errors
    /// When the disk refuses.
    pub fn give_up(&self, store: &Store, reason: &str) -> Result<(), MemoryError> {
        self.write_note(&Note { store: store.id().to_string(), reason: reason.to_owned() })
    }

    /// The store of this identity belongs here, and no other is missed.
    fn settle(&self, id: &str) -> Result<(), MemoryError> {
        if self.read(&self.known)?.is_none_or(|known| known.trim() != id) {
            self.write(&self.known, format!("{id}\n").as_bytes())?;
        }
        let path = self.state_dir.join(LOST);
        match std::fs::remove_file(&path) {
            Err(source) if source.kind() != io::ErrorKind::NotFound => {
                Err(MemoryError::File { action: "remove", path, source })
            }
            _ => Ok(()),
        }
    }

    fn note(&self) -> Result<Option<Note>, MemoryError> {
        let path = self.state_dir.join(LOST);
        let text = self.read(&path)?;
        // It was written whole; damaged, it still says that something was lost here.
        Ok(text.map(|text| {
            serde_json::from_str(&text)
                .unwrap_or_else(|_| Note { store: String::new(), reason: format!("{} is damaged", path.display()) })
        }))
    }

    fn write_note(&self, note: &Note) -> Result<(), MemoryError> {
        let path = self.state_dir.join(LOST);
        let text = serde_json::to_vec(note).map_err(|error| MemoryError::File {
            action: "write",
            path: path.clone(),
            source: io::Error::other(error),
        })?;
        self.write(&path, &text)
    }

    fn write(&self, path: &Path, content: &[u8]) -> Result<(), MemoryError> {
        let failed = |source| MemoryError::File { action: "write", path: path.to_owned(), source };
        write_file(path, content, 0o600).map_err(failed)
    }

    fn read(&self, path: &Path) -> Result<Option<String>, MemoryError> {
        match std::fs::read(path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(source) => Err(MemoryError::File { action: "read", path: path.to_owned(), source }),
            Ok(bytes) => Ok(Some(String::from_utf8_lossy(&bytes).into_owned())),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::StoreEvent;
    use std::time::Duration;

    struct Place(tempfile::TempDir);

    impl Place {
        fn new() -> Place {
            Place(tempfile::tempdir().unwrap())
        }

        fn path(&self, name: &str) -> PathBuf {
            self.0.path().join(name)
        }

        fn memory(&self) -> Memory {
            Memory::new(&self.path("state"), &self.path("etc"))
        }

        fn open(&self) -> (Store, Loaded) {
            self.memory().open(&Owner { cluster: "c".to_owned(), node: "n".to_owned() }).unwrap()
        }

        fn is_doubtful(&self) -> bool {
            let (store, loaded) = self.open();
            assert!(store.close(Duration::from_secs(10)));
            matches!(loaded, Loaded::Doubtful { .. })
        }

        async fn save(&self) -> Loaded {
            let (mut store, loaded) = self.open();
            store.save(1, b"memory".to_vec());
            assert!(matches!(store.next().await, StoreEvent::Saved { ticket: 1 }));
            assert!(store.close(Duration::from_secs(10)));
            loaded
        }
    }

    #[tokio::test]
    async fn a_beginning_is_no_loss() {
        let place = Place::new();
        assert!(!place.is_doubtful());
        assert_eq!(place.save().await, Loaded::Fresh);
        assert_eq!(place.open().1, Loaded::Intact(b"memory".to_vec()));
    }

    #[tokio::test]
    async fn a_damaged_memory_stays_lost_until_another_is_saved() {
        let place = Place::new();
        place.save().await;
        std::fs::write(place.path("state/voter/marks"), b"x").unwrap();
        assert!(place.is_doubtful());
        assert!(place.is_doubtful(), "begun anew, but nothing saved yet");
        assert!(matches!(place.save().await, Loaded::Doubtful { .. }));
        assert!(!place.is_doubtful());
        assert!(!place.path("state").join(LOST).exists());
    }

    #[tokio::test]
    async fn an_emptied_directory_is_no_beginning() {
        let place = Place::new();
        place.save().await;
        std::fs::remove_dir_all(place.path("state")).unwrap();
        assert!(place.is_doubtful());
        assert!(place.is_doubtful());
    }

    #[tokio::test]
    async fn a_memory_that_was_given_up_is_set_aside() {
        let place = Place::new();
        place.save().await;
        let (store, _) = place.open();
        place.memory().give_up(&store, "replaced").unwrap();
        assert!(store.close(Duration::from_secs(10)));
        assert!(place.is_doubtful());
        assert!(matches!(place.save().await, Loaded::Doubtful { .. }));
        assert_eq!(place.open().1, Loaded::Intact(b"memory".to_vec()));
    }
}
