//! A grid of squares: a line per case, a column per circumstance, a colour and a word per square.

use super::svg::{Anchor, Svg};

const LEFT: f64 = 500.0;
const COLUMN: f64 = 130.0;
const TOP: f64 = 60.0;
const LINE: f64 = 18.0;
const TEXT: &str = "#222222";

/// What a square says by its colour.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Shade {
    /// As it must be.
    Good,
    /// Not as it must be.
    Bad,
    /// Not known.
    Open,
    /// Nothing is to be known.
    None,
}

/// A square.
#[derive(Debug, Clone, PartialEq)]
pub struct Cell {
    /// Its colour.
    pub shade: Shade,
    /// What stands in it.
    pub text: String,
}

/// A line of squares.
#[derive(Debug, Clone, PartialEq)]
pub struct Line {
    /// What it is called.
    pub label: String,
    /// What it is about.
    pub title: String,
    /// One for each column.
    pub cells: Vec<Cell>,
}

/// The whole picture.
#[derive(Debug, Clone, PartialEq)]
pub struct Grid {
    /// What is shown.
    pub title: String,
    /// Heads of the columns.
    pub columns: Vec<String>,
    /// The lines.
    pub lines: Vec<Line>,
}

impl Grid {
    /// The picture as an SVG document.
    pub fn draw(&self) -> String {
        let width = LEFT + COLUMN * self.columns.len() as f64 + 10.0;
        let mut svg = Svg::new(width, TOP + LINE * self.lines.len() as f64 + 10.0, &self.title);
        svg.text((10.0, 22.0), Anchor::Start, 14.0, TEXT, &self.title);
        let x = |column: usize| LEFT + COLUMN * column as f64;
        for (column, head) in self.columns.iter().enumerate() {
            svg.text((x(column) + COLUMN / 2.0, TOP - 8.0), Anchor::Middle, 11.0, TEXT, head);
        }
        for (number, line) in self.lines.iter().enumerate() {
            let y = TOP + LINE * number as f64;
            svg.text((10.0, y + 13.0), Anchor::Start, 11.0, TEXT, &line.label);
            svg.text((LEFT - 8.0, y + 13.0), Anchor::End, 10.0, "#555555", &line.title);
            for (column, cell) in line.cells.iter().enumerate() {
                let fill = match cell.shade {
                    Shade::Good => "#bfe3bf",
                    Shade::Bad => "#e8a0a0",
                    Shade::Open => "#eeeeee",
                    Shade::None => continue,
                };
                svg.rect((x(column) + 1.0, y + 1.0), (COLUMN - 2.0, LINE - 2.0), fill);
                svg.text((x(column) + COLUMN / 2.0, y + 13.0), Anchor::Middle, 10.0, TEXT, &cell.text);
            }
        }
        svg.finish()
    }
}
