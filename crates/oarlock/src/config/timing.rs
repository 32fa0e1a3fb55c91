//! Times: presets, overrides, and the inequalities between them (SPECIFICATION, "timing").

use super::problem::Problem;
use super::reader::{Reader, Section};
use super::settings::Preset;
use oarlock_core::config::Timing;
use oarlock_core::time::Span;

/// Heartbeats that may be lost in a row without a false lapse. With three and a fifth of the
/// datagrams lost on one link, a false lapse is a matter of hours, not of minutes.
const LOSSES: u64 = 3;
/// One-way delay allowed for, in milliseconds: a LAN with room.
const DELAY_MS: u64 = 1;
/// Wake-up noise allowed for, in milliseconds: the 99th percentile measured with busy processors
/// and no real-time scheduling was 4.6.
const NOISE_MS: u64 = 5;
/// One fsync of our state, in milliseconds: a spinning disk.
const FSYNC_MS: u64 = 20;
/// From the death of an agent until the next one renews, in milliseconds.
const RESTART_MS: u64 = 50;
/// Fewer heartbeats than this in an election's time and a busy leader loses its office.
const HEARTBEATS_PER_ELECTION: u64 = 4;
/// Longest stop budget, in milliseconds: it is the time in which an old owner may serve stale reads.
const STOP_BUDGET_MAX_MS: u64 = 200;
/// Longest of any time, in milliseconds.
const TIME_MAX_MS: u64 = 60_000;

/// Reads the preset and its overrides.
pub fn read(reader: &Reader, section: &Section<'_>) -> (Preset, Timing) {
    let presets = [Preset::Fast, Preset::Balanced, Preset::Relaxed].map(|preset| (preset.name(), preset));
    let preset = section.choice("timing", &presets).map_or(Preset::Balanced, |preset| preset.value);
    let mut timing = preset.timing();
    let fields = [
        ("heartbeat_ms", &mut timing.heartbeat),
        ("lease_ms", &mut timing.lease),
        ("election_ms", &mut timing.election),
        ("stop_budget_ms", &mut timing.stop_budget),
    ];
    for (key, field) in fields {
        if let Some(number) = section.integer(key, 1..=TIME_MAX_MS) {
            *field = Span::from_ms(number.value);
        }
    }
    let line = ["lease_ms", "heartbeat_ms", "election_ms", "stop_budget_ms", "timing"]
        .into_iter()
        .find(|key| section.has(key))
        .map_or(section.line, |key| section.line_of(key));
    // What the watchdog's time demands is longer.
    let stop_budget_max_ms = if section.has("watchdog") { TIME_MAX_MS } else { STOP_BUDGET_MAX_MS };
    for problem in faults(&timing, line, stop_budget_max_ms) {
        reader.report(problem);
    }
    (preset, timing)
}

/// Which inequalities the times break.
fn faults(timing: &Timing, line: u32, stop_budget_max_ms: u64) -> Vec<Problem> {
    let (heartbeat, lease) = (timing.heartbeat.as_ms(), timing.lease.as_ms());
    let (election, stop_budget) = (timing.election.as_ms(), timing.stop_budget.as_ms());
    let mut faults = Vec::new();
    let needed =
        ((LOSSES + 1) * heartbeat + 2 * DELAY_MS + 2 * NOISE_MS).max(RESTART_MS + heartbeat + 2 * DELAY_MS + NOISE_MS);
    if lease < needed {
        faults.push(Problem::error(line, format!("lease_ms {lease} is too short for heartbeat_ms {heartbeat}")).hint(
            format!(
                "a lease that outlives {LOSSES} lost heartbeats and a restart of the agent needs lease_ms >= {needed}; \
                 or take a shorter heartbeat_ms"
            ),
        ));
    }
    let hidden = election + 4 * DELAY_MS + FSYNC_MS;
    if hidden > lease {
        faults.push(
            Problem::error(line, format!("election_ms {election} is too long for lease_ms {lease}"))
                .hint(format!("election_ms at most {}", lease.saturating_sub(4 * DELAY_MS + FSYNC_MS))),
        );
    }
    if election < HEARTBEATS_PER_ELECTION * heartbeat {
        faults.push(
            Problem::error(line, format!("election_ms {election} is too short for heartbeat_ms {heartbeat}"))
                .hint(format!("election_ms at least {}", HEARTBEATS_PER_ELECTION * heartbeat)),
        );
    }
    if stop_budget > stop_budget_max_ms {
        faults.push(
            Problem::error(line, format!("stop_budget_ms {stop_budget} is too long"))
                .hint(format!("at most {stop_budget_max_ms}: so long may an old owner serve stale reads")),
        );
    }
    faults
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn presets_keep_their_own_rules() {
        for preset in [Preset::Fast, Preset::Balanced, Preset::Relaxed] {
            assert_eq!(faults(&preset.timing(), 1, STOP_BUDGET_MAX_MS), vec![], "{}", preset.name());
        }
    }

    #[test]
    fn each_inequality_is_checked() {
        let ms = Span::from_ms;
        for (broken, word) in [
            (Timing { lease: ms(80), election: ms(50), heartbeat: ms(20), ..Timing::FAST }, "lease_ms 80"),
            (Timing { lease: ms(60), election: ms(30), heartbeat: ms(5), ..Timing::FAST }, "lease_ms 60"),
            (Timing { election: ms(240), ..Timing::FAST }, "election_ms 240 is too long"),
            (Timing { election: ms(60), ..Timing::FAST }, "election_ms 60 is too short"),
            (Timing { stop_budget: ms(300), ..Timing::FAST }, "stop_budget_ms 300"),
        ] {
            let faults = faults(&broken, 7, STOP_BUDGET_MAX_MS);
            assert!(faults.iter().any(|fault| fault.text.contains(word) && fault.line == 7), "{word}: {faults:?}");
        }
    }
}
