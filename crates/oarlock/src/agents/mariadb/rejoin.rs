//! New copies: made empty, cloned from a primary, or brought back onto its history.

use super::binlog::GtidList;
use super::context::{Context, Phase};
use super::donor::{History, Reply, Request, SILENCE, secret, within};
use super::error::{MariaError, Result};
use super::inspect::{self, io};
use super::program::environment;
use super::session::{Session, literal};
use super::settings::MariaSettings;
use super::tail;
use crate::agents::launcher::Launcher;
use crate::agents::postgresql::copy;
use crate::agents::postgresql::divergent::{KIND, prune};
use crate::agents::postgresql::files::{self, Owned};
use crate::agents::postgresql::layout::{self, Places, is_absent_or_empty};
use crate::enrol::channel::Channel;
use oarlock_core::ids::NodeId;
use std::fs;
use std::path::Path;
use std::process::Stdio;
use std::time::{Duration, Instant};
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;
use tokio::process::Command;
use tokio::time::timeout;

/// In a clone that was not started yet: where it goes on, and what its history is, a line each.
const POSITION: &str = "oarlock-position";
/// How often a long clone is told of.
const PROGRESS: Duration = Duration::from_secs(30);

impl<L: Launcher> Context<L> {
    /// Nothing may run on a directory that is replaced.
    async fn require_down(&self) -> Result<()> {
        if self.server().phase != Phase::Down {
            return Err(MariaError::other("the server runs: it must be stopped first"));
        }
        self.kill_task().await?;
        self.wait_gone().await
    }

    /// File operations on the data directory's surroundings.
    async fn arrange<T: Send + 'static>(
        &self,
        what: &str,
        work: impl FnOnce(MariaSettings, Places, String) -> Result<T> + Send + 'static,
    ) -> Result<T> {
        let settings = self.settings.clone();
        let places = Places::of(&settings.data_dir);
        let node = self.member(settings.node)?.name;
        files::blocking(what, self.settings.timing.copy, move || Ok(work(settings, places, node))).await?
    }

    /// Makes a new, empty database.
    pub async fn initialize(&self) -> Result<()> {
        self.require_down().await?;
        self.arrange("prepare the directories", |settings, places, _| {
            if !is_absent_or_empty(&places.data)? {
                let what = format!("{} is not empty", places.data.display());
                let hint = "nothing is initialised over existing files; move them away";
                return Err(MariaError::with_hint(what, hint));
            }
            make_room(&settings, &places)
        })
        .await?;
        let new = Places::of(&self.settings.data_dir).new.display().to_string();
        let args = [
            "--no-defaults".to_owned(),
            format!("--datadir={new}"),
            format!("--tmpdir={new}"),
            "--auth-root-authentication-method=socket".to_owned(),
            "--skip-test-db".to_owned(),
            "--skip-name-resolve".to_owned(),
        ];
        self.run_task("mariadb-install-db", args.to_vec(), self.settings.timing.start).await?;
        self.arrange("put the new database in place", |settings, places, node| {
            copy::renew(&places.new, &node, private(&settings))?;
            inspect::new_system(&settings, &places.new)?;
            flush(&places.new)?;
            places.complete()?;
            Ok(places.take_place()?)
        })
        .await
    }

    /// Replaces this copy by a fresh clone of the primary on `from`.
    pub async fn clone_from(&self, from: NodeId) -> Result<()> {
        self.require_down().await?;
        let (mut channel, history) = self.ask(from, Request::Copy).await?;
        let saved = self.save_before_clone(&history).await?;
        self.arrange("prepare the directories", |settings, places, _| make_room(&settings, &places)).await?;
        let fetched = async {
            self.unpack(&mut channel).await?;
            let new = Places::of(&self.settings.data_dir).new.display().to_string();
            let args = ["--no-defaults".to_owned(), "--prepare".to_owned(), format!("--target-dir={new}")];
            self.run_task("mariadb-backup", args.to_vec(), self.settings.timing.copy).await
        };
        if let Err(error) = fetched.await {
            self.arrange("remove the unfinished clone", |_, places, _| Ok(places.discard(&places.new)?)).await?;
            return Err(error);
        }
        let limit = self.settings.divergent_limit_mib;
        let told = self.arrange("put the clone in place", move |settings, places, node| {
            let new = &places.new;
            write_position(&settings, new, &history)?;
            inspect::write_system(&settings, new, history.system)?;
            inspect::mark_standby(&settings, new)?;
            copy::renew(new, &node, private(&settings))?;
            flush(new)?;
            places.complete()?;
            let mut told = Vec::new();
            if saved {
                places.set_aside()?;
            } else {
                told.push(keep_whole(&places)?);
            }
            places.take_place()?;
            places.discard(&places.old)?;
            told.extend(prune(&places.data, limit)?);
            Ok(told)
        });
        for text in told.await? {
            self.note(text).await;
        }
        Ok(())
    }

    /// Brings a former primary onto the history of the primary on `from`. What was never there is
    /// saved, and as the server cannot undo it, the copy is then replaced.
    pub async fn rewind(&self, from: NodeId) -> Result<()> {
        self.require_down().await?;
        let (_, history) = self.ask(from, Request::History).await?;
        let diverged = history.errant
            || match self.tail(&history).await {
                Ok(tail) => !tail.transactions.is_empty(),
                // Nobody can tell: as good as diverged.
                Err(_) => true,
            };
        if diverged {
            return self.clone_from(from).await;
        }
        self.arrange("make the former primary a standby", |settings, places, node| {
            inspect::mark_standby(&settings, &places.data)?;
            copy::renew(&places.data, &node, private(&settings))?;
            Ok(())
        })
        .await
    }

    /// What this copy has that the primary has not.
    async fn tail(&self, history: &History) -> Result<tail::Tail> {
        let known = GtidList::parse(&history.state)?;
        self.arrange("compare the logs", move |_, places, _| tail::find(&places.data, &known)).await
    }

    /// Saves what only this copy has. Returns false when that could not be found out: then the
    /// whole directory is kept.
    async fn save_before_clone(&self, history: &History) -> Result<bool> {
        let look = |_, places: Places, _| {
            let empty = is_absent_or_empty(&places.data)?;
            Ok((empty, if empty { None } else { inspect::read_system(&places.data)? }))
        };
        let (empty, system) = self.arrange("look at the data directory", look).await?;
        if empty {
            return Ok(true);
        }
        if system.is_some_and(|system| system != history.system) {
            let what = format!("this copy is of another database than the primary's ({:016x})", history.system);
            return Err(MariaError::with_hint(
                what,
                "the two were never one; move the directory away to have it cloned",
            ));
        }
        let tail = match self.tail(history).await {
            Ok(tail) => tail,
            Err(error) => {
                self.note(format!("the replaced copy is kept whole: {}", error.in_words())).await;
                return Ok(false);
            }
        };
        if !tail.transactions.is_empty() {
            let limit = self.settings.divergent_limit_mib;
            let told = self.arrange("save the divergent tail", move |_, places, node| {
                let mut told = vec![tail::save(&places.data, &node, &tail)?];
                told.extend(prune(&places.data, limit)?);
                Ok(told)
            });
            for text in told.await? {
                self.note(text).await;
            }
        }
        Ok(true)
    }

    /// Connects to the agent of the primary on `from` over the first link that answers.
    async fn ask(&self, from: NodeId, request: Request) -> Result<(Channel, History)> {
        let member = self.member(from)?;
        let secret = secret(&self.settings.secrets.replication_password);
        let mut last = MariaError::other(format!("{} has no address", member.name));
        for link in &member.links {
            let attempt = async {
                let connecting = TcpStream::connect((*link, member.copy_port));
                let stream = within(async { Ok(connecting.await?) }, "a connection").await?;
                let mut channel = within(Channel::open(stream, &secret), "an answer").await?;
                within(channel.send(&request), "the question to be taken").await?;
                let reply = within(channel.receive::<Reply>(), "the primary's history").await?;
                Ok((channel, reply))
            };
            match attempt.await {
                Ok((channel, Reply::History(history))) => return Ok((channel, history)),
                Ok((_, Reply::Refused(why))) => last = MariaError::other(format!("{}: {why}", member.name)),
                Ok(_) => last = MariaError::other(format!("{} gave an answer out of turn", member.name)),
                Err(error) => last = error,
            }
        }
        let what = format!("no copy from {}: {}", member.name, last.in_words());
        Err(MariaError::with_hint(what, "is the agent there a primary's, and are the secrets the same?"))
    }

    /// Writes what comes into the new directory.
    async fn unpack(&self, channel: &mut Channel) -> Result<()> {
        let path = self.tool("mbstream")?;
        let new = Places::of(&self.settings.data_dir).new;
        let mut command = Command::new(&path);
        command.arg("-x").arg("-C").arg(&new).env_clear().envs(environment()).current_dir("/").kill_on_drop(true);
        command.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::null());
        if rustix::process::geteuid().is_root() {
            command.uid(self.settings.user.uid).gid(self.settings.user.gid);
        }
        let mut child = command.spawn().map_err(io("run", &path))?;
        let mut input = child.stdin.take().ok_or_else(|| MariaError::other("mbstream has no input"))?;
        let (mut bytes, mut told) = (0, Instant::now());
        loop {
            if told.elapsed() > PROGRESS {
                told = Instant::now();
                self.note(format!("cloning: {} MiB received", bytes >> 20)).await;
            }
            let next = timeout(self.settings.timing.copy, channel.receive::<Reply>()).await;
            let next =
                next.map_err(|_| MariaError::Timeout { what: "the copy".into(), after: self.settings.timing.copy })?;
            match next.map_err(MariaError::channel("the copy"))? {
                Reply::Part(part) => {
                    bytes += part.len();
                    input.write_all(&part).await.map_err(io("write to", &path))?;
                }
                Reply::Complete => break,
                Reply::Refused(why) => return Err(MariaError::other(format!("the primary gave up: {why}"))),
                Reply::History(_) => return Err(MariaError::other("an answer out of turn")),
            }
        }
        drop(input);
        let ended = timeout(SILENCE, child.wait()).await;
        let ended = ended.map_err(|_| MariaError::Timeout { what: "mbstream".to_owned(), after: SILENCE })?;
        let ended = ended.map_err(io("wait for", &path))?;
        if ended.success() { Ok(()) } else { Err(MariaError::other(format!("mbstream: {ended}"))) }
    }

    /// Tells a clone that was just started for the first time where it goes on.
    pub async fn take_cloned_position(&self, session: &mut Session) -> Result<()> {
        let file = self.settings.data_dir.join(POSITION);
        let Some(text) = files::read_optional(&file)? else { return Ok(()) };
        let (position, state) = text.trim_end().split_once('\n').unwrap_or((text.trim_end(), ""));
        let after = self.settings.timing.statement;
        // A history can be given only to a log without one; interrupted here, it was given before.
        if !state.is_empty() && session.value("select @@global.gtid_binlog_state", after).await?.is_empty() {
            // The server begins its log anew and waits until the data's log was flushed, which an idle one does
            // once a second.
            let after = self.settings.timing.tool;
            session.run(&format!("set global gtid_binlog_state={}", literal(state)), after).await?;
        }
        session.run(&format!("set global gtid_slave_pos={}", literal(position)), after).await?;
        self.arrange("forget the clone's position", move |_, _, _| {
            files::remove_file(&file)?;
            Ok(files::sync_parent(&file)?)
        })
        .await
    }
}

fn private(settings: &MariaSettings) -> Owned<'_> {
    Owned { user: &settings.user, mode: 0o600 }
}

/// Where the clone in `dir` goes on, by the tool that made it, and the history up to there.
fn write_position(settings: &MariaSettings, dir: &Path, history: &History) -> Result<()> {
    let names = ["mariadb_backup_binlog_info", "xtrabackup_binlog_info"];
    let mut found = None;
    for name in names {
        found = found.or(files::read_optional(&dir.join(name))?);
    }
    let found = found.ok_or_else(|| MariaError::other("the copy does not say where it was taken"))?;
    let position = found.lines().next().and_then(|line| line.split('\t').nth(2)).unwrap_or_default().trim().to_owned();
    let taken = GtidList::parse(&position)?;
    // Transactions went on between the two: the position is the later.
    let mut state = GtidList::parse(&history.state)?;
    if taken.position() < state.position() {
        return Err(MariaError::other(format!("the copy ends at \"{position}\", before the history it came with")));
    }
    for gtid in taken.0 {
        // The last of a domain's servers in the list is the last that wrote.
        state.0.retain(|last| (last.domain, last.server) != (gtid.domain, gtid.server));
        state.0.push(gtid);
    }
    let text = format!("{position}\n{state}\n");
    Ok(files::replace_durably(&dir.join(POSITION), text.as_bytes(), private(settings))?)
}

/// An empty directory for the new copy, and nothing left of former attempts.
fn make_room(settings: &MariaSettings, places: &Places) -> Result<()> {
    places.discard(&places.new)?;
    if let Some(parent) = places.new.parent().filter(|parent| !parent.exists()) {
        fs::create_dir_all(parent).map_err(io("create", parent))?;
        files::give(parent, Owned { user: &settings.user, mode: 0o755 })?;
    }
    fs::create_dir(&places.new).map_err(io("create", &places.new))?;
    Ok(files::give(&places.new, Owned { user: &settings.user, mode: 0o700 })?)
}

/// What the tools wrote is on the disk before the directory counts as a copy: they do not see to it.
fn flush(dir: &Path) -> Result<()> {
    let opened = fs::File::open(dir).map_err(io("open", dir))?;
    rustix::fs::syncfs(&opened).map_err(|error| io("flush", dir)(error.into()))
}

/// Frees the place of a directory that nobody could look at: it stays, under another name, in one step.
fn keep_whole(places: &Places) -> Result<String> {
    let kept = layout::dated(&places.data, KIND)?;
    fs::rename(&places.data, &kept).map_err(io("keep", &places.data))?;
    files::sync_parent(&places.data)?;
    Ok(format!("the replaced copy is kept in {}", kept.display()))
}
