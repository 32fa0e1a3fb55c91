//! What a primary must have in its catalogue so that others can follow, copy and rewind.

use super::context::Context;
use super::error::Result;
use super::scram;
use super::session::{REPLICATION_ROLE, Session, identifier, literal};
use crate::agents::launcher::Launcher;

impl<L: Launcher> Context<L> {
    /// Makes the replication role, or puts it in order again. `session` waits for no standby: what
    /// it writes here is written again where it is lost.
    pub async fn provision(&self, session: &Session) -> Result<()> {
        let after = self.settings.timing.statement;
        let verifier = scram::verifier(&self.settings.secrets.replication_password);
        let role = identifier(REPLICATION_ROLE);
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
}

const FUNCTIONS: [&str; 4] = [
    "pg_catalog.pg_ls_dir(text, boolean, boolean)",
    "pg_catalog.pg_stat_file(text, boolean)",
    "pg_catalog.pg_read_binary_file(text)",
    "pg_catalog.pg_read_binary_file(text, bigint, bigint, boolean)",
];
