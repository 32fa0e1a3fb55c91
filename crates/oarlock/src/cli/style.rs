//! Colours, only where somebody can see them.

use std::io::IsTerminal;

/// Whether to colour.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Style {
    colours: bool,
}

impl Style {
    /// Without colours.
    pub const PLAIN: Style = Style { colours: false };

    /// For standard output.
    pub fn of_stdout() -> Style {
        Style::of(std::io::stdout().is_terminal())
    }

    /// For standard error.
    pub fn of_stderr() -> Style {
        Style::of(std::io::stderr().is_terminal())
    }

    fn of(terminal: bool) -> Style {
        let refused = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty())
            || std::env::var_os("TERM").is_some_and(|value| value == "dumb");
        Style { colours: terminal && !refused }
    }

    fn wrap(self, code: &str, text: &str) -> String {
        if self.colours { format!("\x1b[{code}m{text}\x1b[0m") } else { text.to_owned() }
    }

    /// As it should be.
    pub fn good(self, text: &str) -> String {
        self.wrap("32", text)
    }

    /// On its way, or worth a look.
    pub fn warn(self, text: &str) -> String {
        self.wrap("33", text)
    }

    /// Not as it should be.
    pub fn bad(self, text: &str) -> String {
        self.wrap("31", text)
    }

    /// A heading.
    pub fn head(self, text: &str) -> String {
        self.wrap("1", text)
    }
}
