//! The client's log: one line per write, so that a reader can follow it.

use crate::history::Line;
use anyhow::{Context, Result};
use std::fs::File;
use std::io::Write;
use std::os::fd::AsFd;
use std::path::Path;
use std::sync::Arc;

/// A log that the client's tasks share.
#[derive(Clone)]
pub struct Log(Arc<File>);

impl Log {
    /// Opens a log for appending; `-` is standard output.
    pub fn open(path: &Path) -> Result<Log> {
        let file = if path == Path::new("-") {
            let stdout = std::io::stdout().as_fd().try_clone_to_owned();
            File::from(stdout.context("duplicate standard output")?)
        } else {
            let mut options = File::options();
            let file = options.append(true).create(true).open(path);
            file.with_context(|| format!("open the client's log {}", path.display()))?
        };
        Ok(Log(Arc::new(file)))
    }

    /// Writes one line in one piece, past any buffer.
    pub fn write(&self, line: &Line) -> Result<()> {
        let mut text = serde_json::to_string(line).context("encode a line of the client's log")?;
        text.push('\n');
        let mut file: &File = &self.0;
        file.write_all(text.as_bytes()).context("write the client's log")
    }
}
