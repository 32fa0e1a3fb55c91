//! Rules of the world that a test breaks on purpose, to see a checker catch it.

/// One broken rule outside the core; the core's own are in [`oarlock_core::Rules`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sabotage {
    /// Addresses come up without the sentinel's check, and a lapse does not take them away.
    UnguardedStart,
    /// A lapse takes addresses away, but kills nothing.
    LapseSparesPrograms,
    /// One host less is mended than could serve.
    InsufficientCore,
    /// A service is said to have stopped, and goes on.
    StopIsALie,
    /// A sentinel that takes over knows nothing of what the dead one started, nor of its lease.
    SuccessorForgets,
    /// Clocks that jump excuse nothing.
    ClocksJudged,
    /// A standby confirms what is not on its disk.
    ConfirmUnflushed,
}
