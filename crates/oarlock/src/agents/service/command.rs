//! Short-lived commands: bounded in time and in what is kept of their output, killed whole.

use crate::agents::user::SystemUser;
use rustix::process::{Pid, Signal, kill_process_group};
use std::process::{ExitStatus, Stdio};
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncReadExt};
use tokio::process::Command;
use tokio::time::timeout;

/// How much of a command's output is kept, in bytes.
const OUTPUT_BYTES: u64 = 64 * 1024;
/// How long after its end output is still waited for: a process it left behind may hold the pipe.
const OUTPUT_GRACE: Duration = Duration::from_millis(50);
/// What commands find programs by.
const PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// How a command ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Outcome {
    /// Its exit code; `None` when a signal ended it.
    pub code: Option<i32>,
    /// Its output, at most 64 KiB.
    pub output: String,
    /// Its errors, at most 64 KiB.
    pub errors: String,
}

impl Outcome {
    /// `Err` with the reason unless it ended with exit code 0.
    pub fn check(&self, what: &str) -> Result<(), String> {
        let said = [&self.errors, &self.output].into_iter().find_map(|text| last_line(text));
        let said = said.map_or_else(String::new, |line| format!(": {line}"));
        match self.code {
            Some(0) => Ok(()),
            Some(code) => Err(format!("{what} ended with exit code {code}{said}")),
            None => Err(format!("{what} was killed by a signal{said}")),
        }
    }
}

/// Runs a command to its end. When it takes longer than `deadline`, or the future is dropped, its
/// whole process group is killed. `Err` says in words why it could not be run or did not end.
pub async fn run(
    argv: &[String],
    user: &SystemUser,
    env: &[(String, String)],
    deadline: Duration,
) -> Result<Outcome, String> {
    let (program, arguments) = argv.split_first().ok_or("the command is empty")?;
    let mut command = Command::new(program);
    command.args(arguments).env_clear().env("PATH", PATH).env("HOME", &user.home).env("USER", &user.name);
    command.envs(env.iter().cloned()).current_dir("/").process_group(0).kill_on_drop(true);
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    if rustix::process::geteuid().is_root() && user.uid != 0 {
        command.uid(user.uid).gid(user.gid);
    }
    let mut child = command.spawn().map_err(|error| format!("cannot run {program}: {error}"))?;
    // Dropped before the child, so that the number of the group cannot be another's by then.
    let group = Group(child.id().and_then(|pid| Pid::from_raw(pid.cast_signed())));
    let (mut output, mut errors) = (Vec::new(), Vec::new());
    let (stdout, stderr) = (child.stdout.take(), child.stderr.take());
    let reading = async { tokio::join!(read(stdout, &mut output), read(stderr, &mut errors)) };
    let ended = timeout(deadline, async {
        tokio::pin!(reading);
        tokio::select! {
            status = child.wait() => {
                let _ = timeout(OUTPUT_GRACE, reading).await;
                status
            }
            _ = &mut reading => child.wait().await,
        }
    })
    .await;
    let status = match ended {
        Ok(Ok(status)) => status,
        Ok(Err(error)) => return Err(format!("cannot wait for {program}: {error}")),
        Err(_) => return Err(format!("{program} did not end within {} ms", deadline.as_millis())),
    };
    group.disarm();
    Ok(outcome(status, &output, &errors))
}

fn outcome(status: ExitStatus, output: &[u8], errors: &[u8]) -> Outcome {
    let text = |bytes| String::from_utf8_lossy(bytes).into_owned();
    Outcome { code: status.code(), output: text(output), errors: text(errors) }
}

async fn read(pipe: Option<impl AsyncRead + Unpin>, into: &mut Vec<u8>) {
    if let Some(mut pipe) = pipe {
        let _ = (&mut pipe).take(OUTPUT_BYTES).read_to_end(into).await;
        // The rest is read and dropped: a full pipe would block the command.
        let _ = tokio::io::copy(&mut pipe, &mut tokio::io::sink()).await;
    }
}

fn last_line(text: &str) -> Option<&str> {
    text.lines().map(str::trim).rfind(|line| !line.is_empty())
}

/// A process group that is killed unless disarmed.
struct Group(Option<Pid>);

impl Group {
    fn disarm(mut self) {
        self.0 = None;
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        if let Some(leader) = self.0 {
            let _ = kill_process_group(leader, Signal::KILL);
        }
    }
}
