//! A disk that takes its time, fails, or takes the thread with it.

use std::io;
use std::sync::{Arc, mpsc};
use std::time::Duration;

use super::DEADLINE;
use crate::store::writer::{Answer, Write, Writer};
use crate::store::{Backend, SaveError, Store, StoreEvent, StoreId};

/// Writes when told to, with the outcome that it is told; tells what it was given.
struct Told {
    outcomes: mpsc::Receiver<Outcome>,
    given: tokio::sync::mpsc::UnboundedSender<Vec<u8>>,
}

enum Outcome {
    Written,
    Failed,
    Panic,
}

impl Write for Told {
    fn write(&mut self, record: &[u8], synced: &mut dyn FnMut(Duration)) -> Answer {
        self.given.send(record.to_vec()).unwrap();
        synced(Duration::from_millis(record.len() as u64));
        match self.outcomes.recv().unwrap() {
            Outcome::Written => Ok(()),
            Outcome::Failed => {
                let source = Arc::new(io::Error::from(io::ErrorKind::StorageFull));
                Err(SaveError::Disk { action: "write a slot", source })
            }
            Outcome::Panic => panic!("on purpose"),
        }
    }
}

fn store() -> (Store, mpsc::Sender<Outcome>, tokio::sync::mpsc::UnboundedReceiver<Vec<u8>>) {
    let (tell, outcomes) = mpsc::channel();
    let (given, records) = tokio::sync::mpsc::unbounded_channel();
    let (writer, answers) = Writer::start(Told { outcomes, given }).unwrap();
    (Store::new(StoreId([1; 16]), Backend::Writer(writer, answers)), tell, records)
}

async fn next(store: &mut Store) -> String {
    let event = tokio::time::timeout(DEADLINE, store.next()).await.unwrap();
    match event {
        StoreEvent::Saved { ticket } => format!("saved {ticket}"),
        StoreEvent::Failed { ticket, error } => format!("failed {ticket}: {error}"),
        StoreEvent::Stalled { for_ms } => format!("stalled for {} s", for_ms / 1000),
    }
}

/// The next answer, whatever is said of stalls before it: a busy machine's thread may take a second to answer.
async fn answer(store: &mut Store) -> String {
    loop {
        let event = next(store).await;
        if !event.starts_with("stalled") {
            return event;
        }
    }
}

#[tokio::test]
async fn while_the_disk_is_busy_only_the_newest_record_waits() {
    let (mut store, tell, mut records) = store();
    store.save(1, vec![1]);
    assert_eq!(records.recv().await, Some(vec![1]));
    for ticket in 2..=5 {
        store.save(ticket, vec![ticket as u8]);
    }
    tell.send(Outcome::Written).unwrap();
    assert_eq!(answer(&mut store).await, "saved 1");
    assert_eq!(records.recv().await, Some(vec![5]));
    store.save(6, vec![6]);
    tell.send(Outcome::Failed).unwrap();
    for ticket in 2..=5 {
        assert_eq!(answer(&mut store).await, format!("failed {ticket}: cannot write a slot"));
    }
    tell.send(Outcome::Written).unwrap();
    assert_eq!(answer(&mut store).await, "saved 6");
    assert_eq!(records.recv().await, Some(vec![6]));
    let latency = store.sync_latency();
    assert_eq!((latency.median, latency.max, latency.samples), (Duration::from_millis(1), Duration::from_millis(1), 3));
}

#[tokio::test]
async fn a_stalled_disk_is_reported_every_second_until_it_answers() {
    let (mut store, tell, _records) = store();
    store.save(1, vec![1]);
    store.save(2, vec![2]);
    // A busy machine may be late, never early.
    for seconds in 1..=2 {
        let event = next(&mut store).await;
        let reported: u64 = event.strip_prefix("stalled for ").unwrap().strip_suffix(" s").unwrap().parse().unwrap();
        assert!(reported >= seconds, "{event}");
    }
    tell.send(Outcome::Written).unwrap();
    assert_eq!(answer(&mut store).await, "saved 1");
    tell.send(Outcome::Written).unwrap();
    assert_eq!(answer(&mut store).await, "saved 2");
    drop(tell);
}

#[tokio::test]
async fn a_thread_that_dies_fails_all_its_tickets() {
    let (mut store, tell, mut records) = store();
    store.save(1, vec![1]);
    records.recv().await;
    store.save(2, vec![2]);
    tell.send(Outcome::Panic).unwrap();
    for ticket in 1..=2 {
        assert_eq!(answer(&mut store).await, format!("failed {ticket}: the thread that writes the store has ended"));
    }
    store.save(3, vec![3]);
    assert_eq!(answer(&mut store).await, "failed 3: the thread that writes the store has ended");
    assert!(store.close(DEADLINE));
}

#[test]
fn closing_does_not_wait_for_ever() {
    let (mut store, tell, _records) = store();
    store.save(1, vec![1]);
    assert!(!store.close(Duration::from_millis(50)));
    tell.send(Outcome::Written).unwrap();
}
