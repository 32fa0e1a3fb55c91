//! Commands that are one request and one answer.

use super::args::{Command, Global, Switch};
use super::ask::{ACT_DEADLINE, LOOK_DEADLINE, ask, unexpected};
use super::failure::{Code, Failure};
use super::output::{emit, emit_json};
use crate::control::{Request, Response};

/// Asks, and prints the answer.
pub fn run(global: &Global, command: &Command) -> Result<Code, Failure> {
    let Some(request) = request(command) else { return Err(unexpected()) };
    let deadline = if request.changes() { ACT_DEADLINE } else { LOOK_DEADLINE };
    let response = ask(global, &request, deadline)?;
    if global.json {
        emit_json(&response)?;
    } else {
        emit(&text(&response)?)?;
    }
    Ok(Code::Done)
}

fn request(command: &Command) -> Option<Request> {
    Some(match command {
        Command::Explain { what } => Request::Explain { what: what.clone() },
        Command::Simulate { fail } => Request::Simulate { fail: fail.clone() },
        Command::Move { group, node } => Request::Move { group: group.clone(), node: node.clone() },
        Command::Standby { node } => Request::Standby { node: node.clone(), on: true },
        Command::Online { node } => Request::Standby { node: node.clone(), on: false },
        Command::Maintenance { switch } => Request::Maintenance { on: *switch == Switch::On },
        Command::Clear { resource } => Request::Clear { resource: resource.clone() },
        Command::Replace { node } => Request::Replace { node: node.clone() },
        _ => return None,
    })
}

fn text(response: &Response) -> Result<String, Failure> {
    match response {
        Response::Text { lines } => Ok(lines.iter().flat_map(|line| [line, "\n"]).collect()),
        Response::Done { note: None } => Ok("done\n".to_owned()),
        Response::Done { note: Some(note) } => Ok(format!("done: {note}\n")),
        _ => Err(unexpected()),
    }
}
