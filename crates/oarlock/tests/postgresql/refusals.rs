//! What must not happen, does not.

use crate::bench::{Bench, insert, right};
use crate::failover::serve_alone;
use oarlock_core::ids::NodeId;
use oarlock_core::resource::database::{Data, DataCommand, DataObservation};
use std::fs;
use std::time::Duration;

const A_WHILE: Duration = Duration::from_millis(700);

/// A guard that names a standby which is not there is never reported as set; and after a start no
/// commit is acknowledged before a guard was.
#[tokio::test]
async fn nothing_is_acknowledged_without_a_proven_guard() {
    let Some(bench) = Bench::new(2) else { return };
    let mut a = bench.node(1);
    serve_alone(&mut a, 1).await;
    let reason = a.failed(DataCommand::SetGuard { members: vec![NodeId(2)], epoch: 1 }).await;
    assert!(reason.contains("server2_1"), "{reason}");
    let client = a.client().await.unwrap();
    assert!(insert(&client, 1, A_WHILE).await, "a guard that could not be set stalls nobody");

    a.kill().await;
    a.done(DataCommand::StartPrimary { guard: right(2) }, DataObservation::Started).await;
    assert_eq!(a.launcher.guard("db"), Some(right(2)));
    assert!(a.client().await.is_err(), "closed after a start");
    a.done(DataCommand::Open, DataObservation::Opened).await;
    let client = a.client().await.unwrap();
    assert!(!insert(&client, 2, A_WHILE).await, "acknowledged without a guard");
    a.guard(&[], 2).await;
    let client = a.client().await.unwrap();
    assert!(insert(&client, 3, A_WHILE).await);
    a.kill().await;
}

/// What is not ours is left alone, with a reason and a hint.
#[tokio::test]
async fn strange_directories_are_left_alone() {
    let Some(bench) = Bench::new(1) else { return };
    let mut a = bench.node(1);
    let data = a.settings.data_dir.clone();
    a.done(DataCommand::Inspect, DataObservation::Inspected(Data::Absent)).await;
    fs::create_dir(&data).unwrap();
    a.done(DataCommand::Inspect, DataObservation::Inspected(Data::Absent)).await;
    fs::write(data.join("precious"), "x").unwrap();
    let answer = a.ask(DataCommand::Inspect).await;
    assert!(matches!(answer, DataObservation::Inspected(Data::Foreign { .. })), "{answer:?}");
    let reason = a.failed(DataCommand::Initialize).await;
    assert!(reason.contains("not empty") && reason.contains("hint:"), "{reason}");
    fs::write(data.join("PG_VERSION"), "9.6\n").unwrap();
    let answer = a.ask(DataCommand::Inspect).await;
    let DataObservation::Inspected(Data::Foreign { reason }) = answer else { panic!("{answer:?}") };
    assert!(reason.contains("version 9.6"), "{reason}");
    assert!(data.join("precious").exists());
}
