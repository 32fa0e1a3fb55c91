//! One panel: the rate of acknowledged commits, a stroke for every attempt, outages and marks.

use super::axis::{round_up, ticks};
use super::svg::{Anchor, Svg};
use std::cmp::Ordering;

/// Width of every panel, pixels.
pub const WIDTH: f64 = 960.0;
const LEFT: f64 = 64.0;
const RIGHT: f64 = 24.0;
const TITLE: f64 = 30.0;
const MARK_ROW: f64 = 16.0;
const PLOT: f64 = 170.0;
const RUG_GAP: f64 = 5.0;
const RUG_ROW: f64 = 12.0;
const FOOT: f64 = 48.0;

/// Seconds. In a shorter bin, counting whole commits would make an even pace look uneven.
const SHORTEST_BIN: f64 = 0.05;

const INK: &str = "#1a1a1a";
const FAINT: &str = "#6b6b6b";
const GRID: &str = "#e4e4e4";
const COMMITS: &str = "#1f5f99";
const COMMITS_AREA: &str = "#c9dff2";
const FAILED: &str = "#b3261e";
const OUTAGE_AREA: &str = "#fbe3e1";

/// A stretch without acknowledgement, in seconds of the panel's axis.
#[derive(Debug, Clone, Copy)]
pub struct Outage {
    pub from: f64,
    pub to: f64,
    /// Whether an acknowledgement ended it.
    pub ended: bool,
}

/// What a panel shows, times in seconds of its axis.
#[derive(Debug)]
pub struct Panel {
    pub title: String,
    pub from: f64,
    pub to: f64,
    pub acked: Vec<f64>,
    pub failed: Vec<f64>,
    pub marks: Vec<(f64, String)>,
    pub outages: Vec<Outage>,
}

impl Panel {
    /// Its height in pixels.
    pub fn height(&self) -> f64 {
        top_of_foot(self.plot_top()) + FOOT
    }

    fn plot_top(&self) -> f64 {
        let rows = self.mark_rows().iter().max().map_or(0, |row| row + 1);
        TITLE + MARK_ROW * (rows as f64 + 1.0)
    }

    fn x(&self, seconds: f64) -> f64 {
        let share = (seconds - self.from) / (self.to - self.from);
        LEFT + share.clamp(0.0, 1.0) * (WIDTH - LEFT - RIGHT)
    }

    /// Draws the panel with its upper edge at `top`.
    pub fn draw(&self, svg: &mut Svg, top: f64) {
        let plot_top = top + self.plot_top();
        svg.text((LEFT, top + 20.0), Anchor::Start, 15.0, INK, &self.title);
        self.draw_outages(svg, plot_top);
        self.draw_rate(svg, plot_top);
        self.draw_rugs(svg, plot_top + PLOT + RUG_GAP);
        self.draw_time_axis(svg, top_of_foot(plot_top));
        self.draw_marks(svg, top + TITLE, plot_top);
        self.label_outages(svg, plot_top - 5.0);
    }

    fn draw_outages(&self, svg: &mut Svg, plot_top: f64) {
        for outage in &self.outages {
            let (left, right) = (self.x(outage.from), self.x(outage.to));
            let size = ((right - left).max(1.0), top_of_foot(plot_top) - plot_top);
            svg.rect((left, plot_top), size, OUTAGE_AREA);
        }
    }

    /// Lengths of the outages; where two would overlap, the shorter outage stays without.
    fn label_outages(&self, svg: &mut Svg, y: f64) {
        let mut longest_first: Vec<&Outage> = self.outages.iter().collect();
        longest_first.sort_by(|a, b| (b.to - b.from).total_cmp(&(a.to - a.from)));
        let mut taken: Vec<(f64, f64)> = Vec::new();
        for outage in longest_first {
            let more = if outage.ended { "" } else { "at least " };
            let label = format!("{more}{:.2} s", outage.to - outage.from);
            let middle = (self.x(outage.from) + self.x(outage.to)) / 2.0;
            let middle = self.clear_of_edges(middle, &label);
            let half = text_width(&label) / 2.0 + 2.0;
            let (left, right) = (middle - half, middle + half);
            if taken.iter().all(|(l, r)| *r <= left || *l >= right) {
                taken.push((left, right));
                svg.rect((left, y - 11.0), (2.0 * half, 14.0), "#ffffff");
                svg.text((middle, y), Anchor::Middle, 12.0, FAILED, &label);
            }
        }
    }

    fn clear_of_edges(&self, middle: f64, label: &str) -> f64 {
        let half = text_width(label) / 2.0;
        middle.clamp(half, WIDTH - half)
    }

    fn draw_rate(&self, svg: &mut Svg, plot_top: f64) {
        let bin = round_up((self.to - self.from) / 150.0).max(SHORTEST_BIN);
        let steps = self.rate_steps(bin);
        let highest = steps.iter().map(|s| s.2).fold(1.0, f64::max) * 1.08;
        let bottom = plot_top + PLOT;
        let y = |rate: f64| bottom - rate / highest * PLOT;
        let (lines, decimals) = ticks(0.0, highest, 4.0);
        for rate in lines {
            svg.line((LEFT, y(rate)), (WIDTH - RIGHT, y(rate)), GRID, 1.0);
            let label = format!("{rate:.decimals$}");
            let at = (LEFT - 6.0, y(rate) + 4.0);
            svg.text(at, Anchor::End, 11.0, FAINT, &label);
        }
        let mut outline = vec![(self.x(self.from), bottom)];
        for (left, right, rate) in steps {
            outline.push((self.x(left), y(rate)));
            outline.push((self.x(right), y(rate)));
        }
        outline.push((self.x(self.to), bottom));
        svg.area(&outline, COMMITS_AREA, COMMITS);
        let what = format!("acknowledged commits per second, counted about every {bin} s");
        let at = (LEFT, top_of_foot(plot_top) + 32.0);
        svg.text(at, Anchor::Start, 11.0, FAINT, &what);
    }

    /// The rate as steps (from, to, commits per second). Outages are steps of their own, so
    /// that their edges are exact; the time between them is cut into bins of about `bin`.
    fn rate_steps(&self, bin: f64) -> Vec<(f64, f64, f64)> {
        let mut steps = Vec::new();
        let mut from = self.from;
        for outage in &self.outages {
            self.count_between(from, outage.from.max(from), bin, &mut steps);
            let end = outage.to.min(self.to);
            steps.push((outage.from.max(from), end, 0.0));
            from = end;
        }
        self.count_between(from, self.to, bin, &mut steps);
        steps
    }

    fn count_between(&self, from: f64, to: f64, bin: f64, steps: &mut Vec<(f64, f64, f64)>) {
        let bins = ((to - from) / bin).round().max(1.0);
        let width = (to - from) / bins;
        // Shorter than any commit takes: the edge of an outage, no time of its own.
        if width < 0.001 {
            return;
        }
        // An acknowledgement counts for the time before it, so that the one that ends an
        // outage does not count for the pace after it. The last edge is exact for the same end.
        let before = |edge: f64| self.acked.partition_point(|at| *at <= edge);
        let mut left = from;
        for index in 1..=bins as usize {
            let last = index == bins as usize;
            let right = if last { to } else { from + index as f64 * width };
            let commits = before(right) - before(left);
            steps.push((left, right, commits as f64 / width));
            left = right;
        }
    }

    /// One stroke per attempt: the acknowledged ones above, the others below.
    fn draw_rugs(&self, svg: &mut Svg, top: f64) {
        let rows = [(&self.acked, COMMITS, "acked"), (&self.failed, FAILED, "failed")];
        for (row, (times, colour, label)) in rows.into_iter().enumerate() {
            let top = top + row as f64 * RUG_ROW;
            let places: Vec<f64> = times.iter().map(|at| self.x(*at)).collect();
            svg.strokes(&places, top + 2.0, RUG_ROW - 3.0, colour);
            svg.text((LEFT - 6.0, top + 10.0), Anchor::End, 10.0, colour, label);
        }
    }

    fn draw_time_axis(&self, svg: &mut Svg, y: f64) {
        svg.line((LEFT, y), (WIDTH - RIGHT, y), INK, 1.0);
        let (steps, decimals) = ticks(self.from, self.to, 12.0);
        for step in steps {
            let x = self.x(step);
            svg.line((x, y), (x, y + 4.0), INK, 1.0);
            let label = format!("{step:.decimals$}");
            svg.text((x, y + 16.0), Anchor::Middle, 11.0, INK, &label);
        }
        svg.text((WIDTH - RIGHT, y + 32.0), Anchor::End, 11.0, FAINT, "seconds");
    }

    fn draw_marks(&self, svg: &mut Svg, labels_top: f64, plot_top: f64) {
        let foot = top_of_foot(plot_top);
        for ((at, label), row) in self.marks.iter().zip(self.mark_rows()) {
            let (x, y) = (self.x(*at), labels_top + row as f64 * MARK_ROW);
            svg.line((x, y), (x, foot), INK, 1.0);
            let (at, anchor) = match self.label_opens_left(x, label) {
                true => (x - 4.0, Anchor::End),
                false => (x + 4.0, Anchor::Start),
            };
            svg.text((at, y + 11.0), anchor, 12.0, INK, label);
        }
    }

    fn label_opens_left(&self, x: f64, label: &str) -> bool {
        x + 4.0 + text_width(label) > WIDTH
    }

    /// The row of each mark's label: the first in which it touches no label and no stem that
    /// is already placed, and its own stem touches none of the labels. A stem runs from its
    /// label's row down through all the rows below.
    fn mark_rows(&self) -> Vec<usize> {
        struct Placed {
            row: usize,
            left: f64,
            right: f64,
            stem: f64,
        }
        let mut placed: Vec<Placed> = Vec::new();
        for (at, label) in &self.marks {
            let (stem, width) = (self.x(*at), text_width(label) + 8.0);
            let (left, right) = match self.label_opens_left(stem, label) {
                true => (stem - width, stem),
                false => (stem, stem + width),
            };
            let free = |row: &usize| {
                placed.iter().all(|p| match p.row.cmp(row) {
                    Ordering::Less => p.stem <= left || p.stem >= right,
                    Ordering::Equal => p.right <= left || p.left >= right,
                    Ordering::Greater => stem <= p.left || stem >= p.right,
                })
            };
            let row = (0..=placed.len()).find(free).unwrap_or(placed.len());
            placed.push(Placed { row, left, right, stem });
        }
        placed.iter().map(|p| p.row).collect()
    }
}

/// Where the axis of time lies, below the rate and the strokes.
fn top_of_foot(plot_top: f64) -> f64 {
    plot_top + PLOT + RUG_GAP + 2.0 * RUG_ROW
}

/// A generous guess: no font is at hand to measure with.
fn text_width(label: &str) -> f64 {
    label.chars().count() as f64 * 6.6
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_outage_has_exact_edges() {
        let panel = Panel {
            title: String::new(),
            from: 0.0,
            to: 4.0,
            acked: vec![0.1, 0.6, 0.9, 1.1, 1.2, 3.0, 3.5, 3.6],
            failed: Vec::new(),
            marks: Vec::new(),
            outages: vec![Outage { from: 1.2, to: 3.0, ended: true }],
        };
        let rounded = |v: f64| (v * 100.0).round() / 100.0;
        let steps: Vec<(f64, f64, f64)> =
            panel.rate_steps(1.0).iter().map(|s| (rounded(s.0), rounded(s.1), rounded(s.2))).collect();
        assert_eq!(steps, [(0.0, 1.2, 4.17), (1.2, 3.0, 0.0), (3.0, 4.0, 2.0)]);
    }

    #[test]
    fn labels_never_cover_each_other() {
        let mark = |at: f64| (at, "a label of some length".to_owned());
        let panel = Panel {
            title: String::new(),
            from: 0.0,
            to: 10.0,
            acked: Vec::new(),
            failed: Vec::new(),
            marks: vec![mark(1.0), mark(1.1), mark(6.0), mark(9.9), mark(9.8)],
            outages: Vec::new(),
        };
        assert_eq!(panel.mark_rows(), [0, 1, 0, 0, 1]);
    }
}
