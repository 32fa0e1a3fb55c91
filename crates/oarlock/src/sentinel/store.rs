//! The record on file: two slots written in turn, so that a sentinel killed while writing leaves
//! the older one whole. The file must be in memory; nothing is synced.

use std::fs::File;
use std::io;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::Path;

use oarlock_core::sentinel::Record;
use rustix::fs::{FallocateFlags, fallocate};
use serde::{Deserialize, Serialize};

const MAGIC: [u8; 8] = *b"oarlock1";
/// Magic, sequence number, length of the text, checksum.
const HEADER_BYTES: usize = 32;
/// More than the largest record: 64 services and 64 addresses of some 300 bytes, 64 groups of 80.
const SLOT_BYTES: usize = 128 * 1024;

/// What is written: JSON, so that a newer sentinel reads an older one's.
#[derive(Serialize, Deserialize)]
struct Document<R> {
    boot_id: String,
    record: R,
}

/// What was found.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Found {
    /// The record of a sentinel of this boot.
    Record(Box<Record>),
    /// No sentinel ran since boot.
    Nothing,
    /// There is a file but no record in it can be read.
    Doubtful,
}

/// The open file.
#[derive(Debug)]
pub(super) struct Store {
    file: File,
    boot_id: String,
    sequence: u64,
}

impl Store {
    /// Opens the file and reads the newest whole record.
    pub(super) fn open(path: &Path, boot_id: String) -> io::Result<(Self, Found)> {
        let file = File::options().read(true).write(true).create(true).mode(0o600).truncate(false).open(path)?;
        let new = file.metadata()?.len() == 0;
        // Later writes need no new memory, which could be short just then.
        fallocate(&file, FallocateFlags::empty(), 0, 2 * SLOT_BYTES as u64)?;
        let newest = [0, 1].into_iter().filter_map(|slot| read_slot(&file, slot)).max_by_key(|(sequence, _)| *sequence);
        let sequence = newest.as_ref().map_or(0, |(sequence, _)| *sequence);
        let document = newest.map(|(_, text)| serde_json::from_slice::<Document<Record>>(&text));
        let found = match document {
            _ if new => Found::Nothing,
            Some(Ok(document)) if document.boot_id == boot_id => Found::Record(Box::new(document.record)),
            Some(Ok(_)) => Found::Nothing,
            Some(Err(_)) | None => Found::Doubtful,
        };
        Ok((Self { file, boot_id, sequence }, found))
    }

    /// Writes a record.
    pub(super) fn save(&mut self, record: &Record) -> io::Result<()> {
        let document = Document { boot_id: self.boot_id.clone(), record };
        let mut slot = vec![0; HEADER_BYTES];
        serde_json::to_writer(&mut slot, &document)?;
        if slot.len() > SLOT_BYTES {
            let text = format!("record of {} bytes is longer than {SLOT_BYTES} bytes", slot.len());
            return Err(io::Error::new(io::ErrorKind::InvalidData, text));
        }
        self.sequence += 1;
        let (header, text) = slot.split_at_mut(HEADER_BYTES);
        header[..8].copy_from_slice(&MAGIC);
        header[8..16].copy_from_slice(&self.sequence.to_le_bytes());
        header[16..24].copy_from_slice(&(text.len() as u64).to_le_bytes());
        header[24..].copy_from_slice(&checksum(self.sequence, text).to_le_bytes());
        self.file.write_all_at(&slot, self.sequence % 2 * SLOT_BYTES as u64)
    }
}

fn read_slot(file: &File, slot: u64) -> Option<(u64, Vec<u8>)> {
    let offset = slot * SLOT_BYTES as u64;
    let mut header = [0; HEADER_BYTES];
    file.read_exact_at(&mut header, offset).ok()?;
    let number = |at: usize| Some(u64::from_le_bytes(header.get(at..at + 8)?.try_into().ok()?));
    let length = usize::try_from(number(16)?).ok()?;
    if header[..8] != MAGIC || length > SLOT_BYTES - HEADER_BYTES {
        return None;
    }
    let mut text = vec![0; length];
    file.read_exact_at(&mut text, offset + HEADER_BYTES as u64).ok()?;
    let sequence = number(8)?;
    (number(24)? == checksum(sequence, &text)).then_some((sequence, text))
}

/// FNV-1a over 64 bits: it has to tell a torn write, not an attacker.
fn checksum(sequence: u64, text: &[u8]) -> u64 {
    let bytes = sequence.to_le_bytes();
    let all = bytes.iter().chain(text);
    all.fold(0xcbf2_9ce4_8422_2325, |hash, byte| (hash ^ u64::from(*byte)).wrapping_mul(0x100_0000_01b3))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(generation: u64) -> Record {
        Record { generation, ..Record::default() }
    }

    fn open(path: &Path) -> (Store, Found) {
        Store::open(path, "this boot".into()).unwrap()
    }

    #[test]
    fn the_newest_whole_record_of_this_boot_is_found() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("state");
        let (mut store, found) = open(&path);
        assert_eq!(found, Found::Nothing);
        for generation in 1..=5 {
            store.save(&record(generation)).unwrap();
        }
        assert_eq!(open(&path).1, Found::Record(Box::new(record(5))));
        let (_, other) = Store::open(&path, "another boot".into()).unwrap();
        assert_eq!(other, Found::Nothing);
    }

    #[test]
    fn a_torn_write_costs_only_itself() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("state");
        let (mut store, _) = open(&path);
        store.save(&record(1)).unwrap();
        store.save(&record(2)).unwrap();
        // The second write went to slot 0.
        store.file.write_all_at(b"x", HEADER_BYTES as u64 + 3).unwrap();
        assert_eq!(open(&path).1, Found::Record(Box::new(record(1))));
        store.file.write_all_at(b"x", (SLOT_BYTES + HEADER_BYTES) as u64 + 3).unwrap();
        assert_eq!(open(&path).1, Found::Doubtful);
    }
}
