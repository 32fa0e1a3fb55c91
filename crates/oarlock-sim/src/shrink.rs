//! Fewer faults that still break the same rule: what is left is what it takes.

use crate::run::{Plan, Verdict};

/// Which of a seed's faults are left out, by their numbers from 0.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LeftOut([u64; 8]);

impl LeftOut {
    /// Whether this one is.
    #[must_use]
    pub fn contains(&self, number: u32) -> bool {
        self.0.get(number as usize / 64).is_some_and(|word| word & (1 << (number % 64)) != 0)
    }

    /// Leaves this one out too, if it is among the first 512.
    pub fn insert(&mut self, number: u32) {
        if let Some(word) = self.0.get_mut(number as usize / 64) {
            *word |= 1 << (number % 64);
        }
    }
}

/// What came of it.
#[derive(Clone, Debug)]
pub struct Shrunk {
    /// The plan without the faults that it does not take; `None` when nothing fails in the first place.
    pub plan: Plan,
    /// How that ends.
    pub verdict: Verdict,
    /// How many runs it took.
    pub runs: u32,
}

/// So many runs at most.
const RUNS: u32 = 600;

fn rule(verdict: &Verdict) -> Option<&str> {
    verdict.broken.as_deref().and_then(|text| text.split(':').next())
}

/// Leaves out faults, many at a time and then single ones, as long as the same rule is broken.
#[must_use]
pub fn shrink(plan: &Plan) -> Option<Shrunk> {
    let first = plan.run();
    let wanted = rule(&first)?.to_owned();
    let mut best = Shrunk { plan: *plan, verdict: first, runs: 1 };
    let mut size = best.verdict.struck.div_ceil(2).max(1);
    loop {
        let (mut from, mut better) = (0, false);
        while from < best.verdict.struck && best.runs < RUNS {
            let mut fewer = best.plan;
            let chosen: Vec<u32> =
                (from..(from + size).min(best.verdict.struck)).filter(|n| !fewer.left_out.contains(*n)).collect();
            chosen.iter().for_each(|number| fewer.left_out.insert(*number));
            if !chosen.is_empty() {
                let verdict = fewer.run();
                best.runs += 1;
                if rule(&verdict) == Some(wanted.as_str()) {
                    (best.plan, best.verdict, better) = (fewer, verdict, true);
                }
            }
            from += size;
        }
        if best.runs >= RUNS || (size == 1 && !better) {
            return Some(best);
        }
        size = (size / 2).max(1);
    }
}
