//! Which life of this machine it is: kept in the run directory (memory), so that an agent that was
//! restarted under a living sentinel goes on with it, and a machine that was restarted does not.

use serde::{Deserialize, Serialize};
use std::io;
use std::path::{Path, PathBuf};

/// The file, and what it says.
#[derive(Debug)]
pub struct Kept {
    path: PathBuf,
    known: Option<Life>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Life {
    incarnation: u64,
}

impl Kept {
    /// Reads it; what cannot be read was never there.
    pub fn read(run_dir: &Path) -> Kept {
        let path = run_dir.join("incarnation.json");
        let known = std::fs::read(&path).ok().and_then(|bytes| serde_json::from_slice(&bytes).ok());
        Kept { path, known }
    }

    /// The incarnation that was kept.
    pub fn incarnation(&self) -> Option<u64> {
        self.known.map(|life| life.incarnation)
    }

    /// Keeps another.
    ///
    /// # Errors
    /// When the run directory cannot be written.
    pub fn keep(&mut self, incarnation: u64) -> io::Result<()> {
        let life = Life { incarnation };
        if self.known == Some(life) {
            return Ok(());
        }
        let new = self.path.with_extension("new");
        std::fs::write(&new, serde_json::to_vec(&life)?)?;
        std::fs::rename(&new, &self.path)?;
        self.known = Some(life);
        Ok(())
    }
}
