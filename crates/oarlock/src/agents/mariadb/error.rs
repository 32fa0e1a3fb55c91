//! Why something could not be done, and how that is put in words.

use crate::agents::launcher::LaunchError;
use crate::agents::postgresql::error::PgError;
use crate::enrol::channel::ChannelError;
use std::error::Error;
use std::fmt::Write;
use std::time::Duration;
use thiserror::Error;

/// What failed. A `Display` never contains its source; [`MariaError::in_words`] puts all together.
#[derive(Debug, Error)]
pub(super) enum MariaError {
    /// A file, a directory, or the places of data directories.
    #[error(transparent)]
    Files(#[from] PgError),
    /// A statement or a connection.
    #[error("{what}")]
    Sql { what: String, source: Box<mysql_async::Error> },
    /// No answer in time.
    #[error("{what}: no answer within {} ms", after.as_millis())]
    Timeout { what: String, after: Duration },
    /// What a standby received cannot be applied.
    #[error("what was received cannot be applied: {said}")]
    Unapplied { said: String },
    /// The guard is not proven: a commit did not wait for the standby.
    #[error("a commit was acknowledged that no standby had confirmed")]
    Unconfirmed,
    /// The launcher.
    #[error("{what}")]
    Launch { what: String, source: LaunchError },
    /// The connection to another node's agent.
    #[error("{what}")]
    Channel { what: String, source: Box<ChannelError> },
    /// Anything else, with what the administrator can do.
    #[error("{what}")]
    Other { what: String, hint: Option<String> },
}

pub(super) type Result<T, E = MariaError> = std::result::Result<T, E>;

impl MariaError {
    /// Something without a hint.
    pub fn other(what: impl Into<String>) -> MariaError {
        MariaError::Other { what: what.into(), hint: None }
    }

    /// Something with a hint.
    pub fn with_hint(what: impl Into<String>, hint: impl Into<String>) -> MariaError {
        MariaError::Other { what: what.into(), hint: Some(hint.into()) }
    }

    /// For `map_err` on calls of the launcher.
    pub fn launch(what: impl Into<String>) -> impl FnOnce(LaunchError) -> MariaError {
        let what = what.into();
        move |source| MariaError::Launch { what, source }
    }

    /// For `map_err` on the channel between agents.
    pub fn channel(what: impl Into<String>) -> impl FnOnce(ChannelError) -> MariaError {
        let what = what.into();
        move |source| MariaError::Channel { what, source: Box::new(source) }
    }

    /// The server's own error number, when the server itself refused.
    pub fn code(&self) -> Option<u16> {
        match self {
            MariaError::Sql { source, .. } => match source.as_ref() {
                mysql_async::Error::Server(error) => Some(error.code),
                _ => None,
            },
            _ => None,
        }
    }

    /// The error, its causes and a hint, in one line.
    pub fn in_words(&self) -> String {
        if let MariaError::Files(error) = self {
            return error.in_words();
        }
        let mut words = self.to_string();
        let mut cause = self.source();
        while let Some(error) = cause {
            let _ = write!(words, ": {error}");
            cause = error.source();
        }
        let hint = match self {
            MariaError::Other { hint, .. } => hint.as_deref(),
            MariaError::Unapplied { .. } => Some("this copy is replaced, unless it is the only one left"),
            _ => None,
        };
        if let Some(hint) = hint {
            let _ = write!(words, "; hint: {hint}");
        }
        words.replace('\n', " ")
    }
}
