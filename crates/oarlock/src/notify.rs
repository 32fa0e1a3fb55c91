//! Telling the service manager how we are (the protocol of `sd_notify`): one datagram to a socket
//! whose name is in the environment. Without a service manager nothing is told and nothing fails.

use std::io;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::time::Duration;

/// Variable with the socket's path, or its abstract name after an `@`.
const SOCKET: &str = "NOTIFY_SOCKET";
/// Variable with the time after which a silent process is killed, in microseconds.
const WATCHDOG: &str = "WATCHDOG_USEC";

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

/// "I am alive"; to be told several times within [`watchdog_interval`].
pub fn alive() {
    tell("WATCHDOG=1");
}

/// After this long without [`alive`] the service manager kills us; `None`: it does not.
pub fn watchdog_interval() -> Option<Duration> {
    let micros = std::env::var(WATCHDOG).ok()?.parse().ok()?;
    Some(Duration::from_micros(micros))
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
    fn a_status_stays_one_line() {
        assert_eq!(one_line("a\nREADY=1"), "a READY=1");
    }
}
