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

    /// The last of its domain is `gtid` from now on, if it is later.
    pub fn reach(&mut self, gtid: Gtid) {
        match self.0.iter_mut().find(|last| last.domain == gtid.domain) {
            Some(last) if last.sequence < gtid.sequence => *last = gtid,
            Some(_) => {}
            None => self.0.push(gtid),
        }
    }

    /// Whether a history whose last transaction of each server these are contains `gtid`.
    pub fn contains(&self, gtid: &Gtid) -> bool {
        let same = |last: &&Gtid| last.domain == gtid.domain && last.server == gtid.server;
        self.0.iter().find(same).is_some_and(|last| last.sequence >= gtid.sequence)
    }
}

impl std::fmt::Display for GtidList {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let parts: Vec<String> = self.0.iter().map(ToString::to_string).collect();
        f.write_str(&parts.join(","))
    }
}

/// A transaction in a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Transaction {
    /// Its number.
    pub gtid: Gtid,
    /// Where it begins, in bytes.
    pub offset: u64,
    /// All of it is there, its end included.
    pub whole: bool,
}

const MAGIC: [u8; 4] = [0xfe, b'b', b'i', b'n'];
const HEADER_BYTES: usize = 19;
const QUERY_EVENT: u8 = 2;
const XID_EVENT: u8 = 16;
const XA_PREPARE_EVENT: u8 = 38;
const GTID_EVENT: u8 = 162;
const START_ENCRYPTION_EVENT: u8 = 164;
const QUERY_COMPRESSED_EVENT: u8 = 165;
/// In a transaction's flags: the next statement is all of it.
const STANDALONE: u8 = 1;
/// A statement that ends a transaction is no longer than this with what surrounds it, in bytes.
const SHORT: u64 = 1024;

/// Calls `found` for every transaction in a file. Returns how many bytes of the file are whole events:
/// what comes after them is torn.
pub(super) fn transactions(path: &Path, mut found: impl FnMut(Transaction)) -> Result<u64> {
    let file = File::open(path).map_err(PgError::io("open", path))?;
    let failed = |error| MariaError::from(PgError::io("read", path)(error));
    let total = file.metadata().map_err(failed)?.len();
    let mut reader = BufReader::new(file);
    let mut magic = [0; MAGIC.len()];
    match reader.read_exact(&mut magic) {
        // Not even that was written.
        Err(error) if error.kind() == ErrorKind::UnexpectedEof => return Ok(0),
        other => other.map_err(failed)?,
    }
    if magic != MAGIC {
        return Err(MariaError::other(format!("{} is no log of MariaDB, or an encrypted one", path.display())));
    }
    let mut offset = MAGIC.len() as u64;
    let mut current: Option<(Transaction, bool)> = None;
    while let Some((kind, server, length)) = header(&mut reader, total - offset).map_err(failed)? {
        let rest = length - HEADER_BYTES as u64;
        // Enough to see whose it is, or that it is an end.
        let mut body = vec![0; usize::try_from(rest.min(SHORT)).unwrap_or(0)];
        reader.read_exact(&mut body).map_err(failed)?;
        match kind {
            START_ENCRYPTION_EVENT => {
                return Err(MariaError::other(format!("{} is encrypted: it cannot be looked at", path.display())));
            }
            GTID_EVENT if rest >= 13 => {
                if let Some((former, _)) = current.take() {
                    // Another begins only where one has ended.
                    found(Transaction { whole: true, ..former });
                }
                let sequence = u64::from(u32_at(&body, 0)) | (u64::from(u32_at(&body, 4)) << 32);
                let gtid = Gtid { domain: u32_at(&body, 8), server, sequence };
                current = Some((Transaction { gtid, offset, whole: false }, body[12] & STANDALONE != 0));
            }
            _ => {
                if let Some((transaction, standalone)) = &mut current {
                    transaction.whole |= ends(kind, *standalone, &body, rest);
                }
            }
        }
        let skip = i64::try_from(rest - body.len() as u64).map_err(|error| MariaError::other(error.to_string()))?;
        reader.seek_relative(skip).map_err(failed)?;
        offset += length;
    }
    if let Some((last, _)) = current {
        found(last);
    }
    Ok(offset)
}

/// Kind, server and length of the next event; `None` where no whole one follows in what is `left`.
fn header(reader: &mut impl Read, left: u64) -> std::io::Result<Option<(u8, u32, u64)>> {
    if left < HEADER_BYTES as u64 {
        return Ok(None);
    }
    let mut header = [0; HEADER_BYTES];
    reader.read_exact(&mut header)?;
    let length = u64::from(u32_at(&header, 9));
    let whole = (HEADER_BYTES as u64..=left).contains(&length);
    Ok(whole.then(|| (header[4], u32_at(&header, 5), length)))
}

/// Whether an event is the end of its transaction.
fn ends(kind: u8, standalone: bool, body: &[u8], rest: u64) -> bool {
    match kind {
        XID_EVENT | XA_PREPARE_EVENT => true,
        QUERY_EVENT | QUERY_COMPRESSED_EVENT if standalone => true,
        // The statement is the last thing but a checksum of 4 bytes, where there is one.
        QUERY_EVENT if rest <= SHORT => {
            let unchecked = body.get(..body.len().saturating_sub(4)).unwrap_or_default();
            let is = |word: &[u8]| [body, unchecked].iter().any(|body| body.ends_with(word));
            is(b"\0COMMIT") || is(b"\0ROLLBACK")
        }
        _ => false,
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

    fn read(bytes: &[u8]) -> Result<Vec<(String, u64, bool)>> {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("log");
        std::fs::write(&path, bytes).unwrap();
        let mut found = Vec::new();
        let sound = transactions(&path, |seen| found.push((seen.gtid.to_string(), seen.offset, seen.whole)))?;
        assert!(sound <= bytes.len() as u64);
        Ok(found)
    }

    #[test]
    fn transactions_are_found_and_a_torn_end_is_the_end() {
        let end = event(XID_EVENT, 17, &[0; 12]);
        let whole = [&MAGIC[..], &event(15, 1, &[0; 30]), &gtid(17, 1 << 33), &end, &gtid(18, 5), &end].concat();
        let second = 53 + 19 + 19 + 31;
        assert_eq!(read(&whole).unwrap(), [("0-17-8589934592".into(), 53, true), ("0-18-5".into(), second, true)]);
        // Torn in the end of the second, then in its beginning.
        assert_eq!(read(&whole[..whole.len() - 1]).unwrap()[1], ("0-18-5".into(), second, false));
        assert_eq!(read(&whole[..whole.len() - 32]).unwrap(), [("0-17-8589934592".into(), 53, true)]);
        assert_eq!(read(&whole[..2]).unwrap(), []);
        assert!(read(b"not a log at all").is_err());
        assert!(read(&[&MAGIC[..], &event(START_ENCRYPTION_EVENT, 1, &[0; 20])].concat()).is_err());
        // A length of nonsense.
        assert_eq!(read(&[&MAGIC[..], &[0; 40]].concat()).unwrap(), []);
    }

    #[test]
    fn ends_are_recognised() {
        let after = |flags: u8, kind: u8, body: &[u8]| {
            let mut first = gtid(17, 1);
            first[HEADER_BYTES + 12] = flags;
            read(&[&MAGIC[..], &first, &event(kind, 17, body)].concat()).unwrap()[0].2
        };
        assert!(after(0, XID_EVENT, b"12345678") && after(STANDALONE, QUERY_EVENT, b"drop table t"));
        assert!(after(0, QUERY_EVENT, b"db\0COMMIT") && after(0, QUERY_EVENT, b"db\0COMMITcrc4"));
        assert!(!after(0, QUERY_EVENT, b"db\0insert into t values ('COMMIT')") && !after(0, 23, b"rows"));
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
