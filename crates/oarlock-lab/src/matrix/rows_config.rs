//! Row 26, the configuration's part: what an administrator's mistake does.

use super::Row;
use super::trial::Trial;
use super::verdict::Outage;
use anyhow::{Result, bail};
use std::time::Duration;

const COMMAND: Duration = Duration::from_secs(15);
/// Exit code of a refused configuration.
const USAGE: i32 = 2;

/// Three mistakes that nothing can excuse.
const BAD: &str = r#"
[cluster]
name = "lab"
timing = "hasty"

[[node]]
name = "server1"
links = ["10.77.1.299"]
key = "short"
"#;
/// A key is not repeated: it may be the private one.
const NAMED: [&str; 3] = ["hasty", "10.77.1.299", "is not a public key"];

/// The cases of this file.
pub const ROWS: &[Row] =
    &[Row::new("26 configuration", "a bad configuration applied", apply_bad).with(Outage::Unnoticed).stays()];

fn apply_bad(trial: &mut Trial<'_>) -> Result<()> {
    let owner = trial.owner.clone();
    let generation = trial.bed.cluster()?.generation;
    let host = trial.bed.host(&owner)?;
    host.exec_with_input(&["tee", "/tmp/bad.toml"], Some(BAD), COMMAND)?.ok()?;
    trial.mark("bad configuration applied");
    let outcome = host.exec(&["oarlock", "apply", "/tmp/bad.toml"], COMMAND)?;
    let code = outcome.status.code();
    trial.demand(code == Some(USAGE), || format!("exit code {code:?}, not {USAGE}"));
    for value in NAMED {
        let named = outcome.stderr.contains(value);
        trial.demand(named, || format!("the problem with {value:?} was not listed"));
    }
    trial.until_served(COMMAND)?;
    match trial.bed.cluster()?.generation {
        same if same == generation => Ok(()),
        other => bail!("the running configuration went from generation {generation} to {other}"),
    }
}
