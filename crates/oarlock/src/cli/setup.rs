//! What `init` and `join` have in common: what stands on this machine already, and what comes next.

use super::child;
use super::failure::{Code, Failure};
use super::time;
use crate::causes::with_causes;
use crate::config;
use crate::control::{ControlClient, ControlError, socket_path};
use crate::enrol::{INVITATION_FILE, KEY_FILE, SECRETS_DIR, VOTER_FILE, directory};
use crate::network::Snapshot;
use crate::sql::Engine;
use std::fs;
use std::io;
use std::net::IpAddr;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// An agent that runs answers within this.
const AGENT_DEADLINE: Duration = Duration::from_secs(2);
/// `systemctl enable --now` waits for the agent to be ready.
const START_DEADLINE: Duration = Duration::from_secs(60);

/// Where things are on this machine.
#[derive(Clone, Debug)]
pub struct Places {
    /// The configuration file.
    pub config: PathBuf,
    /// Sockets.
    pub run_dir: PathBuf,
    /// What the agent remembers.
    pub state_dir: PathBuf,
}

impl Places {
    /// The directory of the configuration, the key and the secrets.
    pub fn directory(&self) -> PathBuf {
        directory(&self.config)
    }

    /// Makes sure that nothing is overwritten: without `force`, refuses and says what is there; with
    /// it, says what is lost and moves it aside.
    pub fn clear(&self, force: bool) -> Result<(), Failure> {
        self.refuse_running_agent()?;
        let lost = self.existing();
        if lost.is_empty() {
            return Ok(());
        }
        if !force {
            let text = format!("this machine already has {}", lost.join(", and "));
            return Err(Failure::new(Code::Unsafe, text)
                .hint("--force moves all of that aside; this machine then is no node of that cluster any more"));
        }
        for what in &lost {
            eprintln!("lost with --force: {what}");
        }
        self.move_aside().map_err(|error| Failure::new(Code::Internal, format!("cannot move it aside: {error}")))
    }

    /// An agent that runs would go on under the old identity.
    fn refuse_running_agent(&self) -> Result<(), Failure> {
        match ControlClient::connect(&socket_path(&self.run_dir), AGENT_DEADLINE) {
            Err(ControlError::NoAgent { .. }) => Ok(()),
            _ => Err(Failure::new(Code::Unsafe, "an agent runs on this machine")
                .hint("stop it first: systemctl stop oarlock")),
        }
    }

    fn existing(&self) -> Vec<String> {
        let mut found = Vec::new();
        if self.config.exists() {
            let cluster = match config::load(&self.config) {
                Ok(settings) => format!("cluster \"{}\"", settings.cluster),
                Err(_) => "a configuration".to_owned(),
            };
            found.push(format!("{cluster} in {}, with its keys and secrets", self.config.display()));
        }
        let remembers = fs::read_dir(&self.state_dir).is_ok_and(|mut entries| entries.next().is_some());
        if remembers {
            let path = self.state_dir.display();
            found.push(format!("the memory of a node in {path} (its votes, its promises, what was in sync)"));
        }
        found
    }

    fn move_aside(&self) -> io::Result<()> {
        let stamp = time::now_ms();
        let aside = self.directory().join(format!("replaced-{stamp}"));
        fs::DirBuilder::new().mode(0o700).recursive(true).create(&aside)?;
        let own = self.config.file_name().map(PathBuf::from);
        let names = [KEY_FILE, VOTER_FILE, SECRETS_DIR, INVITATION_FILE].map(PathBuf::from);
        for name in names.into_iter().chain(own) {
            match fs::rename(self.directory().join(&name), aside.join(&name)) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
                _ => {}
            }
        }
        let mut state_aside = self.state_dir.clone().into_os_string();
        state_aside.push(format!(".replaced-{stamp}"));
        match fs::rename(&self.state_dir, &state_aside) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
            _ => Ok(()),
        }
    }
}

/// The name of this machine, up to the first dot.
pub fn host_name() -> String {
    let name = fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    name.trim().split('.').next().unwrap_or_default().to_owned()
}

/// Says so when a node's addresses are not on this machine: most likely the wrong name.
pub fn warn_of_foreign_links(node: &str, links: &[IpAddr]) {
    let Ok(snapshot) = Snapshot::take_blocking() else { return };
    let missing: Vec<String> = links
        .iter()
        .filter(|link| !link.is_loopback() && !snapshot.holds(**link))
        .map(std::string::ToString::to_string)
        .collect();
    if !missing.is_empty() {
        eprintln!("warning: node \"{node}\" should have {}, but this machine has not", missing.join(" and "));
    }
}

/// What is to be done next to have the agent run; does it when asked to.
pub fn start(asked: bool) -> Result<(), Failure> {
    if !asked {
        return Ok(());
    }
    let output = child::run(&["systemctl", "enable", "--now", "oarlock"], START_DEADLINE)
        .map_err(|error| Failure::new(Code::Negative, format!("cannot start the agent: {}", with_causes(&error))))?;
    if output.success {
        eprintln!("the agent runs");
        return Ok(());
    }
    Err(Failure::new(Code::Negative, format!("the agent was not started: {}", output.stderr.trim()))
        .hint("journalctl -u oarlock"))
}

/// Where the state of a database is on this kind of system.
pub fn default_data_dir(engine: Engine, version: &str) -> String {
    if engine == Engine::Mariadb {
        return "/var/lib/mysql".to_owned();
    }
    let red_hat = !Path::new("/var/lib/postgresql").exists() && Path::new("/var/lib/pgsql").exists();
    if red_hat { format!("/var/lib/pgsql/{version}/data") } else { format!("/var/lib/postgresql/{version}/main") }
}
