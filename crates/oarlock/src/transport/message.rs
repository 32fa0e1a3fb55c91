//! Messages longer than a datagram: cut into chunks, sent in small bursts, repaired, put together again.
//!
//! The receiver asks for the chunks that it misses; the sender keeps the last few long messages for that. So a long
//! message arrives over a link that loses every third datagram. What could not be completed in time is dropped whole.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::packet::MAX_PLAIN_BYTES;

/// Largest message, in bytes.
pub const MAX_PAYLOAD_BYTES: usize = 256 * 1024;
/// What one datagram carries after the byte that tells its kind.
const MAX_CONTENT_BYTES: usize = MAX_PLAIN_BYTES - 1;
const CHUNK_HEADER_BYTES: usize = 8 + 2 + 2;
const CHUNK_BYTES: usize = MAX_CONTENT_BYTES - CHUNK_HEADER_BYTES;
const MAX_CHUNKS: usize = MAX_PAYLOAD_BYTES.div_ceil(CHUNK_BYTES);
const BITMAP_BYTES: usize = MAX_CHUNKS.div_ceil(8);

/// Long messages kept for repair, and in reassembly, per peer: one that arrives, and a few that overtake it.
const IN_FLIGHT: usize = 4;
/// Chunks sent in one go. A receive buffer of the usual 208 KiB holds about 90.
const BURST: usize = 16;
/// Between two bursts.
const PACE: Duration = Duration::from_millis(1);
/// A message is kept for repair, and waits for its chunks, this long after the last sign of progress.
const PATIENCE: Duration = Duration::from_secs(2);
/// The longest a receiver waits between two requests for repair.
const SLOWEST_REPAIR: Duration = Duration::from_millis(200);
/// Completed messages remembered, so that a chunk repaired twice does not begin its message anew.
const REMEMBERED: usize = 32;

/// One chunk, or the request for some, does not make sense although it is authentic.
#[derive(Debug, PartialEq, Eq)]
pub struct Misfit;

/// Long messages on their way out.
#[derive(Debug, Default)]
pub struct Outbound {
    next_id: u64,
    kept: VecDeque<Kept>,
    waiting: VecDeque<(u64, usize)>,
    due: Option<Instant>,
}

#[derive(Debug)]
struct Kept {
    id: u64,
    payload: Arc<[u8]>,
    until: Instant,
}

impl Outbound {
    /// Takes a long message; gives the number of older ones that it pushed out before they were sent whole.
    pub fn push(&mut self, now: Instant, payload: &[u8]) -> u64 {
        let id = self.next_id;
        self.next_id += 1;
        let mut unsent = 0;
        while self.kept.len() >= IN_FLIGHT
            && let Some(oldest) = self.kept.pop_front()
        {
            let before = self.waiting.len();
            self.waiting.retain(|(id, _)| *id != oldest.id);
            unsent += u64::from(self.waiting.len() < before);
        }
        self.kept.push_back(Kept { id, payload: payload.into(), until: now + PATIENCE });
        self.waiting.extend((0..payload.len().div_ceil(CHUNK_BYTES)).map(|index| (id, index)));
        self.due.get_or_insert(now);
        unsent
    }

    /// When to call [`Outbound::burst`] or [`Outbound::expire`] next.
    pub fn due(&self) -> Option<Instant> {
        let expiry = self.kept.iter().map(|kept| kept.until).min();
        self.due.into_iter().chain(expiry).min()
    }

    /// The chunks to send now, without the byte that tells their kind.
    pub fn burst(&mut self, now: Instant) -> Vec<Vec<u8>> {
        if self.due.is_none_or(|due| due > now) {
            return Vec::new();
        }
        let mut chunks = Vec::new();
        while chunks.len() < BURST
            && let Some((id, index)) = self.waiting.pop_front()
        {
            chunks.extend(self.kept.iter().find(|kept| kept.id == id).and_then(|kept| chunk(kept, index)));
        }
        self.due = (!self.waiting.is_empty()).then_some(now + PACE);
        chunks
    }

    /// Forgets what nobody asked for in a long time.
    pub fn expire(&mut self, now: Instant) {
        let waiting = &self.waiting;
        self.kept.retain_mut(|kept| {
            let is_waiting = waiting.iter().any(|(id, _)| *id == kept.id);
            if kept.until <= now && is_waiting {
                kept.until = now + PATIENCE;
            }
            kept.until > now
        });
    }

    /// Takes a request for repair.
    pub fn on_repair(&mut self, now: Instant, body: &[u8]) -> Result<(), Misfit> {
        let (id, bitmap) = body.split_first_chunk().ok_or(Misfit)?;
        let id = u64::from_le_bytes(*id);
        if bitmap.len() != BITMAP_BYTES {
            return Err(Misfit);
        }
        let Some(kept) = self.kept.iter_mut().find(|kept| kept.id == id) else {
            return Ok(());
        };
        kept.until = now + PATIENCE;
        let count = kept.payload.len().div_ceil(CHUNK_BYTES);
        for index in (0..count).filter(|index| bitmap[index / 8] >> (index % 8) & 1 == 1) {
            if !self.waiting.contains(&(id, index)) {
                self.waiting.push_back((id, index));
            }
        }
        if !self.waiting.is_empty() {
            self.due.get_or_insert(now);
        }
        Ok(())
    }
}

fn chunk(kept: &Kept, index: usize) -> Option<Vec<u8>> {
    let start = index * CHUNK_BYTES;
    let end = (start + CHUNK_BYTES).min(kept.payload.len());
    let bytes = kept.payload.get(start..end)?;
    let count = kept.payload.len().div_ceil(CHUNK_BYTES);
    let mut chunk = Vec::with_capacity(CHUNK_HEADER_BYTES + bytes.len());
    chunk.extend_from_slice(&kept.id.to_le_bytes());
    chunk.extend_from_slice(&(index as u16).to_le_bytes());
    chunk.extend_from_slice(&(count as u16).to_le_bytes());
    chunk.extend_from_slice(bytes);
    Some(chunk)
}

/// Long messages on their way in.
#[derive(Debug, Default)]
pub struct Inbound {
    partial: VecDeque<Partial>,
    completed: VecDeque<u64>,
    /// Messages given up.
    pub incomplete: u64,
}

#[derive(Debug)]
struct Partial {
    id: u64,
    chunks: Vec<Option<Box<[u8]>>>,
    missing: usize,
    until: Instant,
    repair_at: Instant,
    repair_after: Duration,
}

impl Inbound {
    /// Forgets everything: the peer's process is a new one and counts its messages anew.
    pub fn reset(&mut self) {
        self.incomplete += self.partial.len() as u64;
        self.partial.clear();
        self.completed.clear();
    }

    /// Takes a chunk; gives the message that it completes.
    pub fn on_chunk(&mut self, now: Instant, patience: Duration, body: &[u8]) -> Result<Option<Vec<u8>>, Misfit> {
        let (id, rest) = body.split_first_chunk().ok_or(Misfit)?;
        let (index, rest) = rest.split_first_chunk().ok_or(Misfit)?;
        let (count, bytes) = rest.split_first_chunk().ok_or(Misfit)?;
        let id = u64::from_le_bytes(*id);
        let (index, count) = (usize::from(u16::from_le_bytes(*index)), usize::from(u16::from_le_bytes(*count)));
        let last = index + 1 == count;
        let fits = if last { (1..=CHUNK_BYTES).contains(&bytes.len()) } else { bytes.len() == CHUNK_BYTES };
        if !fits || index >= count || !(2..=MAX_CHUNKS).contains(&count) {
            return Err(Misfit);
        }
        if self.completed.contains(&id) {
            return Ok(None);
        }
        let position = self.position(now, patience, id, count);
        let Some(partial) = self.partial.get_mut(position).filter(|partial| partial.chunks.len() == count) else {
            return Err(Misfit);
        };
        if let Some(slot @ None) = partial.chunks.get_mut(index) {
            *slot = Some(bytes.into());
            partial.missing -= 1;
            partial.progress(now, patience);
        }
        if partial.missing > 0 {
            return Ok(None);
        }
        Ok(self.partial.remove(position).and_then(|partial| self.complete(partial)))
    }

    /// Where the message `id` is put together; makes room for a new one.
    fn position(&mut self, now: Instant, patience: Duration, id: u64, count: usize) -> usize {
        if let Some(position) = self.partial.iter().position(|partial| partial.id == id) {
            return position;
        }
        while self.partial.len() >= IN_FLIGHT {
            self.partial.pop_front();
            self.incomplete += 1;
        }
        let mut partial = Partial {
            id,
            chunks: vec![None; count],
            missing: count,
            until: now,
            repair_at: now,
            repair_after: patience,
        };
        partial.progress(now, patience);
        self.partial.push_back(partial);
        self.partial.len() - 1
    }

    fn complete(&mut self, partial: Partial) -> Option<Vec<u8>> {
        if self.completed.len() >= REMEMBERED {
            self.completed.pop_front();
        }
        self.completed.push_back(partial.id);
        let mut payload = Vec::with_capacity(partial.chunks.len() * CHUNK_BYTES);
        for chunk in partial.chunks {
            payload.extend_from_slice(&chunk?);
        }
        Some(payload)
    }

    /// When to call [`Inbound::tick`] next.
    pub fn due(&self) -> Option<Instant> {
        self.partial.iter().map(|partial| partial.until.min(partial.repair_at)).min()
    }

    /// Gives up what waits too long; the requests for repair to send now.
    pub fn tick(&mut self, now: Instant) -> Vec<Vec<u8>> {
        let before = self.partial.len();
        self.partial.retain(|partial| partial.until > now);
        self.incomplete += (before - self.partial.len()) as u64;
        let due = self.partial.iter_mut().filter(|partial| partial.repair_at <= now);
        due.map(|partial| partial.request(now)).collect()
    }
}

impl Partial {
    fn progress(&mut self, now: Instant, patience: Duration) {
        self.until = now + PATIENCE;
        self.repair_after = patience;
        self.repair_at = now + patience;
    }

    fn request(&mut self, now: Instant) -> Vec<u8> {
        self.repair_after = (self.repair_after * 2).min(SLOWEST_REPAIR);
        self.repair_at = now + self.repair_after;
        let mut request = Vec::with_capacity(8 + BITMAP_BYTES);
        request.extend_from_slice(&self.id.to_le_bytes());
        let mut bitmap = [0_u8; BITMAP_BYTES];
        for index in (0..self.chunks.len()).filter(|index| self.chunks[*index].is_none()) {
            bitmap[index / 8] |= 1 << (index % 8);
        }
        request.extend_from_slice(&bitmap);
        request
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PATIENCE_MS: Duration = Duration::from_millis(20);

    /// A xorshift generator; the seed is the state.
    fn random(state: &mut u64) -> u64 {
        *state ^= *state << 13;
        *state ^= *state >> 7;
        *state ^= *state << 17;
        *state
    }

    /// An authentic peer gone mad: no panic, and no more memory than a few messages.
    #[test]
    fn any_content_is_survived_within_bounds() {
        let (mut inbound, mut outbound) = (Inbound::default(), Outbound::default());
        let mut state = 1;
        let mut now = Instant::now();
        for round in 0..200_000_u64 {
            let pick = random(&mut state);
            let id = pick % 7;
            let (index, count) = ((pick >> 8) as u16 % 300, (pick >> 24) as u16 % 300);
            let length = if pick & 1 == 0 { CHUNK_BYTES } else { (pick >> 40) as usize % (CHUNK_BYTES + 50) };
            let mut body = id.to_le_bytes().to_vec();
            body.extend_from_slice(&index.to_le_bytes());
            body.extend_from_slice(&count.to_le_bytes());
            body.resize(body.len() + length, round as u8);
            body.truncate(if pick.is_multiple_of(50) { (pick >> 50) as usize % 20 } else { body.len() });
            let payload = inbound.on_chunk(now, PATIENCE_MS, &body).ok().flatten();
            assert!(payload.is_none_or(|payload| payload.len() <= MAX_CHUNKS * CHUNK_BYTES));
            if round % 1000 == 0 {
                outbound.push(now, &vec![0; (pick >> 33) as usize % MAX_PAYLOAD_BYTES]);
            }
            outbound.on_repair(now, &body[..body.len().min(8 + BITMAP_BYTES)]).ok();
            if round % 10 == 0 {
                now += Duration::from_millis(pick % 30);
                assert!(inbound.tick(now).len() <= IN_FLIGHT);
                assert!(outbound.burst(now).len() <= BURST);
                outbound.expire(now);
            }
            assert!(inbound.partial.len() <= IN_FLIGHT && inbound.completed.len() <= REMEMBERED);
            assert!(outbound.kept.len() <= IN_FLIGHT && outbound.waiting.len() <= IN_FLIGHT * MAX_CHUNKS);
        }
    }

    #[test]
    fn what_is_never_completed_is_given_up() {
        let now = Instant::now();
        let (mut inbound, mut outbound) = (Inbound::default(), Outbound::default());
        outbound.push(now, &[0; 5000]);
        let chunks = outbound.burst(now);
        assert_eq!(inbound.on_chunk(now, PATIENCE_MS, &chunks[0]), Ok(None));
        let mut asked = 0;
        let mut at = now;
        while let Some(due) = inbound.due() {
            assert!(due > at || asked == 0, "no busy loop");
            at = due;
            asked += inbound.tick(at).len();
        }
        assert!((5..20).contains(&asked), "asked {asked} times");
        assert!(at >= now + PATIENCE && inbound.incomplete == 1);
        while let Some(due) = outbound.due() {
            outbound.burst(due);
            outbound.expire(due);
        }
        assert!(outbound.kept.is_empty());
    }

    #[test]
    fn a_newer_long_message_pushes_out_the_oldest() {
        let now = Instant::now();
        let mut outbound = Outbound::default();
        let unsent: u64 = (0..6).map(|_| outbound.push(now, &[0; MAX_PAYLOAD_BYTES])).sum();
        assert_eq!(unsent, 2);
        assert_eq!(outbound.waiting.len(), IN_FLIGHT * MAX_CHUNKS);
    }
}
