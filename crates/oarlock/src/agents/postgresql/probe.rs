//! The deep probe: can the server still make something durable, and can the disk below it?
//!
//! A probe is itself a commit. It waits for the local disk only, else the loss of a standby would
//! make a healthy primary look sick; and it leaves nothing behind but a few bytes of WAL.

use super::context::{Phase, Shared};
use super::error::{PgError, Result};
use super::files::{self, Owned};
use super::guard::PROBE;
use super::session::{Commits, Session};
use super::settings::PgSettings;
use crate::agents::launcher::Launcher;
use oarlock_core::resource::database::Running;
use std::fs::OpenOptions;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// The file that the disk is probed with, in the data directory.
pub(super) const FILE: &str = "oarlock-probe";
/// Written in place, as WAL is: no change of metadata, so that no journal is waited for.
const BLOCK: [u8; 512] = [b'\n'; 512];
/// A file system with less room than this counts as full.
const FULL_BELOW: u64 = 256 * 1024;

/// What the probes found, shared with the monitor.
#[derive(Debug)]
pub(super) struct Board {
    server: Mutex<Finding>,
    door: Mutex<Finding>,
    disk: Mutex<Finding>,
}

#[derive(Debug, Default)]
struct Finding {
    /// Start of the first probe that has had no success since.
    since: Option<Instant>,
    problem: Option<String>,
    /// It will not pass by itself.
    certain: bool,
}

/// SQLSTATE `cannot_connect_now`: a server that is up says so only when somebody has told it to end.
const ENDING: &str = "57P03";

impl Board {
    /// All good as of now.
    pub fn new() -> Arc<Board> {
        Arc::new(Board { server: Mutex::default(), door: Mutex::default(), disk: Mutex::default() })
    }

    /// Whether a probe has been without an answer for longer than `usual`.
    pub fn is_waiting(&self, usual: Duration) -> bool {
        let late = |finding: &Mutex<Finding>| lock(finding).since.is_some_and(|since| since.elapsed() > usual);
        [&self.server, &self.door, &self.disk].into_iter().any(late)
    }

    /// What is wrong, when a probe has had no success for longer than `deadline`, or cannot have any.
    pub fn verdict(&self, deadline: Duration) -> Option<String> {
        let judge = |finding: &Mutex<Finding>, what: &str| {
            let finding = lock(finding);
            let silent = finding.since?.elapsed();
            (silent > deadline || finding.certain).then(|| match &finding.problem {
                Some(problem) => format!("{what} for {} ms: {problem}", silent.as_millis()),
                None => format!("{what} for {} ms", silent.as_millis()),
            })
        };
        judge(&self.disk, "the disk made nothing durable")
            .or_else(|| judge(&self.server, "the server made nothing durable"))
            .or_else(|| judge(&self.door, "the server let nobody in"))
    }
}

fn lock(finding: &Mutex<Finding>) -> MutexGuard<'_, Finding> {
    finding.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Runs one probe and writes down how long none has had success.
async fn judge<L: Launcher>(context: &Shared<L>, finding: &Mutex<Finding>, probe: impl Future<Output = Result<()>>) {
    lock(finding).since.get_or_insert_with(Instant::now);
    let result = probe.await;
    let mut finding = lock(finding);
    match result {
        Ok(()) => *finding = Finding::default(),
        Err(error) => {
            finding.certain |= error.sqlstate() == Some(ENDING);
            finding.problem = Some(error.in_words());
            // The monitor tells; it should not be found asleep.
            context.look.notify_one();
        }
    }
}

/// Probes server and disk until the task is aborted.
pub(super) async fn probe<L: Launcher>(context: Shared<L>, board: Arc<Board>) {
    tokio::join!(probe_server(&context, &board), probe_door(&context, &board), probe_disk(&context, &board));
}

/// A process that hangs as a whole is seen by its sessions; a postmaster that hangs only by who
/// comes new.
async fn probe_door<L: Launcher>(context: &Shared<L>, board: &Board) {
    loop {
        if context.server().phase == Phase::Up {
            judge(context, &board.door, async { Session::open(&context.settings, Commits::Local).await.map(drop) })
                .await;
        }
        tokio::time::sleep(context.settings.timing.probe_deadline / 2).await;
    }
}

async fn probe_server<L: Launcher>(context: &Shared<L>, board: &Board) {
    let mut session = None;
    loop {
        if context.server().phase == Phase::Up {
            judge(context, &board.server, ask(context, &mut session)).await;
        }
        tokio::time::sleep(context.settings.timing.probe_deadline / 3).await;
    }
}

async fn ask<L: Launcher>(context: &Shared<L>, kept: &mut Option<Session>) -> Result<()> {
    let session = match kept.take() {
        Some(session) => session,
        None => Session::open(&context.settings, Commits::Local).await?,
    };
    let sql = match context.server().running {
        Running::Primary => PROBE,
        Running::Standby => "select count(*) from pg_database",
    };
    session.run(sql, context.settings.timing.probe_deadline).await?;
    *kept = Some(session);
    Ok(())
}

/// One write at a time: a disk that hangs holds one thread, not ever more of them.
async fn probe_disk<L: Launcher>(context: &Shared<L>, board: &Board) {
    loop {
        let settings = context.settings.clone();
        let write = async {
            let written = tokio::task::spawn_blocking(move || write(&settings)).await;
            written.unwrap_or_else(|error| Err(PgError::other(error.to_string())))
        };
        judge(context, &board.disk, write).await;
        tokio::time::sleep(context.settings.timing.probe_deadline / 3).await;
    }
}

fn write(settings: &PgSettings) -> Result<()> {
    let path = settings.data_dir.join(FILE);
    let mut options = OpenOptions::new();
    // Never through a link that the server's user may have put there.
    options.write(true).create(true).truncate(false).mode(0o600).custom_flags(libc::O_NOFOLLOW | libc::O_CLOEXEC);
    let file = options.open(&path).map_err(PgError::io("open", &path))?;
    let fresh = file.metadata().map_err(PgError::io("look at", &path))?.len() == 0;
    file.write_all_at(&BLOCK, 0).map_err(PgError::io("write", &path))?;
    file.sync_data().map_err(PgError::io("flush", &path))?;
    if fresh {
        files::give(&path, Owned { user: &settings.user, mode: 0o600 })?;
    }
    let room = rustix::fs::fstatvfs(&file).map_err(|error| PgError::io("look at", &path)(error.into()))?;
    if room.f_bavail * room.f_frsize < FULL_BELOW {
        let what = format!("no space left on the file system of {}", settings.data_dir.display());
        return Err(PgError::with_hint(what, "make room there"));
    }
    Ok(())
}
