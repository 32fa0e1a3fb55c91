//! What is typed on the other machine.

use crate::keys::random_bytes;
use snow::params::HashChoice;
use snow::resolvers::{CryptoResolver, DefaultResolver};
use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::str::FromStr;

/// Length of the secret, in bytes.
pub const SECRET_BYTES: usize = 16;
const CHECK_BYTES: usize = 4;
const VERSION: u8 = 1;
/// Most addresses in a token: as many as a node has links.
const ADDRESSES_MAX: usize = 4;
/// Characters between two dashes.
const GROUP_CHARS: usize = 5;
/// Longest text that is looked at, in characters.
const TEXT_MAX_CHARS: usize = 400;
/// Crockford's base 32: no I, L, O or U, so that nothing is misread or reads as a word.
const DIGITS: &[u8; 32] = b"0123456789ABCDEFGHJKMNPQRSTVWXYZ";

/// Where to ask, and the secret to ask with.
#[derive(Clone, PartialEq, Eq)]
pub struct Token {
    /// Addresses of the inviting machine, one per link.
    pub addresses: Vec<IpAddr>,
    /// Its TCP port.
    pub port: u16,
    /// Known to both ends only.
    pub secret: [u8; SECRET_BYTES],
}

/// Why a text is not a token.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TokenError {
    /// Something in it that no token holds.
    #[error("token has {found:?} at position {position}")]
    Character {
        /// The character.
        found: char,
        /// Where, from 1.
        position: usize,
    },
    /// A slip of the pen, or a part is missing.
    #[error("token is incomplete or has a typing error")]
    Damaged,
    /// Made by another release.
    #[error("token is of version {found}, this release knows version {VERSION}")]
    Version {
        /// Its version.
        found: u8,
    },
}

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Token").field("addresses", &self.addresses).field("port", &self.port).finish_non_exhaustive()
    }
}

impl fmt::Display for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (position, digit) in to_digits(&self.to_bytes()).chars().enumerate() {
            if position > 0 && position % GROUP_CHARS == 0 {
                f.write_str("-")?;
            }
            write!(f, "{digit}")?;
        }
        Ok(())
    }
}

impl FromStr for Token {
    type Err = TokenError;

    fn from_str(text: &str) -> Result<Token, TokenError> {
        if text.chars().count() > TEXT_MAX_CHARS {
            return Err(TokenError::Damaged);
        }
        Token::from_bytes(&from_digits(text)?)
    }
}

impl Token {
    /// A token with a new random secret.
    pub fn generate(addresses: &[IpAddr], port: u16) -> Result<Token, crate::keys::KeyError> {
        let mut secret = [0; SECRET_BYTES];
        random_bytes(&mut secret)?;
        Ok(Token { addresses: addresses.iter().copied().take(ADDRESSES_MAX).collect(), port, secret })
    }

    fn to_bytes(&self) -> Vec<u8> {
        let count = |v4: bool| u8::try_from(self.addresses.iter().filter(|a| a.is_ipv4() == v4).count()).unwrap_or(0);
        let mut bytes = vec![VERSION, count(true) << 4 | count(false)];
        for address in &self.addresses {
            if let IpAddr::V4(v4) = address {
                bytes.extend_from_slice(&v4.octets());
            }
        }
        for address in &self.addresses {
            if let IpAddr::V6(v6) = address {
                bytes.extend_from_slice(&v6.octets());
            }
        }
        bytes.extend_from_slice(&self.port.to_be_bytes());
        bytes.extend_from_slice(&self.secret);
        let check = hash(b"oarlock token check", &bytes);
        bytes.extend_from_slice(&check[..CHECK_BYTES]);
        bytes
    }

    pub(crate) fn from_bytes(bytes: &[u8]) -> Result<Token, TokenError> {
        let (content, check) = bytes.split_last_chunk::<CHECK_BYTES>().ok_or(TokenError::Damaged)?;
        if hash(b"oarlock token check", content)[..CHECK_BYTES] != *check {
            return Err(TokenError::Damaged);
        }
        let (&[version, counts], mut rest) = content.split_first_chunk::<2>().ok_or(TokenError::Damaged)?;
        if version != VERSION {
            return Err(TokenError::Version { found: version });
        }
        let mut addresses = Vec::new();
        for _ in 0..counts >> 4 {
            let (octets, after) = rest.split_first_chunk::<4>().ok_or(TokenError::Damaged)?;
            addresses.push(IpAddr::V4(Ipv4Addr::from(*octets)));
            rest = after;
        }
        for _ in 0..counts & 0xf {
            let (octets, after) = rest.split_first_chunk::<16>().ok_or(TokenError::Damaged)?;
            addresses.push(IpAddr::V6(Ipv6Addr::from(*octets)));
            rest = after;
        }
        let (port, rest) = rest.split_first_chunk::<2>().ok_or(TokenError::Damaged)?;
        let secret = <[u8; SECRET_BYTES]>::try_from(rest).map_err(|_| TokenError::Damaged)?;
        Ok(Token { addresses, port: u16::from_be_bytes(*port), secret })
    }
}

/// BLAKE2s over a purpose and the data; different purposes give unrelated results.
pub fn hash(purpose: &[u8], data: &[u8]) -> [u8; 32] {
    let mut result = [0; 32];
    // The resolver is compiled in with this hash: a matter of the build, not of input.
    #[allow(clippy::expect_used)]
    let mut hash = DefaultResolver.resolve_hash(&HashChoice::Blake2s).expect("BLAKE2s is compiled in");
    hash.input(&[u8::try_from(purpose.len()).unwrap_or(u8::MAX)]);
    hash.input(purpose);
    hash.input(data);
    hash.result(&mut result);
    result
}

fn to_digits(bytes: &[u8]) -> String {
    let mut text = String::new();
    let (mut buffer, mut bits) = (0u32, 0);
    for byte in bytes {
        buffer = buffer << 8 | u32::from(*byte);
        bits += 8;
        while bits >= 5 {
            bits -= 5;
            text.push(char::from(DIGITS[(buffer >> bits & 31) as usize]));
        }
        buffer &= (1 << bits) - 1;
    }
    if bits > 0 {
        text.push(char::from(DIGITS[(buffer << (5 - bits) & 31) as usize]));
    }
    text
}

fn from_digits(text: &str) -> Result<Vec<u8>, TokenError> {
    let mut bytes = Vec::new();
    let (mut buffer, mut bits) = (0u32, 0);
    for (position, found) in text.chars().enumerate() {
        let digit = match found.to_ascii_uppercase() {
            '-' => continue,
            c if c.is_whitespace() => continue,
            'O' => b'0',
            'I' | 'L' => b'1',
            c if c.is_ascii() => c as u8,
            _ => return Err(TokenError::Character { found, position: position + 1 }),
        };
        let value = DIGITS.iter().position(|known| *known == digit);
        let value = value.ok_or(TokenError::Character { found, position: position + 1 })?;
        buffer = buffer << 5 | u32::try_from(value).unwrap_or(0);
        bits += 5;
        if bits >= 8 {
            bits -= 8;
            bytes.push((buffer >> bits & 0xff) as u8);
            buffer &= (1 << bits) - 1;
        }
    }
    // What is left over only fills the last digit.
    if buffer == 0 && bits < 5 { Ok(bytes) } else { Err(TokenError::Damaged) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn token() -> Token {
        Token {
            addresses: vec!["10.77.1.1".parse().unwrap(), "10.77.2.1".parse().unwrap(), "2001:db8::1".parse().unwrap()],
            port: 6701,
            secret: *b"0123456789abcdef",
        }
    }

    #[test]
    fn a_token_survives_being_written_down() {
        let text = token().to_string();
        assert_eq!(text.parse(), Ok(token()));
        assert_eq!(text.to_lowercase().replace('-', " ").replace('0', "o").replace('1', "l").parse(), Ok(token()));
        let usual = Token::generate(&["10.0.0.1".parse().unwrap(), "10.0.1.1".parse().unwrap()], 6701).unwrap();
        assert!(usual.to_string().len() <= 64, "{usual}");
    }

    #[test]
    fn every_single_slip_is_seen() {
        let text = token().to_string();
        for position in 0..text.len() {
            for digit in DIGITS {
                let mut slip = text.clone().into_bytes();
                if slip[position] == b'-' || slip[position] == *digit {
                    continue;
                }
                slip[position] = *digit;
                let slip = String::from_utf8(slip).unwrap();
                assert!(slip.parse::<Token>().is_err(), "{slip}");
            }
            assert!(text[..position].parse::<Token>().is_err());
        }
        assert_eq!("12U".parse::<Token>(), Err(TokenError::Character { found: 'U', position: 3 }));
        assert_eq!("".parse::<Token>(), Err(TokenError::Damaged));
        assert_eq!("0".repeat(10_000).parse::<Token>(), Err(TokenError::Damaged));
    }

    #[test]
    fn nothing_secret_is_shown() {
        assert!(!format!("{:?}", token()).contains("secret"));
    }
}
