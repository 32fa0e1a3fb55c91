//! The checks themselves. A program of its own: what a panic prints takes memory, too.

use oarlock::fuzzing::{Meaning, Outcome};
use oarlock_fuzz::{TARGETS, Target};

/// What is found is only worth something when the check would see it.
#[test]
fn a_decoder_that_takes_too_much_or_forgets_is_caught() {
    let caught = |decode: fn(&[u8]) -> Outcome| {
        let target = Target { decode, ..TARGETS[0] };
        std::panic::catch_unwind(|| target.check(b"abc")).is_err()
    };
    assert!(!caught(|bytes| Ok(Meaning::Encoded(bytes.to_vec()))));
    assert!(caught(|_| Ok(Meaning::Read(format!("{}", vec![1_u8; 16 << 20].len())))), "memory");
    assert!(caught(|bytes| Ok(Meaning::Encoded([bytes, b"x"].concat()))), "another meaning");
    assert!(caught(|_| Err(String::new())), "no words");
    assert!(caught(|bytes| Ok(Meaning::Read(bytes[3].to_string()))), "panic");
}
