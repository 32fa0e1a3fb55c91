//! The store, on real files.

use std::path::Path;

use super::*;

fn owner() -> Owner {
    Owner { cluster: "test".to_owned(), node: "server1".to_owned() }
}

fn open(directory: &Path) -> (Store, Loaded) {
    Store::open(directory, &owner()).unwrap()
}

const DEADLINE: Duration = Duration::from_secs(30);

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
