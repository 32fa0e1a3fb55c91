//! A crash at every byte of every step of a save, one after the other, for several saves and crashes in a row.
//!
//! What was acknowledged must be there, or what was being saved after it; nothing is ever doubtful.

use std::fs;
use std::path::Path;

use super::{Outcome, SMALL, make_small, open_small, owner};
use crate::store::format::{MARK_STRIDE, Mark, Stage, encode_identity, encode_mark, encode_slot, place};
use crate::store::writer::Write;
use crate::store::{Owner, StoreId};

/// Puts the first `length` bytes of what a step writes over what is there, as a crash in it leaves them.
fn tear(directory: &Path, file: &str, offset: usize, written: &[u8], length: usize) {
    let path = directory.join(file);
    let mut content = fs::read(&path).unwrap();
    content[offset..offset + length].copy_from_slice(&written[..length]);
    fs::write(path, content).unwrap();
}

/// The two steps of saving `record` as `generation`: file, offset, bytes.
fn steps(id: StoreId, generation: u64, record: &[u8]) -> [(String, usize, Vec<u8>); 2] {
    let (slot, hash) = encode_slot(id, generation, record);
    let mark = encode_mark(id, Mark { generation, hash });
    [(format!("slot-{}", place(generation)), 0, slot), ("marks".to_owned(), place(generation) * MARK_STRIDE, mark)]
}

fn copy(from: &Path, to: &Path) {
    for file in fs::read_dir(from).unwrap() {
        let file = file.unwrap();
        fs::copy(file.path(), to.join(file.file_name())).unwrap();
    }
}

#[test]
fn a_crash_anywhere_in_a_save_loses_nothing_that_was_acknowledged() {
    let origin = tempfile::tempdir().unwrap();
    make_small(origin.path(), &[b"first record", b"second", b"the third record"]);
    let id = open_small(origin.path()).2;
    let scratch = tempfile::tempdir().unwrap();
    let (old, new) = (b"the third record".to_vec(), b"the fourth".to_vec());
    let steps = steps(id, 5, &new);
    for step in 0..2 {
        let (file, offset, bytes) = &steps[step];
        for length in 0..=bytes.len() {
            copy(origin.path(), scratch.path());
            for (file, offset, bytes) in &steps[..step] {
                tear(scratch.path(), file, *offset, bytes, bytes.len());
            }
            tear(scratch.path(), file, *offset, bytes, length);
            let slot_is_whole = step == 1 || length == bytes.len();
            let expected = if slot_is_whole { &new } else { &old };
            let (outcome, disk, _) = open_small(scratch.path());
            assert_eq!(outcome, Outcome::Intact(expected.clone()), "step {step}, {length} bytes");
            crash_again(scratch.path(), disk.unwrap(), expected);
        }
    }
}

/// After the first crash: a save that is acknowledged, and another that is cut short.
fn crash_again(directory: &Path, mut disk: crate::store::disk::Disk, found: &[u8]) {
    let id = disk.id();
    let generation = disk.generation();
    drop(disk);
    // At once, without a save in between.
    let [(file, offset, bytes), _] = &steps(id, generation + 1, b"cut short");
    tear(directory, file, *offset, bytes, bytes.len() / 2);
    let (outcome, reopened, _) = open_small(directory);
    assert_eq!(outcome, Outcome::Intact(found.to_vec()));
    disk = reopened.unwrap();
    disk.write(b"acknowledged", &mut |_| ()).unwrap();
    let generation = disk.generation();
    drop(disk);
    let [(file, offset, bytes), _] = &steps(id, generation + 1, b"cut short again");
    tear(directory, file, *offset, bytes, bytes.len() - 1);
    assert_eq!(open_small(directory).0, Outcome::Intact(b"acknowledged".to_vec()));
}

/// A disk writes sectors in any order: each half of the slot may be the new one without the other.
#[test]
fn sectors_written_in_any_order_are_noticed() {
    let origin = tempfile::tempdir().unwrap();
    make_small(origin.path(), &[&[1; 80], &[2; 80]]);
    let id = open_small(origin.path()).2;
    let scratch = tempfile::tempdir().unwrap();
    let [(file, _, bytes), _] = &steps(id, 4, &[3; 80]);
    for start in 0..bytes.len() {
        for end in [start + 1, start + 16, bytes.len()] {
            let end = end.min(bytes.len());
            copy(origin.path(), scratch.path());
            tear(scratch.path(), file, start, &bytes[start..end], end - start);
            let outcome = open_small(scratch.path()).0;
            let whole = fs::read(scratch.path().join(file)).unwrap().starts_with(bytes);
            let expected = if whole { vec![3; 80] } else { vec![2; 80] };
            assert_eq!(outcome, Outcome::Intact(expected), "bytes {start}..{end}");
        }
    }
}

/// The making of a store, cut after every step: nothing was acknowledged, so the next opening makes it anew.
#[test]
fn a_crash_while_it_is_made_makes_it_again() {
    let whole = tempfile::tempdir().unwrap();
    make_small(whole.path(), &[]);
    let id = open_small(whole.path()).2;
    let making = encode_identity(Stage::Making, id, &owner());
    let files = ["slot-0", "slot-1", "marks"];
    for made in 0..=files.len() {
        for bytes in [0, 1, SMALL.slot_bytes / 2, SMALL.slot_bytes] {
            let cut = tempfile::tempdir().unwrap();
            fs::write(cut.path().join("identity"), &making).unwrap();
            for file in &files[..made] {
                let content = fs::read(whole.path().join(file)).unwrap();
                let length = if *file == files[made - 1] { bytes.min(content.len()) } else { content.len() };
                fs::write(cut.path().join(file), &content[..length]).unwrap();
            }
            let (outcome, _, new) = open_small(cut.path());
            assert_eq!(outcome, Outcome::Fresh);
            assert_ne!(new, id, "an identity is used once");
            assert_eq!(open_small(cut.path()).0, Outcome::Fresh);
        }
    }
    // Even before that, the identity itself.
    for length in 0..making.len() {
        let cut = tempfile::tempdir().unwrap();
        fs::write(cut.path().join("identity.new"), &making[..length]).unwrap();
        assert_eq!(open_small(cut.path()).0, Outcome::Fresh);
    }
    let foreign = encode_identity(Stage::Making, id, &Owner { node: "server2".to_owned(), ..owner() });
    fs::write(whole.path().join("identity"), foreign).unwrap();
    assert!(matches!(open_small(whole.path()).0, Outcome::Doubtful(_)));
}

/// The disk refuses the slot or the mark: the save fails, and the next one starts over.
#[test]
fn a_failed_save_does_not_harm_the_next() {
    let directory = tempfile::tempdir().unwrap();
    make_small(directory.path(), &[b"kept"]);
    let mut disk = open_small(directory.path()).1.unwrap();
    for number in 0..8_u8 {
        for broken in [0, 1] {
            // Open for reading only, it refuses to be written.
            let read_only = fs::File::open(directory.path().join("identity")).unwrap();
            let good = std::mem::replace(disk.next_files()[broken], read_only);
            let error = disk.write(&[number; 20], &mut |_| ()).unwrap_err();
            let action = ["write a slot", "write the commit mark"][broken];
            assert_eq!(error.to_string(), format!("cannot {action}"));
            // A failed mark leaves a slot that is good, so that another slot is next; the marks are one file.
            let place = if broken == 0 { 0 } else { 1 };
            *disk.next_files()[place] = good;
            if number % 3 == 0 {
                disk.write(&[number, broken as u8], &mut |_| ()).unwrap();
                let expected = Outcome::Intact(vec![number, broken as u8]);
                disk = reopen(directory.path(), disk, &expected);
            }
        }
    }
    disk.write(b"last", &mut |_| ()).unwrap();
    reopen(directory.path(), disk, &Outcome::Intact(b"last".to_vec()));
}

fn reopen(directory: &Path, disk: crate::store::disk::Disk, expected: &Outcome) -> crate::store::disk::Disk {
    drop(disk);
    let (outcome, disk, _) = open_small(directory);
    assert_eq!(outcome, *expected);
    disk.unwrap()
}
