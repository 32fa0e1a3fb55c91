//! The kernel's watchdog device.
#![allow(unsafe_code)] // two requests that no safe wrapper knows; each says why it is sound

use std::ffi::c_int;
use std::fs::File;
use std::io::{self, Write};
use std::os::fd::AsRawFd;

use super::Device;

/// `WDIOC_SETOPTIONS`, `_IOR('W', 4, int)`.
const SET_OPTIONS: u64 = 0x8004_5704;
/// `WDIOC_SETTIMEOUT`, `_IOWR('W', 6, int)`: seconds; answers with those that were set.
const SET_TIMEOUT: u64 = 0xc004_5706;
/// `WDIOS_DISABLECARD`.
const DISABLE: c_int = 1;
/// Any byte feeds; this one, last before the device is closed, means that closing stops it.
const MAGIC: &[u8] = b"V";

struct Card(File);

/// Opens the device, which starts it.
pub(in crate::sentinel) fn open(path: &str, timeout_s: u32) -> io::Result<Box<dyn Device>> {
    let mut card = Card(File::options().write(true).open(path)?);
    let set = card.request(SET_TIMEOUT, c_int::try_from(timeout_s).unwrap_or(c_int::MAX));
    if set.as_ref().ok().is_some_and(|set| u32::try_from(*set) == Ok(timeout_s)) {
        return Ok(Box::new(card));
    }
    // Left to itself it would reset the machine.
    let stopped = card.stop();
    let set = set?;
    let still = if stopped.is_err() { ", nor can it be stopped" } else { "" };
    Err(io::Error::other(format!("it has a timeout of {set} s instead of {timeout_s} s{still}")))
}

impl Card {
    fn request(&self, request: u64, mut value: c_int) -> io::Result<c_int> {
        // SAFETY: the descriptor is open, both requests read and write one int, and it outlives the call.
        let done = unsafe { libc::ioctl(self.0.as_raw_fd(), request, &raw mut value) };
        if done < 0 { Err(io::Error::last_os_error()) } else { Ok(value) }
    }
}

impl Device for Card {
    fn feed(&mut self) -> io::Result<()> {
        self.0.write_all(b"\0")
    }

    fn stop(&mut self) -> io::Result<()> {
        // Asked first: closing tells nobody whether it was stopped.
        self.request(SET_OPTIONS, DISABLE)?;
        self.0.write_all(MAGIC)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_that_is_no_watchdog_is_refused() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let refused = open(file.path().to_str().unwrap(), 5).err().unwrap();
        assert_eq!(refused.raw_os_error(), Some(libc::ENOTTY));
        assert!(open("/no/such/device", 5).is_err());
    }
}
