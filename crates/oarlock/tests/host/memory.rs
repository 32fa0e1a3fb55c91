//! What the sentinel keeps in memory: enough for a lapse, and not much more.

use std::fs;
use std::time::Duration;

use oarlock_core::sentinel::{Address, Notice, Request};

use super::rig::{Rig, guard};
use super::{Case, run};

pub const CASES: &[Case] =
    &[("sentinel_is_small", is_small), ("sentinel_needs_no_new_page_for_a_lapse", lapse_needs_no_new_page)];

/// Memory of a process that is backed by files, in KiB: its program and libraries. Counted page by
/// page, since the kernel's own sum lags behind.
fn file_kib(pid: u32) -> u64 {
    let maps = fs::read_to_string(format!("/proc/{pid}/smaps")).unwrap();
    let mut of_file = false;
    let mut sum_kib = 0;
    for line in maps.lines() {
        if let Some(rss) = line.strip_prefix("Rss:") {
            let rss_kib: u64 = rss.split_whitespace().next().unwrap().parse().unwrap();
            sum_kib += if of_file { rss_kib } else { 0 };
        } else if line.split_whitespace().next().is_some_and(|range| range.contains('-')) {
            of_file = line.contains('/');
        }
    }
    sum_kib
}

/// Half of what agent and sentinel may take together.
const SMALL_KIB: u64 = 5 * 1024;

fn is_small() {
    let rig = Rig::new();
    let program_kib = fs::metadata("/proc/self/exe").unwrap().len() / 1024;
    let kept_kib = file_kib(rig.holder().0);
    println!("  {kept_kib} KiB of a program of {program_kib} KiB");
    // An optimised program is small as a whole; the C library alone is 2 MiB of what is counted.
    assert!(kept_kib < (program_kib / 4).max(SMALL_KIB));
}

fn lapse_needs_no_new_page() {
    run("ip link add left type veth peer name right");
    run("ip link set left up");
    let mut rig = Rig::leased(Duration::from_millis(2500));
    rig.spawn("db", "exec sleep 1000", Some(guard()));
    let address = Address { interface: "left".into(), ip: "10.9.0.100".parse().unwrap(), prefix_bits: 24 };
    rig.done(Request::AddressUp { address, guard: Some(guard()) });
    let sentinel = rig.holder().0;
    let before = file_kib(sentinel);
    rig.notice("the silence", |notice| matches!(notice, Notice::Silenced { .. }).then_some(()));
    let after = file_kib(sentinel);
    println!("  {before} KiB before, {after} KiB after the lapse");
    assert_eq!(after, before);
}
