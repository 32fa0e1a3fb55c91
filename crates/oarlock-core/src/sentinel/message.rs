//! What agent and sentinel say to each other.

use core::net::IpAddr;
use std::collections::BTreeMap;
use std::fmt;

use serde::{Deserialize, Serialize};

use super::record::{HeldAddress, Service};
use super::watchdog::Watchdog;

/// The right under which something exclusive may run: an applied ownership (group, epoch) of a
/// node generation.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Guard {
    /// The group that owns the resource; epochs are counted per group.
    pub group: String,
    /// The node generation whose lease must be alive.
    pub generation: u64,
    /// The epoch of the ownership; it must be above the group's last released one.
    pub epoch: u64,
}

/// One address on one interface.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Address {
    /// Name of the interface.
    pub interface: String,
    /// The address itself.
    pub ip: IpAddr,
    /// Length of the subnet prefix, in bits.
    pub prefix_bits: u8,
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{} on {}", self.ip, self.prefix_bits, self.interface)
    }
}

/// Optional scheduling settings of a service.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Priority {
    /// Nice value, -20 to 19.
    pub nice: Option<i32>,
    /// What the kernel's out-of-memory killer adds to the score, -1000 to 1000.
    pub oom_score_adjust: Option<i32>,
}

/// A program to start as a service.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Command {
    /// Program (absolute path) and arguments.
    pub argv: Vec<String>,
    /// The whole environment; nothing is inherited.
    pub env: Vec<(String, String)>,
    /// User to run as, numeric; `None` keeps the sentinel's.
    pub uid: Option<u32>,
    /// Group to run as, numeric.
    pub gid: Option<u32>,
    /// Supplementary groups, numeric.
    pub groups: Vec<u32>,
    /// Working directory; `/` when absent.
    pub cwd: Option<String>,
    /// File that gets standard output, appended to; discarded when absent.
    pub stdout: Option<String>,
    /// File that gets standard error, appended to; discarded when absent.
    pub stderr: Option<String>,
    /// Scheduling settings.
    pub priority: Priority,
    /// Keep the other processes of the group when the main process ends (a start script that
    /// leaves a daemon behind). Otherwise they are killed with it.
    pub keep_group: bool,
}

/// A request of the agent; every one is answered by exactly one [`Reply`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Request {
    /// First words of an agent: tell me everything. Answered by `Welcome`.
    Hello,
    /// The lease of `generation` lasts until `deadline_us`. Answered by `LeaseArmed`.
    Lease {
        /// The node generation that renewed.
        generation: u64,
        /// When the lease ends.
        deadline_us: u64,
    },
    /// The lease of `generation` lasts until `deadline_us` at most, which takes the place of a later
    /// deadline. Answered by `LeaseArmed`.
    Shorten {
        /// The node generation that renewed.
        generation: u64,
        /// When the lease ends.
        deadline_us: u64,
    },
    /// The agent applied `Alive` with this generation. What runs stays guarded, and the old
    /// deadline stands until the new generation has a lease.
    NewGeneration {
        /// The new generation.
        generation: u64,
    },
    /// Nothing below this may be started or adopted from now on.
    Floor {
        /// Highest index of the replicated log that was acted on.
        applied_index: u64,
        /// A group and the epoch of it that is given back; refused while anything is still
        /// guarded by that epoch or an older one.
        released: Option<(String, u64)>,
    },
    /// Start a service. Answered by `Spawned`.
    Spawn {
        /// Name of the service, also of its cgroup.
        name: String,
        /// What to run.
        command: Box<Command>,
        /// The right to run, for an exclusive service.
        guard: Option<Guard>,
    },
    /// Send a signal to the main process.
    Signal {
        /// Name of the service.
        name: String,
        /// Signal number.
        signal: i32,
    },
    /// Kill every process of the service. Answered by `Killed` when all are gone or after a second.
    KillGroup {
        /// Name of the service.
        name: String,
    },
    /// Put an address on an interface.
    AddressUp {
        /// The address.
        address: Address,
        /// The right to hold it, for an exclusive address.
        guard: Option<Guard>,
    },
    /// Take an address away.
    AddressDown {
        /// The address.
        address: Address,
    },
    /// Make a running service exclusive, then write its trigger file and signal it.
    Promote {
        /// Name of the service.
        name: String,
        /// Main process the agent has in mind; refused when it is another one by now.
        pid: u32,
        /// File to create.
        trigger_file: String,
        /// Signal to send afterwards.
        signal: i32,
        /// The right to run.
        guard: Guard,
    },
    /// A running service is exclusive from now on, or under a newer epoch.
    Guarded {
        /// Name of the service.
        name: String,
        /// The right to run.
        guard: Guard,
    },
    /// A running service is not exclusive any more.
    Unguarded {
        /// Name of the service.
        name: String,
    },
    /// Drop what is remembered of a service that ended.
    Forget {
        /// Name of the service.
        name: String,
    },
    /// Keep this hardware watchdog, or none any more. Whether it can be kept is in [`Platform`] afterwards.
    Watch {
        /// The watchdog.
        watchdog: Option<Watchdog>,
    },
    /// Answer to `Terminate`: the sentinel may leave.
    MayLeave {
        /// The node generation that holds the grace.
        generation: u64,
        /// Until when a majority granted that nobody takes over; `None` when no grace was got.
        until_us: Option<u64>,
    },
    /// Answer to `Terminate`: do not leave.
    Stay,
}

/// Why a request was refused. Nothing was done, or it was undone.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
pub enum Refusal {
    /// The generation's lease ran out, which is final for it.
    #[error("the lease of generation {lapsed} has lapsed")]
    Lapsed {
        /// Highest generation that lapsed.
        lapsed: u64,
    },
    /// The request is for another generation than the current one.
    #[error("generation {asked} is not the current one, {current}")]
    Generation {
        /// Generation in the request.
        asked: u64,
        /// Generation that counts.
        current: u64,
    },
    /// There is no lease yet.
    #[error("generation {generation} has no lease yet")]
    NoLease {
        /// The current generation.
        generation: u64,
    },
    /// The deadline is past, or too far away to be one.
    #[error("lease deadline {deadline_us} us is not within one hour after {now_us} us")]
    Deadline {
        /// Deadline in the request.
        deadline_us: u64,
        /// Now, on the same clock.
        now_us: u64,
    },
    /// The epoch was given back.
    #[error("epoch {epoch} of group {group} is not above the released epoch {released}")]
    Released {
        /// The group.
        group: String,
        /// Epoch in the request.
        epoch: u64,
        /// Highest released epoch.
        released: u64,
    },
    /// Something of the released epoch is still alive.
    #[error("{name} still runs under the epoch to be released")]
    StillRunning {
        /// Service or address.
        name: String,
    },
    /// A service of this name is alive already, or an address is being changed.
    #[error("{name} is there already or busy")]
    Busy {
        /// Service or address.
        name: String,
    },
    /// No such service is alive.
    #[error("{name} is not running")]
    NotRunning {
        /// Service or address.
        name: String,
    },
    /// The main process is another one than the agent believes.
    #[error("the main process of {name} is {pid}")]
    OtherProcess {
        /// The service.
        name: String,
        /// Its main process now.
        pid: u32,
    },
    /// The name cannot be that of a service or group.
    #[error("name {name:?} is not 1 to 64 letters, digits, dots, dashes and underscores, with no dot first")]
    Name {
        /// The name.
        name: String,
    },
    /// A table is full.
    #[error("more than {limit} {what}")]
    Full {
        /// Kind of thing.
        what: String,
        /// Most of them.
        limit: usize,
    },
    /// The sentinel is about to leave.
    #[error("the sentinel is leaving")]
    Leaving,
}

/// The answer to a [`Request`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Reply {
    /// To `Hello`.
    Welcome(Box<Welcome>),
    /// To `Lease`: the deadline that counts now.
    LeaseArmed {
        /// The generation.
        generation: u64,
        /// The later one of the deadlines seen.
        deadline_us: u64,
    },
    /// To `Spawn`: the program was executed.
    Spawned {
        /// Its process id.
        pid: u32,
    },
    /// To `KillGroup`: the group was killed.
    Killed {
        /// Processes that still exist, with their state.
        remaining: Vec<Remaining>,
    },
    /// It is done.
    Done,
    /// Not done, or undone, and why.
    Refused(Refusal),
    /// The system did not do it.
    Failed {
        /// The system's words.
        reason: String,
    },
}

/// What the sentinel says unasked.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Notice {
    /// The main process of a service ended.
    Exited {
        /// The service.
        name: String,
        /// Its process id.
        pid: u32,
        /// How it ended.
        exit: Exit,
    },
    /// The last process of a service is gone.
    Emptied {
        /// The service.
        name: String,
    },
    /// The lease ran out; everything guarded has been told to stop.
    Lapsed {
        /// The generation, lapsed for good.
        generation: u64,
    },
    /// Everything that was guarded at the lapse is gone, or killed and waiting for a disk while its
    /// address is gone.
    Silenced {
        /// The generation.
        generation: u64,
        /// From the deadline (or the adoption, if the sentinel died in between) until then.
        took_us: u64,
    },
    /// The sentinel was told to end: answer `MayLeave` or `Stay`.
    Terminate,
    /// Notices were dropped because nobody read them: say `Hello` again.
    Missed,
    /// A line for the log.
    Log {
        /// The line.
        line: String,
    },
}

/// How a process ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Exit {
    /// It exited with this code.
    Code(i32),
    /// It was killed by this signal.
    Signal(i32),
    /// It ended while it was not our child, so that nobody told how.
    Unknown,
}

/// A process that outlived the killing of its group.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Remaining {
    /// Its process id.
    pub pid: u32,
    /// The kernel's letter for its state; `D` cannot be killed until its I/O ends.
    pub state: char,
}

impl Remaining {
    /// Whether a killed process in this state does nothing any more: it waits for a disk without end (D), or its last
    /// thread does (Z), and will not come back from it, or it is just going (X).
    #[must_use]
    pub fn is_silent(&self) -> bool {
        matches!(self.state, 'D' | 'Z' | 'X')
    }
}

/// What the machine grants the sentinel.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Platform {
    /// Real-time scheduling was granted.
    pub realtime: bool,
    /// All memory is locked.
    pub memory_locked: bool,
    /// Services have a cgroup of their own with `cgroup.kill`.
    pub cgroup_kill: bool,
    /// A hardware watchdog resets the machine should the sentinel stand still while something exclusive is here.
    #[serde(default)]
    pub watchdog: bool,
}

/// Everything an agent must know to carry on.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Welcome {
    /// No record of this boot was found: the agent must take a new generation before it renews.
    pub fresh: bool,
    /// Current generation; 0 before the first.
    pub generation: u64,
    /// When the lease ends, if there is one.
    pub deadline_us: Option<u64>,
    /// Highest generation that lapsed; 0 for none.
    pub lapsed_generation: u64,
    /// The agent starts nothing before it has applied the log up to here.
    pub floor_index: u64,
    /// Per group, the highest epoch given back.
    pub released: BTreeMap<String, u64>,
    /// Services known, alive or ended and not forgotten.
    pub services: Vec<Service>,
    /// Addresses held.
    pub addresses: Vec<HeldAddress>,
    /// What the machine grants.
    pub platform: Platform,
}

/// One frame from the agent.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ToSentinel {
    /// Chosen by the agent, echoed in the reply.
    pub id: u64,
    /// The request.
    pub request: Request,
}

/// One frame from the sentinel.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum FromSentinel {
    /// The answer to the request of this id.
    Reply {
        /// Id of the request.
        id: u64,
        /// The answer.
        reply: Reply,
    },
    /// Something unasked.
    Notice(Notice),
}
