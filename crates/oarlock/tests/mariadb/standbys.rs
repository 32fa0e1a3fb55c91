//! Standbys that are not what they should be, and what was confirmed by them.

use crate::bench::{Bench, Node, SOON, insert, right, rows, serve_both, signal, streams};
use mysql_async::Conn;
use mysql_async::prelude::Queryable;
use oarlock_core::ids::NodeId;
use oarlock_core::resource::database::{DataCommand, DataObservation};
use rustix::process::Signal;
use std::fs::{self, OpenOptions};
use std::net::TcpListener;
use std::time::Instant;

/// Waits until `node` shows the first `count` rows.
async fn applied(node: &Node, count: usize) -> Conn {
    let mut admin = node.admin().await;
    let start = Instant::now();
    while rows(&mut admin).await.len() < count {
        assert!(start.elapsed() < SOON, "{} does not apply", node.id);
        tokio::task::yield_now().await;
    }
    admin
}

async fn killed(node: &mut Node) {
    signal(node.server().await, Signal::KILL);
    node.until("ended", |node| node.exited.is_some()).await;
    node.forget();
}

/// `node` is promoted as the only member, and shows its rows.
async fn alone(node: &mut Node, epoch: u64) -> Vec<i32> {
    node.done(DataCommand::Promote { guard: right(epoch) }, DataObservation::Promoted).await;
    node.guard(&[], epoch).await;
    node.done(DataCommand::Open, DataObservation::Opened).await;
    rows(&mut node.client().await.unwrap()).await
}

/// A standby that lost its power while it wrote what it received: what it confirmed is there, and what is
/// torn stops nothing.
#[tokio::test]
async fn a_torn_relay_log_loses_nothing_that_was_confirmed() {
    let Some(bench) = Bench::new() else { return };
    let (mut a, mut b) = (bench.node(1), bench.node(2));
    serve_both(&mut a, &mut b, 1).await;
    let mut client = a.client().await.unwrap();
    applied(&b, 0).await.query_drop("stop slave sql_thread").await.unwrap();
    for number in 0..20 {
        assert!(insert(&mut client, number, SOON).await);
    }
    killed(&mut b).await;
    a.done(DataCommand::Kill, DataObservation::Stopped).await;
    // As if the last one had not been confirmed: half of its end is there.
    let mut logs: Vec<_> = fs::read_dir(&b.settings.data_dir).unwrap().map(|entry| entry.unwrap().path()).collect();
    logs.retain(|path| path.display().to_string().contains("oarlock-relay.0"));
    logs.sort();
    let last = OpenOptions::new().write(true).open(logs.last().unwrap()).unwrap();
    last.set_len(last.metadata().unwrap().len() - 10).unwrap();
    // Nobody is there: whoever asks for a connection waits.
    let silent = TcpListener::bind(("127.0.0.1", a.settings.port)).unwrap();
    b.done(DataCommand::Follow { upstream: a.id, epoch: 1 }, DataObservation::Started).await;
    assert!(b.noted("half an event"), "{:?}", b.notes);
    let found = alone(&mut b, 2).await;
    assert!(found == (0..19).collect::<Vec<_>>() || found == (0..20).collect::<Vec<_>>(), "{found:?}");
    drop(silent);
    b.done(DataCommand::Kill, DataObservation::Stopped).await;
}

/// Who may write on a standby makes it another: it is told, follows no more, and is replaced; what it
/// alone had is saved.
#[tokio::test]
async fn a_standby_that_was_written_to_is_given_up() {
    let Some(bench) = Bench::new() else { return };
    let (mut a, mut b) = (bench.node(1), bench.node(2));
    serve_both(&mut a, &mut b, 1).await;
    let mut client = a.client().await.unwrap();
    assert!(insert(&mut client, 1, SOON).await);
    applied(&b, 1).await.query_drop("insert into app.t values (1000)").await.unwrap();
    b.until("told", |b| b.noted("was written to")).await;
    a.until("missing", |a| !streams(a, NodeId(2))).await;
    a.guard(&[], 1).await;
    assert!(insert(&mut client, 2, SOON).await);
    // Started anew, or told to follow once more: it is no standby.
    b.done(DataCommand::Stop, DataObservation::Stopped).await;
    b.done(DataCommand::Follow { upstream: a.id, epoch: 1 }, DataObservation::Started).await;
    assert!(b.noted("does not follow"), "{:?}", b.notes);
    b.done(DataCommand::Stop, DataObservation::Stopped).await;
    b.copy(DataCommand::Clone { from: a.id }).await;
    assert!(b.noted("only this copy had 1 transactions"), "{:?}", b.notes);
    b.done(DataCommand::Follow { upstream: a.id, epoch: 1 }, DataObservation::Started).await;
    a.until("standby streams", |a| streams(a, NodeId(2))).await;
    a.guard(&[2], 1).await;
    assert_eq!(rows(&mut applied(&b, 2).await).await, [1, 2]);
    b.done(DataCommand::Kill, DataObservation::Stopped).await;
    a.done(DataCommand::Kill, DataObservation::Stopped).await;
}

/// What such a standby had confirmed before is not lost when it is all that is left.
#[tokio::test]
async fn a_write_on_a_standby_hides_nothing_that_was_confirmed() {
    let Some(bench) = Bench::new() else { return };
    let (mut a, mut b) = (bench.node(1), bench.node(2));
    serve_both(&mut a, &mut b, 1).await;
    let mut client = a.client().await.unwrap();
    assert!(insert(&mut client, 1, SOON).await);
    let mut admin = applied(&b, 1).await;
    admin.query_drop("stop slave sql_thread").await.unwrap();
    for number in 2..6 {
        assert!(insert(&mut client, number, SOON).await);
    }
    // Takes the number that the first of these bears.
    admin.query_drop("insert into app.t values (1000)").await.unwrap();
    a.done(DataCommand::Kill, DataObservation::Stopped).await;
    assert_eq!(alone(&mut b, 2).await, [1, 2, 3, 4, 5, 1000]);
    assert!(b.noted("no primary wrote"), "{:?}", b.notes);
    // A copy that would never be sent it is replaced.
    a.copy(DataCommand::Rewind { from: b.id }).await;
    a.done(DataCommand::Follow { upstream: b.id, epoch: 2 }, DataObservation::Started).await;
    b.until("standby streams", |b| streams(b, NodeId(1))).await;
    b.guard(&[1], 2).await;
    assert_eq!(rows(&mut applied(&a, 6).await).await, [1, 2, 3, 4, 5, 1000]);
    a.done(DataCommand::Kill, DataObservation::Stopped).await;
    b.done(DataCommand::Kill, DataObservation::Stopped).await;
}

/// A standby whose data differ cannot apply what it receives: it stops confirming, and is never promoted
/// with a part of it.
#[tokio::test]
async fn a_standby_that_cannot_apply_confirms_no_more() {
    let Some(bench) = Bench::new() else { return };
    let (mut a, mut b) = (bench.node(1), bench.node(2));
    serve_both(&mut a, &mut b, 1).await;
    let mut client = a.client().await.unwrap();
    assert!(insert(&mut client, 1, SOON).await);
    let mut admin = applied(&b, 1).await;
    admin.query_drop("set session sql_log_bin=0").await.unwrap();
    admin.query_drop("insert into app.t values (2)").await.unwrap();
    assert!(insert(&mut client, 2, SOON).await, "received is enough");
    b.until("told", |b| b.noted("cannot apply")).await;
    a.until("missing", |a| !streams(a, NodeId(2))).await;
    let reason = b.failed(DataCommand::Promote { guard: right(2) }).await;
    assert!(reason.contains("cannot be applied"), "{reason}");
    // The cause removed, all is there.
    b.done(DataCommand::Follow { upstream: a.id, epoch: 1 }, DataObservation::Started).await;
    let mut admin = b.admin().await;
    admin.query_drop("set session sql_log_bin=0").await.unwrap();
    admin.query_drop("delete from app.t where n = 2").await.unwrap();
    a.done(DataCommand::Kill, DataObservation::Stopped).await;
    assert_eq!(alone(&mut b, 2).await, [1, 2]);
    b.done(DataCommand::Kill, DataObservation::Stopped).await;
}
