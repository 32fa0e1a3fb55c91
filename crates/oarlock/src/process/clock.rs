//! The clock by which leases are counted.

use rustix::time::{ClockId, clock_gettime};

/// Microseconds since boot on `CLOCK_BOOTTIME`.
///
/// It goes on while the machine is suspended, so that a machine that wakes up finds its lease
/// lapsed; `CLOCK_MONOTONIC` would stand still. It is slewed by NTP as that one is, which the
/// protocol's clock drift of 10 % covers, and it never steps. A hypervisor's pause freezes both.
#[must_use]
pub fn boot_us() -> u64 {
    let now = clock_gettime(ClockId::Boottime);
    let (seconds, nanoseconds) = (now.tv_sec.cast_unsigned(), now.tv_nsec.cast_unsigned());
    seconds * 1_000_000 + nanoseconds / 1_000
}

#[cfg(test)]
mod tests {
    #[test]
    fn time_goes_on() {
        let first = super::boot_us();
        let second = super::boot_us();
        assert!(first > 0 && second >= first);
    }
}
