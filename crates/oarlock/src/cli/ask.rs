//! Asking the agent on this machine.

use super::args::Global;
use super::failure::{Code, Failure};
use crate::causes::with_causes;
use crate::control::{ControlClient, ControlError, Request, Response, socket_path};
use std::io::ErrorKind;
use std::time::Duration;

/// For what the agent answers from memory.
pub const LOOK_DEADLINE: Duration = Duration::from_secs(5);
/// For what the whole cluster must do: a hand-over waits for a checkpoint of the database.
pub const ACT_DEADLINE: Duration = Duration::from_secs(120);

/// Connects; what follows must be over within `deadline`.
pub fn connect(global: &Global, deadline: Duration) -> Result<ControlClient, Failure> {
    ControlClient::connect(&socket_path(&global.run_dir), deadline).map_err(|error| unreachable(&error))
}

/// Asks for one answer. Refusals come back as failures.
pub fn ask(global: &Global, request: &Request, deadline: Duration) -> Result<Response, Failure> {
    let response = connect(global, deadline)?.ask(request).map_err(|error| unreachable(&error))?;
    accepted(response)
}

/// Turns a refusal into a failure.
pub fn accepted(response: Response) -> Result<Response, Failure> {
    match response {
        Response::Negative { reason, hint } => {
            let failure = Failure::new(Code::Negative, reason);
            Err(if let Some(hint) = hint { failure.hint(hint) } else { failure })
        }
        Response::Usage { problems } => Err(Failure::many(Code::Usage, problems)),
        Response::NoQuorum => {
            Err(Failure::new(Code::NoQuorum, "no quorum: a majority of the nodes was not reached in time")
                .hint("oarlock status shows which nodes are heard; services that run keep their leases"))
        }
        Response::Unsafe { reason } => Err(Failure::new(Code::Unsafe, reason)),
        Response::Internal { reason } => Err(Failure::new(Code::Internal, reason)),
        other => Ok(other),
    }
}

/// An answer of another kind than asked for.
pub fn unexpected() -> Failure {
    Failure::new(Code::Internal, "the agent gave an answer to another question")
        .hint("are command and agent of the same version? restart the agent after an upgrade")
}

/// Why the agent could not be asked.
pub fn unreachable(error: &ControlError) -> Failure {
    match error {
        ControlError::NoAgent { source, .. } if source.kind() == ErrorKind::PermissionDenied => {
            Failure::new(Code::Negative, with_causes(error))
                .hint("run it as root or as a member of the group \"oarlock\"")
        }
        ControlError::NoAgent { .. } => Failure::new(Code::Negative, error.to_string()).hint("systemctl start oarlock"),
        ControlError::Late { .. } | ControlError::Lost { .. } => Failure::new(Code::Internal, with_causes(error))
            .hint("what was asked for may still happen; see oarlock status and oarlock events"),
        ControlError::Frame { .. } => Failure::new(Code::Internal, with_causes(error))
            .hint("are command and agent of the same version? restart the agent after an upgrade"),
    }
}
