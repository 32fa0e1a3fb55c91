//! The stored form of a password (RFC 5802, RFC 7677), as PostgreSQL keeps it.
//!
//! The salt is made from the password, so that the same secret has the same stored form on every
//! node and a look at the catalogue tells whether it is in force. A salt hides equal passwords and
//! hinders tables of guesses; ours is random and used once, neither applies.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use hmac::{Hmac, KeyInit, Mac};
use sha2::{Digest, Sha256};

const ITERATIONS: u32 = 4096;

/// What `CREATE ROLE … PASSWORD` takes in place of the password itself (plain ASCII).
pub(super) fn verifier(password: &str) -> String {
    let salt = Sha256::digest([b"oarlock replication salt", password.as_bytes()].concat());
    verifier_with(password, &salt[..16])
}

fn verifier_with(password: &str, salt: &[u8]) -> String {
    let salted = stretch(password.as_bytes(), salt);
    let stored = Sha256::digest(mac(&salted, &[b"Client Key"]));
    let server = mac(&salted, &[b"Server Key"]);
    let encode = |bytes: &[u8]| STANDARD.encode(bytes);
    format!("SCRAM-SHA-256${ITERATIONS}:{}${}:{}", encode(salt), encode(&stored), encode(&server))
}

/// PBKDF2 with one block.
fn stretch(password: &[u8], salt: &[u8]) -> [u8; 32] {
    let mut last = mac(password, &[salt, &[0, 0, 0, 1]]);
    let mut all = last;
    for _ in 1..ITERATIONS {
        last = mac(password, &[&last]);
        for (sum, byte) in all.iter_mut().zip(last) {
            *sum ^= byte;
        }
    }
    all
}

fn mac(key: &[u8], parts: &[&[u8]]) -> [u8; 32] {
    // A key of any length is accepted; there is no error to be had.
    let Ok(mut mac) = Hmac::<Sha256>::new_from_slice(key) else { return [0; 32] };
    for part in parts {
        mac.update(part);
    }
    mac.finalize().into_bytes().into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn agrees_with_rfc_7677() {
        let salt = STANDARD.decode("W22ZaJ0SNY7soEsUEjb6gQ==").unwrap();
        assert_eq!(
            verifier_with("pencil", &salt),
            "SCRAM-SHA-256$4096:W22ZaJ0SNY7soEsUEjb6gQ==$\
             WG5d8oPm3OtcPnkdi4Uo7BkeZkBFzpcXkuLmtbsT4qY=:wfPLwcE6nTWhTAmQ7tl2KeoiWGPlZqQxSrmfPwDl2dU="
        );
    }

    #[test]
    fn is_the_same_every_time() {
        assert_eq!(verifier("abc"), verifier("abc"));
        assert_ne!(verifier("abc"), verifier("abd"));
    }
}
