//! What a running server needs from time to time: what keeps acknowledged rows in force, whoever set it
//! otherwise; the standbys' accounts; and a look at whether a standby is still one.

use super::accounts::account;
use super::binlog::GtidList;
use super::conf::FOR_EVER;
use super::context::{Context, Phase, Shared};
use super::error::Result;
use super::processes;
use super::session::{Session, literal, named};
use crate::agents::launcher::Launcher;
use oarlock_core::resource::database::Running;
use std::time::Duration;

/// Between two rounds.
const ROUND: Duration = Duration::from_secs(1);

/// Goes its rounds until the task is aborted.
pub(super) async fn keep<L: Launcher>(context: Shared<L>) {
    let mut session = None;
    let mut said = String::new();
    loop {
        tokio::time::sleep(ROUND).await;
        if context.server().phase != Phase::Up {
            continue;
        }
        match context.round(session.take()).await {
            Ok((kept, problem)) => {
                session = Some(kept);
                if !problem.is_empty() && problem != said {
                    context.note(problem.clone()).await;
                }
                said = problem;
            }
            Err(error) => tracing::warn!(resource = context.settings.name, "upkeep: {}", error.in_words()),
        }
    }
}

impl<L: Launcher> Context<L> {
    /// One round; what the administrator should know.
    async fn round(&self, kept: Option<Session>) -> Result<(Session, String)> {
        let mut session = match kept {
            Some(session) => session,
            None => self.session().await?,
        };
        // A command that changes any of this is left to its work.
        let Ok(_one_at_a_time) = self.changing.try_lock() else { return Ok((session, String::new())) };
        let running = self.server().running;
        let problem = match running {
            Running::Primary => self.look_after_primary(&mut session).await?,
            Running::Standby => self.look_after_standby(&mut session).await?,
        };
        Ok((session, problem))
    }

    async fn look_after_primary(&self, session: &mut Session) -> Result<String> {
        let mut told = Vec::new();
        let guard_on = self.server().guard_on;
        let mut changed = self.set_back(session, &DURABLE).await?;
        changed |= guard_on && self.set_back(session, &GUARD_ON).await?;
        if changed {
            told.push("somebody changed what keeps acknowledged rows: set back".to_owned());
        }
        let strangers = self.strangers(session).await?;
        if guard_on && !strangers.is_empty() && self.count(session).await?.confirming > 1 {
            for id in &strangers {
                // One that has just gone does not matter.
                let _ = session.run(&format!("kill connection {id}"), self.settings.timing.statement).await;
            }
            told.push("another replica confirmed commits beside the standby: cut off".to_owned());
        }
        if !self.accounts_are_there(session).await? {
            let epoch = self.server().epoch;
            self.provision(session, epoch).await?;
        }
        Ok(told.join("; "))
    }

    /// Sets what differs; whether anything did.
    async fn set_back(&self, session: &mut Session, wanted: &[(&str, &str)]) -> Result<bool> {
        let after = self.settings.timing.statement;
        let mut changed = false;
        for (name, value) in wanted {
            if session.value(&format!("select @@global.{name}"), after).await? != *value {
                session.run(&format!("set global {name}={}", setting(value)), after).await?;
                changed = true;
            }
        }
        Ok(changed)
    }

    /// Connections of replicas that are none of ours.
    async fn strangers(&self, session: &mut Session) -> Result<Vec<u64>> {
        let processes = processes::list(session, self.settings.timing.statement).await?;
        let strange = processes.iter().filter(|process| process.sends() && !process.user.starts_with("oarlock_"));
        Ok(strange.map(|process| process.id).collect())
    }

    async fn accounts_are_there(&self, session: &mut Session) -> Result<bool> {
        let epoch = self.server().epoch;
        let others = self.members().into_iter().filter(|member| member.id != self.settings.node);
        let names: Vec<String> = others.map(|member| literal(&account(member.id, epoch))).collect();
        if names.is_empty() {
            return Ok(true);
        }
        let sql = format!("select count(*) from mysql.user where user in ({})", names.join(","));
        Ok(session.value(&sql, self.settings.timing.statement).await? == names.len().to_string())
    }

    /// A standby that was written to, or that cannot apply what it receives, is none. It receives nothing
    /// more: so its primary misses it, and its copy is replaced.
    async fn look_after_standby(&self, session: &mut Session) -> Result<String> {
        let after = self.settings.timing.statement;
        let mut told = Vec::new();
        if self.set_back(session, &STANDBY).await? {
            told.push("somebody changed what a standby must have: set back".to_owned());
        }
        let Some(status) = self.replica_status(session).await? else { return Ok(told.join("; ")) };
        let field = |name: &str| named(&status, name).unwrap_or_default();
        let errant = self.progress(session).await?.errant;
        let failed = field("Slave_SQL_Running") != "Yes" && field("Last_SQL_Errno") != "0";
        if failed {
            told.push(format!("this standby cannot apply what it receives: {}", field("Last_SQL_Error")));
        }
        if !errant.is_empty() {
            told.push(format!("this standby was written to, it is given up for a clone: {}", GtidList(errant.clone())));
        }
        // What was received stays, for a promotion.
        if (failed || !errant.is_empty()) && field("Slave_IO_Running") != "No" {
            session.run("stop slave io_thread", after).await?;
        }
        Ok(told.join("; "))
    }
}

/// As a value in a statement: words and numbers need no quotes.
fn setting(value: &str) -> String {
    match value {
        number if number.bytes().all(|byte| byte.is_ascii_digit()) => number.to_owned(),
        word => literal(word),
    }
}

/// On every primary.
const DURABLE: [(&str, &str); 2] = [("sync_binlog", "1"), ("innodb_flush_log_at_trx_commit", "1")];

/// While commits wait for the standby.
const GUARD_ON: [(&str, &str); 4] = [
    ("rpl_semi_sync_master_timeout", FOR_EVER),
    ("rpl_semi_sync_master_wait_no_slave", "1"),
    ("rpl_semi_sync_master_wait_point", "AFTER_SYNC"),
    ("rpl_semi_sync_master_enabled", "1"),
];

/// On every standby.
const STANDBY: [(&str, &str); 2] = [("read_only", "1"), ("sync_relay_log", "1")];
