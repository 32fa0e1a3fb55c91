//! Properties with an oracle: what must hold for any state, any order of events, any bytes.

// A property that cannot be checked ends the test; the core's purity does not bind its tests.
#![allow(clippy::expect_used, clippy::panic, clippy::disallowed_methods)]

use proptest::test_runner::Config;

mod any;
mod entries;
mod lease;
mod planner;
mod wire;

/// How many cases: `few`, or as many as `PROPTEST_CASES` says.
fn cases(few: u32) -> Config {
    let cases = std::env::var("PROPTEST_CASES").ok().and_then(|cases| cases.parse().ok()).unwrap_or(few);
    Config { cases, failure_persistence: None, ..Config::default() }
}
