//! New copies: made empty, cloned from a primary, or rewound onto its history.

use super::conf::{self, Dynamic};
use super::context::{Context, Phase};
use super::control::Control;
use super::copy;
use super::divergent;
use super::error::{PgError, Result};
use super::files::{self, Owned};
use super::layout::{self, Places, is_absent_or_empty};
use super::names;
use super::settings::PgSettings;
use super::source::{Divergence, Relation, Source};
use crate::agents::launcher::Launcher;
use oarlock_core::ids::NodeId;
use std::fs;
use std::path::Path;

/// Why a copy on its primary's own timeline is replaced.
const BOTH: &str = "this copy and its primary were both primaries";

impl<L: Launcher> Context<L> {
    /// Nothing may run on a directory that is replaced.
    async fn require_down(&self) -> Result<()> {
        if self.server().phase != Phase::Down {
            return Err(PgError::other("the server runs: it must be stopped first"));
        }
        self.kill_task().await?;
        self.wait_gone().await
    }

    /// File operations on the data directory's surroundings.
    async fn arrange<T: Send + 'static>(
        &self,
        what: &str,
        work: impl FnOnce(PgSettings, Places, String) -> Result<T> + Send + 'static,
    ) -> Result<T> {
        let settings = self.settings.clone();
        let places = Places::of(&settings.data_dir);
        let node = self.member(settings.node)?.name;
        files::blocking(what, self.settings.timing.copy, move || work(settings, places, node)).await
    }

    /// Makes a new, empty database cluster.
    pub async fn initialize(&self) -> Result<()> {
        self.require_down().await?;
        self.arrange("prepare the directories", |settings, places, _| {
            if !is_absent_or_empty(&places.data)? {
                let what = format!("{} is not empty", places.data.display());
                return Err(PgError::with_hint(what, "nothing is initialised over existing files; move them away"));
            }
            make_room(&settings, &places)
        })
        .await?;
        let new = Places::of(&self.settings.data_dir).new.display().to_string();
        let user = format!("--username={}", self.settings.admin_role);
        let args = ["-D", &new, &user, "--auth-local=peer", "--auth-host=scram-sha-256", "--data-checksums"];
        // A promotion copies one segment of WAL: a smaller one is copied sooner.
        let more = ["--encoding=UTF8", "--locale=C.UTF-8", "--wal-segsize=4"];
        let args = args.into_iter().chain(more).map(str::to_owned).collect();
        self.run_task("initdb", args, self.settings.timing.start).await?;
        self.arrange("put the new database cluster in place", |settings, places, node| {
            copy::renew(&places.new, &node, private(&settings))?;
            places.complete()?;
            places.take_place()
        })
        .await
    }

    /// Replaces this copy by a fresh clone of the primary on `from`.
    pub async fn clone_from(&self, from: NodeId) -> Result<()> {
        self.require_down().await?;
        let source = self.source(from).await?;
        let saved = self.save_before_clone(&source).await?;
        self.arrange("prepare the directories", |settings, places, _| make_room(&settings, &places)).await?;
        let new = Places::of(&self.settings.data_dir).new.display().to_string();
        let args = ["-D", &new, "-d", &source.connection, "--wal-method=stream", "--checkpoint=fast", "--no-password"];
        let args = args.into_iter().map(str::to_owned).collect();
        if let Err(error) = self.run_task("pg_basebackup", args, self.settings.timing.copy).await {
            self.arrange("remove the unfinished clone", |_, places, _| places.discard(&places.new)).await?;
            return Err(error);
        }
        let limit = self.settings.divergent_limit_mib;
        let told = self.arrange("put the clone in place", move |settings, places, node| {
            become_standby(&settings, &places.new, &node)?;
            places.complete()?;
            places.set_aside()?;
            places.take_place()?;
            keep_or_discard(&places, saved, limit)
        });
        for text in told.await? {
            self.note(text).await;
        }
        Ok(())
    }

    /// Saves what only this copy has. Returns false when that could not be found out: then the
    /// whole directory is kept.
    async fn save_before_clone(&self, source: &Source) -> Result<bool> {
        let absent =
            self.arrange("look at the data directory", |_, places, _| is_absent_or_empty(&places.data)).await?;
        if absent {
            return Ok(true);
        }
        let known = async {
            let control = self.control().await?;
            let divergence = match self.relation(&control, source).await? {
                Relation::Behind => None,
                Relation::Same(_) if self.is_standby().await? => None,
                Relation::Same(own) => {
                    let mut divergence = self.tail(&control, &own, own.newest()).await?;
                    // Kept also when its first records are gone.
                    divergence.account.unread.get_or_insert_with(|| BOTH.to_owned());
                    Some(divergence)
                }
                Relation::Diverged(divergence) => Some(divergence),
            };
            Ok::<_, PgError>((control, divergence))
        };
        match known.await {
            Ok((control, divergence)) => {
                if let Some(divergence) = divergence {
                    self.save_tail(&control, &divergence).await?;
                }
                Ok(true)
            }
            Err(error) => {
                self.note(format!("the replaced copy is kept whole: {}", error.in_words())).await;
                Ok(false)
            }
        }
    }

    async fn save_tail(&self, control: &Control, divergence: &Divergence) -> Result<()> {
        let Divergence { fork, account } = divergence.clone();
        let from = super::control::format_lsn(fork.position);
        if account.records == 0 && account.unread.is_none() {
            return Ok(());
        }
        let control = control.clone();
        let limit = self.settings.divergent_limit_mib;
        let told = self.arrange("save the divergent tail", move |_, places, node| {
            let copy = copy::read(&places.data, &node)?;
            if let Some(saved) = divergent::saved_of(&places.data, copy, &node)? {
                return Ok(vec![format!("what only this copy had was saved before: {}", saved.display())]);
            }
            let saved = divergent::save(&places.data, &control, fork, &account.text)?;
            let (what, place) = (account.summary(), saved.display());
            let whose = if account.records == 0 { "perhaps only this copy had" } else { "only this copy had" };
            let mut told = vec![format!("{whose} what follows {from} ({what}): saved in {place}")];
            told.extend(divergent::prune(&places.data, limit)?);
            Ok(told)
        });
        for text in told.await? {
            self.note(text).await;
        }
        Ok(())
    }

    /// Rewinds this copy onto the history of the primary on `from`.
    pub async fn rewind(&self, from: NodeId) -> Result<()> {
        self.require_down().await?;
        let control = self.control().await?;
        let source = self.source(from).await?;
        match self.relation(&control, &source).await? {
            Relation::Behind => {}
            Relation::Same(_) if self.is_standby().await? => {}
            // Two promotions at the same place bear the same number, and leave the same history.
            Relation::Same(own) => {
                return Err(PgError::other(format!("{BOTH} on timeline {}", own.current)));
            }
            Relation::Diverged(divergence) => {
                self.save_tail(&control, &divergence).await?;
                self.checkpoint_source(&source).await?;
                self.run_rewind(&control, &source).await?;
                // It copies files of the log as they are, with what the primary has not flushed yet. Lost
                // there in a crash, other records would take its place under the same timeline, and
                // nobody could tell: so it is flushed before this copy counts for anything.
                self.checkpoint_source(&source).await?;
            }
        }
        self.arrange("make the rewound copy a standby", |settings, places, node| {
            become_standby(&settings, &places.data, &node)?;
            places.end_rewind()
        })
        .await
    }

    /// Whether the copy was last a standby.
    async fn is_standby(&self) -> Result<bool> {
        self.arrange("look for standby.signal", |_, places, _| {
            let signal = places.data.join("standby.signal");
            fs::exists(&signal).map_err(PgError::io("look at", &signal))
        })
        .await
    }

    async fn run_rewind(&self, control: &Control, source: &Source) -> Result<()> {
        // Used by the recovery in single-user mode that a copy goes through after a crash. Its
        // checkpoint must leave the WAL that the rewind reads next.
        let dynamic = Dynamic::new(names::NOBODY, "");
        let mut config = conf::text(&self.settings.files.config, &dynamic, 0);
        config.push_str("wal_keep_size = '1000GB'\n");
        let config_file = self.run_file("rewind.conf");
        files::replace(&config_file, config.as_bytes(), self.private())?;
        let clean = control.clean;
        self.arrange("begin the rewind", move |settings, places, _| {
            places.begin_rewind()?;
            files::remove_file(&settings.data_dir.join("postmaster.pid"))?;
            // There is no standby in single-user mode.
            if !clean {
                files::remove_file(&settings.data_dir.join("standby.signal"))?;
            }
            Ok(())
        })
        .await?;
        let data = self.settings.data_dir.display().to_string();
        let server = format!("{} dbname='{}'", source.connection, self.settings.database);
        let config = format!("--config-file={}", config_file.display());
        let args = ["-D", &data, "--source-server", &server, &config];
        let said = self.run_task("pg_rewind", args.into_iter().map(str::to_owned).collect(), self.settings.timing.copy);
        let said = said.await?;
        if said.contains("same timeline") {
            return Err(PgError::other(format!("pg_rewind saw no divergence where there is one: {said}")));
        }
        Ok(())
    }
}

fn private(settings: &PgSettings) -> Owned<'_> {
    Owned { user: &settings.user, mode: 0o600 }
}

/// An empty directory for the new copy, and nothing left of former attempts.
fn make_room(settings: &PgSettings, places: &Places) -> Result<()> {
    let owned = Owned { user: &settings.user, mode: 0o700 };
    places.discard(&places.new)?;
    if let Some(parent) = places.new.parent().filter(|parent| !parent.exists()) {
        fs::create_dir_all(parent).map_err(PgError::io("create", parent))?;
        files::give(parent, Owned { user: &settings.user, mode: 0o755 })?;
    }
    fs::create_dir(&places.new).map_err(PgError::io("create", &places.new))?;
    files::give(&places.new, owned)
}

/// A new number, and the role of a standby before anything can start it as something else.
fn become_standby(settings: &PgSettings, dir: &Path, node: &str) -> Result<()> {
    files::replace_durably(&dir.join("standby.signal"), b"", private(settings))?;
    let auto = dir.join("postgresql.auto.conf");
    if let Some(kept) = files::read_optional(&auto)?.as_deref().and_then(conf::without_overrides) {
        files::replace_durably(&auto, kept.as_bytes(), private(settings))?;
    }
    copy::renew(dir, node, private(settings)).map(drop)
}

/// The replaced directory goes, unless it holds what nobody could look at.
fn keep_or_discard(places: &Places, saved: bool, limit_mib: u64) -> Result<Vec<String>> {
    if saved {
        places.discard(&places.old)?;
        return Ok(Vec::new());
    }
    let kept = layout::dated(&places.data, divergent::KIND)?;
    fs::rename(&places.old, &kept).map_err(PgError::io("keep", &places.old))?;
    let mut told = vec![format!("the replaced copy is kept in {}", kept.display())];
    told.extend(divergent::prune(&places.data, limit_mib)?);
    Ok(told)
}
