//! The clocks of this machine.

use oarlock_core::time::Mono;
use rustix::time::{ClockId, clock_gettime};
use std::time::{SystemTime, UNIX_EPOCH};

/// The clock of leases: it also counts the time a machine was suspended, so that a lease has
/// lapsed on resume. The sentinel reads the same one.
pub fn now() -> Mono {
    let time = clock_gettime(ClockId::Boottime);
    Mono(time.tv_sec.unsigned_abs() * 1_000_000 + time.tv_nsec.unsigned_abs() / 1_000)
}

/// Milliseconds since 1970, for people.
pub fn unix_ms() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}
