//! The OAR batch server (2.5): how it is run, how its health is seen, and what is repaired after a
//! run that ended without warning.
//!
//! Facts it stands on, all measured on OAR 2.5.9:
//! * Its init script's `stop` stops nothing and its pid file is worthless: `Almighty` is run directly
//!   and killed with its whole session.
//! * Its port keeps accepting when only helpers of a dead server are left: a connection proves nothing.
//! * The first scheduler pass comes ten seconds after the start unless a message arrives.
//! * A job that was being launched or finished when the server died stays so for ever.

pub mod check;
pub(crate) mod conf;
mod database;
pub(crate) mod decide;
pub mod digest;
mod health;
mod mariadb;
pub(crate) mod node;
mod notify;
pub(crate) mod processes;
mod repair;

pub use conf::{ConfError, OarConf};

use crate::agents::service::{Boxed, Check, Hooks, Probe, Run, ServiceSettings};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::mpsc;

/// Where OAR's configuration is.
pub const CONF_FILE: &str = "/etc/oar/oar.conf";
/// A wrapper of the package that sets OAR's environment, becomes the user `oar` and stays in the
/// foreground as the server. May be called by root and by members of the group `oar`.
const ALMIGHTY: &str = "/usr/sbin/Almighty";
/// SIGTERM: it ends with exit code 10, all helpers gone, in 0.12 s (median; at most 0.41 s, n = 10).
const STOP_SIGNAL: i32 = 15;

/// The profile of one OAR server.
#[derive(Clone)]
pub struct Oar {
    conf_file: PathBuf,
    notes: mpsc::UnboundedSender<String>,
    database_elsewhere: bool,
}

impl Oar {
    /// `notes` takes what an administrator should know of repaired and undecided jobs, in words.
    /// With `database_elsewhere`, a database that is away for a while is no failure of this server.
    pub fn new(conf_file: PathBuf, notes: mpsc::UnboundedSender<String>, database_elsewhere: bool) -> Oar {
        Oar { conf_file, notes, database_elsewhere }
    }

    /// The command that runs the server in the foreground.
    pub fn run() -> Run {
        Run::Supervised { command: vec![ALMIGHTY.to_owned()], stop_signal: STOP_SIGNAL }
    }

    /// Adds what the profile knows to the settings of a service: its checks and its repair.
    pub fn equip(self, settings: &mut ServiceSettings) {
        let check = |probe: Arc<dyn crate::agents::service::Custom>, interval_ms, deadline_ms, failures| Check {
            probe: Probe::Custom(probe),
            interval: Duration::from_millis(interval_ms),
            deadline: Duration::from_millis(deadline_ms),
            failures,
        };
        // Helpers die within microseconds of a kill; twice in a row rules out the moment of a fork.
        settings.checks.push(check(Arc::new(health::Helpers), 500, 500, 2));
        // Long enough for the database's own deadlines, where its silence must be told from a hanging check.
        let deadline_ms = if self.database_elsewhere { 8000 } else { 3000 };
        let progress = health::Progress::new(self.conf_file.clone(), self.database_elsewhere);
        settings.checks.push(check(Arc::new(progress), 5000, deadline_ms, 3));
        settings.hooks = Some(Arc::new(self));
    }
}

impl Hooks for Oar {
    fn started(&self, takeover: bool, main: Option<u32>) -> Boxed<'_, ()> {
        Box::pin(async move {
            tracing::info!(takeover, "oar server started");
            repair::after_start(&self.conf_file, main, &self.notes).await;
        })
    }
}
