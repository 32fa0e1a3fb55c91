//! Tests of the store, on real files.

mod crashes;
mod damage;
mod saving;
mod slow;

use std::path::Path;
use std::time::Duration;

use super::disk::{self, Disk, Found};
use super::format::Layout;
use super::writer::Write;
use super::{Owner, StoreId};

/// Small, so that every byte of every file can be tried.
const SMALL: Layout = Layout { slot_bytes: 160 };
const DEADLINE: Duration = Duration::from_secs(30);

fn owner() -> Owner {
    Owner { cluster: "test".to_owned(), node: "server1".to_owned() }
}

/// What opening a small store found.
#[derive(Debug, PartialEq, Eq)]
enum Outcome {
    Fresh,
    Intact(Vec<u8>),
    Doubtful(String),
}

fn open_small(directory: &Path) -> (Outcome, Option<Disk>, StoreId) {
    match disk::open(directory, &owner(), &SMALL).unwrap() {
        Found::Usable(disk, None) => (Outcome::Fresh, None, disk.id()),
        Found::Usable(disk, Some(record)) => {
            let id = disk.id();
            (Outcome::Intact(record), Some(disk), id)
        }
        Found::Doubtful(_, id, reason) => (Outcome::Doubtful(reason), None, id),
    }
}

/// A small store that acknowledged these records.
fn make_small(directory: &Path, records: &[&[u8]]) {
    let Found::Usable(mut disk, None) = disk::open(directory, &owner(), &SMALL).unwrap() else {
        panic!("not a new store");
    };
    for record in records {
        disk.write(record, &mut |_| ()).unwrap();
    }
}
