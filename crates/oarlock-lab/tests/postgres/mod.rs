//! A throw-away PostgreSQL on loopback, run by an unprivileged user.

use std::os::unix::fs::chown;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};
use tempfile::TempDir;

/// `nobody`: PostgreSQL refuses to run as root.
const UNPRIVILEGED: u32 = 65534;

/// A data directory and a port. Removed with this value.
pub struct Postgres {
    dir: TempDir,
    programs: PathBuf,
    port: u16,
}

/// A running postmaster of ours; killed with this value.
pub struct Server(Child);

impl Postgres {
    /// Makes a data directory; None where no PostgreSQL is installed.
    pub fn create() -> Option<Postgres> {
        let programs = programs()?;
        let dir = tempfile::Builder::new().prefix("oarlock-pg").tempdir_in("/tmp").unwrap();
        // Port 0 gives one that was free a moment ago, which is as good as it gets.
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let postgres = Postgres { dir, programs, port };
        if rustix::process::getuid().is_root() {
            chown(postgres.dir(), Some(UNPRIVILEGED), Some(UNPRIVILEGED)).unwrap();
        }
        let mut initdb = postgres.command("initdb");
        initdb.args(["--auth=trust", "--username=postgres", "--no-sync", "--pgdata"]);
        let output = initdb.arg(postgres.dir().join("data")).output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        Some(postgres)
    }

    /// Where everything of it lies, its Unix socket included.
    pub fn dir(&self) -> &Path {
        self.dir.path()
    }

    pub fn port(&self) -> u16 {
        self.port
    }

    /// Starts the server and waits until it listens. One that gives up at first, because a
    /// killed predecessor's children still hold its memory, is started again.
    pub fn start(&self) -> Server {
        let deadline = Instant::now() + Duration::from_secs(30);
        let mut server = self.spawn();
        while std::net::TcpStream::connect(("127.0.0.1", self.port)).is_err() {
            assert!(Instant::now() < deadline, "PostgreSQL does not listen");
            std::thread::sleep(Duration::from_millis(20));
            if server.0.try_wait().unwrap().is_some() {
                server = self.spawn();
            }
        }
        server
    }

    fn spawn(&self) -> Server {
        let log = std::fs::File::create(self.dir().join("postgres.log")).unwrap();
        let mut postgres = self.command("postgres");
        postgres.arg("-D").arg(self.dir().join("data"));
        postgres.args(["-p", &self.port.to_string(), "-h", "127.0.0.1", "-k"]);
        postgres.arg(self.dir()).stdout(Stdio::null()).stderr(log);
        Server(postgres.spawn().unwrap())
    }

    fn command(&self, program: &str) -> Command {
        let mut command = Command::new(self.programs.join(program));
        command.current_dir(self.dir()).env_clear().env("LC_ALL", "C");
        if rustix::process::getuid().is_root() {
            command.uid(UNPRIVILEGED).gid(UNPRIVILEGED);
        }
        command
    }
}

impl Server {
    /// Kills the postmaster outright and reaps it, so that its pid file counts as stale.
    pub fn kill(mut self) {
        self.0.kill().unwrap();
        self.0.wait().unwrap();
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // An immediate shutdown takes the children along; a kill would leave them for a while.
        let pid = rustix::process::Pid::from_child(&self.0);
        if matches!(self.0.try_wait(), Ok(None)) {
            let _ = rustix::process::kill_process(pid, rustix::process::Signal::QUIT);
            let _ = self.0.wait();
        }
    }
}

/// The newest installed server's programs.
fn programs() -> Option<PathBuf> {
    let versions = std::fs::read_dir("/usr/lib/postgresql").ok()?;
    let mut found: Vec<PathBuf> = versions
        .filter_map(|entry| Some(entry.ok()?.path().join("bin")))
        .filter(|bin| bin.join("initdb").exists() && bin.join("postgres").exists())
        .collect();
    found.sort();
    found.pop()
}
