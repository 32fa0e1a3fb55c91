//! Standard output, and tables on it.

use super::failure::{Code, Failure};
use serde::Serialize;
use std::io::{ErrorKind, Write};

/// Width that tables keep to, in columns.
pub const WIDTH: usize = 80;

/// Writes text to standard output; a reader that has left (`| head`) is no error.
pub fn emit(text: &str) -> Result<(), Failure> {
    let mut stdout = std::io::stdout().lock();
    match stdout.write_all(text.as_bytes()).and_then(|()| stdout.flush()) {
        Err(error) if error.kind() != ErrorKind::BrokenPipe => {
            Err(Failure::new(Code::Internal, format!("cannot write to standard output: {error}")))
        }
        _ => Ok(()),
    }
}

/// Writes a value as one line of JSON.
pub fn emit_json(value: &impl Serialize) -> Result<(), Failure> {
    let text = serde_json::to_string(value).map_err(|error| Failure::from_error(Code::Internal, &error))?;
    emit(&(text + "\n"))
}

/// Columns of plain text; the last one is wrapped at [`WIDTH`].
#[derive(Debug, Default)]
pub struct Table {
    rows: Vec<Vec<String>>,
    indent: usize,
}

impl Table {
    /// With a heading, all of it shifted right by `indent` columns.
    pub fn new(heading: &[&str], indent: usize) -> Table {
        Table { rows: vec![heading.iter().map(|&cell| cell.to_owned()).collect()], indent }
    }

    /// Adds a row.
    pub fn row(&mut self, cells: impl Into<Vec<String>>) {
        self.rows.push(cells.into());
    }

    /// The lines. `paint` may colour a cell (row, column, text); it must not change its width.
    pub fn render(&self, paint: impl Fn(usize, usize, &str) -> String) -> String {
        let columns = self.rows.iter().map(Vec::len).max().unwrap_or(0);
        let width = |column: usize| {
            self.rows.iter().filter_map(|row| row.get(column)).map(|cell| cell.chars().count()).max().unwrap_or(0)
        };
        let widths: Vec<usize> = (0..columns).map(width).collect();
        let mut text = String::new();
        for (number, row) in self.rows.iter().enumerate() {
            let mut line = " ".repeat(self.indent);
            let mut used = self.indent;
            for (column, cell) in row.iter().enumerate() {
                let last = column + 1 == row.len();
                if !last {
                    line += &paint(number, column, cell);
                    line += &" ".repeat(widths[column] - cell.chars().count() + 2);
                    used += widths[column] + 2;
                    continue;
                }
                for (part_number, part) in wrap(cell, WIDTH.saturating_sub(used)).iter().enumerate() {
                    if part_number > 0 {
                        text += line.trim_end();
                        text.push('\n');
                        line = " ".repeat(used);
                    }
                    line += &paint(number, column, part);
                }
            }
            text += line.trim_end();
            text.push('\n');
        }
        text
    }
}

/// Breaks a text at spaces into lines of at most `width`; a longer word stays whole.
pub fn wrap(text: &str, width: usize) -> Vec<String> {
    let mut lines = vec![String::new()];
    let mut used = 0;
    for word in text.split(' ') {
        let length = word.chars().count();
        if used > 0 && used + 1 + length > width {
            lines.push(String::new());
            used = 0;
        }
        if let Some(line) = lines.last_mut() {
            if used > 0 {
                line.push(' ');
                used += 1;
            }
            line.push_str(word);
            used += length;
        }
    }
    lines
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tables_are_aligned_and_wrapped() {
        let mut table = Table::new(&["NAME", "STATE", "WHY"], 2);
        table.row(["a".to_owned(), "started".to_owned(), "word ".repeat(30).trim().to_owned()]);
        let text = table.render(|_, _, cell| cell.to_owned());
        let lines: Vec<&str> = text.lines().collect();
        assert_eq!(lines[0], "  NAME  STATE    WHY");
        assert!(lines.len() > 2 && lines.iter().all(|line| line.len() <= WIDTH), "{text}");
        assert!(lines[2].starts_with("                 word"));
    }

    #[test]
    fn long_words_stay_whole() {
        assert_eq!(wrap("abcdefgh ij", 4), ["abcdefgh", "ij"]);
        assert_eq!(wrap("", 4), [""]);
    }
}
