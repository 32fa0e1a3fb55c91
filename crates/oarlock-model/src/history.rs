//! What was committed, as the core understands it.

use oarlock_core::config::{Config, Failback, GroupConfig, Kind, NodeConfig, ResourceConfig, Timing};
use oarlock_core::entry::{Entry, Moved, Proof};
use oarlock_core::ids::{GroupId, NodeId};
use oarlock_core::state::State;
use oarlock_core::time::Span;
use std::cell::RefCell;
use std::collections::{BTreeSet, HashMap};
use std::rc::Rc;

/// The group that everything is about.
pub const GROUP: GroupId = GroupId(0);
/// L. A slow clock shows that much after three steps of true time.
pub const LEASE: Span = Span(12);
/// d, in thousandths: a fast clock is half as fast again as a slow one.
pub const DRIFT_PERMILLE: u64 = 500;

/// An entry of the log.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Committed {
    /// See [`Entry::Alive`].
    Alive {
        /// Which node.
        node: NodeId,
        /// The generation it leaves.
        from: u64,
        /// The one it begins.
        to: u64,
        /// Its incarnation.
        incarnation: u64,
    },
    /// See [`Entry::Take`].
    Take {
        /// The dead node.
        node: NodeId,
        /// Its generation.
        generation: u64,
        /// Who promised.
        by: BTreeSet<NodeId>,
        /// The group's new owner, if it owned it.
        to: Option<(NodeId, u64)>,
    },
    /// See [`Entry::Own`].
    Own {
        /// The new owner and its incarnation.
        to: (NodeId, u64),
    },
}

/// What the drift allowance is, and how many voters: all that the first state depends on.
type Beginning = (u8, u64);

/// States that were worked out before.
type Known = HashMap<(Beginning, Vec<Committed>), Rc<State>>;

thread_local! {
    static KNOWN: RefCell<Known> = RefCell::default();
}

/// The state that these entries lead to, by the core's own account.
pub fn state_after(beginning: Beginning, log: &[Committed]) -> Rc<State> {
    let key = (beginning, log.to_vec());
    if let Some(state) = KNOWN.with_borrow(|known| known.get(&key).cloned()) {
        return state;
    }
    let state = match log.split_last() {
        None => begin(beginning),
        Some((last, before)) => {
            let mut state = (*state_after(beginning, before)).clone();
            let entry = last.entry(&state);
            state.apply(&entry);
            state
        }
    };
    let state = Rc::new(state);
    KNOWN.with_borrow_mut(|known| known.insert(key, state.clone()));
    state
}

impl Committed {
    /// As the core's log has it; epochs are those of the state it is applied to.
    pub fn entry(&self, state: &State) -> Entry {
        let epoch = state.group(GROUP).map_or(0, |group| group.epoch);
        let moved = |(to, incarnation): (NodeId, u64)| Moved { group: GROUP, epoch, to, incarnation };
        match self {
            Committed::Alive { node, from, to, incarnation } => {
                Entry::Alive { node: *node, from: *from, to: *to, incarnation: *incarnation }
            }
            Committed::Take { node, generation, by, to } => Entry::Take {
                node: *node,
                generation: *generation,
                proof: Proof::Promised { voters_version: state.voters.version, by: by.clone() },
                moves: to.iter().map(|to| moved(*to)).collect(),
            },
            Committed::Own { to } => Entry::Own { moved: moved(*to), first: None },
        }
    }
}

/// Everybody lives and the first server owns the group, which holds no data: nothing but leases
/// keeps a second owner from it.
fn begin((voters, drift_permille): Beginning) -> State {
    let node = |id| NodeConfig { id: NodeId(id), name: format!("n{id}"), witness: id > 2 };
    let service = ResourceConfig { name: "service".into(), kind: Kind::Service };
    let servers = vec![NodeId(1), NodeId(2)];
    let (failback, resources, depends) = (Failback::Never, vec![service], Vec::new());
    let group = GroupConfig { name: "g".into(), nodes: servers, failback, resources, depends };
    let timing = Timing { heartbeat: Span(4), lease: LEASE, election: Span(6), stop_budget: Span(1), drift_permille };
    let mut state = State::begin(Config {
        generation: 1,
        text: "".into(),
        cluster: "c".into(),
        timing,
        nodes: (1..=voters).map(node).collect(),
        groups: vec![group],
    });
    for id in 1..=voters {
        state.apply(&Entry::Alive { node: NodeId(id), from: 0, to: 1, incarnation: 1 });
    }
    let own = Committed::Own { to: (NodeId(1), 1) }.entry(&state);
    state.apply(&own);
    state
}
