//! A copy that comes back is known for what it is: behind its primary, or gone another way.

use crate::bench::{Bench, Node, insert, rows};
use crate::failover::{SOON, pair, promote, streams};
use oarlock_core::machine::database::{Database, DatabaseWant};
use oarlock_core::resource::database::{DataCommand, DataObservation};
use oarlock_core::time::{Mono, Span};
use std::fs;
use std::os::unix::fs::{MetadataExt, chown, symlink};
use std::time::{Duration, Instant};

/// How long a copy that cannot follow is watched: some thirty vain attempts.
const WATCHED: Duration = Duration::from_secs(3);
/// How long the core lets a standby go without its upstream.
const STUCK: Span = Span::from_ms(15_001);

/// One set-up, because that is what takes long; four ways back.
#[tokio::test]
async fn a_copy_that_comes_back_is_known_for_what_it_is() {
    let Some((bench, mut a, mut b)) = pair().await else { return };
    known_by_its_log(&mut a, &mut b).await;
    let mut a = unable_to_tell(&bench, a, &mut b).await;
    stuck_and_steady(&mut a, &mut b).await;
    two_of_one_number(&mut a, &mut b).await;
    a.kill().await;
    b.kill().await;
}

/// A returns exactly at the fork; B wrote after its promotion and died, with a
/// file of its log made in advance that lies first in the directory.
async fn known_by_its_log(a: &mut Node, b: &mut Node) {
    a.done(DataCommand::HandOver { standby: b.id }, DataObservation::Stopped).await;
    promote(b, 2).await;
    a.copy(DataCommand::Rewind { from: b.id }).await;
    assert_eq!(a.notes, Vec::<String>::new(), "exactly at the fork is not diverged");
    assert!(!a.log().contains("pg_rewind"), "nothing to rewind");
    follow(a, b, 2).await;

    take_over(b, a, 1, 3).await;
    put_unwritten_first(b);
    b.copy(DataCommand::Rewind { from: a.id }).await;
    assert!(told(b, "only this copy had") && told(b, " 1 commits"), "{:?}", b.notes);
    assert!(b.log().contains("servers diverged"), "{}", b.log());
    follow(b, a, 3).await;
}

/// The tool that shows the log does not work: A, exactly at the fork, is treated as diverged.
async fn unable_to_tell(bench: &Bench, mut a: Node, b: &mut Node) -> Node {
    a.done(DataCommand::HandOver { standby: b.id }, DataObservation::Stopped).await;
    promote(b, 4).await;
    let mut settings = a.settings.clone();
    settings.bin_dir = bench.root.path().join("bin");
    fs::create_dir(&settings.bin_dir).unwrap();
    for entry in fs::read_dir(&a.settings.bin_dir).unwrap() {
        let entry = entry.unwrap();
        symlink(entry.path(), settings.bin_dir.join(entry.file_name())).unwrap();
    }
    let tool = settings.bin_dir.join("pg_waldump");
    fs::remove_file(&tool).unwrap();
    symlink("/bin/true", &tool).unwrap();
    let mut a = bench.node_with(settings);
    a.copy(DataCommand::Inspect).await;
    a.copy(DataCommand::Rewind { from: b.id }).await;
    assert!(told(&a, "perhaps only this copy had") && told(&a, "not all could be read"), "{:?}", a.notes);
    assert!(a.log().contains("no rewind required"), "{}", a.log());
    follow(&mut a, b, 4).await;
    a
}

/// A diverged copy that was made a standby behind our back tries in vain: it is never said to
/// stream, and called stuck in time; what it alone had is saved before it is replaced.
async fn stuck_and_steady(a: &mut Node, b: &mut Node) {
    take_over(b, a, 2, 5).await;
    let reason = b.failed(DataCommand::Follow { upstream: a.id, epoch: 5 }).await;
    assert!(reason.contains("must be rewound"), "{reason}");
    make_standby(b);
    let (mut core, want) = (Database::default(), follows(a, 5));
    assert_eq!(core.next(Mono(0), &want), Some(DataCommand::Inspect));
    core.observe(Mono(0), &b.ask(DataCommand::Inspect).await);
    let command = core.next(Mono(0), &want).unwrap();
    let started = b.ask(command).await;
    core.observe(Mono(0), &started);
    let start = Instant::now();
    let mut looks = 0;
    while start.elapsed() < WATCHED {
        b.status = None;
        b.until("a look", |b| b.status.is_some()).await;
        let status = b.status.clone().unwrap();
        assert!(!status.streaming, "it cannot follow; log: {}", b.log());
        core.observe(at(start), &DataObservation::Status(status));
        looks += 1;
    }
    println!("TIMES {looks} looks, {} vain attempts", b.log().matches("FATAL").count());
    let late = Mono(0) + STUCK;
    assert!(core.needs_rejoin(late) && !core.needs_rejoin(at(start)));
    assert_eq!(core.next(late, &want), Some(DataCommand::Stop));
    core.observe(late, &b.ask(DataCommand::Stop).await);
    assert_eq!(core.next(late, &want), Some(DataCommand::Inspect));
    core.observe(late, &b.ask(DataCommand::Inspect).await);
    b.notes.clear();
    let command = core.next(late, &want).unwrap();
    assert_eq!(command, DataCommand::Clone { from: a.id });
    b.copy(command).await;
    assert!(told(b, "1 commits"), "{:?}", b.notes);
    follow(b, a, 5).await;
}

/// Two promotions at the same place have the same number and history: only one of them is right.
async fn two_of_one_number(a: &mut Node, b: &mut Node) {
    a.stop().await;
    b.stop().await;
    make_standby(a);
    a.done(DataCommand::Follow { upstream: b.id, epoch: 5 }, DataObservation::Started).await;
    promote(a, 6).await;
    assert!(insert(&a.client().await.unwrap(), 60, SOON).await);
    a.kill().await;
    b.done(DataCommand::Follow { upstream: a.id, epoch: 5 }, DataObservation::Started).await;
    promote(b, 7).await;
    let before = a.copy(DataCommand::Inspect).await;
    let reason = a.failed(DataCommand::Rewind { from: b.id }).await;
    assert!(reason.contains("both primaries on timeline"), "{reason}");
    a.notes.clear();
    assert_ne!(a.copy(DataCommand::Clone { from: b.id }).await, before);
    assert!(told(a, "only this copy had"), "{:?}", a.notes);
    follow(a, b, 7).await;
}

/// `from` writes alone what `to`, its standby, never sees, and dies; `to` takes over.
async fn take_over(from: &mut Node, to: &mut Node, number: i32, epoch: u64) {
    to.kill().await;
    assert!(insert(&from.client().await.unwrap(), number, SOON).await);
    from.kill().await;
    to.done(DataCommand::Follow { upstream: from.id, epoch: epoch - 1 }, DataObservation::Started).await;
    promote(to, epoch).await;
    assert!(!rows(&to.client().await.unwrap()).await.contains(&number));
    from.notes.clear();
}

/// `node` follows `primary`, and gets what is written there.
async fn follow(node: &mut Node, primary: &mut Node, epoch: u64) {
    stream(node, primary, epoch).await;
    primary.guard(&[node.id.0], epoch).await;
    let mark = 1000 + i32::try_from(epoch).unwrap();
    assert!(insert(&primary.client().await.unwrap(), mark, SOON).await, "acknowledged by both");
    primary.guard(&[], epoch).await;
}

async fn stream(node: &mut Node, primary: &mut Node, epoch: u64) {
    node.done(DataCommand::Follow { upstream: primary.id, epoch }, DataObservation::Started).await;
    primary.forget();
    let id = node.id;
    primary.until("standby streams", |primary| streams(primary, id)).await;
}

fn follows(upstream: &Node, epoch: u64) -> DatabaseWant {
    DatabaseWant::Follow { upstream: upstream.id, epoch, rejoin: true, serving: true }
}

fn at(start: Instant) -> Mono {
    Mono(0) + Span::from_ms(u64::try_from(start.elapsed().as_millis()).unwrap())
}

fn told(node: &Node, words: &str) -> bool {
    node.notes.iter().any(|note| note.contains(words))
}

fn make_standby(node: &Node) {
    fs::write(node.settings.data_dir.join("standby.signal"), "").unwrap();
}

/// A file of the log made in advance, as a checkpoint near the end of one makes it, that lies first in the
/// directory: which number that takes is the file system's choice.
fn put_unwritten_first(node: &Node) {
    let wal = node.settings.data_dir.join("pg_wal");
    let names = || {
        let names = fs::read_dir(&wal).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap());
        names.filter(|name| name.len() == 24).collect::<Vec<_>>()
    };
    let newest = names().into_iter().max().unwrap();
    let (number, like) = (u64::from_str_radix(&newest[16..], 16).unwrap(), fs::metadata(wal.join(&newest)).unwrap());
    for number in number + 1..number + 10_000 {
        let name = format!("{}{number:08X}", &newest[..16]);
        fs::File::create(wal.join(&name)).unwrap().set_len(like.len()).unwrap();
        chown(wal.join(&name), Some(like.uid()), Some(like.gid())).unwrap();
        if names()[0] == name {
            return;
        }
        fs::remove_file(wal.join(&name)).unwrap();
    }
    panic!("none of 10000 files lies first in {}", wal.display());
}
