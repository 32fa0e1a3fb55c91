//! Kinds of fault, and which of them a seed has.

use crate::rng::Rng;
use crate::shrink::LeftOut;

/// Kinds of fault, for the draw.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sort {
    /// A host loses its power.
    PowerOff,
    /// Two hosts lose their power, long enough for the voters to go on without them.
    LongOff,
    /// Every host loses its power.
    AllOff,
    /// kill -9 of the agent.
    AgentKill,
    /// kill -9 of the sentinel.
    SentinelKill,
    /// SIGSTOP of the sentinel.
    SentinelStop,
    /// kill -9 of agent and sentinel in one instant.
    BothKill,
    /// The agent starts anew under a grace, once or several times in a row.
    Restart,
    /// The sentinel is told to end, and another is started later.
    Leave,
    /// SIGSTOP of the agent.
    Freeze,
    /// The whole machine stands still.
    Pause,
    /// A host is cut off, in one or both directions.
    CutHost,
    /// One direction between two hosts is cut.
    CutPair,
    /// The databases cannot talk.
    CutReplication,
    /// Loss, duplication, delay.
    Flaky,
    /// kill -9 of the database.
    DatabaseKill,
    /// The database does nothing.
    DatabaseFreeze,
    /// kill -9 of the service.
    ServiceKill,
    /// The service cannot be started for a while.
    ServiceBreak,
    /// The address's link is down.
    LinkDown,
    /// A link comes and goes, many times.
    Flap,
    /// A machine does everything a hundred times slower: it is neither dead nor well.
    Gray,
    /// A machine's clock jumps ahead.
    ClockStep,
    /// The disk is slow.
    SlowDisk,
    /// The state cannot be saved.
    SaveFails,
    /// Both slots of the state are damaged.
    Torn,
    /// The administrator has a node's memory given up.
    Replace,
    /// The administrator has another configuration applied: times, failback, preferences.
    Configure,
    /// The administrator moves a group.
    Move,
    /// The administrator takes a node out of service, or back.
    Standby,
    /// The administrator turns maintenance on or off.
    Maintenance,
}

/// All of them with the weight they may have.
pub const SORTS: &[(Sort, u64)] = &[
    (Sort::PowerOff, 4),
    (Sort::LongOff, 2),
    (Sort::AllOff, 1),
    (Sort::AgentKill, 4),
    (Sort::SentinelKill, 4),
    (Sort::SentinelStop, 2),
    (Sort::BothKill, 2),
    (Sort::Restart, 3),
    (Sort::Leave, 2),
    (Sort::Freeze, 4),
    (Sort::Pause, 2),
    (Sort::CutHost, 4),
    (Sort::CutPair, 4),
    (Sort::CutReplication, 3),
    (Sort::Flaky, 3),
    (Sort::DatabaseKill, 4),
    (Sort::DatabaseFreeze, 2),
    (Sort::ServiceKill, 3),
    (Sort::ServiceBreak, 2),
    (Sort::LinkDown, 2),
    (Sort::Flap, 2),
    (Sort::Gray, 2),
    (Sort::ClockStep, 3),
    (Sort::SlowDisk, 2),
    (Sort::SaveFails, 1),
    (Sort::Torn, 2),
    (Sort::Replace, 1),
    (Sort::Configure, 2),
    (Sort::Move, 3),
    (Sort::Standby, 2),
    (Sort::Maintenance, 1),
];

impl std::fmt::Display for Swarm {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let total = self.sorts.iter().map(|(_, weight)| weight).sum::<u64>().max(1);
        writeln!(
            f,
            "  fault               share   (one each {} ms on average)",
            self.pause_us.midpoint(20_000) / 1000
        )?;
        for (sort, _) in SORTS {
            match self.sorts.iter().find(|(known, _)| known == sort) {
                Some((_, weight)) => writeln!(f, "  {:<18} {:>4} %", format!("{sort:?}"), weight * 100 / total)?,
                None => writeln!(f, "  {:<18}    off", format!("{sort:?}"))?,
            }
        }
        Ok(())
    }
}

/// Which faults a seed has, and how often they come.
#[derive(Clone, Debug, Default)]
pub struct Swarm {
    /// Kinds and weights.
    pub sorts: Vec<(Sort, u64)>,
    /// Longest pause between two, in microseconds.
    pub pause_us: u64,
    /// Each fault's own randomness comes from it and from the fault's number.
    pub seed: u64,
    /// How many there were.
    pub struck: u32,
    /// Those that are left out.
    pub left_out: LeftOut,
    /// Whether to list them.
    pub listing: bool,
    /// What struck when and where.
    pub list: Vec<String>,
    /// See the methods of these names.
    steps_clocks: bool,
    configures: bool,
    kills_sentinels: bool,
}

impl Swarm {
    /// Draws one: each kind is on with probability one half.
    pub fn draw(rng: &mut Rng) -> Swarm {
        let mut sorts: Vec<(Sort, u64)> = Vec::new();
        for (sort, weight) in SORTS {
            // Clocks that are wrong excuse the rules that rest on clocks: seldom.
            if rng.chance(if *sort == Sort::ClockStep { 30 } else { 450 }) {
                sorts.push((*sort, weight * rng.within(1, 4)));
            }
        }
        if sorts.is_empty() {
            sorts.push((Sort::PowerOff, 1));
        }
        let (pause_us, seed) = (rng.within(300_000, 4_000_000), rng.draw());
        Swarm { pause_us, seed, ..Swarm::of(sorts) }
    }

    /// These kinds with these weights. What is asked for at each event is worked out here.
    #[must_use]
    pub fn of(sorts: Vec<(Sort, u64)>) -> Swarm {
        let any = |of: &[Sort]| sorts.iter().any(|(sort, _)| of.contains(sort));
        Swarm {
            steps_clocks: any(&[Sort::ClockStep]),
            configures: any(&[Sort::Configure]),
            kills_sentinels: any(&[Sort::SentinelKill, Sort::SentinelStop, Sort::BothKill]),
            sorts,
            ..Swarm::default()
        }
    }

    /// Whether clocks may jump.
    #[must_use]
    pub fn steps_clocks(&self) -> bool {
        self.steps_clocks
    }

    /// Whether the configuration may change.
    #[must_use]
    pub fn configures(&self) -> bool {
        self.configures
    }

    /// Whether a sentinel may die in the middle of what it does.
    #[must_use]
    pub fn kills_sentinels(&self) -> bool {
        self.kills_sentinels
    }
}
