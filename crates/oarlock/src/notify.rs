//! Telling the service manager how we are (the protocol of `sd_notify`): one datagram to a socket
//! whose name is in the environment. Without a service manager nothing is told and nothing fails.

use std::io;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};

/// Variable with the socket's path, or its abstract name after an `@`.
const SOCKET: &str = "NOTIFY_SOCKET";
/// Variable with the time after which a silent process is killed, in microseconds.
const WATCHDOG: &str = "WATCHDOG_USEC";
/// Variable with the number of the process that is watched.
const WATCHED: &str = "WATCHDOG_PID";

/// "I am ready", with a line for `systemctl status`.
pub fn ready(status: &str) {
    tell(&format!("READY=1\nSTATUS={}", one_line(status)));
}

/// A line for `systemctl status`.
pub fn status(status: &str) {
    tell(&format!("STATUS={}", one_line(status)));
}

/// "I am on my way out."
pub fn stopping() {
    tell("STOPPING=1");
}

/// "I am alive", said often enough for a service manager that kills who does not say so.
#[derive(Debug, Default)]
pub struct Watchdog {
    /// Between two signs of life, in microseconds; `None`: nobody watches this process.
    every_us: Option<u64>,
    next_us: u64,
}

impl Watchdog {
    /// As the service manager told this process (and not one before it, whose variables it has).
    pub fn from_env() -> Watchdog {
        let variable = |name: &str| std::env::var(name).ok();
        Watchdog::new(variable(WATCHDOG).as_deref(), variable(WATCHED).as_deref(), std::process::id())
    }

    fn new(usec: Option<&str>, pid: Option<&str>, own: u32) -> Watchdog {
        let ours = pid.is_none_or(|pid| pid.parse() == Ok(own));
        let after_us: Option<u64> = usec.and_then(|usec| usec.parse().ok()).filter(|after_us| ours && *after_us > 0);
        // Three may be late before the fourth is too late.
        Watchdog { every_us: after_us.map(|after_us| (after_us / 4).max(1)), next_us: 0 }
    }

    /// When [`Watchdog::pet`] is to be called next.
    pub fn due_us(&self) -> Option<u64> {
        self.every_us.map(|_| self.next_us)
    }

    /// Says so if it is time. Never waits.
    pub fn pet(&mut self, now_us: u64) {
        if let Some(every_us) = self.every_us
            && now_us >= self.next_us
        {
            tell("WATCHDOG=1");
            self.next_us = now_us + every_us;
        }
    }
}

fn one_line(text: &str) -> String {
    text.replace('\n', " ")
}

fn tell(message: &str) {
    let Some(name) = std::env::var_os(SOCKET) else { return };
    if let Err(error) = send(name.as_bytes(), message) {
        tracing::debug!("cannot tell the service manager: {error}");
    }
}

fn send(name: &[u8], message: &str) -> io::Result<()> {
    let address = match name.strip_prefix(b"@") {
        Some(name) => SocketAddr::from_abstract_name(name)?,
        None => SocketAddr::from_pathname(std::ffi::OsStr::from_bytes(name))?,
    };
    let socket = UnixDatagram::unbound()?;
    // A service manager that does not read must not stop us.
    socket.set_nonblocking(true)?;
    socket.send_to_addr(message.as_bytes(), &address).map(drop)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_kinds_of_names_are_reached() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("notify");
        let socket = UnixDatagram::bind(&path).unwrap();
        send(path.as_os_str().as_bytes(), "READY=1\nSTATUS=x").unwrap();
        let mut buffer = [0; 64];
        let bytes = socket.recv(&mut buffer).unwrap();
        assert_eq!(&buffer[..bytes], b"READY=1\nSTATUS=x");

        let name = format!("oarlock-test-{}", std::process::id());
        let socket = UnixDatagram::bind_addr(&SocketAddr::from_abstract_name(&name).unwrap()).unwrap();
        send(format!("@{name}").as_bytes(), "STOPPING=1").unwrap();
        let bytes = socket.recv(&mut buffer).unwrap();
        assert_eq!(&buffer[..bytes], b"STOPPING=1");
        assert!(send(b"/nonexistent/notify", "x").is_err());
    }

    #[test]
    fn only_who_is_watched_says_that_it_is_alive() {
        assert_eq!(Watchdog::new(Some("4000"), Some("7"), 7).due_us(), Some(0));
        assert_eq!(Watchdog::new(Some("4000"), None, 7).due_us(), Some(0));
        for (usec, pid) in [(None, Some("7")), (Some("4000"), Some("8")), (Some("0"), None), (Some("x"), None)] {
            assert_eq!(Watchdog::new(usec, pid, 7).due_us(), None);
        }
        let mut watchdog = Watchdog::new(Some("4000"), None, 7);
        watchdog.pet(500);
        assert_eq!(watchdog.due_us(), Some(1500));
        watchdog.pet(1499);
        assert_eq!(watchdog.due_us(), Some(1500));
    }

    #[test]
    fn a_status_stays_one_line() {
        assert_eq!(one_line("a\nREADY=1"), "a READY=1");
    }
}
