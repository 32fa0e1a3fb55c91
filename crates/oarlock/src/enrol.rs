//! Making a cluster with two commands: `init` on the first machine, `join` on each other one.
//!
//! `init` makes everything secret for every node and keeps what is for the others in an invitation;
//! the agent hands it out ([`serve_invitations`]) to whoever holds the token, once for each node, over an
//! encrypted connection; `join` fetches it ([`fetch`]) and writes it down. No file is copied by hand.
//!
//! ```text
//! token       what is typed on the other machine: where to ask, and a secret
//! invitation  what the first machine keeps until everybody has joined
//! bundle      the files that make a machine a node
//! channel     Noise over TCP, keyed by the token's secret
//! serve       the first machine's end
//! fetch       the other machine's end
//! template    the configuration as `init` writes it
//! ```

pub(crate) mod bundle;
pub(crate) mod channel;
mod fetch;
pub(crate) mod invitation;
pub(crate) mod serve;
pub mod template;
#[cfg(test)]
mod tests;
pub(crate) mod token;

pub use bundle::{Bundle, BundleFile, write_file};
pub use channel::ChannelError;
pub use fetch::{FetchError, fetch};
pub use invitation::{Invitation, InvitationError, Invited};
pub use serve::serve_invitations;
pub use token::{SECRET_BYTES, Token, TokenError};

use crate::causes::with_causes;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// TCP port invitations are served on unless `--invite-port` says otherwise.
pub const DEFAULT_INVITE_PORT: u16 = 6701;
/// How long a token can be used.
pub const TOKEN_LIFETIME: Duration = Duration::from_secs(24 * 60 * 60);
/// This node's private key, beside the configuration.
pub const KEY_FILE: &str = "node.key";
/// Names the memory of votes and promises that was made on this machine.
pub const VOTER_FILE: &str = "voter.id";
/// The configuration's name on machines that join.
pub const CONFIG_FILE: &str = "oarlock.toml";
/// The cluster's secrets, beside the configuration.
pub const SECRETS_DIR: &str = "secrets";
/// What is kept for those who have not joined yet, beside the configuration.
pub const INVITATION_FILE: &str = "invitation.toml";

/// The directory of a configuration file, where keys and secrets are too.
pub fn directory(config: &Path) -> PathBuf {
    match config.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent.to_owned(),
        _ => PathBuf::from("."),
    }
}

/// Seconds since 1970.
pub(crate) fn now_s() -> u64 {
    std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).map_or(0, |since| since.as_secs())
}
