//! The bytes on disk, and what they mean when they are found again.
//!
//! ```text
//! slot   magic 8 | store 16 | generation 8 | length 8 | hash 32 | record
//! mark   magic 8 | store 16 | generation 8 | hash of the record's slot 32 | hash 32
//! ```
//! Numbers are little-endian. Generation g lives in slot g mod 2 and in mark g mod 2. Generations 0 and 1 are blank and
//! are written at creation, so that from then on both slots and both marks hold something that can be checked.

use snow::params::HashChoice;
use snow::resolvers::{CryptoResolver, DefaultResolver};

use super::{Owner, StoreId};

/// Largest record.
pub const MAX_RECORD_BYTES: usize = SLOT_BYTES - SLOT_HEADER_BYTES;
/// First generation that holds a record; those before are blank.
pub const FIRST_RECORD: u64 = 2;
/// Each mark has a page of its own, so that writing one cannot tear the other.
pub const MARK_STRIDE: usize = 4096;
/// Length of the file of marks.
pub const MARKS_BYTES: usize = 2 * MARK_STRIDE;

const SLOT_BYTES: usize = 512 * 1024;
const SLOT_HEADER_BYTES: usize = 8 + 16 + 8 + 8 + HASH_BYTES;
const MARK_BYTES: usize = 8 + 16 + 8 + 2 * HASH_BYTES;
const HASH_BYTES: usize = 32;
const SLOT_MAGIC: &[u8; 8] = b"oarslot1";
const MARK_MAGIC: &[u8; 8] = b"oarmark1";

/// A checksum.
pub type Hash = [u8; HASH_BYTES];

/// Sizes of the files; smaller in tests.
#[derive(Debug, Clone, Copy)]
pub struct Layout {
    /// Length of each slot's file.
    pub slot_bytes: usize,
}

impl Default for Layout {
    fn default() -> Self {
        Self { slot_bytes: SLOT_BYTES }
    }
}

/// A slot that is whole.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Slot {
    /// Its generation.
    pub generation: u64,
    /// Its checksum.
    pub hash: Hash,
    /// The record.
    pub record: Vec<u8>,
}

/// A mark that is whole.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Mark {
    /// The generation that it commits.
    pub generation: u64,
    /// The checksum of that generation's slot.
    pub hash: Hash,
}

/// The bytes of a slot with this record, and its checksum.
pub fn encode_slot(store: StoreId, generation: u64, record: &[u8]) -> (Vec<u8>, Hash) {
    let mut bytes = Vec::with_capacity(SLOT_HEADER_BYTES + record.len());
    bytes.extend_from_slice(SLOT_MAGIC);
    bytes.extend_from_slice(&store.0);
    bytes.extend_from_slice(&generation.to_le_bytes());
    bytes.extend_from_slice(&(record.len() as u64).to_le_bytes());
    let hash = hash(&[&bytes, record]);
    bytes.extend_from_slice(&hash);
    bytes.extend_from_slice(record);
    (bytes, hash)
}

/// Reads a slot; `None` unless every byte is as it was written.
pub fn decode_slot(store: StoreId, bytes: &[u8]) -> Option<Slot> {
    let (header, rest) = bytes.split_at_checked(SLOT_HEADER_BYTES)?;
    let (head, expected) = header.split_last_chunk::<HASH_BYTES>()?;
    let body = head.strip_prefix(SLOT_MAGIC)?.strip_prefix(&store.0)?;
    let (generation, length) = body.split_first_chunk()?;
    let length = usize::try_from(u64::from_le_bytes(length.try_into().ok()?)).ok()?;
    let record = rest.get(..length)?;
    let slot = Slot { generation: u64::from_le_bytes(*generation), hash: *expected, record: record.to_vec() };
    (hash(&[head, record]) == slot.hash).then_some(slot)
}

/// The bytes of a mark.
pub fn encode_mark(store: StoreId, mark: Mark) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(MARK_BYTES);
    bytes.extend_from_slice(MARK_MAGIC);
    bytes.extend_from_slice(&store.0);
    bytes.extend_from_slice(&mark.generation.to_le_bytes());
    bytes.extend_from_slice(&mark.hash);
    let hash = hash(&[&bytes]);
    bytes.extend_from_slice(&hash);
    bytes
}

/// Reads a mark; `None` unless every byte is as it was written.
pub fn decode_mark(store: StoreId, bytes: &[u8]) -> Option<Mark> {
    let (head, expected) = bytes.get(..MARK_BYTES)?.split_last_chunk::<HASH_BYTES>()?;
    let body = head.strip_prefix(MARK_MAGIC)?.strip_prefix(&store.0)?;
    let (generation, commits) = body.split_first_chunk()?;
    let mark = Mark { generation: u64::from_le_bytes(*generation), hash: commits.try_into().ok()? };
    (hash(&[head]) == *expected).then_some(mark)
}

/// Which of the two slots and marks a generation uses.
pub fn place(generation: u64) -> usize {
    (generation % 2) as usize
}

/// Decides what was found: the newest slot, or why an acknowledged record may be lost.
///
/// A crash leaves exactly these traces: the slot being written is torn while its mark is still the one of two
/// generations ago, or that slot is whole and its mark is old or torn. Everything else is damage.
pub fn judge(slots: [Option<Slot>; 2], marks: [Option<Mark>; 2]) -> Result<Slot, String> {
    for place in 0..2 {
        let displaced = |generation: Option<u64>| generation.is_some_and(|generation| self::place(generation) != place);
        let slot = slots[place].as_ref();
        if displaced(slot.map(|slot| slot.generation)) || displaced(marks[place].map(|mark| mark.generation)) {
            return Err(format!("slot {place} or its mark holds what belongs in the other"));
        }
        match (slot, marks[place]) {
            (None, None) => return Err(format!("slot {place} and its mark are both damaged")),
            (Some(slot), Some(mark)) if slot.generation == mark.generation && slot.hash != mark.hash => {
                return Err(format!(
                    "slot {place} is not the one that was committed as generation {}",
                    mark.generation
                ));
            }
            _ => {}
        }
    }
    let committed = marks.iter().flatten().map(|mark| mark.generation).max();
    let newest = slots.into_iter().flatten().max_by_key(|slot| slot.generation);
    match (newest, committed) {
        (Some(slot), Some(committed)) if slot.generation >= committed => Ok(slot),
        (Some(slot), Some(committed)) => Err(format!(
            "generation {committed} was acknowledged but is damaged; the newest that is whole is {}",
            slot.generation
        )),
        (None, _) => Err("both slots are damaged".to_owned()),
        (_, None) => Err("both commit marks are damaged".to_owned()),
    }
}

/// How far the making of a store has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stage {
    /// Its files are being made; nothing was ever acknowledged.
    Making,
    /// It is in use.
    Ready,
}

const TITLE: &str = "oarlock store 1";

/// The text of the file that says whose store this is. It is meant to be read by people, too.
pub fn encode_identity(stage: Stage, id: StoreId, owner: &Owner) -> String {
    let stage = match stage {
        Stage::Making => "making",
        Stage::Ready => "ready",
    };
    let text = format!("{TITLE}\nstage {stage}\nid {id}\ncluster {}\nnode {}\n", owner.cluster, owner.node);
    let check = StoreId(head(hash(&[text.as_bytes()])));
    format!("{text}check {check}\n")
}

/// Reads that file; `None` unless every byte is as it was written.
pub fn decode_identity(text: &str) -> Option<(Stage, StoreId, Owner)> {
    let mut lines = text.lines().skip(1);
    let stage = match lines.next()?.strip_prefix("stage ")? {
        "making" => Stage::Making,
        "ready" => Stage::Ready,
        _ => return None,
    };
    let id = u128::from_str_radix(lines.next()?.strip_prefix("id ")?, 16).ok()?;
    let id = StoreId(id.to_be_bytes());
    let cluster = lines.next()?.strip_prefix("cluster ")?.to_owned();
    let node = lines.next()?.strip_prefix("node ")?.to_owned();
    let owner = Owner { cluster, node };
    (encode_identity(stage, id, &owner) == text).then_some((stage, id, owner))
}

#[allow(clippy::expect_used, reason = "the resolver is compiled in with this hash: a build matter, not input")]
fn hash(parts: &[&[u8]]) -> Hash {
    let mut hash = DefaultResolver.resolve_hash(&HashChoice::Blake2s).expect("BLAKE2s is compiled in");
    parts.iter().for_each(|part| hash.input(part));
    let mut out = [0; HASH_BYTES];
    hash.result(&mut out);
    out
}

fn head(hash: Hash) -> [u8; 16] {
    let mut head = [0; 16];
    head.copy_from_slice(&hash[..16]);
    head
}
