//! The whole life of two copies.

use crate::bench::{Bench, Node, insert, right, rows};
use oarlock_core::ids::NodeId;
use oarlock_core::resource::database::{DataCommand, DataObservation, Running};
use std::time::{Duration, Instant};

/// Time enough for a commit that is acknowledged at all.
pub const SOON: Duration = Duration::from_secs(5);
/// Time enough to see that one is not.
const A_WHILE: Duration = Duration::from_millis(500);

/// A new primary in service, alone.
pub async fn serve_alone(node: &mut Node, epoch: u64) {
    node.copy(DataCommand::Initialize).await;
    node.done(DataCommand::StartPrimary { guard: right(epoch) }, DataObservation::Started).await;
    node.guard(&[], epoch).await;
    node.done(DataCommand::Open, DataObservation::Opened).await;
    node.make_client_role().await;
}

/// A primary with a standby; `None` where there is no PostgreSQL.
pub async fn pair() -> Option<(Bench, Node, Node)> {
    let bench = Bench::new(2)?;
    let (mut a, mut b) = (bench.node(1), bench.node(2));
    serve_alone(&mut a, 1).await;
    join(&mut b, &mut a, 1).await;
    Some((bench, a, b))
}

/// A standby becomes the primary, in service alone.
pub async fn promote(node: &mut Node, epoch: u64) {
    node.done(DataCommand::Promote { guard: right(epoch) }, DataObservation::Promoted).await;
    node.guard(&[], epoch).await;
    node.done(DataCommand::Open, DataObservation::Opened).await;
}

/// A clone of `from` that streams.
pub async fn join(node: &mut Node, from: &mut Node, epoch: u64) {
    node.copy(DataCommand::Clone { from: from.id }).await;
    node.done(DataCommand::Follow { upstream: from.id, epoch }, DataObservation::Started).await;
    let id = node.id;
    from.until("standby streams", |from| streams(from, id)).await;
}

pub fn streams(from: &Node, id: NodeId) -> bool {
    from.status
        .as_ref()
        .is_some_and(|status| status.standbys.iter().any(|standby| standby.node == id && standby.streaming))
}

#[tokio::test]
async fn a_failover_and_the_return_of_the_old_primary() {
    let Some((_bench, mut a, mut b)) = pair().await else { return };
    a.guard(&[2], 1).await;
    let client = a.client().await.unwrap();
    for number in 0..10 {
        assert!(insert(&client, number, SOON).await, "acknowledged by both");
    }

    // The standby is deaf: what is written now stays on A alone, and is not acknowledged.
    b.stop().await;
    assert!(!insert(&client, 99, A_WHILE).await, "acknowledged although the standby is gone");
    a.until("commits wait", |a| a.status.as_ref().is_some_and(|status| status.waiting_ms > 100)).await;
    b.kill().await;
    a.kill().await;

    b.done(DataCommand::Follow { upstream: a.id, epoch: 1 }, DataObservation::Started).await;
    let start = Instant::now();
    b.done(DataCommand::Promote { guard: right(2) }, DataObservation::Promoted).await;
    let promoted = start.elapsed();
    let closed = b.client().await.expect_err("closed to clients");
    assert_eq!(closed.code().map(|code| code.code()), Some("28000"), "{closed}");
    let start = Instant::now();
    b.guard(&[], 2).await;
    let unguarded = start.elapsed();
    let start = Instant::now();
    b.done(DataCommand::Open, DataObservation::Opened).await;
    println!("TIMES promote {promoted:.1?}, guard off {unguarded:.1?}, open {:.1?}", start.elapsed());
    let client = b.client().await.unwrap();
    assert_eq!(rows(&client).await, (0..10).collect::<Vec<_>>());
    assert!(insert(&client, 10, SOON).await);

    let before = a.copy(DataCommand::Inspect).await;
    let after = a.copy(DataCommand::Rewind { from: b.id }).await;
    assert_ne!(before, after, "a rewound copy is another copy");
    assert!(a.notes.iter().any(|note| note.contains("1 commits")), "{:?}", a.notes);
    a.done(DataCommand::Follow { upstream: b.id, epoch: 2 }, DataObservation::Started).await;
    b.until("old primary streams", |b| streams(b, NodeId(1))).await;
    b.guard(&[1], 2).await;
    assert!(insert(&client, 11, SOON).await);
    a.until("standby", |a| a.status.as_ref().is_some_and(|status| status.running == Running::Standby)).await;

    // And home again, planned.
    b.forget();
    let start = Instant::now();
    b.done(DataCommand::HandOver { standby: a.id }, DataObservation::Stopped).await;
    a.done(DataCommand::Promote { guard: right(3) }, DataObservation::Promoted).await;
    a.guard(&[], 3).await;
    a.done(DataCommand::Open, DataObservation::Opened).await;
    println!("TIMES switchover {:.1?}", start.elapsed());
    let client = a.client().await.unwrap();
    assert_eq!(rows(&client).await, (0..12).collect::<Vec<_>>());
    b.copy(DataCommand::Rewind { from: a.id }).await;
    assert_eq!(b.notes, Vec::<String>::new(), "a planned switchover leaves no tail");
    b.done(DataCommand::Follow { upstream: a.id, epoch: 3 }, DataObservation::Started).await;
    a.until("standby streams", |a| streams(a, NodeId(2))).await;
    a.guard(&[2], 3).await;
    b.stop().await;
    a.stop().await;
}
