//! What a voter must not forget: one record, replaced as a whole, that survives a crash at any instant.
//!
//! Two slots are written in turn, each with a generation and a checksum. A record counts only when a second, separate
//! commit mark says so, after the record itself has reached the disk. So a record torn by a crash, which nobody was ever
//! told of, is told from one that was acknowledged and later damaged: the first is forgotten, the second means that this
//! voter has lost its identity ([`Loaded::Doubtful`]). All space is taken at creation: a full disk stops no save.
//!
//! Writing happens on a thread of its own; [`Store::save`] never waits. What this directory cannot know is that it was
//! emptied, or put back to an earlier state, as a whole: for that the cluster remembers [`Store::id`].
//!
//! ```text
//! format    bytes on disk, and the verdict on them (pure)
//! disk      the files: made, locked, read, written
//! writer    the thread
//! latency   how long the disk takes
//! ```

mod disk;
pub(crate) mod format;
mod latency;
mod writer;

#[cfg(test)]
mod tests;

use std::collections::VecDeque;
use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::mpsc;

pub use format::MAX_RECORD_BYTES;
pub use latency::SyncLatency;

use disk::Found;
use writer::Writer;

/// A save that takes longer than this is reported, and again after each further such time.
const STALLED_AFTER: Duration = Duration::from_secs(1);

/// Whose state a store holds. State of another owner is never used.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Owner {
    /// Name of the cluster.
    pub cluster: String,
    /// Name of the node.
    pub node: String,
}

/// Random name of a store, made when it is created: the identity of the voter whose state it holds.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct StoreId(pub [u8; 16]);

impl fmt::Display for StoreId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for StoreId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "StoreId({self})")
    }
}

/// What a store held when it was opened.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Loaded {
    /// Nothing was ever acknowledged here: a new store.
    Fresh,
    /// The last record that was acknowledged, or one that was being saved after it.
    Intact(Vec<u8>),
    /// A record that was acknowledged may be lost. Every save will fail; see [`Store::set_aside`].
    Doubtful {
        /// What was found.
        reason: String,
    },
}

/// What became of the saves.
#[derive(Debug, Clone)]
pub enum StoreEvent {
    /// The record of this ticket, or a later one, is on the disk.
    Saved {
        /// The ticket.
        ticket: u64,
    },
    /// It is unknown whether the record of this ticket is on the disk.
    Failed {
        /// The ticket.
        ticket: u64,
        /// Why.
        error: SaveError,
    },
    /// The oldest unanswered ticket is still unanswered.
    Stalled {
        /// Since when, in milliseconds.
        for_ms: u64,
    },
}

/// Why a record was not saved.
#[derive(Debug, Clone, thiserror::Error)]
pub enum SaveError {
    /// The record exceeds [`MAX_RECORD_BYTES`].
    #[error("record of {bytes} bytes, expected at most {MAX_RECORD_BYTES} bytes")]
    TooLarge {
        /// Its length.
        bytes: usize,
    },
    /// The store is doubtful.
    #[error("this store is doubtful and takes no records\n  hint: the node must be added again under a new identity")]
    Doubtful,
    /// The disk refused.
    #[error("cannot {action}")]
    Disk {
        /// What was tried.
        action: &'static str,
        /// Why it failed.
        #[source]
        source: Arc<io::Error>,
    },
    /// The thread that writes is gone.
    #[error("the thread that writes the store has ended")]
    Ended,
}

/// Why a store could not be opened. This says nothing about the state in it.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// Another process has it open.
    #[error("store {directory} is in use by another process\n  hint: is another agent running?")]
    Locked {
        /// The directory.
        directory: PathBuf,
    },
    /// The operating system refused.
    #[error("store: cannot {action} {path}")]
    File {
        /// What was tried.
        action: &'static str,
        /// The file or directory.
        path: PathBuf,
        /// Why it failed.
        #[source]
        source: io::Error,
    },
    /// The cluster or the node has a name that cannot be written down.
    #[error("name {name:?} has a control character")]
    Name {
        /// The name.
        name: String,
    },
    /// No random bytes for the identity of a new store.
    #[error("cannot make a store")]
    Randomness(#[source] crate::keys::KeyError),
}

/// An open store. At most one process has it open.
#[derive(Debug)]
pub struct Store {
    id: StoreId,
    backend: Backend,
    unanswered: VecDeque<Unanswered>,
    stalled_at: Option<Instant>,
}

#[derive(Debug)]
enum Backend {
    Writer(Writer, mpsc::UnboundedReceiver<writer::Answer>),
    /// Keeps the lock, so that two agents do not both think about what to do.
    Doubtful(#[allow(dead_code, reason = "held for its lock")] disk::Lock),
}

#[derive(Debug)]
struct Unanswered {
    ticket: u64,
    since: Instant,
    /// Refused before it came to writing; answered in its turn.
    refused: Option<SaveError>,
}

impl Store {
    /// Opens the store in `directory`, or makes one there. May take as long as the disk does.
    pub fn open(directory: &Path, owner: &Owner) -> Result<(Self, Loaded), StoreError> {
        match disk::open(directory, owner, &format::Layout::default())? {
            Found::Usable(disk, record) => {
                let id = disk.id();
                let (writer, answers) = Writer::start(disk).map_err(|source| StoreError::File {
                    action: "start the writing thread of",
                    path: directory.to_owned(),
                    source,
                })?;
                let loaded = record.map_or(Loaded::Fresh, Loaded::Intact);
                Ok((Self::new(id, Backend::Writer(writer, answers)), loaded))
            }
            Found::Doubtful(lock, id, reason) => {
                Ok((Self::new(id, Backend::Doubtful(lock)), Loaded::Doubtful { reason }))
            }
        }
    }

    fn new(id: StoreId, backend: Backend) -> Self {
        Self { id, backend, unanswered: VecDeque::new(), stalled_at: None }
    }

    /// Moves the files of a store that is not open into a directory beside them, so that the next
    /// [`Store::open`] makes a new store with a new identity. Gives that directory.
    pub fn set_aside(directory: &Path) -> Result<PathBuf, StoreError> {
        disk::set_aside(directory)
    }

    /// The identity of the voter whose state this is. Of a doubtful store: what it was as far as known, else zero.
    pub fn id(&self) -> StoreId {
        self.id
    }

    /// Saves `record` in place of all earlier ones. Never waits; [`Store::next`] tells the outcome, ticket by ticket in
    /// the order given. Records that wait while the disk is busy are skipped for the newest one, and their tickets
    /// answered with it.
    pub fn save(&mut self, ticket: u64, record: Vec<u8>) {
        let refused = match &self.backend {
            Backend::Doubtful(_) => Some(SaveError::Doubtful),
            Backend::Writer(..) if record.len() > MAX_RECORD_BYTES => Some(SaveError::TooLarge { bytes: record.len() }),
            Backend::Writer(writer, _) => {
                writer.submit(record);
                None
            }
        };
        let since = Instant::now();
        self.unanswered.push_back(Unanswered { ticket, since, refused });
    }

    /// The next outcome. Dropping the future loses nothing. Waits for ever while there is nothing to answer.
    pub async fn next(&mut self) -> StoreEvent {
        let Some(oldest) = self.unanswered.front() else { return std::future::pending().await };
        if oldest.refused.is_some() {
            return self.answer(Ok(()));
        }
        let stalled_at = self.stalled_at.unwrap_or(oldest.since) + STALLED_AFTER;
        let Backend::Writer(_, answers) = &mut self.backend else { return self.answer(Err(SaveError::Doubtful)) };
        tokio::select! {
            biased;
            answer = answers.recv() => self.answer(answer.unwrap_or(Err(SaveError::Ended))),
            () = tokio::time::sleep_until(stalled_at.into()) => {
                let for_ms = oldest.since.elapsed().as_millis() as u64;
                self.stalled_at = Some(Instant::now());
                StoreEvent::Stalled { for_ms }
            }
        }
    }

    fn answer(&mut self, answer: writer::Answer) -> StoreEvent {
        self.stalled_at = None;
        let Some(Unanswered { ticket, refused, .. }) = self.unanswered.pop_front() else {
            return StoreEvent::Stalled { for_ms: 0 };
        };
        match refused.map_or(answer, Err) {
            Ok(()) => StoreEvent::Saved { ticket },
            Err(error) => StoreEvent::Failed { ticket, error },
        }
    }

    /// How long the disk took to sync, recently.
    pub fn sync_latency(&self) -> SyncLatency {
        match &self.backend {
            Backend::Writer(writer, _) => writer.latency(),
            Backend::Doubtful(_) => SyncLatency::default(),
        }
    }

    /// Ends the writing thread and gives up the lock, after what was submitted is written. False if the disk did not
    /// let go in time; the lock is then given up when it does. Without it, dropping the store does the same without
    /// waiting.
    pub fn close(self, deadline: Duration) -> bool {
        match self.backend {
            Backend::Writer(writer, _) => writer.close(deadline),
            Backend::Doubtful(_) => true,
        }
    }
}
