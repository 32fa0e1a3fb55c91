//! What this node does with each of its resources: one transition table per kind.
//!
//! A machine is told what is wanted and what happened; it answers with the next command. It gives
//! one command at a time and waits for its answer.

pub mod address;
pub mod database;
pub mod guarding;
pub mod service;

use crate::time::{Mono, Span};

/// Failures of a resource on this node. They clear themselves.
#[derive(Clone, Debug, Default)]
pub struct Failures {
    count: u32,
    last: Option<Mono>,
    reason: Option<String>,
}

impl Failures {
    /// Restarts in place before the group is better off elsewhere.
    pub const LIMIT: u32 = 3;
    /// A resource that has run well for this long has no past.
    const FORGIVEN_AFTER: Span = Span::from_ms(30_000);
    /// First pause before another try; doubles with each failure.
    const PAUSE: Span = Span::from_ms(200);
    /// Longest pause.
    const PAUSE_MAX: Span = Span::from_ms(15_000);

    /// Counts one.
    pub fn add(&mut self, now: Mono, reason: &str) {
        self.forgive(now);
        self.count += 1;
        self.last = Some(now);
        self.reason = Some(brief(reason));
    }

    /// Forgets failures that are long past.
    pub fn forgive(&mut self, now: Mono) {
        if self.last.is_some_and(|last| now.since(last) > Failures::FORGIVEN_AFTER) {
            *self = Failures::default();
        }
    }

    /// Forgets all, on request.
    pub fn clear(&mut self) {
        *self = Failures::default();
    }

    /// How many.
    pub fn count(&self) -> u32 {
        self.count
    }

    /// The last one, in words.
    pub fn reason(&self) -> Option<&str> {
        self.reason.as_deref()
    }

    /// Whether the limit of restarts in place is reached.
    pub fn exhausted(&self) -> bool {
        self.count >= Failures::LIMIT
    }

    /// Whether the limit is reached, and the last one was not before `since`.
    pub fn exhausted_since(&self, since: Mono) -> bool {
        self.exhausted() && self.last.is_some_and(|last| last >= since)
    }

    /// When to try again. The first time at once.
    pub fn retry_at(&self) -> Option<Mono> {
        let last = self.last?;
        let doublings = self.count.saturating_sub(1).min(10);
        let pause = if self.count <= 1 { Span::ZERO } else { Span(Failures::PAUSE.0 << doublings) };
        Some(last + pause.min(Failures::PAUSE_MAX))
    }

    /// When the past is forgiven.
    pub fn forgiven_at(&self) -> Option<Mono> {
        self.last.map(|last| last + Failures::FORGIVEN_AFTER + Span(1))
    }
}

/// Longest reason that travels and is shown, in characters; the whole of it is in the log.
const REASON_CHARS: usize = 200;

/// A reason short enough to be told.
pub fn brief(reason: &str) -> String {
    match reason.char_indices().nth(REASON_CHARS) {
        Some((end, _)) => format!("{} …", &reason[..end]),
        None => reason.to_owned(),
    }
}
