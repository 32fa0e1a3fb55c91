//! The network between the servers: how long a packet takes, and others who fill it.

use crate::host::Running;
use crate::matrix::bed::Bed;
use anyhow::{Context, Result};
use std::process::Stdio;
use std::time::Duration;

const PROGRAM: &str = "/usr/sbin/oarlock-lab";
const PORT: u16 = 5_001;
const COMMAND: Duration = Duration::from_secs(15);
const COUNT: u32 = 40;

/// A network that others fill, until it is dropped.
pub struct Saturated<'a> {
    bed: &'a Bed,
    standby: String,
    _flood: Running,
    _sink: Running,
}

impl Saturated<'_> {
    /// Gives the cables to `standby` a capacity and fills them from `owner`.
    pub fn begin<'a>(bed: &'a Bed, owner: &str, standby: &str, mbit: u32) -> Result<Saturated<'a>> {
        bed.lab.limit(standby, Some(mbit))?;
        let there = bed.host(standby)?;
        let port = PORT.to_string();
        let sink = there.spawn(&[PROGRAM, "sink", &port], Stdio::null())?;
        bed.until("the receiver of the flood", COMMAND, || {
            bed.shell(standby, &format!("ss -Hltn sport = :{PORT} | grep -q LISTEN"), COMMAND)
        })?;
        let targets: Vec<String> =
            there.spec().links().iter().map(|link| format!("{}:{PORT}", there.spec().address(*link))).collect();
        let mut argv = vec![PROGRAM, "flood"];
        argv.extend(targets.iter().map(String::as_str));
        let flood = bed.host(owner)?.spawn(&argv, Stdio::null())?;
        bed.until("a filled network", COMMAND, || {
            let established = format!("ss -Htn dport = :{PORT} | grep -c ESTAB");
            bed.shell(owner, &established, COMMAND).map(drop)
        })?;
        Ok(Saturated { bed, standby: standby.to_owned(), _flood: flood, _sink: sink })
    }
}

impl Drop for Saturated<'_> {
    fn drop(&mut self) {
        if let Err(error) = self.bed.lab.limit(&self.standby, None) {
            eprintln!("the network stays limited: {error:#}");
        }
    }
}

/// Median time of a packet from `owner` to `standby` and back, milliseconds.
pub fn round_trip_ms(bed: &Bed, owner: &str, standby: &str) -> Result<f64> {
    let said = bed.shell(owner, &format!("ping -n -c {COUNT} -i 0.02 {standby}"), COMMAND)?;
    let mut times: Vec<f64> = said.lines().filter_map(parse).collect();
    times.sort_unstable_by(f64::total_cmp);
    times.get(times.len() / 2).copied().with_context(|| format!("ping said: {said}"))
}

fn parse(line: &str) -> Option<f64> {
    line.split(" time=").nth(1)?.split_whitespace().next()?.parse().ok()
}

/// Bytes that `host` has received on all its links.
pub fn received_bytes(bed: &Bed, host: &str) -> Result<u64> {
    let said = bed.shell(host, "cat /sys/class/net/eth*/statistics/rx_bytes", COMMAND)?;
    let numbers: Result<Vec<u64>, _> = said.split_whitespace().map(str::parse).collect();
    Ok(numbers.with_context(|| format!("byte counters of {host}: {said}"))?.iter().sum())
}

#[cfg(test)]
mod tests {
    #[test]
    fn the_time_of_a_reply_is_read() {
        assert_eq!(super::parse("64 bytes from 10.77.1.12: icmp_seq=1 ttl=64 time=0.049 ms"), Some(0.049));
        assert_eq!(super::parse("PING server2 (10.77.1.12) 56(84) bytes of data."), None);
    }
}
