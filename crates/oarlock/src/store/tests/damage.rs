//! Damage to what was acknowledged: a flipped bit, a cut, a missing file. It is noticed, or it did no harm; an older
//! record never passes for the last one, and a store in use never passes for a new one.

use std::fs;
use std::path::Path;

use super::{Outcome, make_small, open_small};
use crate::store::format::{FIRST_RECORD, MARK_STRIDE, encode_slot};
use crate::store::writer::Write;

const FILES: [&str; 4] = ["identity", "marks", "slot-0", "slot-1"];

fn copy(from: &Path, to: &Path) {
    for file in FILES {
        fs::copy(from.join(file), to.join(file)).unwrap();
    }
}

/// The outcomes allowed for a store whose last acknowledged record is `last`.
#[track_caller]
fn check(directory: &Path, last: &[u8], what: &str) -> bool {
    match open_small(directory).0 {
        Outcome::Fresh => panic!("{what}: passes for a new store"),
        Outcome::Intact(record) => {
            assert_eq!(record, last, "{what}: an older record passes for the last");
            true
        }
        Outcome::Doubtful(reason) => {
            assert!(!reason.is_empty());
            false
        }
    }
}

/// Stores whose last record is in the one slot and in the other.
fn stores() -> Vec<(tempfile::TempDir, Vec<u8>)> {
    let records: [&[u8]; 4] = [b"first", b"second", b"third", b"fourth and last"];
    let make = |count: usize| {
        let directory = tempfile::tempdir().unwrap();
        make_small(directory.path(), &records[..count]);
        (directory, records[count - 1].to_vec())
    };
    vec![make(1), make(4)]
}

#[test]
fn a_changed_byte_is_noticed_or_does_no_harm() {
    let scratch = tempfile::tempdir().unwrap();
    for (origin, last) in stores() {
        let (mut noticed, mut harmless) = (0, 0);
        for file in FILES {
            let content = fs::read(origin.path().join(file)).unwrap();
            // The rest of a page of marks is empty.
            let used = (0..content.len()).filter(|position| file != "marks" || position % MARK_STRIDE < 110);
            for position in used {
                copy(origin.path(), scratch.path());
                let mut damaged = content.clone();
                damaged[position] ^= 1 << (position % 8);
                fs::write(scratch.path().join(file), damaged).unwrap();
                match check(scratch.path(), &last, &format!("{file} at {position}")) {
                    true => harmless += 1,
                    false => noticed += 1,
                }
            }
        }
        assert!(noticed > 100 && harmless > 100, "{noticed} noticed, {harmless} harmless");
    }
}

#[test]
fn zeroed_or_swapped_files_are_noticed_or_do_no_harm() {
    let scratch = tempfile::tempdir().unwrap();
    for (origin, last) in stores() {
        for file in FILES {
            copy(origin.path(), scratch.path());
            let length = fs::read(origin.path().join(file)).unwrap().len();
            fs::write(scratch.path().join(file), vec![0; length]).unwrap();
            check(scratch.path(), &last, &format!("{file} zeroed"));
            for other in FILES {
                copy(origin.path(), scratch.path());
                fs::copy(origin.path().join(other), scratch.path().join(file)).unwrap();
                check(scratch.path(), &last, &format!("{file} replaced by {other}"));
            }
        }
        copy(origin.path(), scratch.path());
        fs::rename(scratch.path().join("slot-0"), scratch.path().join("slot")).unwrap();
        fs::rename(scratch.path().join("slot-1"), scratch.path().join("slot-0")).unwrap();
        fs::rename(scratch.path().join("slot"), scratch.path().join("slot-1")).unwrap();
        assert!(!check(scratch.path(), &last, "slots swapped"));
    }
}

/// A crash neither shortens nor removes a file: somebody did, so nothing here can be relied on.
#[test]
fn a_shortened_lengthened_or_missing_file_is_doubtful() {
    let scratch = tempfile::tempdir().unwrap();
    for (origin, last) in stores() {
        for file in FILES {
            let content = fs::read(origin.path().join(file)).unwrap();
            for length in (0..content.len()).filter(|length| file != "marks" || length % 97 == 0) {
                copy(origin.path(), scratch.path());
                fs::write(scratch.path().join(file), &content[..length]).unwrap();
                assert!(!check(scratch.path(), &last, &format!("{file} cut to {length} bytes")));
            }
            copy(origin.path(), scratch.path());
            fs::write(scratch.path().join(file), [&content[..], &[0]].concat()).unwrap();
            assert!(!check(scratch.path(), &last, &format!("{file} with a byte too many")));
            copy(origin.path(), scratch.path());
            fs::remove_file(scratch.path().join(file)).unwrap();
            assert!(!check(scratch.path(), &last, &format!("{file} removed")));
        }
        for kept in FILES {
            copy(origin.path(), scratch.path());
            FILES.into_iter().filter(|file| *file != kept).for_each(|file| {
                fs::remove_file(scratch.path().join(file)).unwrap();
            });
            assert!(!check(scratch.path(), &last, &format!("all but {kept} removed")));
        }
    }
}

/// One file put back to what it was some saves ago, as a careless restore or a lying disk leaves it.
#[test]
fn an_earlier_file_among_later_ones_is_noticed_or_does_no_harm() {
    let directory = tempfile::tempdir().unwrap();
    make_small(directory.path(), &[b"1"]);
    let mut past = Vec::new();
    let scratch = tempfile::tempdir().unwrap();
    for number in 2..10_u8 {
        past.push(FILES.map(|file| fs::read(directory.path().join(file)).unwrap()));
        let mut disk = open_small(directory.path()).1.unwrap();
        disk.write(&[number; 20], &mut |_| ()).unwrap();
        drop(disk);
        for (age, earlier) in past.iter().enumerate() {
            for (file, content) in FILES.iter().zip(earlier) {
                copy(directory.path(), scratch.path());
                fs::write(scratch.path().join(file), content).unwrap();
                check(scratch.path(), &[number; 20], &format!("{file} of save {age} after save {number}"));
            }
            // Both slots, but not the marks.
            copy(directory.path(), scratch.path());
            fs::write(scratch.path().join(FILES[2]), &earlier[2]).unwrap();
            fs::write(scratch.path().join(FILES[3]), &earlier[3]).unwrap();
            assert!(!check(scratch.path(), &[number; 20], "both slots put back"));
        }
    }
}

/// The last record and its mark damaged together look like the record before it; the pair of ruins tells.
#[test]
fn a_record_damaged_together_with_its_mark_is_doubtful() {
    let scratch = tempfile::tempdir().unwrap();
    for (origin, last) in stores() {
        for place in 0..2 {
            copy(origin.path(), scratch.path());
            for (file, position) in [(format!("slot-{place}"), 40), ("marks".to_owned(), place * MARK_STRIDE + 40)] {
                let mut content = fs::read(scratch.path().join(&file)).unwrap();
                content[position] ^= 1;
                fs::write(scratch.path().join(&file), content).unwrap();
            }
            assert!(!check(scratch.path(), &last, &format!("slot and mark {place}")));
        }
    }
}

/// A whole record of the right generation, but not the one that was committed.
#[test]
fn a_record_that_is_not_the_committed_one_is_doubtful() {
    let directory = tempfile::tempdir().unwrap();
    make_small(directory.path(), &[b"committed"]);
    let id = open_small(directory.path()).2;
    let mut content = fs::read(directory.path().join("slot-0")).unwrap();
    let (other, _) = encode_slot(id, FIRST_RECORD, b"another");
    content[..other.len()].copy_from_slice(&other);
    fs::write(directory.path().join("slot-0"), content).unwrap();
    assert!(!check(directory.path(), b"committed", "another record"));
}

#[test]
fn a_store_copied_from_another_is_doubtful() {
    let (first, second) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    make_small(first.path(), &[b"mine"]);
    make_small(second.path(), &[b"theirs"]);
    for file in FILES {
        let mine = fs::read(first.path().join(file)).unwrap();
        fs::copy(second.path().join(file), first.path().join(file)).unwrap();
        assert!(!matches!(open_small(first.path()).0, Outcome::Fresh), "{file}");
        if file != "slot-1" {
            // The other slot is not the last one saved: without it the last one is still proven.
            assert!(matches!(open_small(first.path()).0, Outcome::Doubtful(_)) || file == "marks", "{file}");
        }
        fs::write(first.path().join(file), mine).unwrap();
    }
}
