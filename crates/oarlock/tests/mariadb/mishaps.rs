//! What must not happen, and what the agent makes of what does.

use crate::bench::{Bench, SOON, insert, join, right, rows, serve_alone, serve_both, signal, streams};
use mysql_async::prelude::Queryable;
use oarlock_core::ids::NodeId;
use oarlock_core::resource::database::{Data, DataCommand, DataObservation, Running};
use rustix::process::Signal;
use std::fs;
use std::time::{Duration, Instant};

const A_WHILE: Duration = Duration::from_millis(700);

/// A guard that names a standby which is not there is never reported as set; and after a start no
/// commit is acknowledged before a guard was. A server that hangs is told to be sick.
#[tokio::test]
async fn nothing_is_acknowledged_without_a_proven_guard() {
    let Some(bench) = Bench::new() else { return };
    let mut a = bench.node(1);
    // What is not ours is left alone.
    let data = a.settings.data_dir.clone();
    a.done(DataCommand::Inspect, DataObservation::Inspected(Data::Absent)).await;
    fs::create_dir(&data).unwrap();
    fs::write(data.join("precious"), "x").unwrap();
    let answer = a.ask(DataCommand::Inspect).await;
    assert!(matches!(answer, DataObservation::Inspected(Data::Foreign { .. })), "{answer:?}");
    assert!(a.failed(DataCommand::Initialize).await.contains("not empty"));
    assert!(data.join("precious").exists());
    fs::remove_dir_all(&data).unwrap();

    serve_alone(&mut a, 1).await;
    let reason = a.failed(DataCommand::SetGuard { members: vec![NodeId(2)], epoch: 1 }).await;
    assert!(reason.contains("oarlock_1_2"), "{reason}");
    let mut client = a.client().await.unwrap();
    assert!(insert(&mut client, 1, SOON).await, "a guard that could not be set stalls nobody");

    a.until("well", |a| a.status.as_ref().is_some_and(|status| status.sick.is_none())).await;
    let server = a.server().await;
    signal(server, Signal::STOP);
    let start = Instant::now();
    a.until("sick", |a| a.sick()).await;
    println!("TIMES sick after {:.1?}: {:?}", start.elapsed(), a.status.as_ref().unwrap().sick);
    signal(server, Signal::CONT);
    a.until("well", |a| !a.sick()).await;

    a.done(DataCommand::Kill, DataObservation::Stopped).await;
    a.done(DataCommand::StartPrimary { guard: right(2) }, DataObservation::Started).await;
    assert_eq!(a.launcher.guard("db"), Some(right(2)));
    assert!(a.client().await.is_err(), "closed after a start");
    a.done(DataCommand::Open, DataObservation::Opened).await;
    let mut client = a.client().await.unwrap();
    assert!(!insert(&mut client, 2, A_WHILE).await, "acknowledged without a guard");
    a.guard(&[], 2).await;
    let mut client = a.client().await.unwrap();
    assert!(insert(&mut client, 3, SOON).await);
    assert_eq!(rows(&mut client).await, [1, 2, 3]);
    a.done(DataCommand::Kill, DataObservation::Stopped).await;
}

/// An agent that ends takes nothing with it; the next one finds everything as it was. A hand-over
/// to a standby that hangs changes nothing for anybody.
#[tokio::test]
async fn a_restarted_agent_adopts_the_server() {
    let Some(bench) = Bench::new() else { return };
    let (mut a, mut b) = (bench.node(1), bench.node(2));
    serve_alone(&mut a, 1).await;
    join(&mut b, &mut a, 1).await;
    a.guard(&[2], 1).await;
    let mut client = a.client().await.unwrap();
    assert!(insert(&mut client, 1, SOON).await);
    let (main, standby) = (a.server().await, b.server().await);
    a.restart_agent();
    b.restart_agent();
    for (node, expected) in [(&mut a, Running::Primary), (&mut b, Running::Standby)] {
        match node.ask(DataCommand::Inspect).await {
            DataObservation::Inspected(Data::Present { running, .. }) => assert_eq!(running, Some(expected)),
            other => panic!("{other:?}"),
        }
    }
    b.done(DataCommand::Follow { upstream: a.id, epoch: 1 }, DataObservation::Started).await;
    a.until("standby streams", |a| streams(a, NodeId(2))).await;
    assert!(insert(&mut client, 2, SOON).await, "the client's connection is the same");
    a.guard(&[2], 1).await;
    assert_eq!((a.server().await, b.server().await), (main, standby));

    signal(standby, Signal::STOP);
    let reason = a.failed(DataCommand::HandOver { standby: b.id }).await;
    println!("called off: {reason}");
    signal(standby, Signal::CONT);
    assert!(insert(&mut a.client().await.unwrap(), 3, SOON).await, "in service as before");

    signal(main, Signal::KILL);
    a.until("ended", |a| a.exited.is_some()).await;
    a.forget();
    a.done(DataCommand::StartPrimary { guard: right(2) }, DataObservation::Started).await;
    b.done(DataCommand::Follow { upstream: a.id, epoch: 2 }, DataObservation::Started).await;
    a.until("standby streams", |a| streams(a, NodeId(2))).await;
    a.guard(&[2], 2).await;
    a.done(DataCommand::Open, DataObservation::Opened).await;
    assert_eq!(rows(&mut a.client().await.unwrap()).await, [1, 2, 3]);
    // A standby's own writes would go unseen: readers may only read.
    b.done(DataCommand::Open, DataObservation::Opened).await;
    let mut reader = b.client().await.unwrap();
    assert!(!insert(&mut reader, 4, SOON).await, "a reader wrote on a standby");
    assert_eq!(rows(&mut reader).await, [1, 2, 3]);
    reader.query_drop("do 1").await.unwrap();
    b.done(DataCommand::Kill, DataObservation::Stopped).await;
    a.done(DataCommand::Kill, DataObservation::Stopped).await;
}

/// A kill that is told as failed and takes effect afterwards leaves no agent that believes in a server for ever.
#[tokio::test]
async fn a_kill_that_comes_late_is_noticed() {
    let Some(bench) = Bench::new() else { return };
    let (mut a, mut b) = (bench.node(1), bench.node(2));
    serve_both(&mut a, &mut b, 1).await;
    b.launcher.let_a_kill_be_late();
    b.failed(DataCommand::Kill).await;
    b.copy(DataCommand::Inspect).await;
    b.copy(DataCommand::Rewind { from: a.id }).await;
    b.done(DataCommand::Follow { upstream: a.id, epoch: 1 }, DataObservation::Started).await;
    a.until("standby streams", |a| streams(a, NodeId(2))).await;
}

/// What was killed and waits for a disk is stopped, but nobody else touches its directory before it is gone.
#[tokio::test]
async fn nothing_is_done_to_a_directory_before_its_last_writer_is_gone() {
    let Some(bench) = Bench::new() else { return };
    let (mut a, mut b) = (bench.node(1), bench.node(2));
    serve_both(&mut a, &mut b, 1).await;
    b.done(DataCommand::Kill, DataObservation::Stopped).await;
    for command in [DataCommand::Inspect, DataCommand::Rewind { from: a.id }] {
        b.launcher.let_linger(5);
        b.copy(command.clone()).await;
        assert_eq!(b.launcher.lingering(), 0, "{command:?} did not wait");
    }
    b.launcher.let_linger(5);
    b.done(DataCommand::Follow { upstream: a.id, epoch: 1 }, DataObservation::Started).await;
    assert_eq!(b.launcher.lingering(), 0, "a start did not wait");
    a.until("standby streams", |a| streams(a, NodeId(2))).await;
}
