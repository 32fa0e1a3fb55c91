//! The sentinel's loop: wait, hand what happened to the state machine, perform what it wants.

use std::collections::VecDeque;
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::process::ExitCode;

use oarlock_core::sentinel::{Event, Exit, FromSentinel, Notice, Platform, Record, Sentinel};
use rustix::event::{PollFd, PollFlags, poll};
use rustix::io::Errno;
use rustix::process::Signal;
use rustix::time::{
    Itimerspec, TimerfdClockId, TimerfdFlags, TimerfdTimerFlags, Timespec, timerfd_create, timerfd_settime,
};

use super::agent::Agent;
use super::effects::Report;
use super::frame::FrameError;
use super::journal::Journal;
use super::lock::Lock;
use super::reaper::Reaper;
use super::services::Services;
use super::store::{Found, Store};
use super::watchdog::{self, Watch};
use super::{Options, StartError, keeper};
use crate::network::Netlink;
use crate::notify::Watchdog;
use crate::process::cgroup::Groups;
use crate::process::{clock, identity, ignore_no_signals, signal_descriptor};

/// How often to look whether a group is empty where no event tells.
const LOOK_EVERY_US: u64 = 20_000;
/// The sentinel itself is the last thing to be killed when memory is short.
const OOM_SCORE_ADJUST: &str = "-1000";

const END_SIGNALS: [Signal; 2] = [Signal::TERM, Signal::INT];

/// The descriptor through which all signals come that concern us.
pub(super) fn signals() -> io::Result<OwnedFd> {
    ignore_no_signals();
    let other = [Signal::HUP, Signal::USR1, Signal::USR2, Signal::PIPE];
    let all: Vec<i32> = END_SIGNALS.iter().chain(&other).map(|signal| signal.as_raw()).collect();
    signal_descriptor(&all)
}

/// The signals that came since the last look.
pub(super) fn read_signals(signals: &OwnedFd) -> Vec<i32> {
    let mut found = Vec::new();
    let mut buffer = [0; 128 * 8];
    while let Ok(bytes) = rustix::io::read(signals, &mut buffer[..]) {
        let numbers = buffer[..bytes].chunks_exact(128).filter_map(|one| one.first_chunk::<4>());
        found.extend(numbers.map(|number| i32::from_ne_bytes(*number)));
    }
    found
}

/// Whether a signal tells us to end.
pub(super) fn is_end(signal: i32) -> bool {
    END_SIGNALS.iter().any(|end| end.as_raw() == signal)
}

/// What a descriptor in the wait is about.
#[derive(Clone, Debug)]
enum Source {
    Signals,
    Timer,
    Agent,
    Child,
    OldAgent,
    Main(String),
    Group,
    Report,
}

/// The sentinel as a process.
pub(super) struct Shell {
    pub(super) machine: Sentinel,
    pub(super) store: Store,
    pub(super) services: Services,
    pub(super) agent: Agent,
    /// The killed agent of a former sentinel, until it is dead.
    pub(super) old_agent: Option<OwnedFd>,
    pub(super) netlink: Option<Netlink>,
    pub(super) journal: Journal,
    pub(super) lock: Lock,
    /// Held, not used: our claim to the cgroup.
    _claimed: Option<File>,
    /// Happened and not yet handled.
    pub(super) events: VecDeque<Event>,
    /// Children that have not yet said whether their program runs.
    pub(super) reports: Vec<Report>,
    /// What our children get back; ours is lower.
    pub(super) oom_score_adjust: i32,
    pub(super) is_keeper: bool,
    pub(super) leaving: bool,
    /// The agent cannot run at all: end with its exit code.
    hopeless: Option<u8>,
    /// None in a keeper that is a process of its own: it has no children.
    pub(super) reaper: Option<Reaper>,
    /// The hardware's; `watchdog` is the service manager's.
    hardware: Watch,
    platform: Platform,
    signals: OwnedFd,
    timer: OwnedFd,
    watchdog: Watchdog,
}

impl Shell {
    /// Takes over what a former sentinel left, lapsed lease first, and starts an agent.
    pub(super) fn start(
        options: &Options,
        lock: Lock,
        signals: OwnedFd,
        realtime: bool,
        memory_locked: bool,
    ) -> Result<Self, StartError> {
        let boot_id = identity::boot_id().map_err(StartError::new("reading the boot id"))?;
        let path = options.state_dir.join("sentinel.state");
        let opened = Store::open(&path, boot_id).map_err(StartError::new(format!("opening {}", path.display())));
        let (store, found) = opened?;
        let groups = Groups::find(&options.cgroup);
        let claimed = groups.claim();
        let claimed = claimed.map_err(StartError::new(format!("claiming the cgroup {}", options.cgroup)))?;
        let platform = Platform { realtime, memory_locked, cgroup_kill: groups.can_kill(), watchdog: false };
        let machine = match &found {
            Found::Record(record) => Sentinel::adopt((**record).clone(), platform),
            Found::Nothing | Found::Doubtful => Sentinel::new(platform),
        };
        let argv = options.agent_argv().map_err(StartError::new("making the agent's command line"))?;
        let timer_flags = TimerfdFlags::CLOEXEC | TimerfdFlags::NONBLOCK;
        let timer = timerfd_create(TimerfdClockId::Boottime, timer_flags);
        let mut shell = Self {
            machine,
            store,
            services: Services::new(groups),
            agent: Agent::new(argv),
            old_agent: None,
            netlink: Netlink::open().ok(),
            journal: Journal::open(&options.state_dir),
            lock,
            _claimed: claimed,
            events: VecDeque::new(),
            reports: Vec::new(),
            oom_score_adjust: lower_oom_score(),
            is_keeper: false,
            leaving: false,
            hopeless: None,
            reaper: Some(Reaper::start(realtime).map_err(StartError::new("starting the thread that reaps"))?),
            hardware: Watch::new(watchdog::open),
            platform,
            signals,
            timer: timer.map_err(StartError::new("creating a timer"))?,
            watchdog: Watchdog::from_env(),
        };
        shell.take_over(&found);
        shell.rehearse();
        shell.log(&format!("started: {platform:?}"));
        Ok(shell)
    }

    fn take_over(&mut self, found: &Found) {
        let record = match found {
            Found::Record(record) => (**record).clone(),
            Found::Nothing => Record::default(),
            Found::Doubtful => {
                self.log("the record is unreadable: killing every service, none is known to be ours to keep");
                Record::default()
            }
        };
        let ended = self.services.adopt(&record);
        // Before anything else: the lease may have lapsed while nobody held the deadline.
        self.handle(Event::Tick);
        self.kill_strays(&record);
        for event in ended {
            self.handle(event);
        }
        let other = |process: &oarlock_core::sentinel::Process| process.pid != std::process::id();
        if let Some(agent) = record.agent.filter(other) {
            self.kill_old_agent(agent);
        }
        if record.agent.is_some() {
            self.handle(Event::AgentGone);
        }
    }

    /// Groups that no record knows are of a start that was cut short, or of a lost record.
    fn kill_strays(&mut self, record: &Record) {
        for name in self.services.groups.names() {
            if record.service(&name).is_none() && !name.starts_with('.') {
                if let Ok(group) = self.services.groups.open(&name)
                    && group.is_populated()
                {
                    self.log(&format!("killing stray group {name}"));
                    group.kill();
                }
                self.services.groups.remove(&name);
            }
        }
    }

    /// Waits and handles, until the end.
    pub(super) fn run(mut self) -> Result<ExitCode, StartError> {
        loop {
            self.start_agent_if_due();
            let ready = self.wait().map_err(StartError::new("waiting"))?;
            // A lapse comes before whatever else happened.
            self.handle(Event::Tick);
            self.watchdog.pet(clock::boot_us());
            self.tend_hardware();
            // Before the ends of processes: a short program runs first and ends then.
            self.serve_reports();
            for source in ready {
                self.serve(source);
            }
            if let Some(code) = self.hopeless {
                return Ok(ExitCode::from(code));
            }
            if self.leaving && !self.is_keeper && !keeper::leave(&mut self) {
                return Ok(ExitCode::SUCCESS);
            }
            if self.is_keeper && keeper::is_done(&self) {
                return Ok(ExitCode::SUCCESS);
            }
        }
    }

    fn serve(&mut self, source: Source) {
        match source {
            Source::Signals => self.serve_signals(),
            Source::Timer => {
                let _ = rustix::io::read(&self.timer, &mut [0; 8][..]);
                self.look_for_empty();
                self.listen_for_agent();
            }
            Source::Agent => self.serve_agent(),
            Source::Child => self.serve_ends(),
            Source::OldAgent => self.old_agent = None,
            Source::Main(name) => self.main_ended(&name, Exit::Unknown),
            Source::Group => self.look_for_empty(),
            Source::Report => {}
        }
    }

    fn serve_signals(&mut self) {
        for signal in read_signals(&self.signals) {
            if signal == Signal::USR2.as_raw() && self.is_keeper {
                // The next sentinel waits for the lock; all it needs is on file.
                self.log("handing over");
                std::process::exit(0);
            } else if is_end(signal) && !self.is_keeper {
                self.handle(Event::Terminate);
            }
        }
    }

    fn serve_ends(&mut self) {
        while let Some((pid, exit)) = self.reaper.as_ref().and_then(Reaper::ended) {
            if self.agent.process().is_some_and(|agent| agent.pid == pid) {
                self.agent_ended(&exit);
            } else if let Some((name, _)) = self.services.of_main(pid) {
                let name = name.clone();
                self.main_ended(&name, exit);
            }
        }
        self.look_for_empty();
    }

    /// A child was started: its end is to be waited for.
    pub(super) fn has_child(&self) {
        if let Some(reaper) = &self.reaper {
            reaper.born();
        }
    }

    fn main_ended(&mut self, name: &str, exit: Exit) {
        let Some(running) = self.services.running.get_mut(name) else {
            return;
        };
        if let Some(main) = running.main.take() {
            let (name, pid) = (name.to_owned(), main.process.pid);
            self.handle(Event::Exited { name, pid, exit });
            self.look_for_empty();
        }
    }

    pub(super) fn look_for_empty(&mut self) {
        for name in self.services.emptied() {
            self.handle(Event::Emptied { name });
        }
    }

    fn serve_agent(&mut self) {
        self.agent.flush();
        // Bounded, so that a flood of requests cannot keep the deadline from being looked at.
        for _ in 0..16 {
            match self.agent.receive() {
                Ok(Some(message)) => self.handle(Event::Request { id: message.id, request: message.request }),
                Ok(None) => return,
                // Dead, or as good as dead.
                Err(FrameError::Closed) => return self.agent.kill(),
                Err(error) => {
                    self.log(&format!("agent sent a bad frame ({error}): killing it"));
                    return self.agent.kill();
                }
            }
        }
    }

    /// One that is stopped or hangs would be missing until somebody came.
    fn listen_for_agent(&mut self) {
        if self.agent.beat(clock::boot_us()) {
            self.log("the agent is silent: killing it");
            self.agent.kill();
        }
    }

    fn agent_ended(&mut self, how: &Exit) {
        self.log(&format!("agent ended: {how:?}"));
        // A mistake of the caller should be seen by the caller, not repeated for ever.
        let nothing_runs = self.machine.record().services.iter().all(|service| !service.is_alive());
        if let Exit::Code(code @ 1..=255) = *how
            && !self.agent.spoke
            && nothing_runs
        {
            self.hopeless = u8::try_from(code).ok();
        }
        self.agent.gone();
        self.handle(Event::AgentGone);
    }

    fn start_agent_if_due(&mut self) {
        let now_us = clock::boot_us();
        if self.next_start_us().is_none_or(|at| at > now_us) {
            return;
        }
        match self.agent.start(now_us) {
            Ok(process) => {
                self.has_child();
                self.handle(Event::AgentStarted(process));
            }
            Err(error) => self.log(&format!("cannot start an agent: {error}")),
        }
    }

    /// When to start an agent, if one is wanted and the former one is dead.
    fn next_start_us(&self) -> Option<u64> {
        let wanted = !self.leaving && !self.is_keeper && self.old_agent.is_none();
        self.agent.start_at_us().filter(|_| wanted)
    }

    fn wait(&mut self) -> io::Result<Vec<Source>> {
        self.arm()?;
        let mut sources = vec![Source::Signals, Source::Timer];
        let mut fds = vec![PollFd::new(&self.signals, PollFlags::IN), PollFd::new(&self.timer, PollFlags::IN)];
        if let Some(reaper) = &self.reaper {
            sources.push(Source::Child);
            fds.push(PollFd::new(reaper.news(), PollFlags::IN));
        }
        if let Some((socket, unsent)) = self.agent.socket() {
            let flags = if unsent { PollFlags::IN | PollFlags::OUT } else { PollFlags::IN };
            sources.push(Source::Agent);
            fds.push(PollFd::new(socket, flags));
        }
        if let Some(pidfd) = &self.old_agent {
            sources.push(Source::OldAgent);
            fds.push(PollFd::new(pidfd, PollFlags::IN));
        }
        for (name, running) in &self.services.running {
            if let Some(main) = running.main.as_ref().filter(|main| !main.is_child) {
                sources.push(Source::Main(name.clone()));
                fds.push(PollFd::new(&main.pidfd, PollFlags::IN));
            }
            if let Some(events) = running.group.events().filter(|_| running.watched) {
                sources.push(Source::Group);
                fds.push(PollFd::new(events, PollFlags::PRI));
            }
        }
        for report in &self.reports {
            sources.push(Source::Report);
            fds.push(PollFd::from_borrowed_fd(report.pipe.as_fd(), PollFlags::IN));
        }
        match poll(&mut fds, None) {
            Ok(_) => {
                let ready = fds.iter().zip(sources).filter(|(fd, _)| !fd.revents().is_empty());
                Ok(ready.map(|(_, source)| source).collect())
            }
            Err(Errno::INTR) => Ok(Vec::new()),
            Err(errno) => Err(errno.into()),
        }
    }

    fn arm(&self) -> io::Result<()> {
        let start = self.next_start_us();
        let look = self.services.must_look().then(|| clock::boot_us() + LOOK_EVERY_US);
        let beat = self.agent.beat_at_us();
        let watchdogs = [self.watchdog.due_us(), self.hardware.due_us()].into_iter().flatten().min();
        let wake = [self.machine.wake_at_us(), start, look, beat, watchdogs].into_iter().flatten().min();
        // An all-zero time would disarm the timer instead of firing at once.
        let at_us = wake.map_or(0, |at_us| at_us.max(1));
        let it_value =
            Timespec { tv_sec: (at_us / 1_000_000).cast_signed(), tv_nsec: (at_us % 1_000_000 * 1_000).cast_signed() };
        let once = Itimerspec { it_interval: Timespec { tv_sec: 0, tv_nsec: 0 }, it_value };
        timerfd_settime(&self.timer, TimerfdTimerFlags::ABSTIME, &once)?;
        Ok(())
    }

    /// Feeds the hardware's watchdog, starts or stops it, as the state machine wants it now.
    pub(super) fn tend_hardware(&mut self) {
        for line in self.hardware.tend(&self.machine, clock::boot_us()) {
            self.log(&line);
        }
        if self.platform.watchdog != self.hardware.works() {
            self.platform.watchdog = self.hardware.works();
            self.machine.set_platform(self.platform);
        }
    }

    /// Writes a line to the log, and tells the agent.
    pub(super) fn log(&mut self, line: &str) {
        self.journal.write(line);
        self.agent.send(&FromSentinel::Notice(Notice::Log { line: line.to_owned() }));
    }
}

/// Protects the sentinel from the kernel's memory killer; returns what its children shall have.
fn lower_oom_score() -> i32 {
    let path = "/proc/self/oom_score_adj";
    let before = std::fs::read_to_string(path).ok().and_then(|text| text.trim().parse().ok()).unwrap_or(0);
    let _ = std::fs::write(path, OOM_SCORE_ADJUST);
    // A sentinel that was an agent before was protected already; that is not for services.
    before.max(0)
}
