//! The agent's task: one command, notice or verdict at a time.

use super::monitor::{Monitor, Verdict};
use super::{Notice, Run, ServiceSettings, command, log};
use crate::agents::launcher::{Ended, Exit, LaunchError, Launcher, SpawnRequest};
use oarlock_core::resource::{Guard, ServiceCommand, ServiceObservation};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio::time::Instant;

/// From one attempt to kill the service to the next.
const KILL_PACE: Duration = Duration::from_millis(100);

/// The agent of one service.
pub(super) struct Agent<L> {
    settings: Arc<ServiceSettings>,
    launcher: L,
    events: mpsc::Sender<ServiceObservation>,
    state: State,
}

enum State {
    /// Nothing of it runs, as far as this agent knows.
    Idle,
    /// Its process is there, its checks have not all passed yet.
    Starting { live: Live, give_up: Instant },
    /// It runs.
    Up(Live),
    /// It was asked to stop. The stop command is in `stopping`, if it has one.
    Stopping { main: Option<u32>, stopping: JoinSet<()>, kill_at: Instant },
}

/// A service that is there.
struct Live {
    /// The main process; of a service with scripts the start command, `None` once that has ended.
    main: Option<u32>,
    monitor: Monitor,
    /// Processes of it are in its cgroup (always, but for scripts that ask another to start it).
    inside: bool,
    /// Started by us just now, under this `takeover`; `None` when adopted.
    fresh: Option<bool>,
    /// The profile's work after the start.
    hooks: JoinSet<()>,
}

/// What a turn of the loop is about.
enum Turn {
    Order(Option<ServiceCommand>),
    Notice(Option<Notice>),
    Verdict(Verdict),
    StopCommandEnded,
    Deadline,
}

impl<L: Launcher> Agent<L> {
    pub fn new(settings: ServiceSettings, launcher: L, events: mpsc::Sender<ServiceObservation>) -> Agent<L> {
        Agent { settings: Arc::new(settings), launcher, events, state: State::Idle }
    }

    /// Serves until the handle is dropped.
    pub async fn serve(mut self, mut orders: mpsc::Receiver<ServiceCommand>, mut notices: mpsc::Receiver<Notice>) {
        loop {
            let deadline = self.state.deadline();
            let turn = tokio::select! {
                biased;
                order = orders.recv() => Turn::Order(order),
                notice = notices.recv() => Turn::Notice(notice),
                turn = self.state.next() => turn,
                () = until(deadline) => Turn::Deadline,
            };
            match turn {
                Turn::Order(None) | Turn::Notice(None) => return,
                Turn::Order(Some(ServiceCommand::Start { guard, takeover })) => self.start(guard, takeover).await,
                Turn::Order(Some(ServiceCommand::Stop { kill })) => self.stop(kill).await,
                Turn::Notice(Some(Notice::Exited(exit))) => self.exited(&exit).await,
                Turn::Notice(Some(Notice::Emptied)) => self.emptied().await,
                Turn::Verdict(verdict) => self.judged(verdict).await,
                Turn::StopCommandEnded => self.finish_stop().await,
                Turn::Deadline => self.late().await,
            }
        }
    }

    async fn start(&mut self, guard: Guard, takeover: bool) {
        if matches!(self.state, State::Stopping { .. }) {
            self.kill_all().await;
        }
        if let Err(error) = self.bring_up(guard, takeover).await {
            self.fail(format!("cannot start: {error}")).await;
        }
    }

    /// Spawns it, or adopts what runs already (started by an agent before this one, or by an
    /// earlier `Start`) under the new guard.
    async fn bring_up(&mut self, guard: Guard, takeover: bool) -> Result<(), LaunchError> {
        let name = &self.settings.name;
        if self.launcher.alive(name).await? {
            self.launcher.mark_guarded(name, Some(guard)).await?;
            if matches!(self.state, State::Up(_)) {
                self.tell(ServiceObservation::Started).await;
            } else if matches!(self.state, State::Idle) {
                let main = self.launcher.running(name).await?;
                self.begin(main, None);
            }
            return Ok(());
        }
        log::prepare(&self.settings.log).await;
        let scripts = matches!(self.settings.run, Run::Scripts { .. });
        let request = self.request(guard);
        let started =
            if scripts { self.launcher.spawn_script(request).await } else { self.launcher.spawn(request).await };
        let main = started?;
        self.begin(Some(main), Some(takeover));
        Ok(())
    }

    fn request(&self, guard: Guard) -> SpawnRequest {
        let settings = &self.settings;
        let argv = match &settings.run {
            Run::Supervised { command, .. } => command,
            Run::Scripts { start, .. } => start,
        };
        SpawnRequest {
            name: settings.name.clone(),
            argv: argv.clone(),
            env: settings.env.clone(),
            uid: settings.user.uid,
            gid: settings.user.gid,
            groups: settings.user.groups.clone(),
            cwd: settings.cwd.clone(),
            log: settings.log.file.clone(),
            guard: Some(guard),
        }
    }

    fn begin(&mut self, main: Option<u32>, fresh: Option<bool>) {
        let monitor = Monitor::start(&self.settings, main);
        let live = Live { main, monitor, inside: true, fresh, hooks: JoinSet::new() };
        self.state = State::Starting { live, give_up: Instant::now() + self.settings.start_timeout };
    }

    async fn judged(&mut self, verdict: Verdict) {
        match (&mut self.state, verdict) {
            (State::Starting { live, .. }, Verdict::Good) if live.is_ready(&self.settings) => self.up().await,
            (State::Starting { .. }, Verdict::Good | Verdict::NotYet(_)) => {}
            (State::Up(_), Verdict::Good) => self.tell(ServiceObservation::Healthy).await,
            (State::Starting { .. } | State::Up(_), Verdict::Bad(reason)) => self.fail(reason).await,
            (State::Up(_) | State::Idle | State::Stopping { .. }, _) => {}
        }
    }

    /// Every check has passed, and the start command has ended.
    async fn up(&mut self) {
        let inside = self.launcher.alive(&self.settings.name).await.unwrap_or(true);
        if !inside && self.settings.checks.is_empty() {
            return self.fail("the start command left no process behind, and no check is set to watch it".into()).await;
        }
        let State::Starting { mut live, .. } = std::mem::replace(&mut self.state, State::Idle) else { return };
        live.inside = inside;
        if let (Some(takeover), Some(hooks)) = (live.fresh, self.settings.hooks.clone()) {
            let main = live.main;
            live.hooks.spawn(async move { hooks.started(takeover, main).await });
        }
        self.state = State::Up(live);
        self.tell(ServiceObservation::Started).await;
    }

    async fn exited(&mut self, exit: &Exit) {
        let scripts = matches!(self.settings.run, Run::Scripts { .. });
        match &mut self.state {
            State::Starting { live, .. } | State::Up(live) if live.main == Some(exit.pid) => {
                if scripts && exit.ended == Ended::Code(0) {
                    live.main = None;
                    if live.is_ready(&self.settings) {
                        self.up().await;
                    }
                } else {
                    let what = if scripts { "the start command failed" } else { "ended by itself" };
                    self.fail(format!("{what} ({})", exit.ended)).await;
                }
            }
            State::Stopping { main, .. } if !scripts && *main == Some(exit.pid) => self.finish_stop().await,
            // Of a process before this one.
            State::Idle | State::Starting { .. } | State::Up(_) | State::Stopping { .. } => {}
        }
    }

    async fn emptied(&mut self) {
        let scripts = matches!(self.settings.run, Run::Scripts { .. });
        // Notices may be late: what was started since may be there.
        let gone = matches!(self.launcher.alive(&self.settings.name).await, Ok(false));
        if matches!(&self.state, State::Up(live) if live.inside && scripts && gone) {
            self.fail("all its processes have ended by themselves".into()).await;
        }
    }

    async fn stop(&mut self, kill: bool) {
        let scripts = matches!(self.settings.run, Run::Scripts { .. });
        let at_once = match &self.state {
            State::Stopping { .. } if !kill => return,
            State::Stopping { .. } => true,
            State::Up(live) | State::Starting { live, .. } => kill && live.inside,
            // What scripts started before this agent may be out of reach of a kill.
            State::Idle => kill && !scripts,
        };
        if at_once {
            return self.finish_stop().await;
        }
        let mut stopping = JoinSet::new();
        let mut main = None;
        match &self.settings.run {
            Run::Supervised { stop_signal, .. } => {
                main = self.launcher.running(&self.settings.name).await.unwrap_or_default();
                let asked = self.launcher.signal(&self.settings.name, *stop_signal).await;
                if main.is_none() || asked.is_err() {
                    return self.finish_stop().await;
                }
            }
            Run::Scripts { stop, .. } => {
                let (settings, stop) = (Arc::clone(&self.settings), stop.clone());
                stopping.spawn(async move { run_stop(&settings, &stop).await });
            }
        }
        self.state = State::Stopping { main, stopping, kill_at: Instant::now() + self.settings.stop_timeout };
    }

    async fn finish_stop(&mut self) {
        self.kill_all().await;
        self.tell(ServiceObservation::Stopped).await;
    }

    async fn late(&mut self) {
        match &self.state {
            State::Starting { live, .. } => {
                let limit_ms = self.settings.start_timeout.as_millis();
                let waits =
                    if live.is_waiting(&self.settings) { "the start command runs" } else { &live.monitor.reason };
                let reason = format!("not well within {limit_ms} ms of its start: {waits}");
                self.fail(reason).await;
            }
            State::Stopping { .. } => {
                let limit_ms = self.settings.stop_timeout.as_millis();
                tracing::warn!(service = self.settings.name, limit_ms, "did not stop when asked: killed");
                self.finish_stop().await;
            }
            State::Idle | State::Up(_) => {}
        }
    }

    /// Kills what is left of it, then reports.
    async fn fail(&mut self, reason: String) {
        let outside = matches!(&self.state, State::Up(live) if !live.inside);
        if let (true, Run::Scripts { stop, .. }) = (outside, &self.settings.run) {
            // Nothing of it is in its cgroup: only its own command can end it.
            run_stop(&self.settings, stop).await;
        }
        self.kill_all().await;
        self.tell(ServiceObservation::Failed { reason }).await;
    }

    /// Ends only when nothing of the service is left: the core builds on that.
    async fn kill_all(&mut self) {
        // Checks and hooks end with the state, before the service does.
        self.state = State::Idle;
        while let Err(error) = self.launcher.kill_group(&self.settings.name).await {
            tracing::error!(service = self.settings.name, %error, "cannot kill the service yet");
            tokio::time::sleep(KILL_PACE).await;
        }
    }

    async fn tell(&self, what: ServiceObservation) {
        // Without a listener the handle is about to go as well.
        let _ = self.events.send(what).await;
    }
}

impl State {
    fn deadline(&self) -> Option<Instant> {
        match self {
            State::Starting { give_up, .. } => Some(*give_up),
            State::Stopping { kill_at, .. } => Some(*kill_at),
            State::Idle | State::Up(_) => None,
        }
    }

    /// What its own tasks say next. Never ends otherwise.
    async fn next(&mut self) -> Turn {
        match self {
            State::Starting { live, .. } | State::Up(live) => Turn::Verdict(live.monitor.next().await),
            State::Stopping { stopping, .. } if !stopping.is_empty() => {
                stopping.join_next().await;
                Turn::StopCommandEnded
            }
            State::Idle | State::Stopping { .. } => std::future::pending().await,
        }
    }
}

impl Live {
    fn is_waiting(&self, settings: &ServiceSettings) -> bool {
        matches!(settings.run, Run::Scripts { .. }) && self.main.is_some()
    }

    fn is_ready(&self, settings: &ServiceSettings) -> bool {
        self.monitor.all_passed() && !self.is_waiting(settings)
    }
}

async fn run_stop(settings: &ServiceSettings, stop: &[String]) {
    let ended = command::run(stop, &settings.user, &settings.env, settings.stop_timeout).await;
    if let Err(error) = ended.and_then(|outcome| outcome.check("the stop command")) {
        // Its exit code says little; what is left in the cgroup is killed anyway.
        tracing::warn!(service = settings.name, error, "stop command");
    }
}

async fn until(deadline: Option<Instant>) {
    match deadline {
        Some(deadline) => tokio::time::sleep_until(deadline).await,
        None => std::future::pending().await,
    }
}
