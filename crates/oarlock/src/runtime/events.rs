//! What happened, for `oarlock events` and the log: the newest of it in memory, all of it on
//! standard error (the journal).

use super::clock;
use crate::control::{ANSWERS_WAITING_MAX, EventLine, Reply, Response};
use std::collections::VecDeque;

/// How many are kept.
const KEPT: usize = 2048;

/// The events this node saw.
pub struct EventLog {
    node: String,
    lines: VecDeque<EventLine>,
    followers: Vec<Reply>,
}

impl EventLog {
    /// None yet.
    pub fn new(node: String) -> EventLog {
        EventLog { node, lines: VecDeque::new(), followers: Vec::new() }
    }

    /// One more, told to whoever follows.
    pub fn add(&mut self, text: &str) {
        tracing::info!("{text}");
        let line = EventLine { time_ms: clock::unix_ms(), node: self.node.clone(), text: text.to_owned() };
        self.followers.retain(|follower| follower.send_part(Response::Event { event: line.clone() }));
        if self.lines.len() == KEPT {
            self.lines.pop_front();
        }
        self.lines.push_back(line);
    }

    /// Answers `events`.
    pub fn answer(&mut self, follow: bool, since_ms: Option<u64>, reply: Reply) {
        // What a slow reader has no room for is the oldest.
        let wanted: Vec<&EventLine> =
            self.lines.iter().filter(|line| line.time_ms >= since_ms.unwrap_or_default()).collect();
        let room = ANSWERS_WAITING_MAX / 2;
        for line in wanted.iter().skip(wanted.len().saturating_sub(room)) {
            if !reply.send_part(Response::Event { event: (*line).clone() }) {
                return;
            }
        }
        if follow {
            self.followers.push(reply);
        } else {
            reply.send(Response::done());
        }
    }
}
