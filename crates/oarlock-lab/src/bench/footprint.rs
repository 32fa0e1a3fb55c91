//! What the product costs while nothing happens: memory, processor time and heartbeats.

use crate::machine;
use crate::matrix::bed::Bed;
use crate::paths::write_atomically;
use anyhow::{Context, Result};
use serde::Serialize;
use std::path::PathBuf;
use std::thread::sleep;
use std::time::{Duration, Instant};

const COMMAND: Duration = Duration::from_secs(10);
/// Longest wait for a whole cluster.
const WHOLE: Duration = Duration::from_secs(60);
/// Counts what leaves by each link to the agents' port, IP headers included.
const COUNT: &str = "nft 'table ip lab_count { chain out { type filter hook output priority 0; \
    oifname \"eth1\" udp dport 6700 counter; oifname \"eth2\" udp dport 6700 counter; }; }'";
const COUNTED: &str = "nft list table ip lab_count";
const UNCOUNT: &str = "nft delete table ip lab_count";

/// Arguments of `bench footprint`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// For how long the idle cluster is watched, seconds
    #[arg(long, default_value_t = 60)]
    seconds: u64,
    /// Directory of the results
    #[arg(long, default_value = "docs/results")]
    results: PathBuf,
}

/// One host's figures.
#[derive(Debug, Serialize)]
struct Host {
    host: String,
    agent_pss_kib: u64,
    sentinel_pss_kib: u64,
    /// Of one core.
    agent_cpu_percent: f64,
    /// Of one core.
    sentinel_cpu_percent: f64,
    /// By each link, IP headers included, bytes per second.
    sent_bytes_per_s: Vec<f64>,
}

#[derive(Debug, Serialize)]
struct Footprint {
    schema: u32,
    machine: Vec<String>,
    build: String,
    variant: String,
    seconds: f64,
    binary_bytes: u64,
    hosts: Vec<Host>,
}

/// A host's counters at one instant.
struct Counters {
    at: Instant,
    agent_ticks: u64,
    sentinel_ticks: u64,
    sent_bytes: Vec<u64>,
}

/// Measures, prints and writes `footprint-TIMING.json` and `.md`.
pub fn main(args: &Args) -> Result<bool> {
    let bed = Bed::open()?;
    bed.until_whole(WHOLE)?;
    let hosts = bed.voters();
    for host in &hosts {
        bed.shell(host, COUNT, COMMAND)?;
    }
    let measured = watch(&bed, &hosts, Duration::from_secs(args.seconds));
    for host in &hosts {
        bed.shell(host, UNCOUNT, COMMAND)?;
    }
    let paths = bed.lab.paths();
    let program = paths.release("oarlock");
    let footprint = Footprint {
        schema: 1,
        machine: machine::facts(&paths.run)?,
        build: machine::build(paths)?,
        variant: bed.variant(),
        seconds: args.seconds as f64,
        binary_bytes: program.metadata().with_context(|| format!("look at {}", program.display()))?.len(),
        hosts: measured?,
    };
    let dir = paths.workspace.join(&args.results);
    std::fs::create_dir_all(&dir).with_context(|| format!("create {}", dir.display()))?;
    let base = dir.join(format!("footprint-{}", bed.shape.timing));
    write_atomically(&base.with_extension("json"), &format!("{}\n", serde_json::to_string_pretty(&footprint)?))?;
    let text = markdown(&footprint);
    write_atomically(&base.with_extension("md"), &text)?;
    print!("{text}");
    Ok(true)
}

fn watch(bed: &Bed, hosts: &[&str], pause: Duration) -> Result<Vec<Host>> {
    let begin: Vec<Counters> = hosts.iter().map(|host| counters(bed, host)).collect::<Result<_>>()?;
    sleep(pause);
    hosts.iter().zip(begin).map(|(host, begin)| figures(bed, host, &begin)).collect()
}

fn figures(bed: &Bed, host: &str, begin: &Counters) -> Result<Host> {
    let end = counters(bed, host)?;
    let (agent, sentinel) = bed.agent_and_sentinel(host)?;
    let seconds = end.at.duration_since(begin.at).as_secs_f64();
    let hertz = rustix::param::clock_ticks_per_second() as f64;
    let percent = |from: u64, to: u64| 100.0 * to.saturating_sub(from) as f64 / hertz / seconds;
    let sent = begin.sent_bytes.iter().zip(&end.sent_bytes);
    Ok(Host {
        host: host.to_owned(),
        agent_pss_kib: pss_kib(bed, host, agent)?,
        sentinel_pss_kib: pss_kib(bed, host, sentinel)?,
        agent_cpu_percent: percent(begin.agent_ticks, end.agent_ticks),
        sentinel_cpu_percent: percent(begin.sentinel_ticks, end.sentinel_ticks),
        sent_bytes_per_s: sent.map(|(from, to)| to.saturating_sub(*from) as f64 / seconds).collect(),
    })
}

fn counters(bed: &Bed, host: &str) -> Result<Counters> {
    let (agent, sentinel) = bed.agent_and_sentinel(host)?;
    let counted = bed.shell(host, COUNTED, COMMAND)?;
    Ok(Counters {
        at: Instant::now(),
        agent_ticks: ticks(bed, host, agent)?,
        sentinel_ticks: ticks(bed, host, sentinel)?,
        sent_bytes: bytes(&counted),
    })
}

/// Processor time of a process, user and system, in clock ticks (proc_pid_stat(5), fields 14 and 15).
fn ticks(bed: &Bed, host: &str, pid: i32) -> Result<u64> {
    let stat = bed.shell(host, &format!("cat /proc/{pid}/stat"), COMMAND)?;
    let fields: Vec<&str> = stat.rsplit(") ").next().unwrap_or_default().split_whitespace().collect();
    let field = |number: usize| fields.get(number - 3).and_then(|text| text.parse::<u64>().ok());
    let (user, system) = field(14).zip(field(15)).with_context(|| format!("processor time of {pid}: {stat:?}"))?;
    Ok(user + system)
}

fn pss_kib(bed: &Bed, host: &str, pid: i32) -> Result<u64> {
    let rollup = bed.shell(host, &format!("cat /proc/{pid}/smaps_rollup"), COMMAND)?;
    let line = rollup.lines().find_map(|line| line.strip_prefix("Pss:"));
    let value = line.and_then(|rest| rest.split_whitespace().next()?.parse().ok());
    value.with_context(|| format!("memory of process {pid} on {host}: {rollup:?}"))
}

/// The byte counters in a listed table, in the order of its rules.
fn bytes(listed: &str) -> Vec<u64> {
    let after = |line: &str| line.split(" bytes ").nth(1)?.split_whitespace().next()?.parse().ok();
    listed.lines().filter_map(after).collect()
}

fn markdown(footprint: &Footprint) -> String {
    use std::fmt::Write;
    let mut text = format!("# Footprint of an idle cluster: {}\n\n", footprint.variant);
    for fact in &footprint.machine {
        let _ = writeln!(text, "- {fact}");
    }
    let _ = writeln!(text, "- build {}, watched for {:.0} s", footprint.build, footprint.seconds);
    let _ = writeln!(text, "- program: {:.1} MB\n", footprint.binary_bytes as f64 / 1e6);
    text.push_str("| host | agent PSS | sentinel PSS | agent CPU | sentinel CPU | sent by link |\n");
    text.push_str("| --- | --- | --- | --- | --- | --- |\n");
    for host in &footprint.hosts {
        let sent: Vec<String> = host.sent_bytes_per_s.iter().map(|rate| format!("{rate:.0} B/s")).collect();
        let _ = writeln!(
            text,
            "| {} | {:.1} MB | {:.1} MB | {:.2} % | {:.2} % | {} |",
            host.host,
            host.agent_pss_kib as f64 / 1024.0,
            host.sentinel_pss_kib as f64 / 1024.0,
            host.agent_cpu_percent,
            host.sentinel_cpu_percent,
            sent.join(", ")
        );
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counters_are_read_in_order() {
        let listed = "table ip lab_count {\n\tchain out {\n\t\ttype filter hook output priority filter; policy accept;\n\
            \t\toifname \"eth1\" udp dport 6700 counter packets 3 bytes 300\n\
            \t\toifname \"eth2\" udp dport 6700 counter packets 2 bytes 222\n\t}\n}\n";
        assert_eq!(bytes(listed), [300, 222]);
    }
}
