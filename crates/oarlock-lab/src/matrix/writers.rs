//! The clients of a case: one at the frontend as users are, and one on each server that writes
//! to that server's own database, to see whether two of them acknowledge.

use super::bed::{Bed, FRONTEND};
use super::tail::Tail;
use crate::history::{History, Rows, Stamp};
use crate::host::Running;
use crate::layout::Part;
use anyhow::{Context, Result, bail};
use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

const CLIENT: &str = "/usr/sbin/oarlock-lab";
/// How long a client may take to end: a connect and a statement, each under its deadline.
const STOP: Duration = Duration::from_secs(15);
const READ_ROWS: Duration = Duration::from_secs(30);

/// A client that runs in a host and logs into a file outside it.
#[derive(Debug)]
pub struct Writer {
    /// The host it runs in.
    pub host: String,
    /// Tells its rows from those of others.
    pub run: String,
    log: PathBuf,
    tail: Tail,
    process: Option<Running>,
}

impl Writer {
    /// Starts the users' client in `host`: against the service, one row every 10 ms, and idle
    /// connections.
    pub fn of_users(bed: &Bed, host: &str, run: &str, dir: &Path) -> Result<Writer> {
        let more = ["--host", service(bed), "--connections", "3", "--create-within-ms", "30000"];
        Writer::start(bed, host, run, dir, &more)
    }

    /// Starts the users' client of a set test in `host`: several writers, readers through the service, and
    /// one reader on each server, of which all but one are standbys.
    pub fn of_set_test(bed: &Bed, host: &str, run: &str, dir: &Path) -> Result<Writer> {
        let mut more = vec!["--host", service(bed), "--writers", "4", "--readers", "2", "--interval-ms", "20"];
        more.extend(["--connections", "3", "--create-within-ms", "30000"]);
        more.extend(bed.database_servers().into_iter().flat_map(|server| ["--reader-host", server]));
        Writer::start(bed, host, run, dir, &more)
    }

    /// Starts a client on a server against that server's own database.
    pub fn at_server(bed: &Bed, server: &str, run: &str, dir: &Path) -> Result<Writer> {
        let more = ["--host", "127.0.0.1", "--interval-ms", "50", "--statement-timeout-ms", "500"];
        Writer::start(bed, server, run, dir, &more)
    }

    fn start(bed: &Bed, host: &str, run: &str, dir: &Path, more: &[&str]) -> Result<Writer> {
        let log = dir.join(format!("{run}.log"));
        let file = File::create(&log).with_context(|| format!("create {}", log.display()))?;
        let argv = [&[CLIENT, "client", "--engine", bed.shape.db.name(), "--run", run], more].concat();
        let process = Some(bed.host(host)?.spawn(&argv, Stdio::from(file))?);
        let tail = Tail::open(&log)?;
        Ok(Writer { host: host.to_owned(), run: run.to_owned(), log, tail, process })
    }

    /// Its log so far; None while it has written nothing.
    pub fn history(&self) -> Result<Option<History>> {
        let length = std::fs::metadata(&self.log).with_context(|| format!("log {}", self.log.display()))?.len();
        if length == 0 { Ok(None) } else { History::read(&self.log).map(Some) }
    }

    /// Waits until it has had `count` rows acknowledged that it began to write after `since`.
    pub fn until_acked(&mut self, bed: &Bed, count: usize, since: Stamp, deadline: Duration) -> Result<()> {
        let what = format!("{count} rows acknowledged to {}", self.run);
        bed.until(&what, deadline, || {
            self.tail.read()?;
            let fresh = self.tail.acked.iter().rev().take_while(|begun| begun.mono_us > since.mono_us).count();
            if fresh < count {
                bail!("{fresh} so far; last failure: {:?}", self.tail.last_failure);
            }
            Ok(())
        })
    }

    /// Stops it and returns its whole log. A client whose host lost its power has ended already.
    pub fn stop(&mut self, bed: &Bed) -> Result<Option<History>> {
        if let Some(mut process) = self.process.take() {
            let was_running = process.child().try_wait().context("look after a client")?.is_none();
            process.stop(STOP).with_context(|| format!("stop the client {}", self.run))?;
            if was_running {
                // The signal also ended the program that had entered the host for it; the
                // client itself may still await its last answer.
                bed.until("the client's last line", STOP, || match self.history()? {
                    Some(history) if history.end.is_some() => Ok(()),
                    _ => bail!("{} has no end", self.log.display()),
                })?;
            }
        }
        self.history()
    }

    /// Reads the rows of this client through the service.
    pub fn rows(&self, bed: &Bed) -> Result<Rows> {
        let engine = bed.shape.db.name();
        let argv = [CLIENT, "rows", "--engine", engine, "--host", service(bed), "--run", &self.run];
        let argv = [&argv[..], &["--statement-timeout-ms", "20000"]].concat();
        let text = bed.host(FRONTEND)?.run(&argv, READ_ROWS)?;
        serde_json::from_str(&text).context("the rows are not as printed by the client program")
    }
}

/// The name that clients know the database by.
fn service(bed: &Bed) -> &'static str {
    bed.group(Part::Database).service
}
