//! The deep probe: can the server still make something durable, does it let anybody in, and can the
//! disk below it write? What it writes is on this copy alone, so that the loss of a standby does not
//! make a healthy primary look sick.

use super::context::{Phase, Shared};
use super::error::{MariaError, Result};
use super::session::{Commits, Session};
use super::settings::MariaSettings;
use crate::agents::launcher::Launcher;
use crate::agents::postgresql::error::PgError;
use oarlock_core::resource::database::Running;
use std::fs::OpenOptions;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// The file that the disk is probed with, in the data directory.
const FILE: &str = "oarlock-probe";
/// Written in place, as logs are: no change of metadata, so that no journal is waited for.
const BLOCK: [u8; 512] = [b'\n'; 512];
/// A file system with less room than this counts as full, in bytes.
const FULL_BELOW: u64 = 256 * 1024;

/// What the probes found, shared with the monitor.
#[derive(Debug, Default)]
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
}

impl Board {
    /// All good as of now.
    pub fn new() -> Arc<Board> {
        Arc::default()
    }

    /// What is wrong, when a probe has had no success for longer than `deadline`.
    pub fn verdict(&self, deadline: Duration) -> Option<String> {
        let judge = |finding: &Mutex<Finding>, what: &str| {
            let finding = lock(finding);
            let silent = finding.since?.elapsed();
            let why = finding.problem.as_ref().map_or_else(String::new, |problem| format!(": {problem}"));
            (silent > deadline).then(|| format!("{what} for {} ms{why}", silent.as_millis()))
        };
        judge(&self.disk, "the disk made nothing durable")
            .or_else(|| judge(&self.server, "the server did not do its work"))
            .or_else(|| judge(&self.door, "the server let nobody in"))
    }
}

fn lock(finding: &Mutex<Finding>) -> MutexGuard<'_, Finding> {
    finding.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Runs one probe and writes down how long none has had success.
async fn judge(finding: &Mutex<Finding>, probe: impl Future<Output = Result<()>>) {
    lock(finding).since.get_or_insert_with(Instant::now);
    let result = probe.await;
    let mut finding = lock(finding);
    match result {
        Ok(()) => *finding = Finding::default(),
        Err(error) => finding.problem = Some(error.in_words()),
    }
}

/// Probes server and disk until the task is aborted.
pub(super) async fn probe<L: Launcher>(context: Shared<L>, board: Arc<Board>) {
    tokio::join!(probe_server(&context, &board), probe_door(&context, &board), probe_disk(&context, &board));
}

async fn probe_door<L: Launcher>(context: &Shared<L>, board: &Board) {
    loop {
        if context.server().phase == Phase::Up {
            let enter = async {
                Session::open(&context.settings, Commits::Local).await?.close().await;
                Ok(())
            };
            judge(&board.door, enter).await;
        }
        tokio::time::sleep(context.settings.timing.probe_deadline / 2).await;
    }
}

async fn probe_server<L: Launcher>(context: &Shared<L>, board: &Board) {
    let mut session = None;
    loop {
        if context.server().phase == Phase::Up {
            judge(&board.server, ask(context, &mut session)).await;
        }
        tokio::time::sleep(context.settings.timing.probe_deadline / 3).await;
    }
}

async fn ask<L: Launcher>(context: &Shared<L>, kept: &mut Option<Session>) -> Result<()> {
    let mut session = match kept.take() {
        Some(session) => session,
        None => Session::open(&context.settings, Commits::Local).await?,
    };
    let after = context.settings.timing.probe_deadline;
    if context.server().running == Running::Standby {
        session.run("select n from oarlock.probe", after).await?;
    } else {
        session.run("update oarlock.probe set n = n + 1 where id = 1", after).await?;
        if let Some(problem) = context.guard_problem(&mut session).await? {
            return Err(MariaError::other(problem));
        }
    }
    *kept = Some(session);
    Ok(())
}

/// One write at a time: a disk that hangs holds one thread, not ever more of them.
async fn probe_disk<L: Launcher>(context: &Shared<L>, board: &Board) {
    loop {
        let settings = context.settings.clone();
        let write = async {
            let written = tokio::task::spawn_blocking(move || write(&settings)).await;
            written.unwrap_or_else(|error| Err(MariaError::other(error.to_string())))
        };
        judge(&board.disk, write).await;
        tokio::time::sleep(context.settings.timing.probe_deadline / 3).await;
    }
}

fn write(settings: &MariaSettings) -> Result<()> {
    let path = settings.data_dir.join(FILE);
    let mut options = OpenOptions::new();
    options.write(true).create(true).mode(0o600).custom_flags(libc::O_NOFOLLOW);
    let file = options.open(&path).map_err(PgError::io("open", &path))?;
    file.write_all_at(&BLOCK, 0).map_err(PgError::io("write", &path))?;
    file.sync_data().map_err(PgError::io("flush", &path))?;
    let room = rustix::fs::fstatvfs(&file).map_err(|error| PgError::io("look at", &path)(error.into()))?;
    if room.f_bavail * room.f_frsize < FULL_BELOW {
        let what = format!("no space left on the file system of {}", settings.data_dir.display());
        return Err(MariaError::with_hint(what, "make room there"));
    }
    Ok(())
}
