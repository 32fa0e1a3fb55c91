//! The whole life of two copies.

use crate::bench::{Bench, Node, SOON, insert, join, right, rows, serve_both, serve_new, signal, streams};
use mysql_async::prelude::Queryable;
use oarlock_core::ids::NodeId;
use oarlock_core::resource::database::{DataCommand, DataObservation, Running};
use rustix::process::Signal;
use std::collections::BTreeSet;
use std::fs;
use std::time::{Duration, Instant};

/// Time enough to see that a commit is not acknowledged.
const A_WHILE: Duration = Duration::from_millis(500);

#[tokio::test]
async fn a_failover_and_the_return_of_the_old_primary() {
    let Some(bench) = Bench::new() else { return };
    let (mut a, mut b) = (bench.node(1), bench.node(2));
    serve_new(&mut a, 1).await;
    join(&mut b, &mut a, 1).await;
    let position = a.guard(&[2], 1).await;
    a.until("confirmed", |a| {
        a.status.as_ref().is_some_and(|status| status.standbys.iter().any(|standby| standby.flushed >= position))
    })
    .await;
    let mut client = a.client().await.unwrap();
    for number in 0..5 {
        assert!(insert(&mut client, number, SOON).await, "acknowledged by both");
    }
    // What the standby confirmed and has not applied must survive its own crash too.
    let mut standby = b.admin().await;
    // It confirms before it applies.
    let start = Instant::now();
    while rows(&mut standby).await.len() < 5 && start.elapsed() < SOON {
        tokio::task::yield_now().await;
    }
    standby.query_drop("stop slave sql_thread").await.unwrap();
    for number in 5..10 {
        assert!(insert(&mut client, number, SOON).await, "acknowledged by both");
    }
    assert_eq!(rows(&mut standby).await, (0..5).collect::<Vec<_>>());
    b.done(DataCommand::Kill, DataObservation::Stopped).await;

    // What is written now stays on A alone, and is not acknowledged.
    assert!(!insert(&mut client, 99, A_WHILE).await, "acknowledged although the standby is gone");
    a.until("commits wait", |a| a.status.as_ref().is_some_and(|status| status.waiting_ms > 100)).await;
    a.done(DataCommand::Kill, DataObservation::Stopped).await;

    b.done(DataCommand::Follow { upstream: a.id, epoch: 1 }, DataObservation::Started).await;
    let start = Instant::now();
    b.done(DataCommand::Promote { guard: right(2) }, DataObservation::Promoted).await;
    let promoted = start.elapsed();
    assert_eq!(b.launcher.guard("db"), Some(right(2)));
    assert!(b.client().await.is_err(), "closed to clients");
    let start = Instant::now();
    b.guard(&[], 2).await;
    let unguarded = start.elapsed();
    let start = Instant::now();
    b.done(DataCommand::Open, DataObservation::Opened).await;
    println!("TIMES promote {promoted:.1?}, guard off {unguarded:.1?}, open {:.1?}", start.elapsed());
    let mut client = b.client().await.unwrap();
    assert_eq!(rows(&mut client).await, (0..10).collect::<Vec<_>>());
    assert!(insert(&mut client, 10, SOON).await);

    let before = a.copy(DataCommand::Inspect).await;
    let after = a.copy(DataCommand::Rewind { from: b.id }).await;
    assert_ne!(before, after, "what was replaced is another copy");
    let note = a.notes.iter().find(|note| note.contains("only this copy had")).expect("a saved tail");
    let saved = note.rsplit(' ').next().unwrap();
    let account = fs::read_to_string(format!("{saved}/account.txt")).unwrap();
    assert!(account.contains("mariadb-binlog") && account.contains("0-513-"), "{account}");
    a.done(DataCommand::Follow { upstream: b.id, epoch: 2 }, DataObservation::Started).await;
    b.until("old primary streams", |b| streams(b, NodeId(1))).await;
    b.guard(&[1], 2).await;
    assert!(insert(&mut client, 11, SOON).await);
    a.until("standby", |a| {
        a.status.as_ref().is_some_and(|status| status.running == Running::Standby && status.streaming)
    })
    .await;

    home_again(&mut a, &mut b).await;
    b.done(DataCommand::Stop, DataObservation::Stopped).await;
    a.done(DataCommand::Kill, DataObservation::Stopped).await;
}

/// A planned switch back to A, and B's return, which needs no clone.
async fn home_again(a: &mut Node, b: &mut Node) {
    a.forget();
    b.forget();
    let start = Instant::now();
    b.done(DataCommand::HandOver { standby: a.id }, DataObservation::Stopped).await;
    a.done(DataCommand::Promote { guard: right(3) }, DataObservation::Promoted).await;
    a.guard(&[], 3).await;
    a.done(DataCommand::Open, DataObservation::Opened).await;
    println!("TIMES switchover {:.1?}", start.elapsed());
    let mut client = a.client().await.unwrap();
    assert_eq!(rows(&mut client).await, (0..12).collect::<Vec<_>>());
    b.copy(DataCommand::Rewind { from: a.id }).await;
    assert!(!b.noted("only this copy had"), "a planned switchover leaves no tail");
    b.done(DataCommand::Follow { upstream: a.id, epoch: 3 }, DataObservation::Started).await;
    a.until("standby streams", |a| streams(a, NodeId(2))).await;
    a.guard(&[2], 3).await;
    assert!(insert(&mut client, 12, SOON).await);
}

/// The primary dies in the middle of its writers' work: what each was told is there, on the new primary and on
/// the old one when it has come back.
#[tokio::test]
async fn what_writers_were_told_survives_the_primary() {
    let Some(bench) = Bench::new() else { return };
    let (mut a, mut b) = (bench.node(1), bench.node(2));
    serve_both(&mut a, &mut b, 1).await;
    let mut writers = tokio::task::JoinSet::new();
    let (count, mut told) = tokio::sync::watch::channel(0);
    for writer in 0..4 {
        let mut client = a.client().await.unwrap();
        let count = count.clone();
        writers.spawn(async move {
            let mut acknowledged = Vec::new();
            for number in (writer * 1_000_000)..((writer + 1) * 1_000_000) {
                if !insert(&mut client, number, SOON).await {
                    break;
                }
                acknowledged.push(number);
                count.send_modify(|count| *count += 1);
            }
            acknowledged
        });
    }
    told.wait_for(|count| *count > 400).await.unwrap();
    signal(a.server().await, Signal::KILL);
    a.until("ended", |a| a.exited.is_some()).await;
    a.forget();
    b.done(DataCommand::Promote { guard: right(2) }, DataObservation::Promoted).await;
    b.guard(&[], 2).await;
    b.done(DataCommand::Open, DataObservation::Opened).await;
    let acknowledged: Vec<i32> = writers.join_all().await.into_iter().flatten().collect();
    let found: BTreeSet<i32> = rows(&mut b.client().await.unwrap()).await.into_iter().collect();
    let lost: Vec<&i32> = acknowledged.iter().filter(|number| !found.contains(number)).collect();
    assert!(lost.is_empty(), "{} of {} lost: {lost:?}", lost.len(), acknowledged.len());

    a.copy(DataCommand::Rewind { from: b.id }).await;
    a.done(DataCommand::Follow { upstream: b.id, epoch: 2 }, DataObservation::Started).await;
    b.until("old primary streams", |b| streams(b, NodeId(1))).await;
    b.guard(&[1], 2).await;
    b.done(DataCommand::Kill, DataObservation::Stopped).await;
    a.done(DataCommand::Promote { guard: right(3) }, DataObservation::Promoted).await;
    a.guard(&[], 3).await;
    a.done(DataCommand::Open, DataObservation::Opened).await;
    let after: BTreeSet<i32> = rows(&mut a.client().await.unwrap()).await.into_iter().collect();
    assert_eq!(after, found, "the copies differ");
    a.done(DataCommand::Kill, DataObservation::Stopped).await;
}

/// A standby comes back while clients write: the guard that makes it a member lets no commit wait for longer than
/// a confirmation takes.
#[tokio::test]
async fn a_standby_that_joins_holds_nobody_up() {
    let Some(bench) = Bench::new() else { return };
    let (mut a, mut b) = (bench.node(1), bench.node(2));
    serve_both(&mut a, &mut b, 1).await;
    b.done(DataCommand::Stop, DataObservation::Stopped).await;
    a.guard(&[], 1).await;
    let mut client = a.client().await.unwrap();
    let (stop, stopped) = tokio::sync::oneshot::channel::<()>();
    let writer = tokio::spawn(async move {
        let mut longest = Duration::ZERO;
        let mut number = 1_000;
        while !stop.is_closed() {
            let start = Instant::now();
            assert!(insert(&mut client, number, SOON).await);
            longest = longest.max(start.elapsed());
            number += 1;
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        longest
    });
    b.done(DataCommand::Follow { upstream: a.id, epoch: 1 }, DataObservation::Started).await;
    a.until("standby streams", |a| streams(a, NodeId(2))).await;
    let start = Instant::now();
    a.guard(&[2], 1).await;
    let joined = start.elapsed();
    tokio::time::sleep(Duration::from_millis(200)).await;
    drop(stopped);
    let longest = writer.await.unwrap();
    println!("TIMES joined after {joined:.1?}, longest commit {longest:.1?}");
    assert!(longest < Duration::from_millis(400), "{longest:?}");
}
