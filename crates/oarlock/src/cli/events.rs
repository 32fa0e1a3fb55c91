//! `oarlock events`.

use super::args::Global;
use super::ask::{LOOK_DEADLINE, accepted, connect, unexpected, unreachable};
use super::failure::{Code, Failure};
use super::output::{emit, emit_json};
use super::time;
use crate::control::{EventLine, Request, Response};

/// Prints events, with `follow` until interrupted.
pub fn run(global: &Global, follow: bool, since_s: Option<u64>) -> Result<Code, Failure> {
    let since_ms = since_s.map(|seconds| time::now_ms().saturating_sub(seconds.saturating_mul(1000)));
    let request = Request::Events { follow, since_ms };
    let mut outcome = Ok(Code::Done);
    let each = |response| match accepted(response) {
        Ok(Response::Event { event }) => {
            let printed = if global.json { emit_json(&event) } else { emit(&line(&event)) };
            outcome = printed.map(|()| Code::Done);
            outcome.is_ok()
        }
        Ok(Response::Done { .. }) => false,
        Ok(_) => {
            outcome = Err(unexpected());
            false
        }
        Err(failure) => {
            outcome = Err(failure);
            false
        }
    };
    connect(global, LOOK_DEADLINE)?.ask_many(&request, follow, each).map_err(|error| unreachable(&error))?;
    if follow && outcome.is_ok() {
        return Err(
            Failure::new(Code::Internal, "the agent ended the list").hint("it may have been restarted; ask again")
        );
    }
    outcome
}

fn line(event: &EventLine) -> String {
    format!("{}  {}  {}\n", time::utc_ms(event.time_ms), event.node, event.text)
}
