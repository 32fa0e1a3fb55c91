//! Saving and loading by the interface that the agent uses.

use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::time::Instant;

use super::{DEADLINE, owner};
use crate::store::{Loaded, MAX_RECORD_BYTES, Owner, SaveError, Store, StoreError, StoreEvent, StoreId};

fn open(directory: &Path) -> (Store, Loaded) {
    Store::open(directory, &owner()).unwrap()
}

async fn saved(store: &mut Store) -> u64 {
    loop {
        match tokio::time::timeout(DEADLINE, store.next()).await.unwrap() {
            StoreEvent::Saved { ticket } => return ticket,
            StoreEvent::Failed { ticket, error } => panic!("ticket {ticket}: {error}"),
            StoreEvent::Stalled { .. } => {}
        }
    }
}

#[tokio::test]
async fn remembers_the_last_record() {
    let directory = tempfile::tempdir().unwrap();
    let (mut store, loaded) = open(directory.path());
    assert_eq!(loaded, Loaded::Fresh);
    let id = store.id();
    for ticket in 0..5 {
        store.save(ticket, format!("record {ticket}").into_bytes());
        assert_eq!(saved(&mut store).await, ticket);
    }
    eprintln!("{:?}", store.sync_latency());
    assert!(store.close(DEADLINE));
    let (store, loaded) = open(directory.path());
    assert_eq!(loaded, Loaded::Intact(b"record 4".to_vec()));
    assert_eq!(store.id(), id);
}

#[tokio::test]
async fn answers_every_ticket_in_order_while_skipping_records() {
    let directory = tempfile::tempdir().unwrap();
    let (mut store, _) = open(directory.path());
    for ticket in 0..200 {
        store.save(ticket, vec![ticket as u8; 1000]);
    }
    for ticket in 0..200 {
        assert_eq!(saved(&mut store).await, ticket);
    }
    assert!(store.close(DEADLINE));
    assert_eq!(open(directory.path()).1, Loaded::Intact(vec![199; 1000]));
}

#[tokio::test]
async fn takes_records_of_every_size_up_to_the_limit() {
    let directory = tempfile::tempdir().unwrap();
    for (ticket, length) in [0, 1, 4096, 100_000, MAX_RECORD_BYTES].into_iter().enumerate() {
        let (mut store, _) = open(directory.path());
        store.save(ticket as u64, vec![7; length]);
        saved(&mut store).await;
        assert!(store.close(DEADLINE));
        let (store, loaded) = open(directory.path());
        assert_eq!(loaded, Loaded::Intact(vec![7; length]));
        assert!(store.close(DEADLINE));
    }
}

#[tokio::test]
async fn refuses_what_is_too_large_in_its_turn() {
    let directory = tempfile::tempdir().unwrap();
    let (mut store, _) = open(directory.path());
    store.save(1, b"fits".to_vec());
    store.save(2, vec![0; MAX_RECORD_BYTES + 1]);
    store.save(3, b"fits too".to_vec());
    assert_eq!(saved(&mut store).await, 1);
    let event = store.next().await;
    assert!(matches!(event, StoreEvent::Failed { ticket: 2, error: SaveError::TooLarge { .. } }), "{event:?}");
    assert_eq!(saved(&mut store).await, 3);
}

#[tokio::test]
async fn nothing_to_answer_waits_for_ever() {
    let directory = tempfile::tempdir().unwrap();
    let (mut store, _) = open(directory.path());
    assert!(tokio::time::timeout(std::time::Duration::from_millis(50), store.next()).await.is_err());
}

#[tokio::test]
async fn takes_no_new_space_for_a_save() {
    use std::os::unix::fs::MetadataExt;
    let directory = tempfile::tempdir().unwrap();
    let (mut store, _) = open(directory.path());
    let blocks = || {
        let files = std::fs::read_dir(directory.path()).unwrap();
        files.map(|file| file.unwrap().metadata().unwrap().blocks()).sum::<u64>()
    };
    let before = blocks();
    assert!(before * 512 >= 2 * MAX_RECORD_BYTES as u64, "{before} blocks");
    for ticket in 0..4 {
        store.save(ticket, vec![ticket as u8; MAX_RECORD_BYTES]);
        saved(&mut store).await;
    }
    assert_eq!(blocks(), before);
}

#[test]
fn two_agents_cannot_have_it() {
    let directory = tempfile::tempdir().unwrap();
    let (store, _) = open(directory.path());
    assert!(matches!(Store::open(directory.path(), &owner()), Err(StoreError::Locked { .. })));
    assert!(matches!(Store::set_aside(directory.path()), Err(StoreError::Locked { .. })));
    assert!(store.close(DEADLINE));
    assert!(Store::open(directory.path(), &owner()).is_ok());
}

#[test]
fn a_dropped_store_lets_go_soon() {
    let directory = tempfile::tempdir().unwrap();
    drop(open(directory.path()));
    let begun = Instant::now();
    while Store::open(directory.path(), &owner()).is_err() {
        assert!(begun.elapsed() < DEADLINE);
        std::thread::yield_now();
    }
}

#[tokio::test]
async fn what_was_submitted_is_written_even_if_the_store_is_closed_at_once() {
    let directory = tempfile::tempdir().unwrap();
    let (mut store, _) = open(directory.path());
    store.save(1, b"last words".to_vec());
    assert!(store.close(DEADLINE));
    assert_eq!(open(directory.path()).1, Loaded::Intact(b"last words".to_vec()));
}

#[test]
fn others_may_not_read_it() {
    let parent = tempfile::tempdir().unwrap();
    let directory = parent.path().join("lib/oarlock");
    let _store = open(&directory);
    let mode = |path: &Path| std::fs::metadata(path).unwrap().permissions().mode() & 0o777;
    assert_eq!(mode(&directory), 0o700);
    for file in std::fs::read_dir(&directory).unwrap() {
        assert_eq!(mode(&file.unwrap().path()), 0o600);
    }
}

#[tokio::test]
async fn state_of_another_owner_is_doubtful_and_takes_nothing() {
    let directory = tempfile::tempdir().unwrap();
    let (mut store, _) = open(directory.path());
    let id = store.id();
    store.save(1, b"mine".to_vec());
    saved(&mut store).await;
    assert!(store.close(DEADLINE));
    for owner in
        [Owner { cluster: "production".to_owned(), ..owner() }, Owner { node: "server2".to_owned(), ..owner() }]
    {
        let (mut store, loaded) = Store::open(directory.path(), &owner).unwrap();
        let Loaded::Doubtful { reason } = loaded else { panic!("{loaded:?}") };
        assert_eq!(reason, "it belongs to node \"server1\" of cluster \"test\"");
        assert_eq!(store.id(), id);
        store.save(5, b"theirs".to_vec());
        let event = store.next().await;
        assert!(matches!(event, StoreEvent::Failed { ticket: 5, error: SaveError::Doubtful }), "{event:?}");
    }
    assert_eq!(open(directory.path()).1, Loaded::Intact(b"mine".to_vec()));
}

#[tokio::test]
async fn set_aside_makes_room_for_a_new_identity_and_keeps_the_old_files() {
    let directory = tempfile::tempdir().unwrap();
    let mut ids: Vec<StoreId> = Vec::new();
    for round in 1..=3 {
        let (mut store, loaded) = open(directory.path());
        assert_eq!(loaded, Loaded::Fresh);
        assert!(!ids.contains(&store.id()));
        ids.push(store.id());
        store.save(1, vec![round; 10]);
        saved(&mut store).await;
        assert!(store.close(DEADLINE));
        let aside = Store::set_aside(directory.path()).unwrap();
        assert_eq!(aside, directory.path().join(format!("set-aside-{round}")));
        assert_eq!(open(&aside).1, Loaded::Intact(vec![round; 10]));
    }
}

#[test]
fn names_that_would_break_the_file_are_refused() {
    let directory = tempfile::tempdir().unwrap();
    let owner = Owner { node: "a\nstage ready".to_owned(), ..owner() };
    assert!(matches!(Store::open(directory.path(), &owner), Err(StoreError::Name { .. })));
}

#[test]
fn what_cannot_be_opened_is_an_error_not_a_verdict() {
    let directory = tempfile::tempdir().unwrap();
    assert!(open(directory.path()).0.close(DEADLINE));
    // A directory in the place of a file fails for root, too, unlike permissions.
    std::fs::rename(directory.path().join("slot-0"), directory.path().join("saved")).unwrap();
    std::fs::create_dir(directory.path().join("slot-0")).unwrap();
    let error = Store::open(directory.path(), &owner()).unwrap_err();
    assert!(matches!(&error, StoreError::File { action: "open", path, .. } if path.ends_with("slot-0")), "{error}");
    std::fs::remove_dir(directory.path().join("slot-0")).unwrap();
    std::fs::rename(directory.path().join("saved"), directory.path().join("slot-0")).unwrap();
    assert_eq!(open(directory.path()).1, Loaded::Fresh);

    let file = directory.path().join("saved");
    std::fs::write(&file, "").unwrap();
    let error = Store::open(&file, &owner()).unwrap_err();
    assert!(matches!(error, StoreError::File { action: "open directory", .. }), "{error}");
}
