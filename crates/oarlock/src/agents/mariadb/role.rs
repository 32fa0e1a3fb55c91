//! What a running server is to be: follow, promote, open to clients, hand over.

use super::accounts::account;
use super::binlog::GtidList;
use super::conf::{self, CLOSED, server_id};
use super::context::{Context, Phase};
use super::error::{MariaError, Result};
use super::guard::SWITCH_ON;
use super::inspect;
use super::processes::{self, Process};
use super::session::{Commits, Session, literal, named, text};
use crate::agents::launcher::Launcher;
use oarlock_core::ids::NodeId;
use oarlock_core::resource::Guard;
use oarlock_core::resource::database::Running;
use std::time::{Duration, Instant};

/// Between two looks at clients that are leaving.
const LOOK: Duration = Duration::from_millis(3);

/// Why a standby is pointed at its upstream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum When {
    /// It has just been started.
    Started,
    /// By a command, while it runs.
    Told,
    /// It is better reached over another link than before.
    Again,
}

impl<L: Launcher> Context<L> {
    /// A session whose commits are on this copy alone.
    pub async fn session(&self) -> Result<Session> {
        Session::open(&self.settings, Commits::Local).await
    }

    /// Starts as a standby, or points a running one at its upstream. One that cannot follow runs all
    /// the same, and says so: it may be the only copy that is left.
    pub async fn follow(&self, upstream: NodeId, epoch: u64) -> Result<()> {
        if self.server().phase != Phase::Up {
            self.mend_relay_log().await?;
            self.start(Running::Standby, None).await?;
            let result = self.follow_from_here(upstream, epoch, When::Started).await;
            if result.is_err() {
                self.kill().await?;
            }
            return result;
        }
        if self.server().running == Running::Primary {
            return Err(MariaError::other("a primary runs here: it must be stopped and compared before it follows"));
        }
        self.follow_from_here(upstream, epoch, When::Told).await
    }

    async fn follow_from_here(&self, upstream: NodeId, epoch: u64, when: When) -> Result<()> {
        let _one_at_a_time = self.changing.lock().await;
        let fresh = when == When::Started;
        {
            let mut server = self.server();
            // A promotion may have come before.
            if server.phase != Phase::Up || server.running != Running::Standby {
                return Err(MariaError::other("no standby runs here"));
            }
            if when == When::Again && server.following != Some((upstream, epoch)) {
                return Ok(());
            }
            server.following = Some((upstream, epoch));
        }
        let source = self.member(upstream)?;
        let host = source.links.first().ok_or_else(|| MariaError::other("the primary has no address"))?.to_string();
        let user = account(self.settings.node, epoch);
        let mut session = self.session().await?;
        if fresh {
            self.take_cloned_position(&mut session).await?;
        } else if self.follows_already(&mut session, &host, &user).await? {
            return Ok(());
        }
        match self.settle(&mut session, fresh).await {
            Err(error @ MariaError::Unapplied { .. }) => {
                self.note(format!("the standby does not follow: {}", error.in_words())).await;
                return Ok(());
            }
            other => other?,
        }
        let after = self.settings.timing.tool;
        session.run("set global rpl_semi_sync_slave_enabled=ON", after).await?;
        let certificate = literal(&self.run_file("server.crt").display().to_string());
        let key = literal(&self.run_file("server.key").display().to_string());
        let heartbeat = self.settings.timing.replication_timeout.as_secs_f64() / 2.0;
        // The certificate is its own authority: whoever shows another is not one of us.
        let change = format!(
            "change master to master_host={}, master_port={}, master_user={}, master_password={}, \
             master_ssl=1, master_ssl_ca={certificate}, master_ssl_cert={certificate}, master_ssl_key={key}, \
             master_ssl_verify_server_cert=0, master_connect_retry=1, master_heartbeat_period={heartbeat:.3}, \
             master_use_gtid=slave_pos",
            literal(&host),
            source.port,
            literal(&user),
            literal(&self.settings.secrets.replication_password),
        );
        session.run_unseen("tell the server whom to follow", &change, after).await?;
        session.run("start slave", after).await
    }

    /// Applies what was received before, and makes a standby of whatever this server was.
    async fn settle(&self, session: &mut Session, fresh: bool) -> Result<()> {
        let after = self.settings.timing.tool;
        // Of a promotion that an agent did not live to end; a standby's own commits wait for nobody.
        session.run("set global read_only=ON", after).await?;
        self.switch_off(session).await?;
        let own = server_id(self.settings.node, None);
        session.run(&format!("set global server_id={own}"), after).await?;
        self.refuse_errant(session).await?;
        if fresh {
            self.apply_leftovers(session, Instant::now() + self.settings.timing.start).await?;
        } else {
            self.finish_replication(session, Instant::now() + self.settings.timing.promote).await?;
        }
        // A former primary's own transactions are in its log only.
        let applied = self.progress(session).await?.applied.to_string();
        if applied != session.value("select @@global.gtid_slave_pos", after).await? {
            session.run(&format!("set global gtid_slave_pos={}", literal(&applied)), after).await?;
        }
        Ok(())
    }

    /// A copy that has what no primary wrote differs from the others.
    async fn refuse_errant(&self, session: &mut Session) -> Result<()> {
        let errant = self.progress(session).await?.errant;
        if errant.is_empty() {
            return Ok(());
        }
        Err(MariaError::Unapplied { said: format!("this standby was written to: {}", GtidList(errant)) })
    }

    /// Follows over the links that are best now; a command that says something else meanwhile goes before.
    pub async fn reconnect(&self) -> Result<()> {
        let (phase, running, following) = {
            let server = self.server();
            (server.phase, server.running, server.following)
        };
        match (phase, running, following) {
            (Phase::Up, Running::Standby, Some((upstream, epoch))) => {
                self.follow_from_here(upstream, epoch, When::Again).await
            }
            _ => Ok(()),
        }
    }

    async fn follows_already(&self, session: &mut Session, host: &str, user: &str) -> Result<bool> {
        let Some(status) = self.replica_status(session).await? else { return Ok(false) };
        let is = |name: &str, value: &str| named(&status, name).is_some_and(|found| found == value);
        let receives = is("Slave_IO_Running", "Yes") || is("Slave_IO_Running", "Connecting");
        Ok(receives && is("Slave_SQL_Running", "Yes") && is("Master_Host", host) && is("Master_User", user))
    }

    /// Starts as the primary. One that runs already (adopted) is brought into the same state.
    pub async fn start_primary(&self, guard: Guard) -> Result<()> {
        let down = self.server().phase != Phase::Up;
        if down {
            if inspect::is_standby(&self.settings.data_dir) {
                return Err(MariaError::other("this copy is a standby: it must be promoted, not started as a primary"));
            }
            self.start(Running::Primary, Some(guard)).await?;
        } else {
            if self.server().running == Running::Standby {
                return Err(MariaError::other("a standby runs here: it must be promoted"));
            }
            let name = &self.settings.name;
            let marked = self.launcher.mark_guarded(name, Some(guard)).await;
            marked.map_err(MariaError::launch(format!("put {name} under the guard")))?;
        }
        let result = {
            let _one_at_a_time = self.changing.lock().await;
            self.become_primary(guard).await
        };
        if result.is_err() && down {
            self.kill().await?;
        }
        result
    }

    /// Makes the running standby the primary.
    pub async fn promote(&self, guard: Guard) -> Result<()> {
        self.require_up()?;
        let _one_at_a_time = self.changing.lock().await;
        let start = Instant::now();
        let deadline = start + self.settings.timing.promote;
        let name = &self.settings.name;
        let marked = self.launcher.mark_guarded(name, Some(guard)).await;
        marked.map_err(MariaError::launch(format!("put {name} under the guard")))?;
        let result = async {
            let mut session = self.session().await?;
            self.shut_out(&mut session).await?;
            self.remember_errant(&mut session).await?;
            self.finish_replication(&mut session, deadline).await?;
            // A restart from here on finds the role of a primary: nothing is acknowledged.
            self.prepare_run_dir(Running::Primary, Some(guard.epoch))?;
            self.become_primary(guard).await?;
            session.run("reset slave all", self.settings.timing.tool).await?;
            // A session goes on writing under the number it began with: the administrator's end too.
            let newer = self.session().await?.value("select connection_id()", self.settings.timing.statement).await?;
            let newer: u64 = newer.parse().unwrap_or(0);
            self.end_sessions(&mut session, deadline, |process| process.id < newer).await?;
            inspect::set_standby(&self.settings, false).await
        };
        if let Err(error) = result.await {
            // What is half a primary does not stay.
            self.kill().await?;
            return Err(error);
        }
        tracing::info!(resource = name, ms = start.elapsed().as_millis() as u64, "promoted");
        Ok(())
    }

    /// What no primary wrote is in the data of the new primary: no other copy will get it. Before the rest
    /// is applied, which hides it.
    async fn remember_errant(&self, session: &mut Session) -> Result<()> {
        let errant = GtidList(self.progress(session).await?.errant).to_string();
        if !errant.is_empty() {
            inspect::keep_errant(&self.settings, &errant)?;
            self.note(format!("what no primary wrote is in the data of the new primary: {errant}")).await;
        }
        Ok(())
    }

    /// No commit is acknowledged from here on, and what is written bears this epoch's number.
    async fn become_primary(&self, guard: Guard) -> Result<()> {
        let after = self.settings.timing.tool;
        let mut session = self.session().await?;
        self.shut_out(&mut session).await?;
        let number = server_id(self.settings.node, Some(guard.epoch));
        session.run(&format!("set global server_id={number}"), after).await?;
        session.run("set global rpl_semi_sync_slave_enabled=OFF", after).await?;
        self.wait_for_ever(&mut session).await?;
        {
            let mut server = self.server();
            server.running = Running::Primary;
            server.epoch = guard.epoch;
            server.following = None;
            server.reopen_at = None;
        }
        self.provision(&mut session, guard.epoch).await
    }

    /// Lets clients in; on a standby they may only read.
    pub async fn open(&self) -> Result<()> {
        self.require_up()?;
        let mut session = self.session().await?;
        self.let_in(&mut session).await?;
        self.server().reopen_at = None;
        Ok(())
    }

    /// See [`Context::open`].
    pub async fn let_in(&self, session: &mut Session) -> Result<()> {
        let after = self.settings.timing.statement;
        if self.server().running == Running::Primary {
            session.run("set global read_only=OFF", after).await?;
        }
        session.run("set global init_connect=''", after).await
    }

    /// Lets nobody new in; nobody but an administrator may write.
    async fn shut_out(&self, session: &mut Session) -> Result<()> {
        let after = self.settings.timing.statement;
        session.run(&format!("set global init_connect={}", literal(CLOSED)), after).await
    }

    /// Ends the sessions of the clients who came before they were shut out, and waits until they are gone. A commit that waits is left to
    /// its standby: ended, it could be seen but not be there.
    async fn end_clients(&self, session: &mut Session, deadline: Instant) -> Result<()> {
        // Who came after the door was shut runs nothing, and tries again as soon as it is ended: waited for, there
        // would be no end to it.
        let counter = session.rows("show global status like 'Connections'", self.settings.timing.statement).await?;
        let last = counter.first().and_then(|row| text(row, 1)).and_then(|count| count.parse::<u64>().ok());
        let last = last.ok_or_else(|| MariaError::other("the server does not tell how many came to it"))?;
        let came_before = |process: &Process| process.id <= last && process.user != self.settings.admin;
        self.end_sessions(session, deadline, came_before).await
    }

    async fn end_sessions(
        &self,
        session: &mut Session,
        deadline: Instant,
        which: impl Fn(&Process) -> bool,
    ) -> Result<()> {
        let after = self.settings.timing.statement;
        let own = session.value("select connection_id()", after).await?;
        loop {
            let mut clients = processes::list(session, after).await?;
            clients.retain(|process| process.is_client() && process.id.to_string() != own && which(process));
            if clients.is_empty() {
                return Ok(());
            }
            for process in clients.iter().filter(|process| !process.waits()) {
                // One that has just ended by itself does not matter.
                let _ = session.run(&format!("kill connection {}", process.id), after).await;
            }
            if Instant::now() > deadline {
                let after = self.settings.timing.hand_over;
                return Err(MariaError::Timeout { what: "clients' last commits".to_owned(), after });
            }
            tokio::time::sleep(LOOK).await;
        }
    }

    /// Planned stop with everything on `standby` (PROTOCOL §5.3, §6.6).
    pub async fn hand_over(&self, standby: NodeId) -> Result<()> {
        self.require_up()?;
        let deadline = Instant::now() + self.settings.timing.hand_over;
        if !self.server().guard_on {
            return Err(MariaError::other("commits do not wait for a standby: there is nobody to hand over to"));
        }
        // A standby that is not close costs nobody anything if it is found out now.
        let epoch = self.server().epoch;
        self.wait_for_receiver(standby, epoch, deadline).await?;
        self.confirm(deadline).await?;
        let mut session = self.session().await?;
        {
            let _one_at_a_time = self.changing.lock().await;
            self.server().reopen_at = None;
            self.shut_out(&mut session).await?;
        }
        let handed = async {
            self.end_clients(&mut session, deadline).await?;
            session.run("set global read_only=ON", self.settings.timing.statement).await?;
            loop {
                let confirmed = self.confirm(deadline).await?;
                // An administrator's session may have written meanwhile.
                if self.position(&mut session).await? == confirmed {
                    return Ok(());
                }
            }
        };
        if let Err(error) = handed.await {
            // What a client saw here last may not be on the standby yet: in again only when it is.
            let position = self.position(&mut self.session().await?).await?;
            self.server().reopen_at = Some(position);
            self.mark.notify_one();
            self.look.notify_one();
            return Err(error);
        }
        drop(session);
        self.stop().await
    }

    /// The last transaction in the log.
    pub async fn position(&self, session: &mut Session) -> Result<u64> {
        let logged = session.value("select @@global.gtid_binlog_pos", self.settings.timing.statement).await?;
        Ok(GtidList::parse(&logged)?.position())
    }

    /// Lets clients in again after a hand-over that failed, once what was confirmed allows it.
    pub async fn reopen(&self) -> Result<()> {
        // A command that changes any of this comes first; there is another look soon.
        let Ok(_one_at_a_time) = self.changing.try_lock() else { return Ok(()) };
        let due = {
            let server = self.server();
            server.running == Running::Primary && server.reopen_at.is_some_and(|position| server.confirmed >= position)
        };
        if due {
            let mut session = self.session().await?;
            self.let_in(&mut session).await?;
            self.server().reopen_at = None;
            self.note("clients let in again after a hand-over that failed".to_owned()).await;
        }
        Ok(())
    }

    /// Commits wait for a standby, however long it takes, from here on.
    pub async fn wait_for_ever(&self, session: &mut Session) -> Result<()> {
        let after = self.settings.timing.statement;
        for sql in [
            format!("set global rpl_semi_sync_master_timeout={}", conf::FOR_EVER),
            "set global rpl_semi_sync_master_wait_no_slave=ON".to_owned(),
            "set global rpl_semi_sync_master_wait_point=AFTER_SYNC".to_owned(),
            SWITCH_ON.to_owned(),
        ] {
            session.run(&sql, after).await?;
        }
        let mut server = self.server();
        server.guard_on = true;
        server.guard_changes += 1;
        Ok(())
    }
}
