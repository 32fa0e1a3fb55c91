//! The demonstration: a machine dies with a job running and rows being written, and an ordinary
//! user of the cluster hardly notices.

mod timeline;

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};

use crate::history::{History, Rows, Stamp, check, outage_around};
use crate::host::{Host, Running};
use crate::jobs;
use crate::lab::Lab;
use crate::plot::{Mark, View, draw};
use crate::product::{self, ClusterStatus, GROUP};
use crate::state::{Engine, Shape, Timing};
use timeline::Timeline;

/// For commands that answer at once.
const QUICK: Duration = Duration::from_secs(10);
/// For everything that the cluster or a job needs time for.
const SLOW: Duration = Duration::from_secs(120);
/// How long the picture shows ordinary work before and after each event.
const CALM: Duration = Duration::from_secs(3);
/// How far before and after an event its close-up reaches, milliseconds.
const CLOSE_UP_MS: (i64, i64) = (500, 3_000);

/// Something done to the cluster, and until when its consequences are counted.
struct Event {
    label: String,
    at: Stamp,
    until: Stamp,
}

/// Runs the demonstration on `db`; with `keep` the lab stays up.
pub fn run(db: Engine, keep: bool) -> Result<()> {
    let lab = Lab::open()?;
    product::build(&lab)?;
    let shape = Shape { db, timing: Timing::Fast, ..Shape::default() };
    say("bringing up server1, server2, frontend (witness, and where alice works) and node1 (runs the jobs)");
    lab.up(shape)?;
    say("making the cluster: oarlock init on server1, oarlock join on server2 and frontend");
    let status = product::create(&lab)?;
    say(&format!("{} owns the group {GROUP}; both copies of the database are in sync", owner(&status)?));
    let shown = show(&lab);
    // After a failure there is something to look at.
    if keep || shown.is_err() {
        println!("{KEPT}");
    } else {
        lab.down()?;
    }
    shown
}

const KEPT: &str = "
The lab stays up. To play with it:
  cargo xtask lab status
  cargo xtask lab exec frontend -- oarlock status
  cargo xtask lab exec frontend -- runuser -l alice          become the ordinary user; oarsub, oarstat
  cargo xtask lab poweroff server1                           and poweron
  cargo xtask lab cut server2 --link 1                       and heal
  cargo xtask lab exec frontend -- oarlock events --follow
  cargo xtask lab down                                       removes it";

fn say(text: &str) {
    println!("\n{text}");
}

fn owner(status: &ClusterStatus) -> Result<&str> {
    status.owner().context("the group has no owner")
}

fn show(lab: &Lab) -> Result<()> {
    let frontend = lab.host("frontend")?;
    let work = lab.paths().target.join("lab/demo");
    fs::create_dir_all(&work).with_context(|| format!("cannot create {}", work.display()))?;

    let submitted = submit(&frontend)?;
    let run = format!("demo-{}", Stamp::now().wall_us);
    let log = work.join("client.jsonl");
    let engine = lab.state()?.shape.db.name();
    let argv = ["oarlock-lab", "client", "--engine", engine, "--create-within-ms", "10000", "--run", &run];
    let mut client = start(&frontend, &argv, &log)?;
    let events_log = work.join("events.jsonl");
    let events_command = ["oarlock", "events", "--follow", "--since-s", "0", "--json"];
    let _events = start(&frontend, &events_command, &events_log)?;
    say("alice's program writes one row every 10 ms into the database at the service address");
    thread::sleep(CALM);

    let mut timeline = Timeline::new(events_log, log.clone());
    let events = act(lab, &mut timeline)?;
    say("waiting for alice's jobs");
    submitted.iter().try_for_each(|job| jobs::until(&frontend, job, "Terminated", SLOW))?;
    ensure!(client.stop(QUICK)?.success(), "the client failed");
    finish(lab, &run, &log, &events, &submitted, work.join("demo.svg"))
}

/// Starts `argv` on `host` with its output in `log`.
fn start(host: &Host, argv: &[&str], log: &Path) -> Result<Running> {
    let file = File::create(log).with_context(|| format!("cannot create {}", log.display()))?;
    host.spawn(argv, Stdio::from(file))
}

/// Submits a job that runs and one that waits for its place; returns when it is so.
fn submit(frontend: &Host) -> Result<[String; 2]> {
    say("as alice: oarsub \"sleep 40\" (runs), oarsub \"sleep 2\" (waits: node1 has one place)");
    let running = jobs::submit(frontend, "sleep 40")?;
    jobs::until(frontend, &running, "Running", SLOW)?;
    let queued = jobs::submit(frontend, "sleep 2")?;
    println!("  job {running} is Running, job {queued} is {}", jobs::state(frontend, &queued)?);
    Ok([running, queued])
}

/// Power-off of the owner, power-on, and a switchover on purpose.
fn act(lab: &Lab, timeline: &mut Timeline) -> Result<Vec<Event>> {
    let mut done = Vec::new();
    let mut event =
        |label: String, act: &dyn Fn() -> Result<()>, lacking: &dyn Fn(&ClusterStatus) -> Option<String>| {
            say(&label);
            let at = Stamp::now();
            act()?;
            timeline.follow(lab, at, SLOW, lacking)?;
            let calm = Instant::now() + CALM;
            timeline.follow_until(at, calm)?;
            done.push(Event { label, at, until: Stamp::now() });
            Ok::<(), anyhow::Error>(())
        };
    let before = product::status(lab)?;
    let first = owner(&before)?;
    event(format!("power-off of {first}"), &|| lab.poweroff(&[first]), &|status| match status.group() {
        Some(group) if group.state == "started" && status.owner() != Some(first) => None,
        _ => Some("no other owner has started the group".to_owned()),
    })?;
    event(format!("power-on of {first}"), &|| lab.poweron(&[first]), &ClusterStatus::lacking)?;
    let back = || product::oarlock(&lab.host("frontend")?, &["move", GROUP, first], SLOW).map(drop);
    event(format!("switchover back to {first}"), &back, &|status| {
        let elsewhere = status.owner() != Some(first);
        if elsewhere { Some(format!("{first} does not own the group")) } else { status.lacking() }
    })?;
    Ok(done)
}

/// Compares the client's log with the database and prints the table.
fn finish(lab: &Lab, run: &str, log: &Path, events: &[Event], submitted: &[String], picture: PathBuf) -> Result<()> {
    let (frontend, engine) = (lab.host("frontend")?, lab.state()?.shape.db.name());
    let rows: Rows =
        serde_json::from_str(&frontend.run(&["oarlock-lab", "rows", "--engine", engine, "--run", run], SLOW)?)?;
    let history = History::read(log)?;
    let verdict = check(&history, &rows);
    let marks: Vec<Mark> = events.iter().map(|e| Mark { at: e.at, label: e.label.clone() }).collect();
    let mut views = vec![View::whole("acknowledged commits", &history)];
    let (before, after) = CLOSE_UP_MS;
    views.extend(marks.iter().map(|mark| View::around(&mark.label, mark.at, before, after)));
    fs::write(&picture, draw(&history, &marks, &views))
        .with_context(|| format!("cannot write {}", picture.display()))?;

    let outage = |event: &Event| match outage_around(&history, event.at, event.until) {
        Some(gap) => format!("{:.0} ms", gap.ms()),
        None => "not seen".to_owned(),
    };
    let mut lines: Vec<(String, String)> =
        events.iter().map(|e| (format!("longest wait of the writer, {}", e.label), outage(e))).collect();
    lines.push(("acknowledged rows".to_owned(), verdict.acked.to_string()));
    lines.push(("acknowledged rows lost".to_owned(), verdict.lost.len().to_string()));
    lines.extend(submitted.iter().map(|job| (format!("job {job}"), "Terminated".to_owned())));
    say("what came of it");
    lines.iter().for_each(|(what, result)| println!("  {what:<56}{result:>12}"));
    println!("\nacknowledged commits over time: {}", picture.display());
    ensure!(verdict.clean(), "{verdict}");
    Ok(())
}
