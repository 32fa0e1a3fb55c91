//! X25519 key pairs: how nodes know each other.
//!
//! A public key is written as 64 hexadecimal digits and stands in the configuration; a private key never leaves its
//! node and lives in a file that only its owner may read. Its text carries a prefix, so that one pasted into the
//! configuration by mistake is recognised for what it is.

use std::fmt;
use std::fs::{File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use snow::params::DHChoice;
use snow::resolvers::{CryptoResolver, DefaultResolver};
use snow::types::{Dh, Random};

/// Length of a key, public or private, in bytes.
pub const KEY_BYTES: usize = 32;

const PRIVATE_PREFIX: &str = "private:";
/// A key file holds one line of 72 characters; anything much longer is not one.
const MAX_KEY_FILE_BYTES: u64 = 4096;

/// Why a key could not be made, read, parsed or used.
#[derive(Debug, thiserror::Error)]
pub enum KeyError {
    /// The text has the wrong number of digits.
    #[error("key has {digits} digits, expected {}", KEY_BYTES * 2)]
    Length {
        /// Digits found.
        digits: usize,
    },
    /// The text holds something that is not a hexadecimal digit.
    #[error("key has {found:?} at position {position}, expected a hexadecimal digit")]
    Digit {
        /// Position in the text, from 1.
        position: usize,
        /// The character found there.
        found: char,
    },
    /// A private key stands where a public key belongs.
    #[error(
        "this is a private key, expected a public key\n  hint: it may have been seen by others now: make a new one"
    )]
    PrivateNotPublic,
    /// A public key, or something else, stands where a private key belongs.
    #[error("not a private key: expected {PRIVATE_PREFIX:?} and {} digits", KEY_BYTES * 2)]
    NotPrivate,
    /// The public key is one of the few with which no secret can be agreed.
    #[error("public key {key} is weak: it gives the same secret with every partner")]
    Weak {
        /// The key refused.
        key: PublicKey,
    },
    /// The operating system gave no random bytes.
    #[error("no random bytes for a new key")]
    NoRandomness,
    /// The key file could not be read or written.
    #[error("key file {path}: cannot {action}")]
    File {
        /// The file.
        path: PathBuf,
        /// What was tried.
        action: &'static str,
        /// Why it failed.
        #[source]
        source: io::Error,
    },
    /// Others than the owner may read or write the key file.
    #[error("key file {path} has mode {mode:04o}, expected 0600\n  hint: chmod 600 {path}")]
    Mode {
        /// The file.
        path: PathBuf,
        /// Its permission bits.
        mode: u32,
    },
    /// The key file belongs to somebody else.
    #[error("key file {path} belongs to user {uid}, expected {expected}")]
    Owner {
        /// The file.
        path: PathBuf,
        /// Its owner.
        uid: u32,
        /// The user we run as.
        expected: u32,
    },
    /// The key file is a directory, a device or the like.
    #[error("key file {path} is not a regular file")]
    NotAFile {
        /// The file.
        path: PathBuf,
    },
    /// The content of the key file is not a private key.
    #[error("key file {path} holds no usable key")]
    Content {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        #[source]
        source: Box<KeyError>,
    },
}

/// The public half of a node's key pair.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct PublicKey([u8; KEY_BYTES]);

impl PublicKey {
    /// The key from its raw bytes.
    pub fn from_bytes(bytes: [u8; KEY_BYTES]) -> Self {
        Self(bytes)
    }

    /// The raw bytes.
    pub fn as_bytes(&self) -> &[u8; KEY_BYTES] {
        &self.0
    }
}

impl fmt::Display for PublicKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for PublicKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "PublicKey({self})")
    }
}

impl FromStr for PublicKey {
    type Err = KeyError;

    fn from_str(text: &str) -> Result<Self, KeyError> {
        if text.trim_start().starts_with(PRIVATE_PREFIX) {
            return Err(KeyError::PrivateNotPublic);
        }
        parse_hex(text.trim()).map(Self)
    }
}

impl TryFrom<String> for PublicKey {
    type Error = KeyError;

    fn try_from(text: String) -> Result<Self, KeyError> {
        text.parse()
    }
}

impl From<PublicKey> for String {
    fn from(key: PublicKey) -> String {
        key.to_string()
    }
}

/// The private half. It has no `Display`, and its `Debug` tells nothing.
#[derive(Clone)]
pub struct PrivateKey([u8; KEY_BYTES]);

impl PrivateKey {
    /// A new random key.
    pub fn generate() -> Result<Self, KeyError> {
        let mut bytes = [0; KEY_BYTES];
        random_bytes(&mut bytes)?;
        Ok(Self(bytes))
    }

    /// The key from its raw bytes.
    pub fn from_bytes(bytes: [u8; KEY_BYTES]) -> Self {
        Self(bytes)
    }

    /// The public key that belongs to it.
    pub fn public(&self) -> PublicKey {
        let mut public = [0; KEY_BYTES];
        public.copy_from_slice(self.curve().pubkey());
        PublicKey(public)
    }

    /// The secret that only this key's owner and the owner of `peer` can compute.
    pub(crate) fn agree(&self, peer: &PublicKey) -> Result<[u8; KEY_BYTES], KeyError> {
        let mut secret = [0; KEY_BYTES];
        let weak = KeyError::Weak { key: *peer };
        match self.curve().dh(peer.as_bytes(), &mut secret) {
            Ok(()) if secret != [0; KEY_BYTES] => Ok(secret),
            _ => Err(weak),
        }
    }

    pub(crate) fn as_bytes(&self) -> &[u8; KEY_BYTES] {
        &self.0
    }

    #[allow(clippy::expect_used, reason = "the resolver is compiled in with this curve: a build matter, not input")]
    fn curve(&self) -> Box<dyn Dh> {
        let mut curve = DefaultResolver.resolve_dh(&DHChoice::Curve25519).expect("X25519 is compiled in");
        curve.set(&self.0);
        curve
    }

    /// What stands in its key file.
    pub(crate) fn file_text(&self) -> String {
        format!("{PRIVATE_PREFIX}{}\n", PublicKey(self.0))
    }

    pub(crate) fn from_text(text: &str) -> Result<Self, KeyError> {
        let digits = text.trim().strip_prefix(PRIVATE_PREFIX).ok_or(KeyError::NotPrivate)?;
        parse_hex(digits).map(Self)
    }

    /// Reads a key file; one that others may read, or that is not ours, is refused.
    pub fn read(path: &Path) -> Result<Self, KeyError> {
        let fail = |action| move |source| KeyError::File { path: path.to_owned(), action, source };
        let file = OpenOptions::new()
            .read(true)
            .custom_flags(libc::O_CLOEXEC | libc::O_NONBLOCK)
            .open(path)
            .map_err(fail("open it"))?;
        check_protection(path, &file)?;
        let mut text = String::new();
        file.take(MAX_KEY_FILE_BYTES).read_to_string(&mut text).map_err(fail("read it"))?;
        Self::from_text(&text).map_err(|source| KeyError::Content { path: path.to_owned(), source: Box::new(source) })
    }

    /// Writes a new key file with mode 0600; an existing file is an error and stays as it is.
    pub fn write_new(&self, path: &Path) -> Result<(), KeyError> {
        self.write_with(path, |temporary| std::fs::hard_link(temporary, path))
    }

    /// Writes the key file with mode 0600 in place of what is there, all or nothing.
    pub fn write_replacing(&self, path: &Path) -> Result<(), KeyError> {
        self.write_with(path, |temporary| std::fs::rename(temporary, path))
    }

    fn write_with(&self, path: &Path, publish: impl FnOnce(&Path) -> io::Result<()>) -> Result<(), KeyError> {
        let fail = |action| move |source| KeyError::File { path: path.to_owned(), action, source };
        let mut temporary = path.as_os_str().to_owned();
        temporary.push(format!(".new-{}", std::process::id()));
        let temporary = PathBuf::from(temporary);
        let mut file =
            OpenOptions::new().write(true).create_new(true).mode(0o600).open(&temporary).map_err(fail("create it"))?;
        let written = (|| {
            file.write_all(self.file_text().as_bytes())?;
            file.sync_all()?;
            publish(&temporary)
        })();
        // After a rename it is already gone; after a hard link or a failure it must go.
        std::fs::remove_file(&temporary).ok();
        written.map_err(fail("write it"))?;
        let parent = path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
        File::open(parent).and_then(|directory| directory.sync_all()).map_err(fail("sync its directory"))
    }
}

impl fmt::Debug for PrivateKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("PrivateKey(…)")
    }
}

/// Fills `bytes` from the operating system's generator.
pub(crate) fn random_bytes(bytes: &mut [u8]) -> Result<(), KeyError> {
    let mut generator: Box<dyn Random> = DefaultResolver.resolve_rng().ok_or(KeyError::NoRandomness)?;
    generator.try_fill_bytes(bytes).map_err(|_| KeyError::NoRandomness)
}

fn check_protection(path: &Path, file: &File) -> Result<(), KeyError> {
    let path = path.to_owned();
    let metadata = match file.metadata() {
        Ok(metadata) => metadata,
        Err(source) => return Err(KeyError::File { path, action: "inspect it", source }),
    };
    if !metadata.is_file() {
        return Err(KeyError::NotAFile { path });
    }
    let mode = metadata.mode() & 0o7777;
    if mode & 0o077 != 0 {
        return Err(KeyError::Mode { path, mode });
    }
    let expected = rustix::process::geteuid().as_raw();
    if metadata.uid() != expected {
        return Err(KeyError::Owner { path, uid: metadata.uid(), expected });
    }
    Ok(())
}

fn parse_hex(text: &str) -> Result<[u8; KEY_BYTES], KeyError> {
    let mut key = [0; KEY_BYTES];
    let mut digits = 0;
    for (position, found) in text.chars().enumerate() {
        let value = found.to_digit(16).ok_or(KeyError::Digit { position: position + 1, found })?;
        if let Some(byte) = key.get_mut(position / 2) {
            *byte = *byte << 4 | value as u8;
        }
        digits = position + 1;
    }
    if digits == KEY_BYTES * 2 { Ok(key) } else { Err(KeyError::Length { digits }) }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn a_public_key_survives_its_text() {
        let key = PrivateKey::generate().unwrap().public();
        assert_eq!(key.to_string().parse::<PublicKey>().unwrap(), key);
        assert_eq!(format!(" {} \n", key.to_string().to_uppercase()).parse::<PublicKey>().unwrap(), key);
        assert_eq!(serde_json::from_str::<PublicKey>(&serde_json::to_string(&key).unwrap()).unwrap(), key);
    }

    #[test]
    fn errors_say_what_is_wrong() {
        let error = |text: &str| text.parse::<PublicKey>().unwrap_err().to_string();
        assert_eq!(error(""), "key has 0 digits, expected 64");
        assert_eq!(error(&"0".repeat(63)), "key has 63 digits, expected 64");
        assert_eq!(error(&"0".repeat(66)), "key has 66 digits, expected 64");
        assert_eq!(error("00x0"), "key has 'x' at position 3, expected a hexadecimal digit");
        assert!(error("private:00").starts_with("this is a private key, expected a public key"));
    }

    #[test]
    fn both_ends_agree_and_weak_keys_are_refused() {
        let (a, b) = (PrivateKey::generate().unwrap(), PrivateKey::generate().unwrap());
        assert_eq!(a.agree(&b.public()).unwrap(), b.agree(&a.public()).unwrap());
        assert!(matches!(a.agree(&PublicKey([0; KEY_BYTES])), Err(KeyError::Weak { .. })));
        let mut one = [0; KEY_BYTES];
        one[0] = 1;
        assert!(matches!(a.agree(&PublicKey(one)), Err(KeyError::Weak { .. })));
    }

    /// Computed by another implementation.
    #[test]
    fn public_keys_are_those_of_the_standard() {
        let private = PrivateKey(std::array::from_fn(|position| position as u8 + 1));
        let expected = "07a37cbc142093c8b755dc1b10e86cb426374ad16aa853ed0bdfc0b2b86d1c7c";
        assert_eq!(private.public().to_string(), expected);
    }

    #[test]
    fn the_private_key_is_not_printed() {
        let key = PrivateKey([0xab; KEY_BYTES]);
        assert_eq!(format!("{key:?}"), "PrivateKey(…)");
    }

    #[test]
    fn a_key_file_is_private_and_survives() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("key");
        let key = PrivateKey::generate().unwrap();
        key.write_new(&path).unwrap();
        assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        assert_eq!(PrivateKey::read(&path).unwrap().public(), key.public());

        let other = PrivateKey::generate().unwrap();
        assert!(matches!(other.write_new(&path), Err(KeyError::File { action: "write it", .. })));
        assert_eq!(PrivateKey::read(&path).unwrap().public(), key.public(), "an existing key stays");
        other.write_replacing(&path).unwrap();
        assert_eq!(PrivateKey::read(&path).unwrap().public(), other.public());
        assert_eq!(std::fs::read_dir(directory.path()).unwrap().count(), 1, "nothing else is left");
    }

    #[test]
    fn a_key_file_that_others_may_read_is_refused() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("key");
        PrivateKey::generate().unwrap().write_new(&path).unwrap();
        for mode in [0o640, 0o604, 0o620, 0o610, 0o644, 0o602] {
            std::fs::set_permissions(&path, std::fs::Permissions::from_mode(mode)).unwrap();
            let error = PrivateKey::read(&path).unwrap_err();
            assert!(matches!(error, KeyError::Mode { mode: found, .. } if found == mode), "{error}");
        }
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o400)).unwrap();
        PrivateKey::read(&path).unwrap();
    }

    #[test]
    fn other_files_are_no_keys() {
        let directory = tempfile::tempdir().unwrap();
        assert!(matches!(PrivateKey::read(directory.path()), Err(KeyError::NotAFile { .. })));
        let path = directory.path().join("key");
        assert!(matches!(PrivateKey::read(&path), Err(KeyError::File { action: "open it", .. })));
        let public = PrivateKey::generate().unwrap().public().to_string();
        for content in ["", "private:", "private:00", &public, "\u{0}\u{ff}"] {
            std::fs::write(&path, content).unwrap();
            std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600)).unwrap();
            assert!(matches!(PrivateKey::read(&path), Err(KeyError::Content { .. })), "{content:?}");
        }
    }
}
