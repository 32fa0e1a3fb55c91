//! One run of one case: clients, a fault, self-healing, a move onto the copy that rejoined, and
//! the verdict.

use super::bed::{Bed, FRONTEND};
use super::writers::Writer;
use crate::history::{History, Stamp, wrongly_seen};
use crate::layout::{Group, Part};
use crate::plot::Mark;
use crate::product::ClusterStatus;
use anyhow::{Context, Result};
use std::path::{Path, PathBuf};
use std::time::Duration;

/// How many acknowledged rows show that a writer is well under way.
const WARM_UP: usize = 50;
/// Longest time until a writer is under way in a healthy cluster.
const WARM: Duration = Duration::from_secs(45);
/// Earlier than any attempt.
const BEFORE: Stamp = Stamp { wall_us: 0, mono_us: 0 };
/// Longest time for the move at the end.
const MOVE: Duration = Duration::from_secs(30);

/// A run of a case while it goes on.
#[derive(Debug)]
pub struct Trial<'a> {
    /// The lab.
    pub bed: &'a Bed,
    /// The users' client.
    pub users: Writer,
    /// The group that the case is about.
    pub about: Part,
    /// That group's owner when the case began.
    pub owner: String,
    /// Its standby when the case began, in sync where it has a database.
    pub standby: String,
    /// What happened when, for the outages and the picture.
    pub marks: Vec<Mark>,
    /// What is worth telling beside the verdict.
    pub notes: Vec<String>,
    /// What did not hold, besides what the common verdict finds.
    pub failures: Vec<String>,
    /// Instants of marks that users must not notice.
    pub quiet: Vec<Stamp>,
    /// What a benchmark measures instead of the outage, milliseconds.
    pub measured_ms: Option<f64>,
    watched: bool,
    direct: Vec<Writer>,
    epoch: u64,
    dir: PathBuf,
    id: String,
}

/// What a trial leaves for the verdict.
#[derive(Debug)]
pub struct Traces {
    /// The users' client's log.
    pub users: History,
    /// The servers' own clients: server and log, in the order in which they were started.
    pub direct: Vec<(String, History)>,
    /// Everything that is wrong with the rows, in words.
    pub wrong_rows: Vec<String>,
    /// Acknowledged rows that are missing, of all clients.
    pub lost: usize,
    /// How often the committed ownership changed from begin to end.
    pub changes: u64,
}

impl<'a> Trial<'a> {
    /// Starts the clients on a cluster that is whole, and waits until all is under way. `case`: which group it is
    /// about, and where the users' client runs.
    pub fn begin(bed: &'a Bed, cluster: &ClusterStatus, case: (Part, &str), id: &str, dir: &Path) -> Result<Trial<'a>> {
        std::fs::create_dir_all(dir).with_context(|| format!("create {}", dir.display()))?;
        let users = Writer::of_users(bed, case.1, &format!("{id}-users"), dir)?;
        Trial::begin_with(bed, cluster, case.0, users, id, dir)
    }

    /// As [`Trial::begin`], with a users' client that has been started in an existing directory.
    pub fn begin_with(
        bed: &'a Bed,
        cluster: &ClusterStatus,
        about: Part,
        users: Writer,
        id: &str,
        dir: &Path,
    ) -> Result<Trial<'a>> {
        let owner = cluster.owner_of(bed.group(about).name).context("a whole cluster has an owner")?.to_owned();
        let standby = successor(bed, cluster, about)?;
        let mut trial = Trial {
            bed,
            users,
            about,
            owner,
            standby,
            marks: Vec::new(),
            quiet: Vec::new(),
            notes: Vec::new(),
            failures: Vec::new(),
            measured_ms: None,
            watched: false,
            direct: Vec::new(),
            epoch: cluster.epoch(),
            dir: dir.to_owned(),
            id: id.to_owned(),
        };
        trial.users.until_acked(bed, WARM_UP, BEFORE, WARM)?;
        Ok(trial)
    }

    /// Starts a client on each server against that server's own database, to see whether two of
    /// them acknowledge writes.
    pub fn watch_servers(&mut self) -> Result<()> {
        self.watched = true;
        for server in self.bed.database_servers() {
            self.write_directly(server)?;
        }
        // A direct client that cannot log in would prove nothing, so the owner's must write.
        let owner = self.bed.owner(Part::Database)?;
        let at_owner = self.direct.iter_mut().find(|w| w.host == owner);
        let at_owner = at_owner.context("the owner is not among the servers")?;
        at_owner.until_acked(self.bed, WARM_UP / 10, BEFORE, WARM)
    }

    /// Starts a client on a server against its own database; also after each power-on.
    fn write_directly(&mut self, server: &str) -> Result<()> {
        let run = format!("{}-{server}-{}", self.id, self.direct.len());
        self.direct.push(Writer::at_server(self.bed, server, &run, &self.dir)?);
        Ok(())
    }

    /// Notes that something happens now.
    pub fn mark(&mut self, label: impl Into<String>) {
        self.marks.push(Mark { at: Stamp::now(), label: label.into() });
    }

    /// Notes that something happens now that users must not notice.
    pub fn mark_quiet(&mut self, label: impl Into<String>) {
        self.mark(label);
        self.quiet.extend(self.marks.last().map(|m| m.at));
    }

    /// Cuts the power of hosts in one instant.
    pub fn power_off(&mut self, hosts: &[&str]) -> Result<()> {
        self.mark(format!("power-off of {}", hosts.join(", ")));
        self.bed.lab.poweroff(hosts)
    }

    /// Powers hosts on again.
    pub fn power_on(&mut self, hosts: &[&str]) -> Result<()> {
        self.mark(format!("power-on of {}", hosts.join(", ")));
        self.bed.lab.poweron(hosts)?;
        for server in self.bed.database_servers() {
            if self.watched && hosts.contains(&server) {
                self.write_directly(server)?;
            }
        }
        Ok(())
    }

    /// Waits until another node than the first owner runs the group.
    pub fn until_moved(&self, deadline: Duration) -> Result<String> {
        self.bed.until_owner(self.about, "a takeover", deadline, |owner| owner != self.owner)
    }

    /// The group that the case is about.
    pub fn group(&self) -> Group {
        self.bed.group(self.about)
    }

    /// Waits until the users' client is served again, as of now.
    pub fn until_served(&mut self, deadline: Duration) -> Result<()> {
        self.users.until_acked(self.bed, WARM_UP, Stamp::now(), deadline)
    }

    /// Notes a failure unless something holds.
    pub fn demand(&mut self, holds: bool, failure: impl FnOnce() -> String) {
        if !holds {
            self.failures.push(failure());
        }
    }

    /// Moves the group onto the server that does not own it, and waits until that serves.
    pub fn move_to_rejoined(&mut self) -> Result<()> {
        let target = successor(self.bed, &self.bed.cluster()?, self.about)?;
        self.mark(format!("move to {target}"));
        self.bed.request(FRONTEND, &["move", self.group().name, &target])?;
        self.bed.until_owner(self.about, "the move", MOVE, |owner| owner == target)?;
        self.until_served(MOVE)
    }

    /// Stops the clients and compares what they saw with what the database holds.
    pub fn end(&mut self) -> Result<Traces> {
        let users = self.users.stop(self.bed)?.context("the users' client has no log")?;
        let mut traces = Traces { users, direct: Vec::new(), wrong_rows: Vec::new(), lost: 0, changes: 0 };
        for writer in &mut self.direct {
            if let Some(history) = writer.stop(self.bed)? {
                traces.direct.push((writer.host.clone(), history));
            }
        }
        traces.changes = self.bed.cluster()?.epoch().saturating_sub(self.epoch);
        for writer in self.direct.iter().chain([&self.users]) {
            let Some(history) = writer.history()? else { continue };
            let rows = writer.rows(self.bed)?;
            let verdict = crate::history::check(&history, &rows);
            traces.lost += verdict.lost.len();
            if !verdict.clean() {
                traces.wrong_rows.push(format!("{}: {verdict}", writer.run));
            }
            traces
                .wrong_rows
                .extend(wrongly_seen(&history, &rows).iter().map(|what| format!("{}: {what}", writer.run)));
        }
        Ok(traces)
    }

    /// Where the case keeps its logs and pictures.
    pub fn dir(&self) -> &Path {
        &self.dir
    }
}

/// The server that a group can move to: with the database, one whose copy is in sync.
fn successor(bed: &Bed, cluster: &ClusterStatus, about: Part) -> Result<String> {
    let group = bed.group(about);
    if group == bed.group(Part::Database) {
        let standbys = cluster.in_sync_standbys();
        return standbys.first().map(|standby| (*standby).to_owned()).context("no standby is in sync");
    }
    let owner = cluster.owner_of(group.name).with_context(|| format!("{} has no owner", group.name))?;
    bed.peer(owner).map(str::to_owned)
}
