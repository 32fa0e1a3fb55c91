//! The table of one copy of a database: from what lies in the directory to what is wanted.
//!
//! Who waits for whom once it is a primary is next door, in `guarding`.

use super::Failures;
use super::guarding::Guarding;
use crate::ids::{CopyId, NodeId};
use crate::resource::Guard;
use crate::resource::database::{Data, DataCommand, DataObservation, DataStatus, Running};
use crate::time::{Mono, Span};

/// What the copy promises.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum DatabaseState {
    /// Not known: after the start of the agent, after a lapse, after a failure.
    Unknown,
    /// Nothing runs; what lies there has not been looked at since.
    Ended,
    /// A command that ends in `Inspected` is under way.
    Working,
    /// There is no data here.
    Absent,
    /// Something is here that must not be touched.
    Foreign,
    /// Data, and nothing runs on it. `standby`: it was last a standby, so nothing of its own.
    Stopped {
        /// See above.
        standby: bool,
    },
    /// On its way to be a standby.
    StartingStandby,
    /// A standby, of this node's primary of this epoch if known.
    Standby {
        /// See above.
        follows: Option<(NodeId, u64)>,
    },
    /// On its way to be a primary in place.
    StartingPrimary,
    /// On its way from standby to primary.
    Promoting,
    /// A primary. It acknowledges writes only as far as `Guarding` allows.
    Primary,
    /// Planned stop under way.
    HandingOver,
    /// On its way down.
    Stopping,
}

/// What is wanted of the copy.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DatabaseWant {
    /// Be the primary.
    Primary {
        /// The right to be.
        guard: Guard,
        /// This copy is in the in-sync set, or the set is still empty.
        member: bool,
        /// The set is still empty: an absent directory may be initialised.
        first: bool,
        /// Whom to name as upstream when a stopped standby has to be started to be promoted.
        other: NodeId,
    },
    /// Follow the primary of `upstream`.
    Follow {
        /// The owner.
        upstream: NodeId,
        /// Its epoch.
        epoch: u64,
        /// A committed permission to rewind or replace this copy.
        rejoin: bool,
        /// The upstream lets itself be copied.
        serving: bool,
    },
    /// Give the primary up, with `standby` having everything.
    HandOver {
        /// Who gets it.
        standby: NodeId,
    },
    /// No primary here, at once. A standby may stay.
    NoPrimary,
    /// What is, stays.
    Keep,
}

/// One copy on this node.
#[derive(Clone, Debug)]
pub struct Database {
    state: DatabaseState,
    copy: Option<(CopyId, u64)>,
    status: Option<DataStatus>,
    foreign: Option<String>,
    /// What the command under way was to lead to, for `Follow`.
    following: Option<(NodeId, u64)>,
    /// A rewind failed on this copy: clone instead.
    rewind_failed: bool,
    /// The hand-over that was tried did not work.
    hand_over_failed: bool,
    streamed_at: Option<Mono>,
    readers: Readers,
    /// Who waits for whom, while it is a primary.
    pub guarding: Guarding,
    /// Failures on this node.
    pub failures: Failures,
}

/// Clients on a standby, which may only read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Readers {
    /// Not let in; not tried again before this.
    Out { until: Mono },
    /// The order is under way.
    Coming,
    /// Let in.
    In,
}

/// Pause after readers could not be let in.
const READERS_RETRY: Span = Span::from_ms(1000);

/// A standby that has not streamed for this long, though its upstream serves, needs another copy.
const STUCK_AFTER: Span = Span::from_ms(15_000);

impl Default for Database {
    fn default() -> Database {
        Database {
            state: DatabaseState::Unknown,
            copy: None,
            status: None,
            foreign: None,
            following: None,
            rewind_failed: false,
            hand_over_failed: false,
            streamed_at: None,
            readers: Readers::Out { until: Mono(0) },
            guarding: Guarding::default(),
            failures: Failures::default(),
        }
    }
}

impl Database {
    /// What it promises.
    pub fn state(&self) -> &DatabaseState {
        &self.state
    }

    /// The copy here and the identifier of its database cluster.
    pub fn copy(&self) -> Option<(CopyId, u64)> {
        self.copy
    }

    /// The last report of the running server.
    pub fn status(&self) -> Option<&DataStatus> {
        self.status.as_ref()
    }

    /// Why the directory must not be touched.
    pub fn foreign(&self) -> Option<&str> {
        self.foreign.as_deref()
    }

    /// Whether no primary runs here.
    pub fn is_no_primary(&self) -> bool {
        matches!(
            self.state,
            DatabaseState::Ended
                | DatabaseState::Absent
                | DatabaseState::Foreign
                | DatabaseState::Stopped { .. }
                | DatabaseState::Standby { .. }
        )
    }

    /// Whether it is a primary that lets clients in.
    pub fn is_open(&self) -> bool {
        self.state == DatabaseState::Primary && self.guarding.is_open()
    }

    /// Whether it lets readers in: as a standby, or as the primary.
    pub fn serves_readers(&self) -> bool {
        match self.state {
            DatabaseState::Standby { .. } => self.readers == Readers::In,
            _ => self.is_open(),
        }
    }

    /// A standby that readers are sent to lets them in.
    pub fn let_readers_in(&mut self, now: Mono) -> Option<DataCommand> {
        let due = matches!(self.readers, Readers::Out { until } if now >= until);
        let due = due && matches!(self.state, DatabaseState::Standby { .. });
        due.then(|| {
            self.readers = Readers::Coming;
            DataCommand::Open
        })
    }

    /// The directory was looked at.
    pub fn is_inspected(&self) -> bool {
        !matches!(self.state, DatabaseState::Unknown | DatabaseState::Working | DatabaseState::Ended)
    }

    /// When something is due that no event announces.
    pub fn wakeup(&self, patience: Span) -> [Option<Mono>; 2] {
        let stuck = self.streamed_at.map(|at| at + STUCK_AFTER + Span(1));
        [stuck, self.guarding.wakeup(patience)]
    }

    /// Whether the last planned hand-over failed; reading it forgets it.
    pub fn take_hand_over_failed(&mut self) -> bool {
        std::mem::take(&mut self.hand_over_failed)
    }

    /// Whether it needs a committed permission to rewind or replace its copy before it can follow.
    pub fn needs_rejoin(&self, now: Mono) -> bool {
        match self.state {
            DatabaseState::Absent | DatabaseState::Stopped { standby: false } => true,
            DatabaseState::Stopped { standby: true } => self.rewind_failed,
            DatabaseState::Standby { .. } => self.is_stuck(now),
            _ => false,
        }
    }

    fn is_stuck(&self, now: Mono) -> bool {
        self.streamed_at.is_some_and(|at| now.since(at) > STUCK_AFTER)
    }

    /// For sabotage tests: a good copy is taken for one that cannot follow.
    pub fn doubt(&mut self) {
        self.rewind_failed |= matches!(self.state, DatabaseState::Stopped { standby: true });
    }

    /// The sentinel may have killed it.
    pub fn forget(&mut self) {
        self.state = DatabaseState::Unknown;
        self.status = None;
        self.streamed_at = None;
        self.readers = Readers::Out { until: Mono(0) };
        self.guarding = Guarding::default();
    }

    /// The next command for what is wanted; `None` to wait.
    pub fn next(&mut self, now: Mono, want: &DatabaseWant) -> Option<DataCommand> {
        use DatabaseState as S;
        // A pause is for what has just failed to start: a copy that runs (again) is promoted at once.
        let runs = matches!(self.state, S::Standby { .. } | S::Primary);
        let pausing = self.failures.retry_at().is_some_and(|at| now < at);
        if pausing && !runs && !matches!(want, DatabaseWant::NoPrimary) {
            return None;
        }
        let (state, command) = match (&self.state, *want) {
            (S::Unknown | S::Ended, _) => (S::Working, DataCommand::Inspect),
            (S::Primary | S::StartingPrimary | S::Promoting | S::HandingOver, DatabaseWant::NoPrimary)
            | (S::Primary, DatabaseWant::Follow { .. }) => (S::Stopping, DataCommand::Kill),
            (S::Primary, DatabaseWant::HandOver { standby }) => (S::HandingOver, DataCommand::HandOver { standby }),
            (_, DatabaseWant::Primary { guard, member, first, other }) => {
                self.towards_primary(guard, member, first, other)?
            }
            (_, DatabaseWant::Follow { upstream, epoch, rejoin, serving }) => {
                self.towards_standby(now, upstream, epoch, rejoin && serving)?
            }
            (_, DatabaseWant::NoPrimary | DatabaseWant::Keep | DatabaseWant::HandOver { .. }) => return None,
        };
        self.state = state;
        self.readers = Readers::Out { until: now };
        Some(command)
    }

    fn towards_primary(
        &mut self,
        guard: Guard,
        member: bool,
        first: bool,
        other: NodeId,
    ) -> Option<(DatabaseState, DataCommand)> {
        use DatabaseState as S;
        match self.state {
            S::Absent if first => Some((S::Working, DataCommand::Initialize)),
            S::Stopped { standby: false } if member => {
                self.guarding = Guarding::default();
                Some((S::StartingPrimary, DataCommand::StartPrimary { guard }))
            }
            // Only a promotion begins a new timeline, by which a diverged copy is known later.
            S::Stopped { standby: true } if member => {
                self.following = Some((other, guard.epoch));
                Some((S::StartingStandby, DataCommand::Follow { upstream: other, epoch: guard.epoch }))
            }
            S::Standby { .. } if member => {
                self.guarding = Guarding::default();
                Some((S::Promoting, DataCommand::Promote { guard }))
            }
            _ => None,
        }
    }

    fn towards_standby(
        &mut self,
        now: Mono,
        upstream: NodeId,
        epoch: u64,
        rejoin: bool,
    ) -> Option<(DatabaseState, DataCommand)> {
        use DatabaseState as S;
        let follow = DataCommand::Follow { upstream, epoch };
        match self.state {
            S::Absent if rejoin => Some((S::Working, DataCommand::Clone { from: upstream })),
            S::Stopped { .. } if rejoin && self.rewind_failed => {
                Some((S::Working, DataCommand::Clone { from: upstream }))
            }
            S::Stopped { standby: false } if rejoin => Some((S::Working, DataCommand::Rewind { from: upstream })),
            S::Stopped { standby: true } if !self.rewind_failed => {
                self.following = Some((upstream, epoch));
                Some((S::StartingStandby, follow))
            }
            S::Standby { .. } if rejoin && self.is_stuck(now) => {
                self.rewind_failed = true;
                Some((S::Stopping, DataCommand::Stop))
            }
            S::Standby { follows } if follows != Some((upstream, epoch)) => {
                self.following = Some((upstream, epoch));
                Some((S::StartingStandby, follow))
            }
            _ => None,
        }
    }

    /// Something happened. Answers to a command that was overtaken by a kill change nothing.
    pub fn observe(&mut self, now: Mono, what: &DataObservation) {
        use DatabaseState as S;
        match (what, &self.state) {
            (DataObservation::Inspected(data), S::Working) => self.inspected(now, data),
            (DataObservation::Started, S::StartingStandby) => {
                self.readers = Readers::Out { until: now };
                self.state = S::Standby { follows: self.following };
                self.streamed_at = Some(now);
            }
            (DataObservation::Started, S::StartingPrimary) | (DataObservation::Promoted, S::Promoting) => {
                self.state = S::Primary;
                self.status = None;
                self.guarding.began();
            }
            (DataObservation::GuardSet { position }, S::Primary) => self.guarding.was_set(*position),
            (DataObservation::Opened, S::Primary) => self.guarding.was_opened(),
            (DataObservation::Opened, S::Standby { .. }) => self.readers = Readers::In,
            (DataObservation::Stopped, _) => self.ended(),
            (DataObservation::Status(status), S::Standby { .. } | S::Primary) => self.reported(now, status),
            (DataObservation::Exited { reason }, _) => self.failed(now, reason),
            (DataObservation::Failed { reason }, _) => self.command_failed(now, reason),
            _ => {}
        }
    }

    fn inspected(&mut self, now: Mono, data: &Data) {
        use DatabaseState as S;
        let before = self.copy.take();
        self.foreign = None;
        self.state = match data {
            Data::Absent => S::Absent,
            Data::Foreign { reason } => {
                self.foreign = Some(reason.clone());
                S::Foreign
            }
            Data::Present { copy, system, standby, running } => {
                self.copy = Some((*copy, *system));
                match running {
                    None => S::Stopped { standby: *standby },
                    Some(Running::Standby) => {
                        self.streamed_at = Some(now);
                        S::Standby { follows: None }
                    }
                    Some(Running::Primary) => {
                        self.guarding = Guarding::default();
                        S::Primary
                    }
                }
            }
        };
        if self.copy != before {
            self.rewind_failed = false;
        }
    }

    fn reported(&mut self, now: Mono, status: &DataStatus) {
        if status.streaming || self.streamed_at.is_none() {
            self.streamed_at = Some(now);
        }
        self.rewind_failed &= !status.streaming;
        self.status = Some(status.clone());
        if self.state == DatabaseState::Primary {
            self.guarding.reported(now, status);
        }
    }

    fn failed(&mut self, now: Mono, reason: &str) {
        self.failures.add(now, reason);
        self.ended();
    }

    fn ended(&mut self) {
        self.forget();
        self.state = DatabaseState::Ended;
    }

    fn command_failed(&mut self, now: Mono, reason: &str) {
        match self.state {
            DatabaseState::HandingOver => {
                self.hand_over_failed = true;
                self.state = DatabaseState::Primary;
                self.guarding.forget_guard();
            }
            DatabaseState::Primary => self.guarding.failed(now),
            DatabaseState::Standby { .. } => self.readers = Readers::Out { until: now + READERS_RETRY },
            // Working on a stopped copy: only a rewind leaves something to try before a new look.
            DatabaseState::Working => {
                self.rewind_failed = true;
                self.failed(now, reason);
            }
            _ => self.failed(now, reason),
        }
    }
}
