//! PostgreSQL's own tools. Short ones are run directly; long ones through the launcher, so that
//! an agent that is restarted meanwhile can find and end them.

use super::context::Context;
use super::error::{PgError, Result};
use super::files;
use crate::agents::launcher::{Ended, Launcher, SpawnRequest, wait_gone};
use std::process::{Output, Stdio};
use std::time::Duration;
use tokio::process::Command;
use tokio::time::timeout;

/// The environment of everything we start.
pub(super) fn environment(bin_dir: &std::path::Path) -> Vec<(String, String)> {
    let pairs = [
        // Messages of the tools are read by us; the server's own language is the administrator's
        // choice in its configuration.
        ("LC_ALL", "C.UTF-8".to_owned()),
        ("PATH", format!("{}:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", bin_dir.display())),
        ("PGSYSCONFDIR", "/nonexistent".to_owned()),
        ("HOME", "/nonexistent".to_owned()),
    ];
    pairs.into_iter().map(|(key, value)| (key.to_owned(), value)).collect()
}

impl<L: Launcher> Context<L> {
    /// Runs a tool that takes moments, as the server's user, and returns what it printed.
    pub async fn run_program(&self, program: &str, args: &[&str], after: Duration) -> Result<String> {
        let output = self.run_to_end(program, args, after).await?;
        if !output.status.success() {
            let said = String::from_utf8_lossy(&output.stderr);
            return Err(PgError::other(format!("{program}: {}", said.trim().replace('\n', " | "))));
        }
        Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    }

    /// [`Context::run_program`] for a tool whose exit code does not say it all.
    pub async fn run_to_end(&self, program: &str, args: &[&str], after: Duration) -> Result<Output> {
        let path = self.settings.bin_dir.join(program);
        let mut command = Command::new(&path);
        command.args(args).env_clear().envs(environment(&self.settings.bin_dir)).current_dir("/");
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).kill_on_drop(true);
        if rustix::process::geteuid().is_root() {
            command.uid(self.settings.user.uid).gid(self.settings.user.gid);
        }
        let child = command.spawn().map_err(|error| self.not_started(&path, error))?;
        match timeout(after, child.wait_with_output()).await {
            Ok(output) => output.map_err(PgError::io("run", &path)),
            Err(_) => Err(PgError::Timeout { what: program.to_owned(), after }),
        }
    }

    fn not_started(&self, path: &std::path::Path, error: std::io::Error) -> PgError {
        if error.kind() != std::io::ErrorKind::NotFound {
            return PgError::io("run", path)(error);
        }
        let version = self.settings.version;
        PgError::with_hint(
            format!("{} is not there", path.display()),
            format!("install postgresql-{version}, or set bin_dir of {}", self.settings.name),
        )
    }

    /// Runs a tool that may take long and returns what it printed (at most 2,000 bytes, in one line).
    pub async fn run_task(&self, program: &str, args: Vec<String>, after: Duration) -> Result<String> {
        let name = self.settings.task_name();
        let path = self.settings.bin_dir.join(program);
        let log = self.settings.log_file.clone();
        let offset = files::length(&log);
        let argv = [path.display().to_string()].into_iter().chain(args).collect();
        let request = SpawnRequest {
            name: name.clone(),
            argv,
            env: environment(&self.settings.bin_dir),
            uid: self.settings.user.uid,
            gid: self.settings.user.gid,
            groups: self.settings.user.groups.clone(),
            cwd: "/".into(),
            log: log.clone(),
            guard: None,
        };
        let pid = self.launcher.spawn(request).await.map_err(PgError::launch(format!("start {program}")))?;
        let ended = self.wait_exit_within(&name, pid, after).await;
        if ended != Some(Ended::Code(0)) {
            self.kill_task().await?;
        }
        let said = files::tail(&log, offset);
        match ended {
            Some(Ended::Code(0)) => Ok(said),
            Some(ended) => Err(PgError::other(format!("{program}: {ended}: {said}"))),
            None => Err(PgError::Timeout { what: format!("{program}: {said}"), after }),
        }
    }

    /// Waits until nothing of server and tools is left, so that nobody else writes to their directories.
    pub async fn wait_gone(&self) -> Result<()> {
        for name in [self.settings.name.clone(), self.settings.task_name()] {
            let gone = wait_gone(&self.launcher, &name, self.settings.timing.tool).await;
            gone.map_err(PgError::launch(format!("wait for the end of {name}")))?;
        }
        Ok(())
    }

    /// Ends whatever tool may still run.
    pub async fn kill_task(&self) -> Result<()> {
        let name = self.settings.task_name();
        self.launcher.kill_group(&name).await.map_err(PgError::launch(format!("kill {name}")))
    }
}
