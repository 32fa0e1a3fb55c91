//! `oarlock drill`: a real switchover, only where it is safe, measured as a client sees it.

mod writer;

use super::args::Global;
use super::ask::{ACT_DEADLINE, ask};
use super::failure::{Code, Failure};
use super::output::{emit, emit_json};
use super::status::fetch;
use crate::causes::with_causes;
use crate::config::{self, Profile, ResourceKind};
use crate::control::status::{GroupStatus, StatusReport};
use crate::control::{Request, Response};
use crate::profiles::oar::OarConf;
use crate::sql::Target;
use serde::Serialize;
use std::sync::mpsc::{Receiver, TryRecvError, channel};
use std::thread;
use std::time::{Duration, Instant};
use writer::{Measured, Writer};

/// Writes before and after the switchover.
const MARGIN: Duration = Duration::from_secs(2);
/// As PostgreSQL shows us.
const APPLICATION: &str = "oarlock drill";
/// For a connection to the database.
const CONNECT: Duration = Duration::from_secs(1);
/// Between two looks at the state.
const POLL: Duration = Duration::from_millis(20);
/// Until every copy is in sync again.
const REDUNDANT_DEADLINE: Duration = Duration::from_secs(120);

/// What was measured.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
struct Report {
    schema: u32,
    group: String,
    from: String,
    to: String,
    /// Longest time without an acknowledged write; without a database, without a started group.
    outage_ms: u64,
    /// Rows that were acknowledged; `None` when nothing was written.
    rows_acknowledged: Option<usize>,
    /// Those of them that were not there afterwards.
    rows_lost: Option<usize>,
    /// Until every copy was in sync again; `None`: not within two minutes.
    redundant_after_ms: Option<u64>,
}

/// Where the group is and where it would go.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Plan {
    from: String,
    to: String,
    database: bool,
}

/// Runs it. `connection` says how the database is reached over the service address, as
/// [`Target::parse`] reads it.
pub fn run(global: &Global, group: &str, connection: Option<&str>) -> Result<Code, Failure> {
    let plan = plan(&fetch(global)?, group)?;
    let connection = connection.map_or_else(|| known_connection(global), |text| Ok(Some(parse(text)?)))?;
    if plan.database && connection.is_none() {
        return Err(Failure::new(
            Code::Usage,
            format!("nothing is known to write to the database of \"{group}\" with"),
        )
        .hint(
            "--connection \"host=SERVICE-ADDRESS user=… password=… dbname=…\", for MariaDB \
             mysql://USER:PASSWORD@SERVICE-ADDRESS/DATABASE, of a role that may create a table",
        ));
    }
    eprintln!("switching {group} from {} to {} …", plan.from, plan.to);
    let moving = move_after(global, group, &plan.to, if connection.is_some() { MARGIN } else { Duration::ZERO });
    let measured = match connection.filter(|_| plan.database) {
        Some(connection) => measure_writes(connection, &moving)?,
        None => measure_state(global, group, &moving)?,
    };
    let began = Instant::now();
    let redundant_after_ms = loop {
        if fetch(global).is_ok_and(|status| crate::cli::drill::plan(&status, group).is_ok()) {
            break Some(millis(began.elapsed()));
        }
        if began.elapsed() > REDUNDANT_DEADLINE {
            break None;
        }
        thread::sleep(POLL);
    };
    let report = Report {
        schema: 1,
        group: group.to_owned(),
        from: plan.from,
        to: plan.to,
        outage_ms: millis(measured.outage),
        rows_acknowledged: measured.acknowledged,
        rows_lost: measured.lost,
        redundant_after_ms,
    };
    if global.json {
        emit_json(&report)?
    } else {
        emit(&text(&report))?
    }
    let good = report.rows_lost.unwrap_or(0) == 0 && report.redundant_after_ms.is_some();
    Ok(if good { Code::Done } else { Code::Negative })
}

fn millis(span: Duration) -> u64 {
    u64::try_from(span.as_millis()).unwrap_or(u64::MAX)
}

/// Whether the group can be switched over without a risk, and where to.
fn plan(status: &StatusReport, name: &str) -> Result<Plan, Failure> {
    let Some(group) = status.groups.iter().find(|group| group.name == name) else {
        let names: Vec<&str> = status.groups.iter().map(|group| group.name.as_str()).collect();
        return Err(Failure::new(Code::Usage, format!("unknown group \"{name}\""))
            .hint(format!("one of: {}", names.join(", "))));
    };
    if !status.quorum {
        return Err(Failure::new(Code::NoQuorum, "no quorum: nothing can be moved"));
    }
    let refused =
        |why: String| Failure::new(Code::Unsafe, why).hint("a drill starts from full redundancy only; oarlock status");
    let (Some(from), "started") = (&group.owner, group.state.as_str()) else {
        return Err(refused(format!("group \"{name}\" is {}", group.state)));
    };
    let online = |node: &str| status.nodes.iter().any(|known| known.name == node && known.state == "online");
    let database = group.resources.iter().find(|resource| is_database(&resource.kind));
    if let Some(database) = database
        && let Some(copy) = database.members.iter().find(|copy| !copy.in_sync || !online(&copy.node))
    {
        return Err(refused(format!("the copy of \"{}\" on {} is not in sync", database.name, copy.node)));
    }
    match members(group).find(|node| *node != from && online(node)) {
        Some(to) => Ok(Plan { from: from.clone(), to: to.to_owned(), database: database.is_some() }),
        None => Err(refused(format!("no other node of group \"{name}\" is online"))),
    }
}

/// Whether a kind, as the status names it, has copies that must be in sync.
fn is_database(kind: &str) -> bool {
    matches!(kind, "postgresql" | "mariadb")
}

fn members(group: &GroupStatus) -> impl Iterator<Item = &str> {
    group.resources.iter().flat_map(|resource| &resource.members).map(|member| member.node.as_str())
}

/// OAR's own database access, where the local configuration has OAR.
fn known_connection(global: &Global) -> Result<Option<Target>, Failure> {
    let Ok(settings) = config::load(&global.config) else { return Ok(None) };
    let resources = settings.groups.iter().flat_map(|group| &group.resources);
    let file = resources.filter_map(|resource| match &resource.kind {
        ResourceKind::Service(service) if service.profile == Some(Profile::Oar) => service.config_file.clone(),
        _ => None,
    });
    let Some(text) = file.filter_map(|file| std::fs::read_to_string(file).ok()).next() else { return Ok(None) };
    let access = OarConf::parse(&text)
        .database()
        .map_err(|error| Failure::new(Code::Usage, with_causes(&error)).hint("or give --connection"))?;
    Ok(Some(access.target(APPLICATION, CONNECT)))
}

fn parse(text: &str) -> Result<Target, Failure> {
    let mut target = Target::parse(text)
        .map_err(|error| Failure::new(Code::Usage, format!("--connection: {}", with_causes(&error))))?;
    if let Target::Postgresql(config) = &mut target {
        config.connect_timeout(CONNECT).application_name(APPLICATION);
    }
    Ok(target)
}

/// Asks for the move after `pause`, on a thread of its own; its answer comes over the channel.
fn move_after(global: &Global, group: &str, node: &str, pause: Duration) -> Receiver<Result<Response, Failure>> {
    let (sender, receiver) = channel();
    let (global, request) = (global.clone(), Request::Move { group: group.to_owned(), node: node.to_owned() });
    thread::spawn(move || {
        thread::sleep(pause);
        // A drill that was interrupted wants no answer.
        let _ = sender.send(ask(&global, &request, ACT_DEADLINE));
    });
    receiver
}

/// The answer of the move, once it is there.
fn answered(moving: &Receiver<Result<Response, Failure>>) -> Result<bool, Failure> {
    match moving.try_recv() {
        Ok(answer) => answer.map(|_| true),
        Err(TryRecvError::Empty) => Ok(false),
        Err(TryRecvError::Disconnected) => Err(Failure::new(Code::Internal, "the move was not asked for")),
    }
}

fn measure_writes(connection: Target, moving: &Receiver<Result<Response, Failure>>) -> Result<Measured, Failure> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|error| Failure::from_error(Code::Internal, &error))?;
    let failed = |error: &writer::WriterError| {
        Failure::new(Code::Negative, with_causes(error)).hint("--connection names a role that may create a table")
    };
    runtime.block_on(async {
        let mut writer = Writer::begin(connection).await.map_err(|error| failed(&error))?;
        let mut moved = Ok(false);
        while matches!(moved, Ok(false)) {
            writer.write().await;
            moved = answered(moving);
        }
        if moved.is_ok() {
            let end = Instant::now() + MARGIN;
            // At least one write must show that the outage is over.
            while Instant::now() < end
                || !writer.is_acknowledged_after(end - MARGIN) && Instant::now() < end + ACT_DEADLINE
            {
                writer.write().await;
            }
        }
        let measured = writer.end().await;
        moved?;
        measured.map_err(|error| failed(&error))
    })
}

fn measure_state(
    global: &Global,
    group: &str,
    moving: &Receiver<Result<Response, Failure>>,
) -> Result<Measured, Failure> {
    let mut outage = Duration::ZERO;
    let mut down_since = None;
    let mut moved = false;
    loop {
        moved = moved || answered(moving)?;
        let status = fetch(global);
        let started = status
            .is_ok_and(|status| status.groups.iter().any(|known| known.name == group && known.state == "started"));
        match (started, down_since) {
            (false, None) => down_since = Some(Instant::now()),
            (true, Some(since)) => {
                outage = outage.max(since.elapsed());
                down_since = None;
            }
            _ => {}
        }
        if moved && started {
            return Ok(Measured { outage, acknowledged: None, lost: None });
        }
        if down_since.is_some_and(|since| since.elapsed() > ACT_DEADLINE) {
            return Err(Failure::new(Code::Negative, format!("group \"{group}\" has not started again"))
                .hint(format!("oarlock explain {group}")));
        }
        thread::sleep(POLL);
    }
}

fn text(report: &Report) -> String {
    let Report { group, from, to, outage_ms, .. } = report;
    let mut text = format!("group {group}: {from} -> {to}\noutage:             {outage_ms} ms\n");
    match (report.rows_acknowledged, report.rows_lost) {
        (Some(acknowledged), Some(lost)) => {
            text += &format!("rows acknowledged:  {acknowledged}\nrows lost:          {lost}\n");
        }
        _ => text += "measured by:        the group's state; nothing was written\n",
    }
    text + &match report.redundant_after_ms {
        Some(ms) => format!("fully redundant:    after {ms} ms\n"),
        None => "fully redundant:    NOT within 2 minutes\n".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn status() -> StatusReport {
        let text = include_str!("../../tests/fixtures/status.json").replace("\"in_sync\":false", "\"in_sync\":true");
        serde_json::from_str(&text).unwrap()
    }

    fn code(status: &StatusReport, group: &str) -> Code {
        plan(status, group).unwrap_err().code
    }

    #[test]
    fn a_drill_goes_to_the_other_copy() {
        let expected = Plan { from: "server1".to_owned(), to: "server2".to_owned(), database: true };
        assert_eq!(plan(&status(), "oar").unwrap(), expected);
    }

    #[test]
    fn a_drill_takes_no_risk() {
        assert_eq!(code(&status(), "nothing"), Code::Usage);
        assert_eq!(code(&status(), "web"), Code::Unsafe);
        assert_eq!(code(&StatusReport { quorum: false, ..status() }, "oar"), Code::NoQuorum);
        let mut behind = status();
        behind.groups[0].resources[1].members[1].in_sync = false;
        assert_eq!(code(&behind, "oar"), Code::Unsafe);
        let mut away = status();
        away.nodes[1].state = "standby".to_owned();
        assert_eq!(code(&away, "oar"), Code::Unsafe);
    }
}
