//! The record on file: two slots written in turn, so that a sentinel killed while writing leaves
//! the older one whole. The file must be in memory; nothing is synced.
//!
//! A lease that is merely extended, each heartbeat, writes the new deadline alone: two cells at the
//! end of the record's slot, in turn. A successor must know it, or it would silence a node whose
//! lease is good. Why no wrong one can be taken for it: a cell names the record it extends, and
//! every other change, a lapse above all, is a whole record with a new number, which makes the
//! cells of the former void. A cell only ever holds a deadline that the sentinel had accepted for
//! that very record; a torn one fails its checksum and leaves the one before it, which is earlier,
//! and to lapse early is safe.

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
/// A later deadline: number of the record, deadline, checksum.
const CELL_BYTES: usize = 24;
/// Without the cells.
const RECORD_BYTES: usize = SLOT_BYTES - 2 * CELL_BYTES;

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
    /// The last whole record, with its deadline as extended since.
    saved: Option<Record>,
    /// Cells written.
    extended: u64,
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
        if newest.is_none() {
            // Numbers begin anew: no cell may be left that names one of them.
            for cell in [cell_offset(0, 0), cell_offset(1, 0)] {
                file.write_all_at(&[0; 2 * CELL_BYTES], cell)?;
            }
        }
        let mut document = newest.map(|(_, text)| serde_json::from_slice::<Document<Record>>(&text));
        if let Some(Ok(Document { record, .. })) = &mut document {
            let extended = [0, 1].into_iter().filter_map(|cell| read_cell(&file, sequence, cell)).max();
            record.deadline_us = record.deadline_us.map(|known| extended.map_or(known, |later| later.max(known)));
        }
        let found = match document {
            _ if new => Found::Nothing,
            Some(Ok(document)) if document.boot_id == boot_id => Found::Record(Box::new(document.record)),
            Some(Ok(_)) => Found::Nothing,
            Some(Err(_)) | None => Found::Doubtful,
        };
        Ok((Self { file, boot_id, sequence, saved: None, extended: 0 }, found))
    }

    /// Writes a record, or what has changed of it when that is only a later deadline.
    pub(super) fn save(&mut self, record: &Record) -> io::Result<()> {
        if let Some(deadline_us) = self.extension(record) {
            return self.extend(deadline_us);
        }
        // What is being written may be torn: no cell extends it before it is whole.
        self.saved = None;
        let document = Document { boot_id: self.boot_id.clone(), record };
        let mut slot = vec![0; HEADER_BYTES];
        serde_json::to_writer(&mut slot, &document)?;
        if slot.len() > RECORD_BYTES {
            let text = format!("record of {} bytes is longer than {RECORD_BYTES} bytes", slot.len());
            return Err(io::Error::new(io::ErrorKind::InvalidData, text));
        }
        self.sequence += 1;
        let (header, text) = slot.split_at_mut(HEADER_BYTES);
        header[..8].copy_from_slice(&MAGIC);
        header[8..16].copy_from_slice(&self.sequence.to_le_bytes());
        header[16..24].copy_from_slice(&(text.len() as u64).to_le_bytes());
        header[24..].copy_from_slice(&checksum(self.sequence, text).to_le_bytes());
        self.file.write_all_at(&slot, self.sequence % 2 * SLOT_BYTES as u64)?;
        self.saved = Some(record.clone());
        Ok(())
    }

    /// The deadline, when all else is as it was saved.
    fn extension(&mut self, record: &Record) -> Option<u64> {
        let (saved, deadline_us) = (self.saved.as_mut()?, record.deadline_us?);
        let before = saved.deadline_us.filter(|before| *before <= deadline_us)?;
        saved.deadline_us = Some(deadline_us);
        let is_one = saved == record;
        if !is_one {
            saved.deadline_us = Some(before);
        }
        is_one.then_some(deadline_us)
    }

    fn extend(&mut self, deadline_us: u64) -> io::Result<()> {
        self.extended += 1;
        let mut cell = [0; CELL_BYTES];
        cell[..8].copy_from_slice(&self.sequence.to_le_bytes());
        cell[8..16].copy_from_slice(&deadline_us.to_le_bytes());
        let sum = checksum(self.sequence, &cell[8..16]);
        cell[16..].copy_from_slice(&sum.to_le_bytes());
        self.file.write_all_at(&cell, cell_offset(self.sequence, self.extended % 2))
    }
}

fn cell_offset(sequence: u64, cell: u64) -> u64 {
    sequence % 2 * SLOT_BYTES as u64 + RECORD_BYTES as u64 + cell * CELL_BYTES as u64
}

/// The deadline in a cell, if it extends the record with this number.
fn read_cell(file: &File, sequence: u64, cell: u64) -> Option<u64> {
    let mut bytes = [0; CELL_BYTES];
    file.read_exact_at(&mut bytes, cell_offset(sequence, cell)).ok()?;
    let [named, deadline_us, sum] =
        [0, 8, 16].map(|at| bytes.get(at..at + 8).and_then(|part| Some(u64::from_le_bytes(part.try_into().ok()?))));
    (named? == sequence && sum? == checksum(sequence, &bytes[8..16])).then_some(deadline_us?)
}

fn read_slot(file: &File, slot: u64) -> Option<(u64, Vec<u8>)> {
    let offset = slot * SLOT_BYTES as u64;
    let mut header = [0; HEADER_BYTES];
    file.read_exact_at(&mut header, offset).ok()?;
    let number = |at: usize| Some(u64::from_le_bytes(header.get(at..at + 8)?.try_into().ok()?));
    let length = usize::try_from(number(16)?).ok()?;
    if header[..8] != MAGIC || length > RECORD_BYTES - HEADER_BYTES {
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

    fn lease(generation: u64, deadline_us: u64) -> Record {
        Record { deadline_us: Some(deadline_us), ..record(generation) }
    }

    fn found(path: &Path) -> Record {
        match open(path).1 {
            Found::Record(record) => *record,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn a_later_deadline_is_found_and_ends_with_its_record() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("state");
        let (mut store, _) = open(&path);
        for deadline_us in [100, 180, 260, 340] {
            store.save(&lease(1, deadline_us)).unwrap();
            assert_eq!(found(&path), lease(1, deadline_us));
        }
        assert_eq!(store.sequence, 1, "only the deadline was written");
        // An earlier one is a whole record, and so is a lapse.
        store.save(&lease(1, 300)).unwrap();
        assert_eq!(found(&path), lease(1, 300));
        store.save(&lease(1, 400)).unwrap();
        let lapsed = Record { lapsed_generation: 1, ..record(1) };
        store.save(&lapsed).unwrap();
        assert_eq!(found(&path), lapsed);
        // In the slot where the cells of the first record still are.
        store.save(&lease(2, 310)).unwrap();
        assert_eq!(found(&path), lease(2, 310));
        let (mut store, _) = open(&path);
        store.save(&lease(2, 500)).unwrap();
        assert_eq!(found(&path), lease(2, 500), "after an adoption");
    }

    #[test]
    fn a_torn_deadline_leaves_the_one_before() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("state");
        let (mut store, _) = open(&path);
        for deadline_us in [100, 180, 260] {
            store.save(&lease(1, deadline_us)).unwrap();
        }
        store.file.write_all_at(b"x", cell_offset(1, store.extended % 2) + 9).unwrap();
        assert_eq!(found(&path), lease(1, 180));
    }
}
