//! Rows 19, 20 and 25: our own processes frozen, killed, restarted.

use super::Row;
use super::bed::FRONTEND;
use super::trial::Trial;
use super::verdict::Outage;
use anyhow::{Result, bail};
use std::thread::sleep;
use std::time::Duration;

const COMMAND: Duration = Duration::from_secs(15);
const TAKEOVER: Duration = Duration::from_secs(30);
/// How long the agent stays frozen.
const FREEZE: Duration = Duration::from_secs(30);

const fn unnoticed(id: &'static str, title: &'static str, fault: fn(&mut Trial<'_>) -> Result<()>) -> Row {
    Row::new(id, title, fault).with(Outage::Unnoticed).stays()
}

/// The cases of this file.
pub const ROWS: &[Row] = &[
    Row::new("19 agent", "SIGSTOP the agent on the owner for 30 s", freeze_agent).heals_in(90).moves(),
    unnoticed("20 agent owner", "kill -9 the agent on the owner", |t| kill(t, Who::Owner, Process::Agent)),
    unnoticed("20 agent standby", "kill -9 the agent on the standby", |t| kill(t, Who::Standby, Process::Agent)),
    unnoticed("20 agent witness", "kill -9 the agent on the witness", |t| kill(t, Who::Witness, Process::Agent))
        .only(super::WITNESS),
    unnoticed("20 sentinel owner", "kill -9 the sentinel on the owner", |t| kill(t, Who::Owner, Process::Sentinel)),
    unnoticed("20 sentinel standby", "kill -9 the sentinel on the standby", |t| {
        kill(t, Who::Standby, Process::Sentinel)
    }),
    unnoticed("20 sentinel witness", "kill -9 the sentinel on the witness", |t| {
        kill(t, Who::Witness, Process::Sentinel)
    })
    .only(super::WITNESS),
    unnoticed("20 restart owner", "restart the service unit on the owner", |t| restart_one(t, Who::Owner)),
    unnoticed("20 restart standby", "restart the service unit on the standby", |t| restart_one(t, Who::Standby)),
    unnoticed("20 restart witness", "restart the service unit on the witness", |t| restart_one(t, Who::Witness))
        .only(super::WITNESS),
    unnoticed("25", "rolling restart of every agent in turn", restart_all),
];

#[derive(Clone, Copy)]
enum Who {
    Owner,
    Standby,
    Witness,
}

#[derive(Clone, Copy)]
enum Process {
    Agent,
    Sentinel,
}

fn name(trial: &Trial<'_>, who: Who) -> String {
    match who {
        Who::Owner => trial.owner.clone(),
        Who::Standby => trial.standby.clone(),
        Who::Witness => FRONTEND.to_owned(),
    }
}

fn freeze_agent(trial: &mut Trial<'_>) -> Result<()> {
    let owner = trial.owner.clone();
    let (agent, _) = trial.bed.agent_and_sentinel(&owner)?;
    let host = trial.bed.host(&owner)?;
    trial.mark(format!("SIGSTOP to the agent on {owner}"));
    host.signal(agent, "STOP")?;
    let moved = trial.until_served(TAKEOVER).and_then(|()| trial.until_moved(TAKEOVER)).map(drop);
    sleep(FREEZE);
    trial.mark(format!("SIGCONT to the agent on {owner}"));
    // The sentinel may have replaced it meanwhile, which is as good.
    if let Err(error) = host.signal(agent, "CONT") {
        trial.notes.push(format!("the frozen agent had gone: {error:#}"));
    }
    moved
}

fn kill(trial: &mut Trial<'_>, who: Who, process: Process) -> Result<()> {
    let host = name(trial, who);
    let before = trial.bed.agent_and_sentinel(&host)?;
    let (pid, what) = match process {
        Process::Agent => (before.0, "agent"),
        Process::Sentinel => (before.1, "sentinel"),
    };
    trial.mark(format!("kill -9 the {what} on {host}"));
    trial.bed.host(&host)?.signal(pid, "KILL")?;
    await_new(trial, &host, pid)
}

fn restart_one(trial: &mut Trial<'_>, who: Who) -> Result<()> {
    let host = name(trial, who);
    restart(trial, &host)
}

/// The owner last.
fn restart_all(trial: &mut Trial<'_>) -> Result<()> {
    let owner = trial.owner.clone();
    let mut hosts = trial.bed.voters();
    hosts.retain(|host| *host != owner);
    hosts.into_iter().chain([owner.as_str()]).try_for_each(|host| restart(trial, host))
}

fn restart(trial: &mut Trial<'_>, host: &str) -> Result<()> {
    let (agent, _) = trial.bed.agent_and_sentinel(host)?;
    trial.mark(format!("restart on {host}"));
    trial.bed.shell(host, "lab-agent stop && lab-agent start", COMMAND)?;
    await_new(trial, host, agent)?;
    trial.bed.until_whole(TAKEOVER).map(drop)
}

/// Waits until agent and sentinel run and neither of them is the process `old`.
fn await_new(trial: &mut Trial<'_>, host: &str, old: i32) -> Result<()> {
    trial.until_served(TAKEOVER)?;
    trial.bed.until("agent and sentinel run again", COMMAND, || match trial.bed.agent_and_sentinel(host)? {
        (agent, sentinel) if agent != old && sentinel != old => Ok(()),
        pair => bail!("agent and sentinel are {pair:?}"),
    })
}
