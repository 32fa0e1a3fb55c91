//! Clones that do not come to their end.

use crate::bench::{Bench, SOON, insert, right, rows, serve_alone, signal, streams};
use oarlock_core::ids::NodeId;
use oarlock_core::resource::database::{Data, DataCommand, DataObservation};
use rustix::process::Signal;
use std::path::PathBuf;
use std::time::Instant;

/// The primary's server dies while it is copied, then the agent of the copy: nothing is left of either, and
/// the next clone is as good as the first.
#[tokio::test]
async fn a_clone_that_breaks_off_leaves_nothing() {
    let Some(bench) = Bench::new() else { return };
    let (mut a, mut b) = (bench.node(1), bench.node(2));
    serve_alone(&mut a, 1).await;
    let mut client = a.client().await.unwrap();
    assert!(insert(&mut client, 1, SOON).await);
    let new = PathBuf::from(format!("{}.oarlock-new", b.settings.data_dir.display()));
    let begun = async || {
        let start = Instant::now();
        while !new.join("ibdata1").exists() {
            assert!(start.elapsed() < SOON * 4, "no clone began");
            tokio::task::yield_now().await;
        }
    };
    let server = a.server().await;
    b.handle.send(DataCommand::Clone { from: a.id });
    begun().await;
    signal(server, Signal::KILL);
    let reason = b.failure().await;
    println!("broke off: {reason}");
    assert!(!new.exists() && !b.settings.data_dir.exists());
    a.until("ended", |a| a.exited.is_some()).await;
    a.forget();
    a.done(DataCommand::StartPrimary { guard: right(2) }, DataObservation::Started).await;
    a.guard(&[], 2).await;
    a.done(DataCommand::Open, DataObservation::Opened).await;

    b.handle.send(DataCommand::Clone { from: a.id });
    begun().await;
    b.restart_agent();
    b.done(DataCommand::Inspect, DataObservation::Inspected(Data::Absent)).await;
    assert!(!new.exists());
    b.copy(DataCommand::Clone { from: a.id }).await;
    b.done(DataCommand::Follow { upstream: a.id, epoch: 2 }, DataObservation::Started).await;
    a.until("standby streams", |a| streams(a, NodeId(2))).await;
    a.guard(&[2], 2).await;
    a.done(DataCommand::Kill, DataObservation::Stopped).await;
    b.done(DataCommand::Promote { guard: right(3) }, DataObservation::Promoted).await;
    b.guard(&[], 3).await;
    b.done(DataCommand::Open, DataObservation::Opened).await;
    assert_eq!(rows(&mut b.client().await.unwrap()).await, [1]);
    b.done(DataCommand::Kill, DataObservation::Stopped).await;
}
