//! MariaDB's own tools, through the launcher, so that an agent that is restarted meanwhile can find
//! and end them.

use super::context::Context;
use super::error::{MariaError, Result};
use crate::agents::launcher::{Ended, Launcher, SpawnRequest, wait_gone};
use crate::agents::postgresql::files;
use std::path::PathBuf;
use std::time::Duration;

/// The environment of everything we start.
pub(super) fn environment() -> Vec<(String, String)> {
    let path = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
    let pairs = [("LC_ALL", "C.UTF-8"), ("PATH", path), ("HOME", "/nonexistent"), ("MYSQL_HOME", "/nonexistent")];
    pairs.into_iter().map(|(key, value)| (key.to_owned(), value.to_owned())).collect()
}

impl<L: Launcher> Context<L> {
    /// A tool's path.
    pub fn tool(&self, name: &str) -> Result<PathBuf> {
        let path = self.settings.tools_dir.join(name);
        if path.exists() {
            return Ok(path);
        }
        let hint = "install mariadb-server and mariadb-backup, or set where they are";
        Err(MariaError::with_hint(format!("{} is not there", path.display()), hint))
    }

    /// What is started, as the server's user, with its output in the log.
    pub fn request(&self, name: String, argv: Vec<String>) -> SpawnRequest {
        SpawnRequest {
            name,
            argv,
            env: environment(),
            uid: self.settings.user.uid,
            gid: self.settings.user.gid,
            groups: self.settings.user.groups.clone(),
            cwd: "/".into(),
            log: self.settings.log_file.clone(),
            guard: None,
        }
    }

    /// Runs a tool to its end; fails with what it said last.
    pub async fn run_task(&self, program: &str, args: Vec<String>, after: Duration) -> Result<()> {
        let name = self.settings.task_name();
        let log = self.settings.log_file.clone();
        let offset = files::length(&log);
        let argv = [self.tool(program)?.display().to_string()].into_iter().chain(args).collect();
        let spawned = self.launcher.spawn(self.request(name.clone(), argv)).await;
        let pid = spawned.map_err(MariaError::launch(format!("start {program}")))?;
        let ended = self.wait_exit_within(&name, pid, after).await;
        if ended == Some(Ended::Code(0)) {
            return Ok(());
        }
        self.kill_task().await?;
        let said = files::tail(&log, offset);
        match ended {
            Some(ended) => Err(MariaError::other(format!("{program}: {ended}: {said}"))),
            None => Err(MariaError::Timeout { what: format!("{program}: {said}"), after }),
        }
    }

    /// Waits until nothing of server and tools is left, so that nobody else writes to their directories.
    pub async fn wait_gone(&self) -> Result<()> {
        for name in [self.settings.name.clone(), self.settings.task_name()] {
            let gone = wait_gone(&self.launcher, &name, self.settings.timing.tool).await;
            gone.map_err(MariaError::launch(format!("wait for the end of {name}")))?;
        }
        Ok(())
    }

    /// Ends whatever tool may still run.
    pub async fn kill_task(&self) -> Result<()> {
        let name = self.settings.task_name();
        self.launcher.kill_group(&name).await.map_err(MariaError::launch(format!("kill {name}")))
    }
}
