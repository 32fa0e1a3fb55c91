//! The server process: start, orderly stop, kill.

use super::access::Clients;
use super::conf::{self, Dynamic};
use super::context::{Context, Phase};
use super::error::{PgError, Result};
use super::files;
use super::names;
use super::prepare::{self, Start};
use super::program::environment;
use super::reload::LAST_GOOD;
use super::session::{AGENT_ROLE, Commits, Kept, Session, identifier};
use crate::agents::launcher::{Ended, Launcher, SpawnRequest};
use oarlock_core::resource::Guard;
use oarlock_core::resource::database::Running;
use std::collections::BTreeMap;
use std::time::{Duration, Instant};

/// "Fast" shutdown of a postmaster.
const SIGINT: i32 = 2;

impl<L: Launcher> Context<L> {
    /// Starts the server, closed to clients and acknowledging no commit, and waits until it
    /// accepts our own connections. On failure nothing of it is left.
    pub async fn start(&self, start: Start, upstream: String, guard: Option<Guard>) -> Result<()> {
        self.server().phase = Phase::Starting;
        let result = self.try_start(start, upstream, guard).await;
        if result.is_err() {
            self.kill().await?;
        }
        result
    }

    async fn try_start(&self, start: Start, upstream: String, guard: Option<Guard>) -> Result<()> {
        let name = &self.settings.name;
        self.launcher.kill_group(name).await.map_err(PgError::launch(format!("kill what is left of {name}")))?;
        self.kill_task().await?;
        self.wait_gone().await?;
        let settings = self.settings.clone();
        let prepare = move || prepare::prepare_data_dir(&settings, start);
        files::blocking("prepare the data directory", self.settings.timing.tool, prepare).await?;
        self.read_generated()?;
        self.prepare_run_dir()?;
        let dynamic = Dynamic::new(names::NOBODY, &upstream);
        self.write_conf(&self.settings.files.config, &dynamic)?;
        self.write_access(Clients::Closed)?;
        let running = match start {
            Start::Standby => Running::Standby,
            Start::Primary => Running::Primary,
        };
        let mut started = self.run_server(running, BTreeMap::new(), guard).await;
        let said = started.as_ref().err().map(PgError::in_words).unwrap_or_default();
        if said.contains("insufficient parameter settings") {
            // The primary had more connections, or the like, than the administrator's file has here.
            let raised = self.raised(self.control().await?.limits).await?;
            self.note(format!("raised to what the primary had: {raised:?}")).await;
            started = self.run_server(running, raised, guard).await;
        } else if said.contains("configuration file") && self.run_file(LAST_GOOD).exists() {
            self.note(format!("the configuration is broken, its last good values are used instead: {said}")).await;
            self.write_conf(&self.run_file(LAST_GOOD), &dynamic)?;
            started = self.run_server(running, BTreeMap::new(), guard).await;
        }
        let session = started?;
        *self.kept() = Kept { session: Some(session), probe: None };
        let mut server = self.server();
        server.phase = Phase::Up;
        server.running = running;
        server.epoch = guard.map_or(0, |guard| guard.epoch);
        server.in_force = Some(dynamic);
        server.reopen_at = None;
        Ok(())
    }

    /// Starts the process and waits until it is ready; the first session with it.
    async fn run_server(
        &self,
        running: Running,
        raised: BTreeMap<&'static str, u64>,
        guard: Option<Guard>,
    ) -> Result<Session> {
        let sockets = self.ask_setting("unix_socket_directories").await?;
        self.make_socket_dirs(&sockets)?;
        let pid = self.spawn_server(conf::imposed(&self.settings, &sockets, &raised), guard).await?;
        let session = self.wait_ready(pid, self.settings.timing.start).await?;
        if self.role(&session).await? != running {
            return Err(PgError::other("the server did not start in the role it was started for"));
        }
        Ok(session)
    }

    async fn spawn_server(&self, imposed: Vec<(&'static str, String)>, guard: Option<Guard>) -> Result<u32> {
        let settings = &self.settings;
        let mut argv = vec![settings.bin_dir.join("postgres").display().to_string()];
        argv.extend(["-D".to_owned(), settings.data_dir.display().to_string()]);
        for (name, value) in imposed {
            argv.extend(["-c".to_owned(), format!("{name}={value}")]);
        }
        self.server().log_offset = files::length(&settings.log_file);
        let request = SpawnRequest {
            name: settings.name.clone(),
            argv,
            env: environment(&settings.bin_dir),
            uid: settings.user.uid,
            gid: settings.user.gid,
            groups: settings.user.groups.clone(),
            cwd: "/".into(),
            log: settings.log_file.clone(),
            guard,
        };
        let pid = self.launcher.spawn(request).await.map_err(PgError::launch("start postgres"))?;
        self.server().pid = pid;
        Ok(pid)
    }

    /// Waits until our own role can log in.
    pub async fn wait_ready(&self, pid: u32, after: Duration) -> Result<Session> {
        let start = Instant::now();
        let ended = self.wait_exit(&self.settings.name, pid);
        tokio::pin!(ended);
        loop {
            if let Some(session) = self.log_in().await? {
                return Ok(session);
            }
            if start.elapsed() > after {
                return Err(PgError::Timeout { what: "the server".to_owned(), after });
            }
            // Often at first, when a few milliseconds count; rarely when recovery takes long.
            let pause = (start.elapsed() / 20).clamp(Duration::from_millis(2), Duration::from_millis(100));
            tokio::select! {
                ended = &mut ended => return Err(self.start_failed(ended)),
                () = tokio::time::sleep(pause) => {}
            }
        }
    }

    /// One attempt; `None` when the server is not ready yet.
    async fn log_in(&self) -> Result<Option<Session>> {
        let error = match Session::open(&self.settings, Commits::Local).await {
            Ok(session) => return Ok(Some(session)),
            Err(error) => error,
        };
        match error.sqlstate() {
            // "invalid authorization": our role is not there yet.
            Some("28000") => self.make_agent_role().await.map(|()| None),
            // "cannot connect now".
            Some("57P03") | None => Ok(None),
            Some(_) => Err(error),
        }
    }

    /// What the server is.
    pub async fn role(&self, session: &Session) -> Result<Running> {
        let recovery = session.value("select pg_is_in_recovery()", self.settings.timing.statement).await?;
        Ok(if recovery == "t" { Running::Standby } else { Running::Primary })
    }

    /// Makes our own role as the administrator's; only while the server is closed to clients.
    async fn make_agent_role(&self) -> Result<()> {
        let admin = &self.settings.admin_role;
        let opened = Session::open_as(&self.settings, admin, &self.settings.database, Commits::Local).await;
        let session = opened.map_err(|error| {
            let what = format!("no log-in as {admin} to make our own role: {}", error.in_words());
            PgError::with_hint(what, "set admin_role to the name of a superuser")
        })?;
        if self.role(&session).await? == Running::Standby {
            return Err(PgError::other(format!("this copy has no role {AGENT_ROLE}: its primary was never ours")));
        }
        let sql = format!("create role {} superuser login", identifier(AGENT_ROLE));
        session.run(&sql, self.settings.timing.statement).await
    }

    fn start_failed(&self, ended: Ended) -> PgError {
        let said = self.last_words();
        let what = format!("the server did not start ({ended}): {said}");
        let port = self.settings.port;
        let hints = [
            ("could not bind", format!("another program uses port {port}; stop it, or set another port")),
            ("Address already in use", format!("another program uses port {port}; stop it, or set another port")),
            ("No space left on device", "make room on the file system of the data directory".to_owned()),
            ("Permission denied", "the data directory must belong to the server's user, with mode 0700".to_owned()),
            ("configuration file", "correct the file and line that are named".to_owned()),
        ];
        match hints.into_iter().find(|(text, _)| said.contains(text)) {
            Some((_, hint)) => PgError::with_hint(what, hint),
            None => PgError::other(what),
        }
    }

    /// What the server's log says of this run, at its end.
    pub fn last_words(&self) -> String {
        files::tail(&self.settings.log_file, self.server().log_offset)
    }

    /// Stops the server in an orderly way, by SIGKILL after the deadline.
    pub async fn stop(&self) -> Result<()> {
        let (phase, pid) = {
            let mut server = self.server();
            let before = (server.phase, server.pid);
            server.phase = Phase::Stopping;
            before
        };
        if phase == Phase::Up {
            let name = &self.settings.name;
            let signalled = self.launcher.signal(name, SIGINT).await;
            if signalled.is_ok() {
                self.wait_exit_within(name, pid, self.settings.timing.stop).await;
            }
        }
        // Whatever is left, or did not end in time.
        self.kill().await
    }

    /// Ends the server and all tools by SIGKILL.
    pub async fn kill(&self) -> Result<()> {
        self.server().phase = Phase::Stopping;
        let name = &self.settings.name;
        self.launcher.kill_group(name).await.map_err(PgError::launch(format!("kill {name}")))?;
        self.kill_task().await?;
        self.server().phase = Phase::Down;
        Ok(())
    }
}
