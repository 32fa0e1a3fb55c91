//! Pictures of what a client saw: acknowledged commits over time, with the events marked.
//!
//! A picture is one SVG of panels below each other, each showing one stretch of time. It is
//! plain: dark on white, everything labelled in text, no script and no font of its own.

mod axis;
pub mod bars;
pub mod grid;
mod panel;
mod svg;

use crate::history::{Gap, History, Outcome, Stamp, gaps_above};
use panel::Panel;
use svg::Svg;

/// Gaps shorter than this many milliseconds are ordinary commits and are not marked.
const MARKED_GAP_MS: f64 = 60.0;

/// Something that happened, to be marked on the axis of time.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mark {
    /// When.
    pub at: Stamp,
    /// What, in a few words.
    pub label: String,
}

/// A stretch of time to show.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct View {
    /// Heading of the panel.
    pub title: String,
    /// Its left edge.
    pub from: Stamp,
    /// Its right edge.
    pub to: Stamp,
    /// The instant that the axis counts from.
    pub zero: Stamp,
}

impl View {
    /// The whole of a log.
    pub fn whole(title: &str, history: &History) -> View {
        View { title: title.to_owned(), from: history.start.at, to: history.last_instant(), zero: history.start.at }
    }

    /// The time around an event, which is the axis' zero.
    pub fn around(title: &str, event: Stamp, before_ms: i64, after_ms: i64) -> View {
        View {
            title: title.to_owned(),
            from: event.shifted_ms(-before_ms),
            to: event.shifted_ms(after_ms),
            zero: event,
        }
    }
}

/// Draws a log: one panel per view, with the marks and gaps that fall into it.
pub fn draw(history: &History, marks: &[Mark], views: &[View]) -> String {
    let gaps = gaps_above(history, MARKED_GAP_MS);
    let panels: Vec<Panel> = views.iter().map(|view| panel_of(history, marks, &gaps, view)).collect();
    let height: f64 = panels.iter().map(Panel::height).sum();
    let mut svg = Svg::new(panel::WIDTH, height, "acknowledged commits over time");
    let mut top = 0.0;
    for panel in &panels {
        panel.draw(&mut svg, top);
        top += panel.height();
    }
    svg.finish()
}

/// Brings the log into the panel's own terms: seconds from the view's zero.
fn panel_of(history: &History, marks: &[Mark], gaps: &[Gap], view: &View) -> Panel {
    let seconds = |stamp: Stamp| stamp.ms_since(view.zero) / 1_000.0;
    // Beyond the log nothing is known, and an empty axis would look like an outage.
    let from = seconds(view.from).max(seconds(history.start.at));
    let to = seconds(view.to).min(seconds(history.last_instant()));
    let inside = |at: &f64| (from..=to).contains(at);
    let ends = |acked: bool| {
        let attempts = history.attempts.iter();
        let chosen = attempts.filter(move |a| (a.outcome == Outcome::Acked) == acked);
        let mut ends: Vec<f64> = chosen.map(|a| seconds(a.done)).filter(inside).collect();
        ends.sort_unstable_by(f64::total_cmp);
        ends
    };
    let marks = marks.iter().map(|m| (seconds(m.at), m.label.clone()));
    let gaps = gaps.iter().map(|g| panel::Outage { from: seconds(g.from), to: seconds(g.to), ended: g.ended });
    Panel {
        title: view.title.clone(),
        from,
        to: to.max(from + 0.001),
        acked: ends(true),
        failed: ends(false),
        marks: marks.filter(|m| inside(&m.0)).collect(),
        outages: gaps.filter(|g| g.to > from && g.from < to).collect(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::history::{Attempt, Start};

    fn at_ms(ms: i64) -> Stamp {
        Stamp { wall_us: ms * 1_000, mono_us: ms * 1_000 }
    }

    fn attempt(id: i64, done_ms: i64, outcome: Outcome) -> Attempt {
        Attempt { id, writer: 0, outcome, begun: at_ms(done_ms - 1), sent: None, done: at_ms(done_ms), error: None }
    }

    /// Ten seconds at 100 rows a second, nothing from 4.00 to 4.34 s.
    fn history() -> History {
        let acks = (1..1_000).filter(|n| !(401..434).contains(n));
        let mut attempts: Vec<Attempt> = acks.map(|n| attempt(n, n * 10, Outcome::Acked)).collect();
        attempts.extend((10..20).map(|n| attempt(2_000 + n, 4_000 + n * 15, Outcome::Refused)));
        History {
            start: Start { run: "r".into(), host: "oar".into(), writers: 1, at: at_ms(0) },
            attempts,
            reads: Vec::new(),
            idle: Vec::new(),
            end: Some(at_ms(10_000)),
        }
    }

    fn picture() -> String {
        let history = history();
        let mark = |ms, label: &str| Mark { at: at_ms(ms), label: label.into() };
        let marks = [
            mark(4_005, "power-off of server1"),
            mark(4_260, "server2 promoted <5>"),
            mark(4_335, "first acknowledged row"),
        ];
        let views =
            [View::whole("the whole run", &history), View::around("power-off of server1", at_ms(4_005), 500, 1_000)];
        draw(&history, &marks, &views)
    }

    #[test]
    fn shows_the_outage_and_the_marks_in_words() {
        let svg = picture();
        assert!(svg.starts_with("<svg xmlns=\"http://www.w3.org/2000/svg\""));
        assert!(svg.ends_with("</svg>\n"));
        assert_eq!(svg.matches("0.34 s</text>").count(), 2, "one label per panel");
        assert_eq!(svg.matches("server2 promoted &lt;5&gt;</text>").count(), 2);
        assert!(!svg.contains("NaN") && !svg.contains("inf"), "{svg}");
    }

    #[test]
    fn an_empty_log_is_drawn_too() {
        let mut empty = history();
        empty.attempts.clear();
        empty.end = None;
        let svg = draw(&empty, &[], &[View::whole("nothing", &empty)]);
        assert!(!svg.contains("NaN") && !svg.contains("inf"), "{svg}");
    }
}
