//! What an administrator does to the server's configuration.

use crate::bench::{Bench, insert, right};
use crate::failover::{SOON, pair, serve_alone, streams};
use oarlock_core::ids::NodeId;
use oarlock_core::resource::database::{DataCommand, DataObservation};

/// A configuration broken while the server runs does not stop a change of the guard, and one made
/// with ALTER SYSTEM over ours is taken back.
#[tokio::test]
async fn our_settings_stay_in_force() {
    let Some((_bench, mut a, mut b)) = pair().await else { return };
    a.guard(&[2], 1).await;
    let admin = a.admin().await;
    admin.batch_execute("alter system set synchronous_standby_names = ''").await.unwrap();
    admin.batch_execute("select pg_reload_conf()").await.unwrap();
    a.until("taken back", |a| a.notes.iter().any(|note| note.contains("ALTER SYSTEM"))).await;
    let shown = admin.query_one("show synchronous_standby_names", &[]).await.unwrap();
    assert_eq!(shown.get::<_, String>(0), "FIRST 1 (\"server2_1\")");

    a.until_file("last-good.conf").await;
    a.configure(&a.settings.files.config, "\nwrok_mem = '4MB'\n");
    a.guard(&[], 1).await;
    assert!(a.notes.iter().any(|note| note.contains("wrok_mem")), "{:?}", a.notes);
    a.kill().await;
    a.done(DataCommand::StartPrimary { guard: right(2) }, DataObservation::Started).await;
    a.kill().await;
    b.kill().await;
}

/// Access rules are taken over when they change; broken ones are reported with their place.
#[tokio::test]
async fn access_rules_are_the_administrators() {
    let Some(bench) = Bench::new(1) else { return };
    let mut a = bench.node(1);
    serve_alone(&mut a, 1).await;
    let hba = a.settings.files.hba.clone();
    let good = std::fs::read_to_string(&hba).unwrap();
    std::fs::write(&hba, "host all nobody 127.0.0.1/32 scram-sha-256\n").unwrap();
    a.until("taken over", |a| a.notes.iter().any(|note| note.contains("access files"))).await;
    assert!(a.client().await.is_err());
    std::fs::write(&hba, "host all all nonsense\n").unwrap();
    let reason = a.failed(DataCommand::Open).await;
    assert!(reason.contains("hint: correct"), "{reason}");
    std::fs::write(&hba, good).unwrap();
    a.done(DataCommand::Open, DataObservation::Opened).await;
    assert!(insert(&a.client().await.unwrap(), 1, SOON).await);
    a.kill().await;
}

/// A primary with more connections than the standby's file says: the standby is raised to it.
#[tokio::test]
async fn a_standby_is_raised_to_its_primary() {
    let Some((_bench, mut a, mut b)) = pair().await else { return };
    // Only here: the standby has a file of its own.
    a.configure(&a.settings.files.config, "\nmax_connections = 123\n");
    a.stop().await;
    a.done(DataCommand::StartPrimary { guard: right(2) }, DataObservation::Started).await;
    a.guard(&[], 2).await;
    b.done(DataCommand::Follow { upstream: a.id, epoch: 2 }, DataObservation::Started).await;
    b.until("ended to be raised", |b| b.exited.is_some()).await;
    assert!(b.exited.as_deref().unwrap().contains("max_connections = 123"));
    b.done(DataCommand::Follow { upstream: a.id, epoch: 2 }, DataObservation::Started).await;
    assert!(b.notes.iter().any(|note| note.contains("max_connections")), "{:?}", b.notes);
    a.until("standby streams", |a| streams(a, NodeId(2))).await;
    a.guard(&[2], 2).await;
    b.kill().await;
    a.kill().await;
}
