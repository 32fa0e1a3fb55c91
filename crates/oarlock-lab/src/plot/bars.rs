//! Grouped bars: one panel below the other, each with groups side by side, the same colours in every group.

use super::axis::ticks;
use super::svg::{Anchor, Svg};

const WIDTH: f64 = 900.0;
const MARGIN: f64 = 60.0;
const HEAD: f64 = 56.0;
/// Of a panel: its title, its bars, the labels below them.
const TITLE: f64 = 34.0;
const HEIGHT: f64 = 190.0;
const FOOT: f64 = 30.0;
const TEXT: &str = "#222222";
const GRID: &str = "#dddddd";
const COLOURS: [&str; 4] = ["#4477aa", "#228833", "#cc6644", "#aa3377"];

/// One bar.
#[derive(Debug, Clone, PartialEq)]
pub struct Bar {
    /// Its height.
    pub value: f64,
    /// Lower end of what was measured.
    pub from: f64,
    /// Upper end.
    pub to: f64,
    /// What stands above it.
    pub label: String,
}

/// Bars side by side; a missing one leaves its place free.
#[derive(Debug, Clone, PartialEq)]
pub struct Group {
    /// What stands below them.
    pub label: String,
    /// The bars, in the order of the legend.
    pub bars: Vec<Option<Bar>>,
}

/// Groups over one axis from zero.
#[derive(Debug, Clone, PartialEq)]
pub struct Panel {
    /// Its heading.
    pub title: String,
    /// The groups.
    pub groups: Vec<Group>,
}

/// The whole picture.
#[derive(Debug, Clone, PartialEq)]
pub struct Chart {
    /// What is shown, and its unit.
    pub title: String,
    /// What each bar of a group is.
    pub legend: Vec<String>,
    /// The panels.
    pub panels: Vec<Panel>,
}

impl Chart {
    /// The picture as an SVG document.
    pub fn draw(&self) -> String {
        let panel_height = TITLE + HEIGHT + FOOT;
        let mut svg = Svg::new(WIDTH, HEAD + panel_height * self.panels.len() as f64, &self.title);
        svg.text((MARGIN, 20.0), Anchor::Start, 14.0, TEXT, &self.title);
        let mut x = MARGIN;
        for (text, colour) in self.legend.iter().zip(COLOURS.iter().cycle()) {
            svg.rect((x, 32.0), (12.0, 12.0), colour);
            svg.text((x + 18.0, 42.0), Anchor::Start, 11.0, TEXT, text);
            x += 44.0 + 6.0 * text.chars().count() as f64;
        }
        let mut top = HEAD;
        for panel in &self.panels {
            panel.draw(&mut svg, top);
            top += panel_height;
        }
        svg.finish()
    }
}

impl Panel {
    fn draw(&self, svg: &mut Svg, top: f64) {
        let (left, right, base) = (MARGIN, WIDTH - 20.0, top + TITLE + HEIGHT);
        svg.text((left, top + 18.0), Anchor::Start, 12.0, TEXT, &self.title);
        let highest =
            self.groups.iter().flat_map(|group| group.bars.iter().flatten()).map(|bar| bar.to).fold(0.0, f64::max);
        // Room for the labels above the highest bar.
        let scale = (HEIGHT - 16.0) / if highest > 0.0 { highest } else { 1.0 };
        let (places, decimals) = ticks(0.0, if highest > 0.0 { highest } else { 1.0 }, 4.0);
        for place in places {
            let y = base - place * scale;
            svg.line((left, y), (right, y), GRID, 1.0);
            svg.text((left - 6.0, y + 4.0), Anchor::End, 10.0, TEXT, &format!("{place:.decimals$}"));
        }
        let width = (right - left) / self.groups.len().max(1) as f64;
        for (number, group) in self.groups.iter().enumerate() {
            group.draw(svg, (left + width * number as f64, base), width, scale);
        }
    }
}

impl Group {
    fn draw(&self, svg: &mut Svg, corner: (f64, f64), width: f64, scale: f64) {
        let (left, base) = corner;
        let slot = width * 0.86 / self.bars.len().max(1) as f64;
        for ((number, bar), colour) in self.bars.iter().enumerate().zip(COLOURS.iter().cycle()) {
            let Some(bar) = bar else { continue };
            let x = left + width * 0.07 + slot * number as f64;
            let middle = x + slot * 0.45;
            svg.rect((x, base - bar.value * scale), (slot * 0.9, bar.value * scale), colour);
            svg.line((middle, base - bar.from * scale), (middle, base - bar.to * scale), TEXT, 1.0);
            svg.text((middle, base - bar.to * scale - 4.0), Anchor::Middle, 9.0, TEXT, &bar.label);
        }
        svg.text((left + width / 2.0, base + 16.0), Anchor::Middle, 11.0, TEXT, &self.label);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_missing_bar_and_an_empty_chart_are_drawn() {
        let bar = Bar { value: 800.0, from: 750.0, to: 820.0, label: "800 <of>".into() };
        let group = Group { label: "5000".into(), bars: vec![Some(bar), None] };
        let panel = Panel { title: "PostgreSQL".into(), groups: vec![group] };
        let empty = Panel { title: "MariaDB".into(), groups: Vec::new() };
        let chart =
            Chart { title: "per second".into(), legend: vec!["a".into(), "b".into()], panels: vec![panel, empty] };
        let svg = chart.draw();
        assert!(svg.contains("800 &lt;of&gt;</text>") && svg.ends_with("</svg>\n"));
        assert!(!svg.contains("NaN") && !svg.contains("inf"), "{svg}");
    }
}
