//! Changes of a running server's configuration: write the generated file, signal, and see that it
//! was taken over.

use super::access::{self, Clients};
use super::conf::{DYNAMIC_NAMES, Dynamic, GENERATION, quoted};
use super::context::{Context, Phase};
use super::error::{PgError, Result};
use super::files;
use super::session::{AGENT_ROLE, Commits, Session, literal};
use crate::agents::launcher::Launcher;
use std::fmt::Write;
use std::time::{Duration, Instant};

const SIGHUP: i32 = 1;

/// The administrator's settings when they were last seen to be good.
pub(super) const LAST_GOOD: &str = "last-good.conf";

/// Between two looks whether a change has arrived; it takes about a millisecond.
const LOOK: Duration = Duration::from_millis(1);

impl<L: Launcher> Context<L> {
    /// Fails unless our server runs.
    pub fn require_up(&self) -> Result<()> {
        match self.server().phase {
            Phase::Up => Ok(()),
            _ => Err(PgError::other("the server does not run")),
        }
    }

    /// Has the server read its files again.
    pub async fn signal_reload(&self) -> Result<()> {
        let name = &self.settings.name;
        self.launcher.signal(name, SIGHUP).await.map_err(PgError::launch(format!("reload {name}")))
    }

    /// Makes the running server take over `wanted`, and sees `session` do so. Other processes of
    /// the server may still be a moment behind (PROTOCOL §5.5): who needs more must prove more.
    pub async fn apply(&self, session: &Session, wanted: &Dynamic) -> Result<()> {
        let _one_at_a_time = self.changing.lock().await;
        if self.server().in_force.as_ref() == Some(wanted) {
            return Ok(());
        }
        self.change(session, wanted).await
    }

    /// [`Context::apply`] only if `former` is still in force: a command may have changed it since.
    pub async fn apply_over(&self, session: &Session, former: &Dynamic, wanted: &Dynamic) -> Result<()> {
        let _one_at_a_time = self.changing.lock().await;
        if self.server().in_force.as_ref() != Some(former) {
            return Ok(());
        }
        self.change(session, wanted).await
    }

    async fn change(&self, session: &Session, wanted: &Dynamic) -> Result<()> {
        let generation = self.write_conf(&self.settings.files.config, wanted)?;
        self.signal_reload().await?;
        if !self.taken_over(session, wanted, generation).await? {
            self.apply_without_administrator(session, wanted).await?;
        }
        self.server().in_force = Some(wanted.clone());
        Ok(())
    }

    /// The administrator's file may be broken: that must not stop a takeover. What was good when it
    /// was last looked at stands in for it.
    async fn apply_without_administrator(&self, session: &Session, wanted: &Dynamic) -> Result<()> {
        let broken = self.configuration_errors(session).await?;
        let refused = || {
            let what = format!("the server does not take over its configuration: {broken}");
            PgError::with_hint(what, "correct the file and line that are named")
        };
        let good = self.run_file(LAST_GOOD);
        if broken.is_empty() || !good.exists() {
            return Err(refused());
        }
        let generation = self.write_conf(&good, wanted)?;
        self.signal_reload().await?;
        if !self.taken_over(session, wanted, generation).await? {
            return Err(refused());
        }
        self.note(format!("the configuration is broken, its last good values are used instead: {broken}")).await;
        Ok(())
    }

    async fn taken_over(&self, session: &Session, wanted: &Dynamic, generation: u64) -> Result<bool> {
        let start = Instant::now();
        let after = self.settings.timing.statement;
        let generation = generation.to_string();
        let mut reset = false;
        while start.elapsed() < after {
            let (seen, dynamic) = self.seen_in_force(session).await?;
            if seen == generation {
                if dynamic == *wanted {
                    if reset {
                        self.note("took back what ALTER SYSTEM had set over our own settings".to_owned()).await;
                    }
                    return Ok(true);
                }
                // Taken over, yet something else is in force: ALTER SYSTEM.
                if !reset {
                    reset = true;
                    for name in DYNAMIC_NAMES {
                        session.run(&format!("alter system reset {name}"), after).await?;
                    }
                    self.signal_reload().await?;
                }
            }
            tokio::time::sleep(LOOK).await;
        }
        Ok(false)
    }

    /// The generation and the settings that `session` goes by.
    async fn seen_in_force(&self, session: &Session) -> Result<(String, Dynamic)> {
        let [names, upstream, retry] = DYNAMIC_NAMES.map(|name| format!("current_setting('{name}')"));
        let sql = format!("select current_setting('{GENERATION}', true), {names}, {upstream}, {retry}");
        let rows = session.rows(&sql, self.settings.timing.statement).await?;
        let value = |column| rows.first().and_then(|row| row.get(column)).unwrap_or_default().to_owned();
        Ok((value(0), Dynamic { names: value(1), upstream: value(2), retry: value(3) }))
    }

    /// Puts our settings in force again when somebody set others over them.
    pub async fn defend(&self, session: &Session) -> Result<()> {
        let Some(ours) = self.server().in_force.clone() else { return Ok(()) };
        let (_, seen) = self.seen_in_force(session).await?;
        // A command may just be changing it: only what stays different is somebody else's doing.
        if seen == ours || self.server().in_force.as_ref() != Some(&ours) {
            return Ok(());
        }
        self.note(format!("somebody set synchronous_standby_names to \"{}\": set back", seen.names)).await;
        self.apply_over(session, &ours, &ours).await
    }

    async fn configuration_errors(&self, session: &Session) -> Result<String> {
        let sql = "select coalesce(string_agg(format('%s:%s: %s: %s', sourcefile, sourceline, name, error), '; '), '') \
                   from pg_file_settings where error is not null and error <> 'setting could not be applied'";
        session.value(sql, self.settings.timing.statement).await
    }

    /// Keeps what the administrator's configuration says now, for the day it is broken.
    pub async fn keep_good_configuration(&self, session: &Session) -> Result<()> {
        if !self.configuration_errors(session).await?.is_empty() {
            return Ok(());
        }
        let ours = self.run_file("postgresql.conf").display().to_string();
        let sql = format!(
            "select name, setting from pg_file_settings where error is null and sourcefile <> {} \
             and sourcefile !~ 'postgresql.auto.conf$' order by seqno",
            literal(&ours)
        );
        let rows = session.rows(&sql, self.settings.timing.statement).await?;
        let mut text = String::new();
        for row in &rows {
            let _ = writeln!(text, "{} = {}", row.get(0).unwrap_or_default(), quoted(row.get(1).unwrap_or_default()));
        }
        files::replace(&self.run_file(LAST_GOOD), text.as_bytes(), self.private())
    }

    /// Lets clients in or shuts new ones out, and sees that this is so. Clients that are connected
    /// stay.
    pub async fn set_clients(&self, clients: Clients) -> Result<()> {
        let _one_at_a_time = self.changing.lock().await;
        self.change_clients(clients).await
    }

    /// [`Context::set_clients`] for who holds `changing`.
    pub async fn change_clients(&self, clients: Clients) -> Result<()> {
        let generation = self.write_access(clients)?;
        self.signal_reload().await?;
        let start = Instant::now();
        let after = self.settings.timing.statement;
        let database = access::generation_database(generation);
        while start.elapsed() < after {
            tokio::time::sleep(LOOK).await;
            let attempt = Session::open_as(&self.settings, AGENT_ROLE, &database, Commits::Local).await;
            let Err(error) = attempt else { continue };
            match error.sqlstate() {
                // "no such database": the line that names it lets us through to there.
                Some("3D000") => return Ok(()),
                // "invalid authorization": still the former file.
                Some("28000") => {}
                _ => return Err(error),
            }
        }
        Err(self.access_error(generation).await)
    }

    async fn access_error(&self, generation: u64) -> PgError {
        let sql = "select coalesce(string_agg(format('line %s: %s', line_number, error), '; '), '') \
                   from pg_hba_file_rules where error is not null";
        let told = match Session::open(&self.settings, Commits::Local).await {
            Ok(session) => session.value(sql, self.settings.timing.statement).await,
            Err(error) => Err(error),
        };
        let told = told.unwrap_or_else(|error| error.in_words());
        PgError::with_hint(
            format!("the server does not take over its access file (generation {generation}): {told}"),
            format!("correct {}", self.settings.files.hba.display()),
        )
    }
}
