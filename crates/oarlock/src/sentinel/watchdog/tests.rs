//! A watchdog that is a file: every line in it is something that was done.

use std::fs::{File, OpenOptions};
use std::io::Write;

use oarlock_core::sentinel::{Event, Guard, Platform, Request};

use super::*;

const TIMEOUT_US: u64 = 2_000_000;

struct Fake(File);

impl Fake {
    fn note(&mut self, what: &str) -> io::Result<()> {
        writeln!(self.0, "{what}")
    }
}

impl Device for Fake {
    fn feed(&mut self) -> io::Result<()> {
        self.note("fed")
    }

    fn stop(&mut self) -> io::Result<()> {
        self.note("stopped")
    }
}

struct Stubborn(Fake);

impl Device for Stubborn {
    fn feed(&mut self) -> io::Result<()> {
        self.0.feed()
    }

    fn stop(&mut self) -> io::Result<()> {
        Err(io::ErrorKind::ResourceBusy.into())
    }
}

fn fake(path: &str, timeout_s: u32) -> io::Result<Fake> {
    // It must be there: a device is not made by opening it.
    let mut fake = Fake(OpenOptions::new().append(true).open(path)?);
    fake.note(&format!("opened, {timeout_s} s"))?;
    Ok(fake)
}

fn open_fake(path: &str, timeout_s: u32) -> io::Result<Box<dyn Device>> {
    Ok(Box::new(fake(path, timeout_s)?))
}

fn open_stubborn(path: &str, timeout_s: u32) -> io::Result<Box<dyn Device>> {
    Ok(Box::new(Stubborn(fake(path, timeout_s)?)))
}

struct Rig {
    file: tempfile::NamedTempFile,
    machine: Sentinel,
    watch: Watch,
    now_us: u64,
    lines: Vec<String>,
}

impl Rig {
    fn new(open: Open) -> Self {
        let file = tempfile::NamedTempFile::new().unwrap();
        let machine = Sentinel::new(Platform::default());
        let mut rig = Self { file, machine, watch: Watch::new(open), now_us: 1_000_000, lines: Vec::new() };
        let device = rig.file.path().to_str().unwrap().to_owned();
        let watchdog = Watchdog { device, timeout_us: TIMEOUT_US, fresh_us: 750_000 };
        rig.ask(Request::Watch { watchdog: Some(watchdog) });
        rig.ask(Request::NewGeneration { generation: 1 });
        rig
    }

    fn ask(&mut self, request: Request) {
        self.machine.handle(self.now_us, Event::Request { id: 1, request });
        self.tend();
    }

    fn tend(&mut self) {
        self.lines.extend(self.watch.tend(&self.machine, self.now_us));
    }

    fn renew(&mut self) {
        self.ask(Request::Lease { generation: 1, deadline_us: self.now_us + 1_000_000 });
    }

    fn hold(&mut self) {
        let guard = Some(Guard { group: "g".into(), generation: 1, epoch: 1 });
        self.ask(Request::Spawn { name: "s".into(), command: Box::default(), guard });
    }

    /// What was done since the last look.
    fn done(&mut self) -> String {
        let done = std::fs::read_to_string(self.file.path()).unwrap().replace('\n', "; ");
        self.file.as_file().set_len(0).unwrap();
        done
    }
}

#[test]
fn it_is_tried_and_stopped_and_counts_only_while_something_exclusive_is_there() {
    let mut rig = Rig::new(open_fake);
    assert_eq!(rig.done(), "opened, 2 s; stopped; ");
    assert!(rig.watch.works() && rig.watch.due_us().is_none());
    rig.renew();
    assert_eq!(rig.done(), "");
    rig.hold();
    assert_eq!(rig.done(), "opened, 2 s; ");
    for _ in 0..10 {
        rig.now_us += 100_000;
        rig.renew();
    }
    // Every quarter of a second, at the renewal that follows.
    assert_eq!(rig.done(), "fed; fed; fed; ");
    rig.machine.handle(rig.now_us, Event::Acted { ticket: 1, outcome: failed() });
    rig.tend();
    assert_eq!(rig.done(), "stopped; ");
    assert_eq!(rig.lines.len(), 1, "{:?}", rig.lines);
}

fn failed() -> oarlock_core::sentinel::Outcome {
    oarlock_core::sentinel::Outcome::Failed { reason: "no such program".into() }
}

#[test]
fn without_renewals_it_is_left_alone() {
    let mut rig = Rig::new(open_fake);
    rig.renew();
    rig.hold();
    rig.done();
    for _ in 0..30 {
        rig.now_us = rig.watch.due_us().unwrap().max(rig.now_us + 50_000);
        rig.machine.handle(rig.now_us, Event::Tick);
        rig.tend();
    }
    // The first quarter of the lease is fresh; after the lapse its service was not seen to die.
    assert_eq!(rig.done(), "fed; ");
}

#[test]
fn one_that_is_not_there_is_tried_again_and_said_to_be_missing() {
    let mut rig = Rig::new(open_fake);
    let place = rig.file.path().to_owned();
    let device = place.with_extension("other").to_str().unwrap().to_owned();
    rig.ask(Request::Watch {
        watchdog: Some(Watchdog { device: device.clone(), timeout_us: TIMEOUT_US, fresh_us: 1 }),
    });
    assert!(!rig.watch.works());
    assert!(rig.lines.last().unwrap().starts_with(&format!("watchdog {device} cannot be used: No such file")));
    let said = rig.lines.len();
    rig.now_us += RETRY_US / 2;
    rig.tend();
    assert_eq!((rig.lines.len(), rig.watch.due_us()), (said, Some(1_000_000 + RETRY_US)));
    std::fs::write(&device, "").unwrap();
    rig.now_us += RETRY_US / 2;
    rig.tend();
    assert!(rig.watch.works() && rig.watch.due_us().is_none());
    std::fs::remove_file(&device).unwrap();
    rig.ask(Request::Watch { watchdog: None });
    assert!(!rig.watch.works() && rig.watch.due_us().is_none());
}

#[test]
fn one_that_cannot_be_stopped_is_fed_although_nothing_is_there() {
    let mut rig = Rig::new(open_stubborn);
    assert_eq!(rig.done(), "opened, 2 s; ");
    for _ in 0..3 {
        rig.now_us = rig.watch.due_us().unwrap();
        rig.tend();
    }
    assert_eq!(rig.done(), "fed; fed; fed; ");
    assert!(rig.lines.last().unwrap().contains("cannot be stopped"), "{:?}", rig.lines);
}
