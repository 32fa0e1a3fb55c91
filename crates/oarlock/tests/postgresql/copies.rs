//! Copies that are made, interrupted, or not made.

use crate::bench::{Bench, Node, insert, right};
use crate::failover::{SOON, join, pair, promote, serve_alone, streams};
use oarlock_core::ids::NodeId;
use oarlock_core::resource::database::{Data, DataCommand, DataObservation};
use std::fs;
use std::net::TcpListener;
use std::time::{Duration, Instant};

/// What lies beside the data directory, by the ends of the names.
fn beside(node: &Node) -> Vec<String> {
    let dir = node.settings.data_dir.parent().unwrap();
    let names = fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap());
    let mut names: Vec<String> = names.filter_map(|name| Some(name.strip_prefix("data.")?.to_owned())).collect();
    names.sort();
    names
}

/// A clone that is killed half way leaves nothing, and what was there before is still there.
#[tokio::test]
async fn an_interrupted_clone_leaves_what_was_there() {
    let Some((_bench, mut a, mut b)) = pair().await else { return };
    b.stop().await;
    let before = b.copy(DataCommand::Inspect).await;
    b.handle.send(DataCommand::Clone { from: a.id });
    let start = Instant::now();
    while !beside(&b).iter().any(|name| name == "oarlock-new") {
        assert!(start.elapsed() < SOON * 4);
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    b.kill().await;
    assert_eq!(b.copy(DataCommand::Inspect).await, before);
    assert_eq!(beside(&b), Vec::<String>::new());
    assert_ne!(b.copy(DataCommand::Clone { from: a.id }).await, before);
    assert_eq!(beside(&b), Vec::<String>::new());
    a.kill().await;
}

/// A rewind that cannot be done is followed by a clone; what only this copy had is saved once.
#[tokio::test]
async fn a_failed_rewind_and_a_clone_save_the_tail_once() {
    let Some((_bench, mut a, mut b)) = pair().await else { return };
    b.kill().await;
    assert!(insert(&a.client().await.unwrap(), 1, SOON).await);
    a.kill().await;
    b.done(DataCommand::Follow { upstream: a.id, epoch: 1 }, DataObservation::Started).await;
    promote(&mut b, 2).await;
    // A file that a rewind cannot replace.
    let obstacle = a.settings.data_dir.join("PG_VERSION");
    fs::remove_file(&obstacle).unwrap();
    fs::create_dir(&obstacle).unwrap();
    fs::write(obstacle.join("x"), "x").unwrap();
    let reason = a.failed(DataCommand::Rewind { from: b.id }).await;
    assert!(reason.contains("pg_rewind"), "{reason}");
    assert_eq!(a.ask(DataCommand::Inspect).await, DataObservation::Inspected(Data::Absent), "neither old nor new");
    a.copy(DataCommand::Clone { from: b.id }).await;
    let saved = beside(&a);
    assert!(saved.len() == 1 && saved[0].starts_with("divergent-"), "{saved:?}");
    let account = a.settings.data_dir.with_file_name(format!("data.{}", saved[0])).join("account.txt");
    assert!(fs::read_to_string(account).unwrap().contains("COMMIT"));
    a.done(DataCommand::Follow { upstream: b.id, epoch: 2 }, DataObservation::Started).await;
    b.until("standby streams", |b| streams(b, NodeId(1))).await;
    b.kill().await;
    a.kill().await;
}

/// Every member of three is waited for, not any of them.
#[tokio::test]
async fn all_of_three_are_waited_for() {
    let Some(bench) = Bench::new(3) else { return };
    let (mut a, mut b, mut c) = (bench.node(1), bench.node(2), bench.node(3));
    serve_alone(&mut a, 1).await;
    join(&mut b, &mut a, 1).await;
    a.guard(&[2], 1).await;
    join(&mut c, &mut a, 1).await;
    a.guard(&[2, 3], 1).await;
    let client = a.client().await.unwrap();
    assert!(insert(&client, 1, SOON).await);
    c.kill().await;
    assert!(!insert(&client, 2, Duration::from_millis(700)).await, "acknowledged by one of two");
    a.guard(&[2], 1).await;
    let client = a.client().await.unwrap();
    assert!(insert(&client, 3, SOON).await);
    b.kill().await;
    a.kill().await;
}

/// Things that stop a start are said with what can be done.
#[tokio::test]
async fn a_taken_port_is_named() {
    let Some(bench) = Bench::new(1) else { return };
    let mut a = bench.node(1);
    a.copy(DataCommand::Initialize).await;
    let taken = TcpListener::bind(("127.0.0.1", a.settings.port)).unwrap();
    let reason = a.failed(DataCommand::StartPrimary { guard: right(1) }).await;
    assert!(reason.contains(&format!("uses port {}", a.settings.port)), "{reason}");
    drop(taken);
    a.done(DataCommand::StartPrimary { guard: right(1) }, DataObservation::Started).await;
    a.kill().await;
}

/// A standby whose upstream is better reached otherwise goes there at once.
#[tokio::test]
async fn links_may_change() {
    let Some((bench, mut a, mut b)) = pair().await else { return };
    let mut members = bench.members.clone();
    members[0].links.insert(0, "127.0.0.2".parse().unwrap());
    b.handle.set_members(members);
    // Nothing listens at the first address: it is refused, and the second serves. The gap between the two
    // connections is shorter than a look at the primary, so the receiver itself is asked.
    b.until_receiver_at("127.0.0.2,127.0.0.1").await;
    a.forget();
    a.until("standby streams", |a| streams(a, NodeId(2))).await;
    b.kill().await;
    a.kill().await;
}
