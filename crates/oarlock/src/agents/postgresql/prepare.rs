//! Everything a server needs before it starts: the run directory with our generated files, and a
//! data directory in the right state.

use super::access::{self, Clients};
use super::conf::{self, Dynamic};
use super::context::Context;
use super::error::{PgError, Result};
use super::files::{self, Owned};
use super::names;
use super::session::REPLICATION_ROLE;
use super::settings::PgSettings;
use crate::agents::launcher::Launcher;
use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::DirBuilderExt;
use std::path::Path;

impl<L: Launcher> Context<L> {
    /// Makes the run directory and what does not change in it while a server runs.
    pub fn prepare_run_dir(&self) -> Result<()> {
        let dir = &self.settings.run_dir;
        if let Some(parent) = dir.parent() {
            fs::create_dir_all(parent).map_err(PgError::io("create", parent))?;
        }
        make_dir(dir, Owned { user: &self.settings.user, mode: 0o700 })?;
        let secrets = &self.settings.secrets;
        for (from, to) in [(&secrets.certificate, "server.crt"), (&secrets.key, "server.key")] {
            let content = fs::read(from).map_err(PgError::io("read", from))?;
            files::replace(&self.run_file(to), &content, self.private())?;
        }
        let password = format!("*:*:*:{REPLICATION_ROLE}:{}\n", secrets.replication_password);
        files::replace(&self.run_file("passfile"), password.as_bytes(), self.private())?;
        let ident = access::ident(&self.settings, &own_user()?)?;
        files::replace(&self.run_file("pg_ident.conf"), ident.as_bytes(), self.private())
    }

    /// Writes the generated configuration under a new generation, with `user` in place of the
    /// administrator's file. What is in force is not known until it was seen.
    pub fn write_conf(&self, user: &Path, dynamic: &Dynamic) -> Result<u64> {
        let generation = {
            let mut server = self.server();
            server.in_force = None;
            server.generation += 1;
            server.generation
        };
        let text = conf::text(user, dynamic, generation);
        files::replace(&self.run_file("postgresql.conf"), text.as_bytes(), self.private())?;
        Ok(generation)
    }

    /// Writes the generated access file under a new generation and remembers it.
    pub fn write_access(&self, clients: Clients) -> Result<u64> {
        let generation = self.server().access_generation + 1;
        let text = access::hba(&self.settings, &self.members(), clients, generation)?;
        files::replace(&self.run_file("pg_hba.conf"), text.as_bytes(), self.private())?;
        let mut server = self.server();
        server.access_generation = generation;
        server.clients = clients;
        Ok(generation)
    }

    /// Takes over what a former agent wrote.
    pub fn read_generated(&self) -> Result<()> {
        let conf = files::read_optional(&self.run_file("postgresql.conf"))?;
        let hba = files::read_optional(&self.run_file("pg_hba.conf"))?;
        let (names, generation) = match conf.as_deref().and_then(conf::parse) {
            Some((dynamic, generation)) => (dynamic.names, generation),
            None => (String::new(), 0),
        };
        let mut server = self.server();
        server.generation = generation;
        server.epoch = names::epoch_of(&names).unwrap_or(0);
        // Written by another: whether it was taken over is not known.
        server.in_force = None;
        let (clients, generation) = hba.as_deref().and_then(access::parse_state).unwrap_or((Clients::Closed, 0));
        server.clients = clients;
        server.access_generation = generation;
        Ok(())
    }

    /// What a setting would be, by the administrator's files.
    pub async fn ask_setting(&self, name: &str) -> Result<String> {
        let config = format!("config_file={}", self.run_file("postgresql.conf").display());
        let data = self.settings.data_dir.display().to_string();
        let args = ["-D", &data, "-c", &config, "-C", name];
        Ok(self.run_program("postgres", &args, self.settings.timing.tool).await?.trim().to_owned())
    }

    /// What of `floor` the administrator's files do not reach.
    pub async fn raised(&self, floor: BTreeMap<&'static str, u64>) -> Result<BTreeMap<&'static str, u64>> {
        let mut raised = BTreeMap::new();
        for (name, least) in floor {
            if self.ask_setting(name).await?.parse::<u64>().is_ok_and(|own| own < least) {
                raised.insert(name, least);
            }
        }
        Ok(raised)
    }

    /// The administrator's socket directories below /run vanish at every boot.
    pub fn make_socket_dirs(&self, list: &str) -> Result<()> {
        for dir in list.split(',').map(|dir| Path::new(dir.trim().trim_matches('"'))) {
            let volatile = dir.starts_with("/run") || dir.starts_with("/var/run");
            if volatile && !dir.exists() {
                make_dir(dir, Owned { user: &self.settings.user, mode: 0o2775 })?;
            }
        }
        Ok(())
    }
}

fn make_dir(dir: &Path, owned: Owned<'_>) -> Result<()> {
    match fs::DirBuilder::new().mode(owned.mode).create(dir) {
        Err(error) if error.kind() != std::io::ErrorKind::AlreadyExists => {
            return Err(PgError::io("create", dir)(error));
        }
        _ => {}
    }
    files::give(dir, owned)
}

/// Whether the data directory is to start as a standby or as a primary.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Start {
    Standby,
    Primary,
}

/// Brings the data directory in order for a start; nothing runs on it.
pub(super) fn prepare_data_dir(settings: &PgSettings, start: Start) -> Result<()> {
    let dir = &settings.data_dir;
    remove_stale_lock(dir)?;
    // A trigger left by an interrupted promotion would promote the next standby at once.
    files::remove_file(&dir.join("promote"))?;
    files::remove_file(&dir.join("recovery.signal"))?;
    let signal = dir.join("standby.signal");
    match start {
        Start::Standby if !signal.exists() => {
            return Err(PgError::other("this copy was a primary: it must be rewound before it follows"));
        }
        Start::Primary if signal.exists() => {
            // Only a promotion begins a new timeline, by which a diverged copy is known later.
            return Err(PgError::other("this copy is a standby: it must be promoted, not started as a primary"));
        }
        _ => {}
    }
    let auto = dir.join("postgresql.auto.conf");
    if let Some(kept) = files::read_optional(&auto)?.as_deref().and_then(conf::without_overrides) {
        files::replace_durably(&auto, kept.as_bytes(), Owned { user: &settings.user, mode: 0o600 })?;
        tracing::warn!("removed settings made by ALTER SYSTEM that would override ours from {}", auto.display());
    }
    Ok(())
}

/// A lock file whose process is gone would stop the start when its number was given to another.
fn remove_stale_lock(dir: &Path) -> Result<()> {
    match running_server(dir)? {
        Some(pid) => Err(foreign_server(dir, pid)),
        None => files::remove_file(&dir.join("postmaster.pid")),
    }
}

/// The server that runs on a data directory, whoever started it.
pub(super) fn running_server(dir: &Path) -> Result<Option<u32>> {
    let Some(lock) = files::read_optional(&dir.join("postmaster.pid"))? else { return Ok(None) };
    let Some(pid) = lock.lines().next().and_then(|line| line.trim().parse::<u32>().ok()) else { return Ok(None) };
    let real = fs::canonicalize(dir).map_err(PgError::io("resolve", dir))?;
    let there = fs::read_link(format!("/proc/{pid}/cwd")).is_ok_and(|cwd| cwd == real);
    Ok(there.then_some(pid))
}

/// A server that is not ours runs on the directory.
pub(super) fn foreign_server(dir: &Path, pid: u32) -> PgError {
    PgError::with_hint(
        format!("a server that oarlock did not start (pid {pid}) runs on {}", dir.display()),
        "stop it and disable its service, for instance: systemctl disable --now postgresql",
    )
}

/// The name of the user that this process runs as, by which the server knows our connections.
pub(super) fn own_user() -> Result<String> {
    let uid = rustix::process::geteuid().as_raw();
    if uid == 0 {
        return Ok("root".to_owned());
    }
    let passwd = files::read_optional(Path::new("/etc/passwd"))?.unwrap_or_default();
    let named = passwd.lines().find_map(|line| {
        let mut fields = line.split(':');
        let name = fields.next()?;
        (fields.nth(1)?.parse() == Ok(uid)).then(|| name.to_owned())
    });
    named.ok_or_else(|| PgError::other(format!("user number {uid} has no name in /etc/passwd")))
}
