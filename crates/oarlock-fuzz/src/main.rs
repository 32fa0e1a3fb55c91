//! One target under libFuzzer: `OARLOCK_FUZZ_TARGET=NAME oarlock-fuzz CORPUS… -max_total_time=60`.
#![no_main]
#![allow(unsafe_code, reason = "the macro makes the function that libFuzzer calls")]

use libfuzzer_sys::fuzz_target;
use oarlock_fuzz::Target;
use std::sync::OnceLock;

static CHOSEN: OnceLock<&'static Target> = OnceLock::new();

fn choose() -> &'static Target {
    let name = std::env::var("OARLOCK_FUZZ_TARGET").unwrap_or_default();
    let Some(target) = Target::named(&name) else {
        eprintln!("no target \"{name}\"; hint: cargo xtask fuzz --list");
        std::process::exit(2);
    };
    target
}

fuzz_target!(init: { let _ = CHOSEN.set(choose()); }, |bytes: &[u8]| {
    CHOSEN.get_or_init(choose).check(bytes);
});
