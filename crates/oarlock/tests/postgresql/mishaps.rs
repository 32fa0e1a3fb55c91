//! What happens to a running server, and what the agent makes of it.

use crate::bench::{Bench, insert, right, rows, signal};
use crate::failover::{SOON, pair, serve_alone, streams};
use oarlock_core::ids::NodeId;
use oarlock_core::resource::database::{Data, DataCommand, DataObservation, Running};
use rustix::process::Signal;
use std::time::Instant;

/// An agent that ends takes nothing with it; the next one finds everything as it was.
#[tokio::test]
async fn a_restarted_agent_adopts_the_server() {
    let Some((_bench, mut a, mut b)) = pair().await else { return };
    a.guard(&[2], 1).await;
    let client = a.client().await.unwrap();
    assert!(insert(&client, 1, SOON).await);
    let (main, standby) = (a.postmaster().await, b.postmaster().await);
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
    assert!(insert(&client, 2, SOON).await, "the client's connection is the same");
    a.guard(&[2], 1).await;
    assert!(insert(&client, 3, SOON).await);
    assert_eq!((a.postmaster().await, b.postmaster().await), (main, standby));

    signal(&[main], Signal::KILL);
    a.until("ended", |a| a.exited.is_some()).await;
    a.forget();
    a.done(DataCommand::StartPrimary { guard: right(2) }, DataObservation::Started).await;
    b.done(DataCommand::Follow { upstream: a.id, epoch: 2 }, DataObservation::Started).await;
    a.until("standby streams", |a| streams(a, NodeId(2))).await;
    a.guard(&[2], 2).await;
    a.done(DataCommand::Open, DataObservation::Opened).await;
    assert_eq!(rows(&a.client().await.unwrap()).await, [1, 2, 3]);
    signal(&[b.postmaster().await], Signal::INT);
    b.until("ended", |b| b.exited.is_some()).await;
    assert!(b.exited.as_deref().unwrap().contains("exit code 0"), "a clean end that nobody asked for is one too");
    a.kill().await;
}

/// A server that hangs, as a whole or only its main process, is told to be sick, and well again.
#[tokio::test]
async fn a_frozen_server_is_sick() {
    let Some(bench) = Bench::new(1) else { return };
    let mut a = bench.node(1);
    serve_alone(&mut a, 1).await;
    a.until("well", |a| a.status.as_ref().is_some_and(|status| status.sick.is_none())).await;
    for frozen in [a.processes().await, vec![a.postmaster().await]] {
        signal(&frozen, Signal::STOP);
        let start = Instant::now();
        a.until("sick", |a| a.sick()).await;
        println!("TIMES sick after {:.1?}: {:?}", start.elapsed(), a.status.as_ref().unwrap().sick);
        assert!(start.elapsed() < a.settings.timing.probe_deadline * 3);
        signal(&frozen, Signal::CONT);
        a.until("well", |a| !a.sick()).await;
    }
    let frozen = a.processes().await;
    signal(&frozen, Signal::STOP);
    a.kill().await;
}

/// A hand-over that cannot be done changes nothing for anybody.
#[tokio::test]
async fn a_hand_over_to_a_deaf_standby_is_called_off() {
    let Some((_bench, mut a, mut b)) = pair().await else { return };
    a.guard(&[2], 1).await;
    let client = a.client().await.unwrap();
    assert!(insert(&client, 1, SOON).await);
    let standby = b.processes().await;
    signal(&standby, Signal::STOP);
    // This one waits for the deaf standby, and is answered by it in the end.
    let waiting = tokio::spawn(async move { insert(&client, 2, SOON * 4).await });
    a.until("commit waits", |a| a.status.as_ref().is_some_and(|status| status.waiting_ms > 0)).await;
    let reason = a.failed(DataCommand::HandOver { standby: b.id }).await;
    assert!(reason.contains("no answer within"), "{reason}");
    assert!(a.client().await.is_err(), "what clients saw is not on the standby yet");
    signal(&standby, Signal::CONT);
    assert!(waiting.await.unwrap(), "a commit that waited was not ended");
    a.until("open again", |a| a.notes.iter().any(|note| note.contains("let in again"))).await;
    let client = a.client().await.unwrap();
    assert!(insert(&client, 3, SOON).await);
    assert_eq!(rows(&client).await, [1, 2, 3]);
    a.done(DataCommand::HandOver { standby: b.id }, DataObservation::Stopped).await;
    b.done(DataCommand::Promote { guard: right(2) }, DataObservation::Promoted).await;
    b.done(DataCommand::Open, DataObservation::Opened).await;
    assert_eq!(rows(&b.client().await.unwrap()).await, [1, 2, 3]);
    b.kill().await;
}

/// A kill that is told as failed and takes effect afterwards leaves no agent that believes in a server for ever.
#[tokio::test]
async fn a_kill_that_comes_late_is_noticed() {
    let Some((_bench, mut a, mut b)) = pair().await else { return };
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
    let Some((_bench, mut a, mut b)) = pair().await else { return };
    b.done(DataCommand::Kill, DataObservation::Stopped).await;
    for command in [DataCommand::Inspect, DataCommand::Rewind { from: a.id }, DataCommand::Clone { from: a.id }] {
        b.launcher.let_linger(5);
        b.copy(command.clone()).await;
        assert_eq!(b.launcher.lingering(), 0, "{command:?} did not wait");
    }
    b.launcher.let_linger(5);
    b.done(DataCommand::Follow { upstream: a.id, epoch: 1 }, DataObservation::Started).await;
    assert_eq!(b.launcher.lingering(), 0, "a start did not wait");
    a.until("standby streams", |a| streams(a, NodeId(2))).await;
}
