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
    until_one_of(frontend, job, &[wanted], deadline)
}

/// Waits until an interactive job has ended. OAR ends each of them by deleting it when its user
/// leaves, with a takeover or without, and calls that Error.
pub fn until_left(frontend: &Host, job: &str, deadline: Duration) -> Result<()> {
    until_one_of(frontend, job, &["Terminated", "Error"], deadline)
}

/// Deletes whatever former cases left, for there is one place only.
pub fn clear(frontend: &Host, deadline: Duration) -> Result<()> {
    let left = "oarstat | sed -n 's/^\\([0-9][0-9]*\\) .*/\\1/p'";
    let end = Instant::now() + deadline;
    let mut asked = String::new();
    loop {
        let jobs = frontend.run_as(USER, left, COMMAND)?.split_whitespace().collect::<Vec<_>>().join(" ");
        if jobs.is_empty() {
            return Ok(());
        }
        if Instant::now() >= end {
            bail!("jobs {jobs} are still there after {} s", deadline.as_secs());
        }
        if jobs != asked {
            // Some may end by themselves meanwhile.
            frontend.exec(&["runuser", "-l", USER, "-c", &format!("oardel {jobs}")], COMMAND)?;
            asked = jobs;
        }
        sleep(LOOK);
    }
}

fn until_one_of(frontend: &Host, job: &str, wanted: &[&str], deadline: Duration) -> Result<()> {
    let end = Instant::now() + deadline;
    loop {
        // While the database is away OAR's commands fail; that is waited out as well.
        let found = state(frontend, job).unwrap_or_else(|error| format!("not to be asked ({error:#})"));
        if wanted.contains(&found.as_str()) {
            return Ok(());
        }
        if found == "Error" || Instant::now() >= end {
            let wanted = wanted.join(" or ");
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
