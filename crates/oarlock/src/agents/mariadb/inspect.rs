//! What lies in the data directory, and what runs on it.

use super::conf::{CLOSED, epoch_of};
use super::context::{Context, Phase};
use super::error::{MariaError, Result};
use super::session::Session;
use super::settings::MariaSettings;
use crate::agents::launcher::Launcher;
use crate::agents::postgresql::copy;
use crate::agents::postgresql::error::PgError;
use crate::agents::postgresql::files::{self, Owned};
use crate::agents::postgresql::layout::{self, Places};
use crate::keys::random_bytes;
use oarlock_core::ids::CopyId;
use oarlock_core::resource::database::{Data, Running};
use std::fs;
use std::path::Path;

/// Says that the copy is a standby: nothing in it is its own.
const STANDBY: &str = "oarlock-standby";
/// What all copies of one database share; MariaDB itself has no such number.
const SYSTEM: &str = "oarlock-system-id";

/// In a copy that became the primary with transactions of its own as a standby: which. No other copy
/// has them or will get them.
const ERRANT: &str = "oarlock-errant";

/// What a look at the directory alone tells.
enum Found {
    Absent,
    Copy { copy: CopyId, system: u64, standby: bool, server: Option<u32> },
    Foreign(MariaError),
}

impl<L: Launcher> Context<L> {
    /// Looks; cleans up what an interrupted clone left; adopts a server that runs.
    pub async fn inspect(&self) -> Result<Data> {
        self.kill_task().await?;
        let name = &self.settings.name;
        let pid = self.launcher.running(name).await.map_err(MariaError::launch(format!("look for {name}")))?;
        if pid.is_none() && self.server().phase != Phase::Down {
            // Of a kill that was not done in time, on a machine without a moment for those who die.
            self.kill().await?;
        }
        if pid.is_none() {
            self.wait_gone().await?;
        }
        let settings = self.settings.clone();
        let node = self.member(settings.node)?.name;
        let running = pid.is_some();
        let work = move || {
            let told = if running { Vec::new() } else { Places::of(&settings.data_dir).tidy()? };
            Ok(look(&settings, &node).map(|found| (found, told)))
        };
        let (found, told) = files::blocking("look at the data directory", self.settings.timing.start, work).await??;
        for text in told {
            self.note(text).await;
        }
        let (copy, system, standby) = match found {
            Found::Absent if running => {
                return Err(MariaError::other(format!("{name} runs, but its data directory is gone")));
            }
            Found::Absent => return Ok(Data::Absent),
            Found::Foreign(error) => return Ok(Data::Foreign { reason: error.in_words() }),
            Found::Copy { server: Some(other), .. } if pid != Some(other) => {
                let error = foreign_server(&self.settings.data_dir, other);
                return Ok(Data::Foreign { reason: error.in_words() });
            }
            Found::Copy { copy, system, standby, .. } => (copy, system, standby),
        };
        let running = match pid {
            Some(pid) => Some(self.adopt(pid, standby).await?),
            None => None,
        };
        Ok(Data::Present { copy, system, standby, running })
    }

    /// Takes over a server that a former agent started. It is left as it is, also when it does not
    /// answer: whoever wants it gone says so.
    async fn adopt(&self, pid: u32, standby: bool) -> Result<Running> {
        let timing = &self.settings.timing;
        let mut session = match self.wait_ready(pid, timing.probe_deadline).await {
            Ok(session) => session,
            // It has no socket yet: a recovery that takes long. One that has, and is silent, hangs.
            Err(_) if !self.listens().await => self.wait_ready(pid, timing.start).await?,
            Err(error) => return Err(error),
        };
        let running = if standby { Running::Standby } else { Running::Primary };
        let guard_on = self.guard_is_on(&mut session).await?;
        let number = session.value("select @@global.server_id", self.settings.timing.statement).await?;
        let mut server = self.server();
        server.phase = Phase::Up;
        server.pid = pid;
        server.running = running;
        server.guard_on = running == Running::Primary && guard_on;
        server.guard_changes += 1;
        server.epoch = number.parse().ok().and_then(epoch_of).unwrap_or(0);
        Ok(running)
    }

    async fn listens(&self) -> bool {
        let connecting = tokio::net::UnixStream::connect(self.settings.socket());
        tokio::time::timeout(self.settings.timing.statement, connecting).await.is_ok_and(|stream| stream.is_ok())
    }

    async fn guard_is_on(&self, session: &mut Session) -> Result<bool> {
        let after = self.settings.timing.statement;
        let timeout = session.value("select @@global.rpl_semi_sync_master_timeout", after).await?;
        let alone = session.value("select @@global.rpl_semi_sync_master_wait_no_slave", after).await?;
        let enabled = session.value("select @@global.rpl_semi_sync_master_enabled", after).await?;
        let gate = session.value("select @@global.init_connect", after).await?;
        tracing::info!(resource = self.settings.name, clients_in = gate != CLOSED, timeout, alone, "adopted");
        Ok(timeout.parse::<u64>().is_ok_and(|ms| ms > u64::from(u32::MAX)) && alone == "1" && enabled == "1")
    }
}

fn look(settings: &MariaSettings, node: &str) -> Result<Found> {
    let dir = &settings.data_dir;
    if layout::is_absent_or_empty(dir)? {
        return Ok(Found::Absent);
    }
    if !dir.join("ibdata1").exists() || !dir.join("mysql").is_dir() {
        let what = format!("{} is neither empty nor a data directory of MariaDB", dir.display());
        return Ok(Found::Foreign(MariaError::with_hint(what, "move it away, or set another data_dir")));
    }
    for name in ["mariadb_upgrade_info", "mysql_upgrade_info"] {
        let found = files::read_optional(&dir.join(name))?.unwrap_or_default();
        let found = found.trim();
        if !found.is_empty() && !found.starts_with(&format!("{}.", settings.version)) {
            let what = format!("{} is of version {found}, not {}", dir.display(), settings.version);
            return Ok(Found::Foreign(MariaError::with_hint(what, "run mariadb-upgrade on it, or set version")));
        }
    }
    let copy = match copy::read(dir, node)? {
        Some(copy) => copy,
        None => copy::renew(dir, node, private(settings))?,
    };
    let system = match read_system(dir)? {
        Some(system) => system,
        None => new_system(settings, dir)?,
    };
    Ok(Found::Copy { copy, system, standby: is_standby(dir), server: running_server(dir) })
}

fn private(settings: &MariaSettings) -> Owned<'_> {
    Owned { user: &settings.user, mode: 0o600 }
}

/// The identifier of the database in a directory, if it has one.
pub(super) fn read_system(dir: &Path) -> Result<Option<u64>> {
    let text = files::read_optional(&dir.join(SYSTEM))?;
    Ok(text.and_then(|text| u64::from_str_radix(text.trim(), 16).ok()))
}

/// Writes the identifier of the database that a directory is a copy of.
pub(super) fn write_system(settings: &MariaSettings, dir: &Path, system: u64) -> Result<()> {
    Ok(files::replace_durably(&dir.join(SYSTEM), format!("{system:016x}\n").as_bytes(), private(settings))?)
}

/// A new one, for a database that has none.
pub(super) fn new_system(settings: &MariaSettings, dir: &Path) -> Result<u64> {
    let mut bytes = [0; 8];
    random_bytes(&mut bytes).map_err(|error| MariaError::other(error.to_string()))?;
    let system = u64::from_le_bytes(bytes);
    write_system(settings, dir, system)?;
    Ok(system)
}

/// Remembers what the copy here has that no other one will get; durably.
pub(super) fn keep_errant(settings: &MariaSettings, errant: &str) -> Result<()> {
    let text = format!("{errant}\n");
    Ok(files::replace_durably(&settings.data_dir.join(ERRANT), text.as_bytes(), private(settings))?)
}

/// Whether there is something that no other copy will get.
pub(super) fn has_errant(dir: &Path) -> bool {
    dir.join(ERRANT).exists()
}

/// Whether the copy in a directory is a standby.
pub(super) fn is_standby(dir: &Path) -> bool {
    dir.join(STANDBY).exists()
}

/// Makes the copy in `dir` a standby, durably.
pub(super) fn mark_standby(settings: &MariaSettings, dir: &Path) -> Result<()> {
    Ok(files::replace_durably(&dir.join(STANDBY), b"", private(settings))?)
}

/// Makes this node's copy a standby, or not one any more; durably.
pub(super) async fn set_standby(settings: &MariaSettings, standby: bool) -> Result<()> {
    let settings = settings.clone();
    let after = settings.timing.tool;
    let work = move || {
        let file = settings.data_dir.join(STANDBY);
        if standby {
            return Ok(mark_standby(&settings, &settings.data_dir));
        }
        files::remove_file(&file)?;
        files::sync_parent(&file)?;
        Ok(Ok(()))
    };
    files::blocking("change the copy's role", after, work).await?
}

/// The server that runs on a data directory, whoever started it: it works in it.
pub(super) fn running_server(dir: &Path) -> Option<u32> {
    let real = fs::canonicalize(dir).ok()?;
    let processes = fs::read_dir("/proc").ok()?;
    processes.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse::<u32>().ok()).find(|pid| {
        let named = fs::read_to_string(format!("/proc/{pid}/comm")).is_ok_and(|name| is_server(name.trim()));
        named && fs::read_link(format!("/proc/{pid}/cwd")).is_ok_and(|cwd| cwd == real)
    })
}

fn is_server(name: &str) -> bool {
    matches!(name, "mariadbd" | "mysqld")
}

/// A server that is not ours runs on the directory.
pub(super) fn foreign_server(dir: &Path, pid: u32) -> MariaError {
    MariaError::with_hint(
        format!("a server that oarlock did not start (pid {pid}) runs on {}", dir.display()),
        "stop it and disable its service, for instance: systemctl disable --now mariadb",
    )
}

/// For file operations of the shared kind.
pub(super) fn io(action: &'static str, path: &Path) -> impl FnOnce(std::io::Error) -> MariaError {
    let failed = PgError::io(action, path);
    move |error| MariaError::from(failed(error))
}
