//! The replay window: every datagram of a session is taken once, however many links bring it.

/// Counters remembered behind the highest one seen. Two links that differ by 200 ms at 10 datagrams per millisecond
/// are still merged.
pub const WINDOW: u64 = 2048;

/// What the window knows about a counter.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Seen {
    /// Not seen: authenticate it, then [`Window::mark`] it.
    Never,
    /// Seen, but not yet on this link: the copy that was sent on the other link.
    OnOtherLink,
    /// Seen on this link, or too old to know.
    Before,
}

/// Which counters were taken, and by which links they came (one bit each).
#[derive(Debug)]
pub struct Window {
    next: u64,
    links: Box<[u8; WINDOW as usize]>,
}

impl Window {
    /// A window that has seen nothing.
    pub fn new() -> Self {
        Self { next: 0, links: Box::new([0; WINDOW as usize]) }
    }

    /// Whether `counter` was seen; notes that it also came by `link`.
    pub fn check(&mut self, counter: u64, link: usize) -> Seen {
        if counter >= self.next {
            return Seen::Never;
        }
        if self.next - counter > WINDOW {
            return Seen::Before;
        }
        let links = self.slot(counter);
        let before = *links;
        if before == 0 {
            return Seen::Never;
        }
        *links |= bit(link);
        if before & bit(link) == 0 { Seen::OnOtherLink } else { Seen::Before }
    }

    /// Takes `counter`, which has authenticated, as seen.
    pub fn mark(&mut self, counter: u64, link: usize) {
        // A counter of u64::MAX is never sent: the session is long renewed by then.
        let beyond = counter.saturating_add(1);
        if beyond > self.next {
            let passed = (beyond - self.next).min(WINDOW);
            for skipped in beyond - passed..beyond {
                *self.slot(skipped) = 0;
            }
            self.next = beyond;
        }
        *self.slot(counter) |= bit(link);
    }

    fn slot(&mut self, counter: u64) -> &mut u8 {
        &mut self.links[(counter % WINDOW) as usize]
    }
}

fn bit(link: usize) -> u8 {
    1 << (link % 8)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn take(window: &mut Window, counter: u64) -> bool {
        let fresh = window.check(counter, 0) == Seen::Never;
        if fresh {
            window.mark(counter, 0);
        }
        fresh
    }

    #[test]
    fn takes_each_counter_once_in_any_order() {
        let mut window = Window::new();
        for counter in [0, 5, 3, 4, 2000, 1, 2, 1999] {
            assert!(take(&mut window, counter), "{counter}");
            assert!(!take(&mut window, counter), "{counter} again");
        }
    }

    #[test]
    fn refuses_what_has_left_the_window() {
        let mut window = Window::new();
        assert!(take(&mut window, 10_000));
        assert!(!take(&mut window, 10_000 - WINDOW));
        assert!(take(&mut window, 10_001 - WINDOW));
        assert!(take(&mut window, 20_000_000));
        assert!(!take(&mut window, 10_002));
    }

    #[test]
    fn tells_the_other_link_from_a_replay() {
        let mut window = Window::new();
        window.mark(7, 0);
        assert_eq!(window.check(7, 1), Seen::OnOtherLink);
        assert_eq!(window.check(7, 1), Seen::Before);
        assert_eq!(window.check(7, 0), Seen::Before);
    }

    /// Against the obvious but unbounded model, over many pseudo-random walks.
    #[test]
    fn agrees_with_a_set_of_all_counters() {
        let mut state = 1_u64;
        let mut window = Window::new();
        let mut taken = std::collections::BTreeSet::new();
        let mut base = 0_u64;
        for _ in 0..200_000 {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            let step = state >> 33;
            base += if step.is_multiple_of(97) { step % 3000 } else { step % 3 };
            let counter = base.saturating_sub(step / 7 % 2500);
            let highest = taken.last().copied();
            let too_old = highest.is_some_and(|highest| counter + WINDOW <= highest);
            let expected = !too_old && !taken.contains(&counter);
            assert_eq!(take(&mut window, counter), expected, "counter {counter}, highest {highest:?}");
            if expected {
                taken.insert(counter);
            }
        }
    }
}
