//! The thread that writes, so that a slow disk never holds up the agent.

use std::io;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::Duration;

use tokio::sync::mpsc;

use super::SaveError;
use super::latency::{Recent, SyncLatency};

/// Outcome of one save.
pub type Answer = Result<(), SaveError>;

/// What records are written with: the disk, or in tests something slower or more brittle.
pub trait Write: Send + 'static {
    /// Replaces the record; tells how long each sync took.
    fn write(&mut self, record: &[u8], synced: &mut dyn FnMut(Duration)) -> Answer;
}

/// It writes one record at a time and calls nothing deep.
const STACK_BYTES: usize = 128 * 1024;

/// Handle of the thread.
#[derive(Debug)]
pub struct Writer {
    shared: Arc<Shared>,
}

#[derive(Debug, Default)]
struct Shared {
    work: Mutex<Work>,
    changed: Condvar,
    latency: Mutex<Recent>,
}

#[derive(Debug, Default)]
struct Work {
    /// The newest record not yet begun, and how many saves it answers.
    waiting: Option<(Vec<u8>, usize)>,
    closing: bool,
    ended: bool,
}

/// A thread that panicked has left plain data behind, which is as good as ever.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Writer {
    /// Starts the thread, which writes with `write`. One answer comes for each record submitted, in that order.
    pub fn start(write: impl Write) -> io::Result<(Self, mpsc::UnboundedReceiver<Answer>)> {
        let shared = Arc::new(Shared::default());
        let (answers, receiver) = mpsc::unbounded_channel();
        let work = Ended(shared.clone());
        thread::Builder::new()
            .name("store".to_owned())
            .stack_size(STACK_BYTES)
            .spawn(move || run(write, &work.0, &answers))?;
        Ok((Self { shared }, receiver))
    }

    /// Hands over a record, in place of one that waits.
    pub fn submit(&self, record: Vec<u8>) {
        let mut work = lock(&self.shared.work);
        let saves = work.waiting.as_ref().map_or(0, |(_, saves)| *saves) + 1;
        work.waiting = Some((record, saves));
        self.shared.changed.notify_all();
    }

    /// How long syncs took recently.
    pub fn latency(&self) -> SyncLatency {
        lock(&self.shared.latency).summary()
    }

    /// Waits until all is written and the files are closed; false if that takes longer.
    pub fn close(self, deadline: Duration) -> bool {
        let mut work = lock(&self.shared.work);
        work.closing = true;
        self.shared.changed.notify_all();
        let waiting = self.shared.changed.wait_timeout_while(work, deadline, |work| !work.ended);
        waiting.unwrap_or_else(PoisonError::into_inner).0.ended
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        lock(&self.shared.work).closing = true;
        self.shared.changed.notify_all();
    }
}

/// Tells that the thread has ended, however it did.
struct Ended(Arc<Shared>);

impl Drop for Ended {
    fn drop(&mut self) {
        lock(&self.0.work).ended = true;
        self.0.changed.notify_all();
    }
}

fn run(mut disk: impl Write, shared: &Shared, answers: &mpsc::UnboundedSender<Answer>) {
    while let Some((record, saves)) = next(shared) {
        let answer = disk.write(&record, &mut |duration| lock(&shared.latency).push(duration));
        for _ in 0..saves {
            // Nobody listens any more: what was submitted is written all the same.
            answers.send(answer.clone()).ok();
        }
    }
}

fn next(shared: &Shared) -> Option<(Vec<u8>, usize)> {
    let mut work = lock(&shared.work);
    loop {
        if let Some(waiting) = work.waiting.take() {
            return Some(waiting);
        }
        if work.closing {
            return None;
        }
        work = shared.changed.wait(work).unwrap_or_else(PoisonError::into_inner);
    }
}
