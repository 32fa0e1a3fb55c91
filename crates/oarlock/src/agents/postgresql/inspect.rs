//! What lies in the data directory, and what runs on it.

use super::context::{Context, Phase};
use super::copy;
use super::error::{PgError, Result};
use super::files;
use super::layout::{self, Places};
use super::prepare::{foreign_server, running_server};
use super::session::{Commits, Session};
use crate::agents::launcher::Launcher;
use oarlock_core::ids::CopyId;
use oarlock_core::resource::database::{Data, Running};
use std::fs;
use std::path::Path;

/// What a look at the directory alone tells.
enum Found {
    Absent,
    Copy { copy: CopyId, standby: bool, server: Option<u32> },
    Foreign(PgError),
}

impl<L: Launcher> Context<L> {
    /// Looks; cleans up what an interrupted clone or rewind left; adopts a server that runs.
    pub async fn inspect(&self) -> Result<Data> {
        self.kill_task().await?;
        let name = &self.settings.name;
        let pid = self.launcher.running(name).await.map_err(PgError::launch(format!("look for {name}")))?;
        if pid.is_none() && self.server().phase != Phase::Down {
            // Of a kill that was not done in time, on a machine without a moment for those who die.
            self.kill().await?;
        }
        if pid.is_none() {
            self.wait_gone().await?;
        }
        let settings = self.settings.clone();
        let places = Places::of(&settings.data_dir);
        let node = self.member(settings.node)?.name;
        let running = pid.is_some();
        let after = self.settings.timing.start;
        let look = move || {
            let told = if running { Vec::new() } else { places.tidy()? };
            Ok((look(&settings.data_dir, settings.version, &node, &settings.user)?, told))
        };
        let (found, told) = files::blocking("look at the data directory", after, look).await?;
        for text in told {
            self.note(text).await;
        }
        let (copy, standby) = match found {
            Found::Absent if running => {
                return Err(PgError::other(format!("{name} runs, but its data directory is gone")));
            }
            Found::Absent => return Ok(Data::Absent),
            Found::Foreign(error) => return Ok(Data::Foreign { reason: error.in_words() }),
            Found::Copy { server: Some(other), .. } if pid != Some(other) => {
                let error = foreign_server(&self.settings.data_dir, other);
                return Ok(Data::Foreign { reason: error.in_words() });
            }
            Found::Copy { copy, standby, .. } => (copy, standby),
        };
        let control = match self.control().await {
            Ok(control) => control,
            Err(error) => return Ok(Data::Foreign { reason: error.in_words() }),
        };
        let running = match pid {
            Some(pid) => Some(self.adopt(pid).await?),
            None => None,
        };
        Ok(Data::Present { copy, system: control.system, standby, running })
    }

    /// Takes over a server that a former agent started. It is left as it is, also when it does not
    /// answer: whoever wants it gone says so.
    async fn adopt(&self, pid: u32) -> Result<Running> {
        self.read_generated()?;
        let timing = &self.settings.timing;
        let session = match self.wait_ready(pid, timing.probe_deadline).await {
            Ok(session) => session,
            // It is alive, in a recovery that takes long.
            Err(_) if self.is_starting().await => self.wait_ready(pid, timing.start).await?,
            Err(error) => return Err(error),
        };
        let running = self.role(&session).await?;
        self.kept().session = Some(session);
        let mut server = self.server();
        server.phase = Phase::Up;
        server.pid = pid;
        server.running = running;
        Ok(running)
    }

    async fn is_starting(&self) -> bool {
        let attempt = Session::open(&self.settings, Commits::Local).await;
        attempt.is_err_and(|error| error.sqlstate() == Some("57P03"))
    }
}

fn look(dir: &Path, version: u32, node: &str, user: &super::settings::ServerUser) -> Result<Found> {
    if layout::is_absent_or_empty(dir)? {
        return Ok(Found::Absent);
    }
    let Some(found) = files::read_optional(&dir.join("PG_VERSION"))? else {
        let what = format!("{} is neither empty nor a database cluster", dir.display());
        return Ok(Found::Foreign(PgError::with_hint(what, "move it away, or set another data_dir")));
    };
    if found.trim() != version.to_string() {
        let what = format!("{} is of version {}, not {version}", dir.display(), found.trim());
        return Ok(Found::Foreign(PgError::with_hint(what, "set version, or move the directory away")));
    }
    if fs::metadata(dir.join("global/pg_control")).is_err() {
        let what = format!("{} has no global/pg_control", dir.display());
        return Ok(Found::Foreign(PgError::with_hint(what, "move the directory away; it will be cloned anew")));
    }
    let copy = match copy::read(dir, node)? {
        Some(copy) => copy,
        None => copy::renew(dir, node, files::Owned { user, mode: 0o600 })?,
    };
    let standby = fs::exists(dir.join("standby.signal")).map_err(PgError::io("look at", dir))?;
    Ok(Found::Copy { copy, standby, server: running_server(dir)? })
}
