//! What is shown: one line per thing, with time and node, names instead of numbers.

use oarlock_core::config::Config;
use oarlock_core::happening::Happening;
use oarlock_core::ids::NodeId;
use oarlock_core::message::Message;
use std::collections::{BTreeMap, BTreeSet};

/// The same news on another node within this time is told in the same line, in microseconds.
const SAME_NEWS_US: u64 = 10_000;

struct Line {
    at_us: u64,
    node: NodeId,
    text: String,
    also: Vec<NodeId>,
}

/// Collects lines.
pub struct Trace {
    names: BTreeMap<String, String>,
    width: usize,
    lines: Vec<Line>,
    /// Kinds of line that are only shown on demand.
    shown: BTreeSet<String>,
}

impl Trace {
    pub fn new(config: &Config) -> Trace {
        let nodes = config.nodes.iter().map(|node| (node.id.to_string(), node.name.clone()));
        let mut names: BTreeMap<String, String> = nodes.collect();
        for (id, group) in config.groups() {
            names.insert(format!("{id:?}"), group.name.clone());
            names.extend(group.resources(id).map(|(id, resource)| (format!("{id:?}"), resource.name.clone())));
        }
        let width = config.nodes.iter().map(|node| node.name.len()).max().unwrap_or(0);
        Trace { names, width, lines: Vec::new(), shown: BTreeSet::new() }
    }

    pub fn set_shown(&mut self, kind: &str, on: bool) {
        if on {
            self.shown.insert(kind.to_owned());
        } else {
            self.shown.remove(kind);
        }
    }

    pub fn say(&mut self, at_us: u64, node: NodeId, text: &str) {
        let text = self.named(text);
        self.lines.push(Line { at_us, node, text, also: Vec::new() });
    }

    /// A line of a kind that is shown only on demand.
    pub fn show(&mut self, kind: &str, at_us: u64, node: NodeId, text: impl FnOnce() -> String) {
        if self.shown.contains(kind) {
            self.say(at_us, node, &text());
        }
    }

    /// News that every node tells are told once.
    pub fn happened(&mut self, at_us: u64, node: NodeId, happening: &Happening) {
        let text = self.named(&happening.to_string());
        let own =
            matches!(happening, Happening::Resource { .. } | Happening::ResourceFailed { .. } | Happening::Note { .. });
        let same = |line: &&mut Line| !own && line.text == text && line.at_us + SAME_NEWS_US >= at_us;
        match self.lines.iter_mut().rev().find(same) {
            Some(line) => line.also.push(node),
            None => self.lines.push(Line { at_us, node, text, also: Vec::new() }),
        }
    }

    /// Messages that come all the time are shown on demand, repeated ones once.
    pub fn sent(&mut self, at_us: u64, from: NodeId, to: NodeId, message: &Message) {
        let kind = match message {
            Message::Renew(_) | Message::Acked(_) => "renew",
            Message::Beacon { .. } => "beacon",
            Message::Report(_) => "report",
            Message::Raft { .. } => "raft",
            Message::Propose(_) => "propose",
            Message::WantAlive { .. }
            | Message::Enrol { .. }
            | Message::Disown { .. }
            | Message::Refused { .. }
            | Message::PromiseWanted(_)
            | Message::Promised(_) => "",
        };
        if !kind.is_empty() && !self.shown.contains(kind) {
            return;
        }
        let text = match message {
            Message::Renew(renew) => format!("renew, sequence {}", renew.sequence),
            Message::Acked(renew) => format!("acknowledged, sequence {}", renew.sequence),
            Message::WantAlive { generation, above, .. } => {
                format!("let me live after generation {generation} (refused up to {above})")
            }
            Message::Refused { generation, above } => {
                format!("refused generation {generation}: ask for one above {above}")
            }
            Message::PromiseWanted(wish) => {
                format!("who promises {:?} dead (generation {})?", wish.node, wish.generation)
            }
            Message::Promised(wish) => format!("promised {:?} dead (generation {})", wish.node, wish.generation),
            other => format!("{other:?}"),
        };
        let text = self.named(&format!("-> {to}: {text}"));
        let repeated = kind.is_empty() && self.lines.iter().any(|line| line.node == from && line.text == text);
        if !repeated {
            self.lines.push(Line { at_us, node: from, text, also: Vec::new() });
        }
    }

    /// The lines since the last time.
    pub fn take(&mut self) -> Vec<String> {
        let lines = std::mem::take(&mut self.lines);
        lines.iter().map(|line| self.render(line)).collect()
    }

    fn render(&self, line: &Line) -> String {
        let Line { at_us, node, text, also } = line;
        let (name, width) = (self.node(*node), self.width);
        let time = format!("{}.{}", at_us / 1000, at_us % 1000 / 100);
        let also = match also.as_slice() {
            [] => String::new(),
            nodes => format!("  [{}]", nodes.iter().map(|node| self.node(*node)).collect::<Vec<_>>().join(" ")),
        };
        format!("{time:>9} {name:width$}  {text}{also}")
    }

    fn node(&self, node: NodeId) -> String {
        self.named(&node.to_string())
    }

    /// Numbers of nodes, groups and resources replaced by their names.
    pub fn named(&self, text: &str) -> String {
        let is_word = |c: char| c.is_ascii_alphanumeric() || c == '.';
        let mut named = String::new();
        let mut rest = text;
        while !rest.is_empty() {
            let word = rest.find(|c| !is_word(c)).unwrap_or(rest.len());
            let end = if word == 0 { rest.chars().next().map_or(0, char::len_utf8) } else { word };
            let (token, after) = rest.split_at(end);
            named.push_str(self.names.get(token).map_or(token, String::as_str));
            rest = after;
        }
        named
    }
}
