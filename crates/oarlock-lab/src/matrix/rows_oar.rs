//! Rows 6, 9, 10, 12 and 18: what users of the batch system see.

use super::Row;
use super::bed::{FRONTEND, NODE};
use super::trial::Trial;
use super::verdict::Outage;
use crate::history::{Stamp, outage_around};
use crate::host::Host;
use crate::jobs::{self, USER};
use anyhow::{Context, Result, bail};
use std::collections::BTreeSet;
use std::process::Stdio;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

const COMMAND: Duration = Duration::from_secs(30);
const TAKEOVER: Duration = Duration::from_secs(30);
/// Until a submitted job runs: OAR's passes are at least 5 s apart.
const STARTED: Duration = Duration::from_secs(60);
/// Until a job that ended during an outage is known to have ended: its node is asked to tell again.
const ENDED: Duration = Duration::from_secs(90);
/// No command of OAR's may hang longer than this while a takeover goes on.
const HANG: Duration = Duration::from_secs(30);

/// The cases of this file.
pub const ROWS: &[Row] = &[
    Row::new("6", "kill -9 Almighty and break its start, later repair it", break_almighty).about_oar().moves(),
    Row::new("9 standby", "OAR's commands during a switchover", |t| commands(t, How::Standby)).moves(),
    Row::new("9 poweroff", "OAR's commands during a power-off of the owner", |t| commands(t, How::PowerOff))
        .heals_in(90)
        .moves(),
    Row::new("10 after standby", "a job that ends after a switchover", |t| job(t, How::Standby, End::After))
        .own_jobs()
        .with(Outage::AtMost(300.0))
        .moves(),
    Row::new("10 after poweroff", "a job that ends after the takeover", |t| job(t, How::PowerOff, End::After))
        .own_jobs()
        .heals_in(90)
        .moves(),
    Row::new("10 during poweroff", "a job that ends during the takeover", |t| job(t, How::PowerOff, End::During))
        .own_jobs()
        .heals_in(90)
        .moves(),
    Row::new("10 before poweroff", "a job that ends just before the power-off", |t| job(t, How::PowerOff, End::Before))
        .own_jobs()
        .heals_in(90)
        .moves(),
    Row::new("10 during standby", "a job that ends during a switchover", |t| job(t, How::Standby, End::During))
        .own_jobs()
        .with(Outage::AtMost(300.0))
        .moves(),
    Row::new("10 before standby", "a job that ends just before a switchover", |t| job(t, How::Standby, End::Before))
        .own_jobs()
        .with(Outage::AtMost(300.0))
        .moves(),
    Row::new("10 interactive standby", "an interactive job during a switchover", |t| interactive(t, How::Standby))
        .own_jobs()
        .moves(),
    Row::new("10 interactive poweroff", "an interactive job during a power-off", |t| interactive(t, How::PowerOff))
        .own_jobs()
        .heals_in(90)
        .moves(),
    Row::new("12 standby", "a job queued behind another during a switchover", |t| queued(t, How::Standby))
        .own_jobs()
        .moves(),
    Row::new("12 poweroff", "a job queued behind another during a power-off", |t| queued(t, How::PowerOff))
        .own_jobs()
        .heals_in(90)
        .moves(),
    Row::new("9 oar poweroff", "OAR's commands, its own server powered off", |t| commands(t, How::PowerOff))
        .oar_apart()
        .heals_in(90)
        .moves(),
    Row::new("10 oar poweroff", "a job that ends after OAR's own server is taken over", |t| {
        job(t, How::PowerOff, End::After)
    })
    .own_jobs()
    .oar_apart()
    .heals_in(90)
    .moves(),
    Row::new("12 oar poweroff", "a queued job, OAR's own server powered off", |t| queued(t, How::PowerOff))
        .own_jobs()
        .oar_apart()
        .heals_in(90)
        .moves(),
    Row::new("18", "kill -9 the database while OAR writes", submit_through_crash).own_jobs(),
];

#[derive(Clone, Copy, PartialEq, Eq)]
enum How {
    Standby,
    PowerOff,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum End {
    Before,
    During,
    After,
}

/// Takes the group away from its owner and does `meanwhile` as soon as that is under way.
fn take_away(trial: &mut Trial<'_>, how: How, meanwhile: impl FnOnce(&mut Trial<'_>) -> Result<()>) -> Result<()> {
    let owner = trial.owner.clone();
    match how {
        How::Standby => {
            trial.mark(format!("standby {owner}"));
            trial.bed.request(FRONTEND, &["standby", &owner])?;
        }
        How::PowerOff => trial.power_off(&[&owner])?,
    }
    meanwhile(trial)?;
    trial.until_served(TAKEOVER)?;
    trial.until_moved(TAKEOVER).map(drop)
}

fn give_back(trial: &mut Trial<'_>, how: How) -> Result<()> {
    let owner = trial.owner.clone();
    match how {
        How::Standby => trial.bed.request(FRONTEND, &["online", &owner]).map(drop),
        How::PowerOff => trial.power_on(&[&owner]),
    }
}

/// The file that a job waits for, so that the case and not the clock decides when it ends.
fn waiting_job(flag: &str) -> String {
    format!("while ! test -e {flag}; do sleep 0.1; done")
}

fn let_end(trial: &Trial<'_>, flag: &str) -> Result<()> {
    trial.bed.shell(NODE, &format!("touch {flag}"), COMMAND).map(drop)
}

fn flag(number: u32) -> String {
    format!("/tmp/job-may-end-{}-{number}", Stamp::now().wall_us)
}

fn job(trial: &mut Trial<'_>, how: How, end: End) -> Result<()> {
    let frontend = trial.bed.host(FRONTEND)?;
    let flag = flag(0);
    let job = jobs::submit(&frontend, &waiting_job(&flag))?;
    jobs::until(&frontend, &job, "Running", STARTED)?;
    if end == End::Before {
        let_end(trial, &flag)?;
    }
    take_away(trial, how, |trial| if end == End::During { let_end(trial, &flag) } else { Ok(()) })?;
    if end == End::After {
        let_end(trial, &flag)?;
    }
    let ended = jobs::until(&frontend, &job, "Terminated", ENDED);
    give_back(trial, how)?;
    ended
}

/// The user's terminal on the compute node outlives the takeover, and the job ends when he leaves.
fn interactive(trial: &mut Trial<'_>, how: How) -> Result<()> {
    let frontend = trial.bed.host(FRONTEND)?;
    let (flag, screen) = (flag(0), format!("/tmp/screen-{}", Stamp::now().wall_us));
    // Bounded, so that nothing is left behind when the case fails.
    let typed = format!(
        "for n in $(seq 1000); do test -e {flag} && break; sleep 0.1; done; echo 'echo sum $((40+2))'; echo exit"
    );
    let terminal = format!("({typed}) 2>/dev/null | timeout 200 script -qfec 'oarsub -I' {screen} 2>/dev/null");
    let mut session = frontend.spawn(&["runuser", "-l", USER, "-c", &terminal], Stdio::null())?;
    let shown = |wanted: &str| -> Result<String> {
        let text = trial.bed.shell(FRONTEND, &format!("cat {screen}"), COMMAND)?;
        if text.contains(wanted) { Ok(text) } else { bail!("the terminal shows: {}", text.trim_end()) }
    };
    let text = trial.bed.until("the terminal on the compute node", STARTED, || shown(&format!("{USER}@{NODE}")))?;
    let number = text.split("OAR_JOB_ID=").nth(1).unwrap_or_default();
    let job: String = number.chars().take_while(char::is_ascii_digit).collect();
    take_away(trial, how, |_| Ok(()))?;
    trial.bed.shell(FRONTEND, &format!("touch {flag}"), COMMAND)?;
    let left = session.wait(COMMAND).context("the terminal does not end");
    let answered = trial.bed.shell(FRONTEND, &format!("grep -c 'sum 42' {screen}"), COMMAND);
    let ended = jobs::until_left(&frontend, &job, ENDED);
    give_back(trial, how)?;
    let left = left?;
    trial.demand(left.success(), || format!("oarsub -I: {left}"));
    answered.context("the terminal did not answer after the takeover")?;
    ended
}

/// node1 has one place, so the second job waits until the first has ended.
fn queued(trial: &mut Trial<'_>, how: How) -> Result<()> {
    let frontend = trial.bed.host(FRONTEND)?;
    let flag = flag(0);
    let first = jobs::submit(&frontend, &waiting_job(&flag))?;
    jobs::until(&frontend, &first, "Running", STARTED)?;
    let second = jobs::submit(&frontend, "sleep 1")?;
    take_away(trial, how, |_| Ok(()))?;
    let waiting = jobs::state(&frontend, &second)?;
    trial.demand(waiting == "Waiting", || format!("the queued job was {waiting} while the place was taken"));
    let_end(trial, &flag)?;
    let ended = jobs::until(&frontend, &first, "Terminated", ENDED)
        .and_then(|()| jobs::until(&frontend, &second, "Terminated", ENDED));
    give_back(trial, how)?;
    ended
}

/// Each command once before, at once after the fault, and once afterwards; none may hang.
fn commands(trial: &mut Trial<'_>, how: How) -> Result<()> {
    let all = ["oarnodes -l", "oarstat", "oarsub \"sleep 1\""];
    for command in all {
        answered(trial, command, "before", HANG)?;
    }
    take_away(trial, how, |trial| {
        for command in all {
            // Failing is an answer here: the database may be away for the moment.
            if let Err(error) = answered(trial, command, "during", HANG) {
                trial.notes.push(format!("{command} during: {error:#}"));
            }
        }
        Ok(())
    })?;
    for command in all {
        answered(trial, command, "after", HANG)?;
    }
    give_back(trial, how)
}

/// `oarsub` again and again while the owner loses its power. Measures how long after the first row that
/// is acknowledged again the first of them is answered.
pub fn submit_through_takeover(trial: &mut Trial<'_>) -> Result<()> {
    let frontend = trial.bed.host(FRONTEND)?;
    let owner = trial.owner.clone();
    let over = AtomicBool::new(false);
    let answers = std::thread::scope(|scope| {
        let submitting = scope.spawn(|| submit_until(&frontend, &over));
        let taken = trial.power_off(&[&owner]).and_then(|()| trial.until_served(TAKEOVER));
        over.store(true, Ordering::SeqCst);
        let answers = submitting.join().map_err(|_| anyhow::anyhow!("the submitting thread ended in a panic"))?;
        taken.map(|()| answers)
    })?;
    let off = trial.marks.first().context("no power-off was marked")?.at;
    let history = trial.users.history()?.context("the users' client has no log")?;
    let writable = outage_around(&history, off, Stamp::now()).context("no outage is in the log")?.to;
    let first = answers.iter().find(|at| at.mono_us >= writable.mono_us).context("oarsub was not answered any more")?;
    trial.measured_ms = Some(first.ms_since(writable));
    trial.power_on(&[&owner])?;
    jobs::clear(&frontend, ENDED)
}

/// When each submission was answered; after `over` until one more is, or three have failed.
fn submit_until(frontend: &Host, over: &AtomicBool) -> Vec<Stamp> {
    let mut answers = Vec::new();
    let mut left = 3;
    while left > 0 {
        let last = over.load(Ordering::SeqCst);
        let answered = frontend.run_as(USER, "oarsub true", HANG).is_ok();
        if answered {
            answers.push(Stamp::now());
        }
        left = if last && answered { 0 } else { left - usize::from(last) };
    }
    answers
}

/// Runs a command as a user and notes how long it took; a failure unless it ends in time.
fn answered(trial: &mut Trial<'_>, command: &str, when: &str, deadline: Duration) -> Result<()> {
    let frontend = trial.bed.host(FRONTEND)?;
    let began = Stamp::now();
    let outcome = frontend.exec(&["runuser", "-l", USER, "-c", command], deadline);
    let ms = Stamp::now().ms_since(began);
    match outcome {
        Ok(outcome) if outcome.status.success() => {
            trial.notes.push(format!("{command} {when}: {ms:.0} ms"));
            Ok(())
        }
        Ok(outcome) => bail!("{} after {ms:.0} ms: {}", outcome.status, outcome.stderr.trim()),
        Err(error) => {
            trial.failures.push(format!("{command} {when} hung: {error:#}"));
            Ok(())
        }
    }
}

/// Makes the program unexecutable before it is killed; after the repair the node must be usable
/// again without a command, which the move at the end shows.
fn break_almighty(trial: &mut Trial<'_>) -> Result<()> {
    let owner = trial.owner.clone();
    let almighty = trial.bed.almighty(&owner)?;
    trial.mark(format!("Almighty on {owner} broken and killed"));
    trial.bed.shell(&owner, &format!("chmod a-x /usr/sbin/Almighty && kill -9 {almighty}"), COMMAND)?;
    let moved = trial.until_moved(TAKEOVER).map(drop).and_then(|()| trial.until_served(TAKEOVER));
    trial.mark(format!("Almighty on {owner} repaired"));
    trial.bed.shell(&owner, "chmod a+x /usr/sbin/Almighty", COMMAND)?;
    moved
}

/// Submissions go on one after the other while the database is killed under them.
fn submit_through_crash(trial: &mut Trial<'_>) -> Result<()> {
    let frontend = trial.bed.host(FRONTEND)?;
    let owner = trial.owner.clone();
    let postmaster = trial.bed.postmaster(&owner)?;
    let script = "for n in 1 2 3 4 5 6 7 8; do timeout 60 oarsub true; done | sed -n s/^OAR_JOB_ID=//p";
    let numbers = std::thread::scope(|scope| {
        let submitting = scope.spawn(|| frontend.run_as(USER, script, Duration::from_secs(300)));
        std::thread::sleep(Duration::from_secs(1));
        trial.mark(format!("kill -9 {} on {owner}", trial.bed.shape.db.title()));
        let killed = trial.bed.host(&owner)?.signal(postmaster, "KILL");
        let said = submitting.join().map_err(|_| anyhow::anyhow!("the submitting thread ended in a panic"))?;
        killed.and(said)
    })?;
    trial.until_served(TAKEOVER)?;
    let list: Vec<&str> = numbers.split_whitespace().collect();
    let distinct: BTreeSet<&str> = list.iter().copied().collect();
    trial.demand(distinct.len() == list.len(), || format!("a job number was given twice: {list:?}"));
    trial.demand(!list.is_empty(), || "no job was submitted".to_owned());
    for job in &distinct {
        jobs::until(&frontend, job, "Terminated", ENDED).context("a job that was acknowledged")?;
    }
    trial.notes.push(format!("{} jobs acknowledged", list.len()));
    Ok(())
}
