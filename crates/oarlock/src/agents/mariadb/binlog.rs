//! What a binary log or relay log holds, read from the files themselves: the server need not run,
//! and what is torn at the end is simply the end.

use super::error::{MariaError, Result};
use crate::agents::postgresql::error::PgError;
use std::fs::File;
use std::io::{BufReader, ErrorKind, Read};
use std::path::{Path, PathBuf};

/// A transaction's number: unique, and rising within its domain.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Gtid {
    pub domain: u32,
    /// Of the server that wrote it first; each time as a primary is a server of its own here.
    pub server: u32,
    pub sequence: u64,
}

impl std::fmt::Display for Gtid {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}-{}-{}", self.domain, self.server, self.sequence)
    }
}

impl Gtid {
    fn parse(text: &str) -> Option<Gtid> {
        let mut numbers = text.trim().split('-');
        let gtid = Gtid {
            domain: numbers.next()?.parse().ok()?,
            server: numbers.next()?.parse().ok()?,
            sequence: numbers.next()?.parse().ok()?,
        };
        numbers.next().is_none().then_some(gtid)
    }
}

/// Several of them, as in the server's `gtid_…` variables.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub(super) struct GtidList(pub Vec<Gtid>);

impl GtidList {
    /// Reads `0-1-100,0-2-150`.
    pub fn parse(text: &str) -> Result<GtidList> {
        let parts = text.split(',').filter(|part| !part.trim().is_empty());
        let list: Option<Vec<Gtid>> = parts.map(Gtid::parse).collect();
        list.map(GtidList).ok_or_else(|| MariaError::other(format!("\"{text}\" is no list of transaction numbers")))
    }

    /// The highest sequence number of our domain, 0 when there is none.
    pub fn position(&self) -> u64 {
        self.0.iter().filter(|gtid| gtid.domain == 0).map(|gtid| gtid.sequence).max().unwrap_or(0)
    }

    /// Whether a history whose last transaction of each server these are contains `gtid`.
    pub fn contains(&self, gtid: &Gtid) -> bool {
        let same = |last: &&Gtid| last.domain == gtid.domain && last.server == gtid.server;
        self.0.iter().find(same).is_some_and(|last| last.sequence >= gtid.sequence)
    }
}

const MAGIC: [u8; 4] = [0xfe, b'b', b'i', b'n'];
const HEADER_BYTES: usize = 19;
const GTID_EVENT: u8 = 162;
const START_ENCRYPTION_EVENT: u8 = 164;

/// Calls `found` for every transaction in a file, with the offset at which it begins, in bytes.
pub(super) fn transactions(path: &Path, mut found: impl FnMut(Gtid, u64)) -> Result<()> {
    let file = File::open(path).map_err(PgError::io("open", path))?;
    let failed = |error| MariaError::from(PgError::io("read", path)(error));
    let mut reader = BufReader::new(file);
    let mut magic = [0; MAGIC.len()];
    match reader.read_exact(&mut magic) {
        // Not even that was written.
        Err(error) if error.kind() == ErrorKind::UnexpectedEof => return Ok(()),
        other => other.map_err(failed)?,
    }
    if magic != MAGIC {
        return Err(MariaError::other(format!("{} is no log of MariaDB, or an encrypted one", path.display())));
    }
    let mut offset = MAGIC.len() as u64;
    loop {
        let mut header = [0; HEADER_BYTES];
        match reader.read_exact(&mut header) {
            Err(error) if error.kind() == ErrorKind::UnexpectedEof => return Ok(()),
            other => other.map_err(failed)?,
        }
        let length = u64::from(u32_at(&header, 9));
        let Some(rest) = length.checked_sub(HEADER_BYTES as u64) else { return Ok(()) };
        let mut read = 0;
        match header[4] {
            START_ENCRYPTION_EVENT => {
                return Err(MariaError::other(format!("{} is encrypted: it cannot be looked at", path.display())));
            }
            GTID_EVENT if rest >= 12 => {
                let mut body = [0; 12];
                if reader.read_exact(&mut body).is_err() {
                    return Ok(());
                }
                read = 12;
                let low = u64::from(u32_at(&body, 0));
                let sequence = low | (u64::from(u32_at(&body, 4)) << 32);
                found(Gtid { domain: u32_at(&body, 8), server: u32_at(&header, 5), sequence }, offset);
            }
            _ => {}
        }
        let skip = i64::try_from(rest - read).map_err(|error| MariaError::other(error.to_string()))?;
        reader.seek_relative(skip).map_err(failed)?;
        offset += length;
    }
}

/// The files of a log, oldest first, as its index lists them.
pub(super) fn files(index: &Path) -> Result<Vec<PathBuf>, PgError> {
    let text = crate::agents::postgresql::files::read_optional(index)?.unwrap_or_default();
    let dir = index.parent().unwrap_or(Path::new("/"));
    // Named relative to the data directory or in full; after a clone the directory has moved.
    let name = |line: &str| Path::new(line.trim()).file_name().map(|name| dir.join(name));
    Ok(text.lines().filter_map(name).collect())
}

fn u32_at(bytes: &[u8], at: usize) -> u32 {
    let mut four = [0; 4];
    if let Some(part) = bytes.get(at..at + 4) {
        four.copy_from_slice(part);
    }
    u32::from_le_bytes(four)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn event(kind: u8, server: u32, body: &[u8]) -> Vec<u8> {
        let length = u32::try_from(HEADER_BYTES + body.len()).unwrap();
        let mut bytes = vec![0; 4];
        bytes.push(kind);
        bytes.extend_from_slice(&server.to_le_bytes());
        bytes.extend_from_slice(&length.to_le_bytes());
        bytes.extend_from_slice(&[0; 6]);
        bytes.extend_from_slice(body);
        bytes
    }

    fn gtid(server: u32, sequence: u64) -> Vec<u8> {
        let mut body = sequence.to_le_bytes().to_vec();
        body.extend_from_slice(&[0; 11]);
        event(GTID_EVENT, server, &body)
    }

    fn read(bytes: &[u8]) -> Result<Vec<(String, u64)>> {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("log");
        std::fs::write(&path, bytes).unwrap();
        let mut found = Vec::new();
        transactions(&path, |gtid, offset| found.push((gtid.to_string(), offset)))?;
        Ok(found)
    }

    #[test]
    fn transactions_are_found_and_a_torn_end_is_the_end() {
        let whole =
            [&MAGIC[..], &event(15, 1, &[0; 30]), &gtid(17, 1 << 33), &event(2, 17, b"x"), &gtid(18, 5)].concat();
        let both = vec![("0-17-8589934592".to_owned(), 53), ("0-18-5".to_owned(), 111)];
        assert_eq!(read(&whole).unwrap(), both);
        for cut in [1, 20, 30] {
            assert_eq!(read(&whole[..whole.len() - cut]).unwrap().len(), if cut < 8 { 2 } else { 1 }, "{cut}");
        }
        assert_eq!(read(&whole[..2]).unwrap(), []);
        assert!(read(b"not a log at all").is_err());
        assert!(read(&[&MAGIC[..], &event(START_ENCRYPTION_EVENT, 1, &[0; 20])].concat()).is_err());
        // A length of nonsense.
        assert_eq!(read(&[&MAGIC[..], &[0; 40]].concat()).unwrap(), []);
    }

    #[test]
    fn histories_are_compared() {
        let list = GtidList::parse("0-17-100, 0-33-150").unwrap();
        assert_eq!(list.position(), 150);
        let has = |server, sequence| list.contains(&Gtid { domain: 0, server, sequence });
        assert!(has(17, 100) && has(33, 120) && !has(17, 101) && !has(18, 1));
        assert_eq!(GtidList::parse("").unwrap().position(), 0);
        assert!(GtidList::parse("0-1").is_err() && GtidList::parse("a-b-c").is_err());
    }
}
