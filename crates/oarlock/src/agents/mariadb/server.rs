//! The server process: start, orderly stop, kill.

use super::conf;
use super::context::{Context, Phase};
use super::error::{MariaError, Result};
use super::inspect;
use super::session::{Commits, Session};
use crate::agents::launcher::{Ended, Launcher};
use crate::agents::postgresql::error::PgError;
use crate::agents::postgresql::files::{self, Owned};
use oarlock_core::resource::Guard;
use oarlock_core::resource::database::Running;
use std::fs;
use std::time::{Duration, Instant};

const SIGTERM: i32 = 15;
/// "Access denied".
const DENIED: [u16; 2] = [1045, 1698];

impl<L: Launcher> Context<L> {
    /// Starts the server, closed to clients, and waits until it accepts our own connections. As a
    /// primary it acknowledges no commit; as a standby it does not follow yet. On failure nothing
    /// of it is left.
    pub async fn start(&self, running: Running, guard: Option<Guard>) -> Result<()> {
        self.server().phase = Phase::Starting;
        let result = self.try_start(running, guard).await;
        if result.is_err() {
            self.kill().await?;
        }
        result
    }

    async fn try_start(&self, running: Running, guard: Option<Guard>) -> Result<()> {
        let name = &self.settings.name;
        self.launcher.kill_group(name).await.map_err(MariaError::launch(format!("kill what is left of {name}")))?;
        self.kill_task().await?;
        self.wait_gone().await?;
        let data = self.settings.data_dir.clone();
        let other = files::blocking("look for another server", self.settings.timing.tool, move || {
            Ok(inspect::running_server(&data))
        });
        if let Some(pid) = other.await? {
            return Err(inspect::foreign_server(&self.settings.data_dir, pid));
        }
        let epoch = guard.map(|guard| guard.epoch);
        self.prepare_run_dir(running, epoch)?;
        let config = format!("--defaults-file={}", self.run_file("mariadb.cnf").display());
        let mut request = self.request(name.clone(), vec![self.settings.server.display().to_string(), config]);
        request.guard = guard;
        self.server().log_offset = files::length(&self.settings.log_file);
        let pid = self.launcher.spawn(request).await.map_err(MariaError::launch("start mariadbd"))?;
        self.server().pid = pid;
        drop(self.wait_ready(pid, self.settings.timing.start).await?);
        let mut server = self.server();
        server.phase = Phase::Up;
        server.running = running;
        server.guard_on = running == Running::Primary;
        server.guard_changes += 1;
        server.confirmed = 0;
        server.epoch = epoch.unwrap_or(0);
        server.reopen_at = None;
        Ok(())
    }

    /// Makes the run directory and writes all that is in it.
    pub fn prepare_run_dir(&self, running: Running, epoch: Option<u64>) -> Result<()> {
        let dir = &self.settings.run_dir;
        fs::create_dir_all(dir).map_err(PgError::io("create", dir))?;
        files::give(dir, Owned { user: &self.settings.user, mode: 0o750 })?;
        let temporary = conf::temporary(&self.settings);
        fs::create_dir_all(&temporary).map_err(PgError::io("create", &temporary))?;
        files::give(&temporary, Owned { user: &self.settings.user, mode: 0o700 })?;
        let secrets = &self.settings.secrets;
        for (from, to) in [(&secrets.certificate, "server.crt"), (&secrets.key, "server.key")] {
            let content = fs::read(from).map_err(PgError::io("read", from))?;
            files::replace(&self.run_file(to), &content, self.private())?;
        }
        let text = conf::text(&self.settings, running, epoch);
        Ok(files::replace(&self.run_file("mariadb.cnf"), text.as_bytes(), self.private())?)
    }

    /// Waits until we can log in.
    pub async fn wait_ready(&self, pid: u32, after: Duration) -> Result<Session> {
        let start = Instant::now();
        let ended = self.wait_exit(&self.settings.name, pid);
        tokio::pin!(ended);
        loop {
            match Session::open(&self.settings, Commits::Local).await {
                Ok(session) => return Ok(session),
                Err(error) if error.code().is_some_and(|code| DENIED.contains(&code)) => {
                    let what = format!("no log-in as {}: {}", self.settings.admin, error.in_words());
                    let hint = "the account must accept the agent's system user over the socket (unix_socket)";
                    return Err(MariaError::with_hint(what, hint));
                }
                Err(error) if start.elapsed() > after => {
                    return Err(MariaError::Timeout { what: format!("the server ({})", error.in_words()), after });
                }
                Err(_) => {}
            }
            // Often at first, when a few milliseconds count; rarely when recovery takes long.
            let pause = (start.elapsed() / 20).clamp(Duration::from_millis(2), Duration::from_millis(100));
            tokio::select! {
                ended = &mut ended => return Err(self.start_failed(ended)),
                () = tokio::time::sleep(pause) => {}
            }
        }
    }

    fn start_failed(&self, ended: Ended) -> MariaError {
        let said = self.last_words();
        let what = format!("the server did not start ({ended}): {said}");
        let port = self.settings.port;
        let hints = [
            ("Address already in use", format!("another program uses port {port}; stop it, or set another port")),
            ("No space left on device", "make room on the file system of the data directory".to_owned()),
            ("Permission denied", "the data directory must belong to the server's user".to_owned()),
            ("unknown variable", "correct the administrator's settings where they are named".to_owned()),
        ];
        match hints.into_iter().find(|(text, _)| said.contains(text)) {
            Some((_, hint)) => MariaError::with_hint(what, hint),
            None => MariaError::other(what),
        }
    }

    /// What the server's log says of this run, at its end.
    pub fn last_words(&self) -> String {
        files::tail(&self.settings.log_file, self.server().log_offset)
    }

    /// Stops the server in an orderly way, by SIGKILL after the deadline. A primary is only killed
    /// unless nobody is left in it: an orderly stop ends clients' waiting commits, which others
    /// could then see.
    pub async fn stop(&self) -> Result<()> {
        let (phase, pid) = {
            let mut server = self.server();
            let before = (server.phase, server.pid);
            server.phase = Phase::Stopping;
            before
        };
        if phase == Phase::Up {
            let name = &self.settings.name;
            if self.launcher.signal(name, SIGTERM).await.is_ok() {
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
        self.launcher.kill_group(name).await.map_err(MariaError::launch(format!("kill {name}")))?;
        self.kill_task().await?;
        self.server().phase = Phase::Down;
        Ok(())
    }
}
