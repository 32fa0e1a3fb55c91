//! Why something could not be done, and how that is put in words.

use crate::agents::launcher::LaunchError;
use std::error::Error;
use std::fmt::Write;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;
use thiserror::Error;

/// What failed. A `Display` never contains its source; [`PgError::in_words`] puts all together.
#[derive(Debug, Error)]
pub(crate) enum PgError {
    /// A file or directory.
    #[error("{action} {}", path.display())]
    Io { action: &'static str, path: PathBuf, source: io::Error },
    /// A statement or a connection.
    #[error("{what}")]
    Sql { what: String, source: Box<tokio_postgres::Error> },
    /// No answer in time.
    #[error("{what}: no answer within {} ms", after.as_millis())]
    Timeout { what: String, after: Duration },
    /// The launcher.
    #[error("{what}")]
    Launch { what: String, source: LaunchError },
    /// Anything else, with what the administrator can do.
    #[error("{what}")]
    Other { what: String, hint: Option<String> },
}

pub(crate) type Result<T, E = PgError> = std::result::Result<T, E>;

impl PgError {
    /// Something without a hint.
    pub fn other(what: impl Into<String>) -> PgError {
        PgError::Other { what: what.into(), hint: None }
    }

    /// Something with a hint.
    pub fn with_hint(what: impl Into<String>, hint: impl Into<String>) -> PgError {
        PgError::Other { what: what.into(), hint: Some(hint.into()) }
    }

    /// For `map_err` on file operations.
    pub fn io(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> PgError {
        let path = path.to_owned();
        move |source| PgError::Io { action, path, source }
    }

    /// For `map_err` on calls of the launcher.
    pub fn launch(what: impl Into<String>) -> impl FnOnce(LaunchError) -> PgError {
        let what = what.into();
        move |source| PgError::Launch { what, source }
    }

    /// The SQLSTATE, when the server itself refused.
    pub fn sqlstate(&self) -> Option<&str> {
        match self {
            PgError::Sql { source, .. } => source.code().map(|code| code.code()),
            _ => None,
        }
    }

    /// The error, its causes and a hint, in one line.
    pub fn in_words(&self) -> String {
        let mut words = self.to_string();
        let mut cause = self.source();
        while let Some(error) = cause {
            // tokio-postgres' own text for what the server said is only "db error".
            let text = error.to_string();
            if text != "db error" {
                let _ = write!(words, ": {text}");
            }
            cause = error.source();
        }
        if let Some(hint) = self.hint() {
            let _ = write!(words, "; hint: {hint}");
        }
        words
    }

    fn hint(&self) -> Option<&str> {
        match self {
            PgError::Other { hint, .. } => hint.as_deref(),
            PgError::Io { source, .. } => match source.kind() {
                io::ErrorKind::StorageFull => Some("make room on that file system"),
                io::ErrorKind::ReadOnlyFilesystem => Some("the file system is read-only: look for disk errors"),
                io::ErrorKind::PermissionDenied => {
                    Some("the agent runs as root; the directory belongs to the server's user")
                }
                io::ErrorKind::ResourceBusy | io::ErrorKind::CrossesDevices => {
                    Some("put the data directory one level below the mount point")
                }
                _ => None,
            },
            _ => None,
        }
    }
}
