//! What the first machine keeps until everybody has joined: the token's secret and the private keys
//! of those who have not. Each key is forgotten when its node has it.

use super::bundle::write_file;
use super::token::{SECRET_BYTES, Token};
use crate::keys::PrivateKey;
use serde::{Deserialize, Serialize};
use std::io;
use std::net::IpAddr;
use std::path::{Path, PathBuf};

/// Largest invitation, in bytes.
const FILE_MAX_BYTES: u64 = 64 * 1024;

/// The file `invitation.toml`.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Invitation {
    /// TCP port it is served on.
    pub port: u16,
    /// The token's secret, in hexadecimal digits.
    secret: String,
    /// The token is good until then, in seconds since 1970.
    pub expires_s: u64,
    /// Who may still join.
    #[serde(rename = "node", default)]
    pub nodes: Vec<Invited>,
    /// Who has joined.
    #[serde(default)]
    pub joined: Vec<Joined>,
}

/// A node that may still join.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Invited {
    /// Its name.
    pub name: String,
    /// The content of its key file.
    pub key: String,
}

impl Invited {
    /// A node and its private key.
    pub fn new(name: &str, key: &PrivateKey) -> Invited {
        Invited { name: name.to_owned(), key: key.file_text() }
    }
}

/// A node that has joined.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Joined {
    /// Its name.
    pub name: String,
    /// The address it asked from.
    pub from: String,
    /// When, in seconds since 1970.
    pub at_s: u64,
}

/// Why an invitation cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum InvitationError {
    /// The file cannot be read or written.
    #[error("invitation {}", path.display())]
    File {
        /// It.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// The file is damaged.
    #[error("invitation {} is damaged: {problem}", path.display())]
    Damaged {
        /// It.
        path: PathBuf,
        /// In words; nothing of its content.
        problem: &'static str,
    },
}

impl std::fmt::Debug for Invitation {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let names: Vec<&str> = self.nodes.iter().map(|node| node.name.as_str()).collect();
        f.debug_struct("Invitation").field("nodes", &names).field("expires_s", &self.expires_s).finish_non_exhaustive()
    }
}

impl Invitation {
    /// For these nodes, under this token.
    pub fn new(token: &Token, expires_s: u64, nodes: Vec<Invited>) -> Invitation {
        let mut invitation =
            Invitation { port: token.port, secret: String::new(), expires_s, nodes, joined: Vec::new() };
        invitation.renew(token, expires_s);
        invitation
    }

    /// Replaces the token; the one before is worth nothing from now on.
    pub fn renew(&mut self, token: &Token, expires_s: u64) {
        self.port = token.port;
        self.secret = token.secret.iter().map(|byte| format!("{byte:02x}")).collect();
        self.expires_s = expires_s;
    }

    /// The token that leads here.
    pub fn token(&self, addresses: &[IpAddr]) -> Option<Token> {
        Some(Token { addresses: addresses.to_vec(), port: self.port, secret: self.secret()? })
    }

    /// The token's secret; `None` when the file is damaged.
    pub fn secret(&self) -> Option<[u8; SECRET_BYTES]> {
        let mut secret = [0; SECRET_BYTES];
        let digits = self.secret.as_bytes();
        if digits.len() != 2 * SECRET_BYTES || !digits.iter().all(u8::is_ascii_hexdigit) {
            return None;
        }
        for (byte, pair) in secret.iter_mut().zip(digits.chunks_exact(2)) {
            *byte = u8::from_str_radix(std::str::from_utf8(pair).ok()?, 16).ok()?;
        }
        Some(secret)
    }

    /// What is kept at `path`; `None` when nobody is invited.
    pub fn load(path: &Path) -> Result<Option<Invitation>, InvitationError> {
        let failed = |source| InvitationError::File { path: path.to_owned(), source };
        let damaged = |problem| InvitationError::Damaged { path: path.to_owned(), problem };
        let file = match std::fs::File::open(path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            other => other.map_err(failed)?,
        };
        let mut text = String::new();
        io::Read::read_to_string(&mut io::Read::take(file, FILE_MAX_BYTES), &mut text).map_err(failed)?;
        // The parser's own words would repeat a line with a key in it.
        let invitation: Invitation = toml::from_str(&text).map_err(|_| damaged("not what init wrote"))?;
        if invitation.secret().is_none() {
            return Err(damaged("its secret has not 32 hexadecimal digits"));
        }
        Ok(Some(invitation))
    }

    /// Keeps it at `path`, for the owner's eyes only; removes the file when nobody is left to join.
    pub fn save(&self, path: &Path) -> Result<(), InvitationError> {
        let failed = |source| InvitationError::File { path: path.to_owned(), source };
        if self.nodes.is_empty() {
            return match std::fs::remove_file(path) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => Err(failed(error)),
                _ => Ok(()),
            };
        }
        let text = toml::to_string(self).map_err(|error| failed(io::Error::other(error)))?;
        let text = format!("# Private keys of the nodes that have not joined yet; made by oarlock init.\n{text}");
        write_file(path, text.as_bytes(), 0o600).map_err(failed)
    }
}
