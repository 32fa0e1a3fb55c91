//! Batch jobs as the ordinary user sees them: submitted at the frontend, run on the node.

use crate::host::Host;
use anyhow::{Context, Result, bail};
use std::thread::sleep;
use std::time::{Duration, Instant};

/// The ordinary user.
pub const USER: &str = "alice";
/// An OAR command may wait for the service address, and must not wait for ever.
const COMMAND: Duration = Duration::from_secs(90);
const LOOK: Duration = Duration::from_millis(300);

/// Submits a job and returns its number.
pub fn submit(frontend: &Host, command: &str) -> Result<String> {
    let said = frontend.run_as(USER, &format!("oarsub '{command}'"), COMMAND)?;
    job_number(&said).with_context(|| format!("oarsub named no job: {said}"))
}

fn job_number(said: &str) -> Option<String> {
    said.lines().find_map(|line| line.strip_prefix("OAR_JOB_ID=")).map(str::to_owned)
}

/// The state of a job, as OAR calls it.
pub fn state(frontend: &Host, job: &str) -> Result<String> {
    let said = frontend.run_as(USER, &format!("oarstat --state -j {job}"), COMMAND)?;
    said.rsplit(": ").next().map(|s| s.trim().to_owned()).with_context(|| format!("oarstat named no state: {said}"))
}

/// Waits until a job is in the wanted state. A job in Error never will be.
pub fn until(frontend: &Host, job: &str, wanted: &str, deadline: Duration) -> Result<()> {
    let end = Instant::now() + deadline;
    loop {
        // While the database is away OAR's commands fail; that is waited out as well.
        let found = state(frontend, job).unwrap_or_else(|error| format!("not to be asked ({error:#})"));
        if found == wanted {
            return Ok(());
        }
        if found == "Error" || Instant::now() >= end {
            bail!("job {job} is {found}, not {wanted}, after {} s at most", deadline.as_secs());
        }
        sleep(LOOK);
    }
}

#[cfg(test)]
mod tests {
    #[test]
    fn finds_the_job_in_what_oarsub_says() {
        let said = "[ADMISSION RULE] Modify resource description\nOAR_JOB_ID=75\n";
        assert_eq!(super::job_number(said).as_deref(), Some("75"));
        assert_eq!(super::job_number("ERROR"), None);
    }
}
