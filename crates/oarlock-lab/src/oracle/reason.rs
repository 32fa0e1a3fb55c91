//! Why our planner decides otherwise than Pacemaker's, and what Pacemaker would have to be told to
//! decide the same.

use std::collections::BTreeSet;

use super::case::{Case, Group};

/// Enough to outweigh every preference.
const STAYS: u32 = 1000;

/// A difference that is meant. `docs/internals/planner.md` says more of each.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Reason {
    /// A move is carried out once.
    MoveOnce,
    /// Without an owner the last one has it again.
    LastOwner,
    /// What failed where it runs is no reason to leave.
    OwnerKept,
    /// Where everything failed, it is tried all the same.
    LastResort,
    /// A hand-over waits for a copy that follows.
    Patient,
    /// With nowhere to go it serves on, on a machine that is to leave service.
    ServesOn,
}

/// A group as it is put to Pacemaker.
#[derive(Debug, Clone)]
pub struct Told {
    /// Where it runs.
    pub runs: Option<usize>,
    /// Where it may not run.
    pub banned: BTreeSet<usize>,
    /// Where it failed as often as is allowed.
    pub failed: BTreeSet<usize>,
    /// Where it is asked to be, as a rule that stays.
    pub wanted: Option<usize>,
    /// What staying where it runs is worth.
    pub stickiness: u32,
}

impl Reason {
    /// All, in the order in which they change what Pacemaker is told.
    pub const ALL: [Reason; 6] =
        [Reason::MoveOnce, Reason::LastOwner, Reason::OwnerKept, Reason::LastResort, Reason::Patient, Reason::ServesOn];

    /// One line for people.
    pub fn text(self) -> &'static str {
        match self {
            Reason::MoveOnce => "a move is carried out once, also onto a machine where it failed",
            Reason::LastOwner => "without an owner the last one has it again, whatever the preference",
            Reason::OwnerKept => "failures where it runs are its owner's to judge, not the planner's",
            Reason::LastResort => "where it failed on every machine it is tried all the same",
            Reason::Patient => "a hand-over waits for a copy that follows",
            Reason::ServesOn => "with nowhere to go it serves on, on a machine that is to leave service",
        }
    }

    /// Whether it changes anything about a case.
    pub fn applies(self, case: &Case) -> bool {
        !case.maintenance
            && case.groups.iter().any(|group| {
                let all = Reason::ALL;
                let before: Vec<Reason> = all.into_iter().take_while(|reason| *reason != self).collect();
                let mut told = told(case, group, &before);
                self.change(case, group, &mut told)
            })
    }

    /// Changes what Pacemaker is told of a group; false when the reason does not apply to it.
    fn change(self, case: &Case, group: &Group, told: &mut Told) -> bool {
        match self {
            Reason::MoveOnce => {
                let free = case.living_owner(group).is_none();
                let possible = |wanted: &usize| case.is_fit(group, *wanted) && (free || follows(group, *wanted));
                let Some(wanted) = group.wanted.filter(possible) else { return false };
                (told.runs, told.wanted) = (Some(wanted), None);
                true
            }
            Reason::LastOwner => {
                let fit = others(case, group, None);
                let sound = |machine: &usize| !told.failed.contains(machine) || fit.is_subset(&told.failed);
                let last = group.last_owner.filter(|last| told.runs.is_none() && fit.contains(last));
                told.runs = last.filter(sound).or(told.runs);
                last.filter(sound).is_some()
            }
            Reason::OwnerKept => told.runs.is_some_and(|runs| told.failed.remove(&runs)),
            Reason::LastResort => {
                let stays = told.runs.is_some_and(|runs| case.is_fit(group, runs));
                let fit = others(case, group, told.runs);
                let applies = !stays && !fit.is_empty() && fit.is_subset(&told.failed);
                if applies {
                    told.failed.clear();
                }
                applies
            }
            Reason::Patient => {
                let Some(runs) = told.runs.filter(|_| group.in_sync.is_some()) else { return false };
                let target = told.wanted.filter(|wanted| case.is_fit(group, *wanted)).or_else(|| {
                    let fit = others(case, group, Some(runs));
                    let sound: Vec<usize> = fit.iter().copied().filter(|one| !told.failed.contains(one)).collect();
                    let among = |one: &&usize| if sound.is_empty() { fit.contains(one) } else { sound.contains(one) };
                    group.order.iter().find(among).copied()
                });
                if target.is_none_or(|target| target == runs || follows(group, target)) {
                    return false;
                }
                told.stay(runs);
                true
            }
            Reason::ServesOn => {
                let Some(runs) = told.runs.filter(|runs| !case.is_fit(group, *runs)) else { return false };
                if !others(case, group, Some(runs)).is_empty() {
                    return false;
                }
                told.stay(runs);
                true
            }
        }
    }
}

impl Told {
    fn stay(&mut self, runs: usize) {
        self.banned.remove(&runs);
        self.failed.remove(&runs);
        (self.wanted, self.stickiness) = (None, STAYS);
    }
}

/// Whether a hand-over to a machine is possible at once.
fn follows(group: &Group, machine: usize) -> bool {
    group.in_sync.is_none() || group.streaming.contains(&machine)
}

/// The machines that may be given a group, but for one.
fn others(case: &Case, group: &Group, except: Option<usize>) -> BTreeSet<usize> {
    let all = group.order.iter().copied();
    all.filter(|machine| Some(*machine) != except && case.is_fit(group, *machine)).collect()
}

/// What Pacemaker is told of a group.
pub fn told(case: &Case, group: &Group, reasons: &[Reason]) -> Told {
    let barred = |machine: &usize| !case.can_run(group, *machine) || is_barred(case, *machine, reasons);
    let mut told = Told {
        runs: case.living_owner(group),
        banned: group.order.iter().copied().filter(barred).collect(),
        failed: group.worn.iter().copied().filter(|machine| case.is_up(*machine)).collect(),
        wanted: group.wanted,
        stickiness: if group.returns { 0 } else { STAYS },
    };
    for reason in reasons {
        reason.change(case, group, &mut told);
    }
    told
}

/// Whether a machine is taken out of service by forbidding it to each group: its own attribute has
/// no exceptions.
fn is_barred(case: &Case, machine: usize, reasons: &[Reason]) -> bool {
    case.machines[machine].standby && has_exceptions(reasons)
}

/// Whether some group may stay on a machine that is taken out of service.
pub fn has_exceptions(reasons: &[Reason]) -> bool {
    reasons.iter().any(|reason| matches!(reason, Reason::Patient | Reason::ServesOn))
}
