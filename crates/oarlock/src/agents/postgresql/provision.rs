//! What a primary must have in its catalogue so that others can follow, copy and rewind.

use super::context::{Phase, Shared};
use super::error::Result;
use super::scram;
use super::session::{Commits, REPLICATION_ROLE, Session, identifier, literal};
use crate::agents::launcher::Launcher;
use oarlock_core::resource::postgresql::Running;
use std::time::Duration;

/// After a success; somebody may change the role.
const AGAIN: Duration = Duration::from_secs(60);
/// After a failure, or while there is nothing to do.
const RETRY: Duration = Duration::from_millis(500);

/// Keeps the replication role in order on a primary until the task is aborted.
pub(super) async fn keep<L: Launcher>(context: Shared<L>) {
    loop {
        let primary = {
            let server = context.server();
            server.phase == Phase::Up && server.running == Running::Primary
        };
        let pause = match primary {
            true => match provision(&context).await {
                Ok(()) => AGAIN,
                Err(error) => {
                    tracing::warn!("set up the replication role: {}", error.in_words());
                    RETRY
                }
            },
            false => RETRY,
        };
        tokio::time::sleep(pause).await;
    }
}

async fn provision<L: Launcher>(context: &Shared<L>) -> Result<()> {
    let after = context.settings.timing.statement;
    let verifier = scram::verifier(&context.settings.secrets.replication_password);
    let role = identifier(REPLICATION_ROLE);
    // A session of ours waits for no standby: what it writes here is written again where it is lost.
    let session = Session::open(&context.settings, Commits::Local).await?;
    let sql = format!(
        "select rolcanlogin and rolreplication and not rolsuper and rolpassword = {} from pg_authid where rolname = {}",
        literal(&verifier),
        literal(REPLICATION_ROLE)
    );
    let rows = session.rows(&sql, after).await?;
    let attributes = format!("login replication nosuperuser password {}", literal(&verifier));
    match rows.first().map(|row| row.get(0) == Some("t")) {
        Some(true) => {}
        Some(false) => session.run(&format!("alter role {role} {attributes}"), after).await?,
        None => session.run(&format!("create role {role} {attributes}"), after).await?,
    }
    // What pg_rewind reads as somebody who is not a superuser, and a checkpoint before it.
    let missing = format!(
        "select count(*) from unnest(array[{}]) as f where not has_function_privilege({}, f, 'execute')",
        FUNCTIONS.map(literal).join(","),
        literal(REPLICATION_ROLE)
    );
    if session.value(&missing, after).await? != "0" {
        for function in FUNCTIONS {
            session.run(&format!("grant execute on function {function} to {role}"), after).await?;
        }
    }
    let member = format!("select pg_has_role({}, 'pg_checkpoint', 'member')", literal(REPLICATION_ROLE));
    if session.value(&member, after).await? != "t" {
        session.run(&format!("grant pg_checkpoint to {role}"), after).await?;
    }
    Ok(())
}

const FUNCTIONS: [&str; 4] = [
    "pg_catalog.pg_ls_dir(text, boolean, boolean)",
    "pg_catalog.pg_stat_file(text, boolean)",
    "pg_catalog.pg_read_binary_file(text)",
    "pg_catalog.pg_read_binary_file(text, bigint, bigint, boolean)",
];
