//! `watchdog` in `[cluster]`: the hardware's, and what its time has to do with the others'.
//!
//! With L the lease, B the stop budget, d the drift: others start services at the earliest (L + B)(1 + d) after the
//! last renewal of a node. The watchdog is fed only while at least three quarters of a lease are left, so it
//! resets a node that stands still at the latest L/4 + W(1 + d) after that renewal. W must outlast a lease and what a
//! sentinel that is well needs to silence its node, or it would reset machines that nothing is wrong with.

use oarlock_core::config::Timing;
use oarlock_core::time::Span;

use super::problem::Problem;
use super::reader::Section;
use super::resource;

/// What a sentinel on a busy machine may take to silence its node once its lease has lapsed, in milliseconds.
const SILENCE_MS: u64 = 500;
/// The watchdog is fed with so many eighths of its timeout to go at the least.
const EIGHTHS: u64 = 7;

/// A hardware watchdog.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WatchdogSettings {
    /// Its device, an absolute path.
    pub device: String,
    /// It resets the machine when it was not fed for so long; whole seconds.
    pub timeout: Span,
    /// Only a lease that has at least so long to go feeds it.
    pub fresh: Span,
}

impl WatchdogSettings {
    fn new(device: String, timing: &Timing) -> WatchdogSettings {
        let lease_ms = timing.lease.as_ms();
        let timeout_ms = ((lease_ms + SILENCE_MS) * 8).div_ceil(EIGHTHS * 1000) * 1000;
        let fresh = Span::from_ms(lease_ms - lease_ms / 4);
        WatchdogSettings { device, timeout: Span::from_ms(timeout_ms), fresh }
    }

    /// From the last renewal of a node that stands still to its reset, at the latest.
    fn reset_ms(&self, timing: &Timing) -> u64 {
        timing.lease.as_ms() - self.fresh.as_ms() + timing.with_drift(self.timeout).as_ms()
    }

    /// The least stop budget with which the reset comes before anybody else starts a service, in milliseconds.
    #[must_use]
    pub fn stop_budget_ms(&self, timing: &Timing) -> u64 {
        let all_ms = (self.reset_ms(timing) * 1000).div_ceil(1000 + timing.drift_permille);
        all_ms.saturating_sub(timing.lease.as_ms())
    }
}

/// Reads it, if there is one, and says how long two machines could run a service.
pub fn read(section: &Section<'_>, timing: &Timing) -> Option<WatchdogSettings> {
    let path = resource::path(section, "watchdog")?;
    let settings = WatchdogSettings::new(path.display().to_string(), timing);
    let others_ms = timing.with_drift(Span::from_ms(timing.lease.as_ms() + timing.stop_budget.as_ms())).as_ms();
    let (reset_ms, needed_ms) = (settings.reset_ms(timing), settings.stop_budget_ms(timing));
    if timing.stop_budget.as_ms() < needed_ms {
        let text = format!(
            "a machine whose agent and sentinel stand still is reset up to {reset_ms} ms after its last renewal, while others \
             start its services and addresses after {others_ms} ms"
        );
        let hint = format!(
            "stop_budget_ms = {needed_ms} closes the gap, and every takeover of a service or address waits as long; data are \
             safe without"
        );
        section.reader.report(Problem::warning(section.line_of("watchdog"), text).hint(hint));
    }
    Some(settings)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_timeout_outlasts_a_lease_and_its_silencing() {
        for (timing, timeout_ms, stop_budget_ms) in
            [(Timing::FAST, 1000, 807), (Timing::BALANCED, 2000, 1228), (Timing::RELAXED, 7000, 3137)]
        {
            let watchdog = WatchdogSettings::new("/dev/watchdog".to_owned(), &timing);
            assert_eq!(watchdog.timeout.as_ms(), timeout_ms);
            assert_eq!(watchdog.stop_budget_ms(&timing), stop_budget_ms);
            // Fed an eighth of its timeout before the last renewal, it is still counting when silencing ends.
            assert!(timeout_ms * 7 / 8 >= timing.lease.as_ms() + SILENCE_MS);
            // With that budget the reset is first.
            let slow = Timing { stop_budget: Span::from_ms(stop_budget_ms), ..timing };
            let others = slow.with_drift(slow.lease + slow.stop_budget);
            assert!(watchdog.reset_ms(&slow) <= others.as_ms() + 1, "{timing:?}");
        }
    }
}
