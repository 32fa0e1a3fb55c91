//! Whether the list of connections may have changed, for a tenth of what the list costs.

use std::fs::File;
use std::io::Read;
use std::time::{Duration, Instant};

/// The kernel's counters of this network namespace.
const COUNTERS: &str = "/proc/thread-self/net/snmp";
/// More than they take.
const MAX_BYTES: usize = 8192;
/// Connections opened either way, and those that are established.
const NAMES: [&str; 3] = ["ActiveOpens", "PassiveOpens", "CurrEstab"];
/// The list is made anew after this even when nothing seems to have changed.
const AT_LEAST_EVERY: Duration = Duration::from_secs(2);

/// What was counted when the list was made.
///
/// Every connection that becomes established was counted as opened, and every one that ceases to be lowers the number
/// of those that are: with all three unchanged, the established ones are the same.
#[derive(Debug, Default)]
pub struct Turnover {
    known: Option<([u64; 3], Instant)>,
}

impl Turnover {
    /// Whether to make the list now; then it counts as made. Call it before the list is read, so that what comes
    /// meanwhile shows next time.
    pub fn is_due(&mut self) -> bool {
        let counted = read().and_then(|text| counters(&text));
        let same = |(known, at): (_, Instant)| Some(known) == counted && at.elapsed() < AT_LEAST_EVERY;
        let due = !self.known.is_some_and(same);
        if due {
            self.known = counted.map(|counted| (counted, Instant::now()));
        }
        due
    }

    /// The list could not be made.
    pub fn forget(&mut self) {
        self.known = None;
    }
}

/// At once: the kernel writes it all anew for every piece.
fn read() -> Option<String> {
    let mut text = vec![0; MAX_BYTES];
    let length = File::open(COUNTERS).and_then(|mut file| file.read(&mut text)).ok()?;
    text.truncate(length);
    String::from_utf8(text).ok()
}

/// `None` where they are not all there.
fn counters(text: &str) -> Option<[u64; 3]> {
    let mut lines = text.lines().filter_map(|line| line.strip_prefix("Tcp:"));
    let (names, values) = (lines.next()?, lines.next()?);
    let value = |wanted: &str| {
        let position = names.split_whitespace().position(|name| name == wanted)?;
        values.split_whitespace().nth(position)?.parse().ok()
    };
    let [active, passive, established] = NAMES.map(value);
    Some([active?, passive?, established?])
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::{TcpListener, TcpStream};

    #[test]
    fn the_counters_are_found_by_name() {
        let text = "Ip: Forwarding\nIp: 1\nTcp: MaxConn PassiveOpens ActiveOpens CurrEstab\nTcp: -1 3 2 9\n";
        assert_eq!(counters(text), Some([2, 3, 9]));
        assert_eq!(counters("Tcp: PassiveOpens CurrEstab\nTcp: 3 9\n"), None);
        assert_eq!(counters("Tcp: ActiveOpens PassiveOpens CurrEstab\nTcp: 1 2\n"), None);
        assert_eq!(counters(""), None);
    }

    #[test]
    fn a_connection_that_comes_or_goes_makes_the_list_due() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let mut turnover = Turnover::default();
        assert!(turnover.is_due(), "at first");
        let client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let server = listener.accept().unwrap();
        assert!(turnover.is_due(), "one came");
        drop((client, server));
        assert!(turnover.is_due(), "it went");
        turnover.forget();
        assert!(turnover.is_due(), "no list was made");
    }
}
