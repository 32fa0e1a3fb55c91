//! Whom a program runs as.

use std::time::Duration;
use thiserror::Error;
use tokio::process::Command;

/// A directory service may be slow; a takeover does not wait for it (users are looked up when an
/// agent starts).
const DEADLINE: Duration = Duration::from_secs(5);

/// A user of the operating system.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SystemUser {
    /// Its name.
    pub name: String,
    /// Its number.
    pub uid: u32,
    /// Its group.
    pub gid: u32,
    /// Its supplementary groups.
    pub groups: Vec<u32>,
    /// Its home directory.
    pub home: String,
}

/// Why a user could not be found.
#[derive(Debug, Error)]
pub enum UserError {
    /// The system knows no such user.
    #[error("no user \"{name}\" on this machine")]
    Unknown {
        /// As it was asked for.
        name: String,
    },
    /// The system's user database did not answer.
    #[error("cannot look up user \"{name}\"")]
    Lookup {
        /// As it was asked for.
        name: String,
        /// The system's answer.
        #[source]
        source: std::io::Error,
    },
}

impl SystemUser {
    /// Looks a user up by name, wherever the system keeps its users; within five seconds.
    pub async fn lookup(name: &str) -> Result<SystemUser, UserError> {
        let entry = ask("getent", &["passwd", name], name).await?;
        // A group database that does not answer must not keep a service from its primary group.
        let groups = ask("id", &["-G", name], name).await.unwrap_or_default();
        parse(&entry, &groups).ok_or_else(|| UserError::Unknown { name: name.to_owned() })
    }
}

async fn ask(program: &str, arguments: &[&str], name: &str) -> Result<String, UserError> {
    let mut command = Command::new(program);
    let output = command.args(arguments).stdin(std::process::Stdio::null()).kill_on_drop(true).output();
    let lookup = |source| UserError::Lookup { name: name.to_owned(), source };
    match tokio::time::timeout(DEADLINE, output).await {
        Ok(Ok(output)) => Ok(String::from_utf8_lossy(&output.stdout).into_owned()),
        Ok(Err(error)) => Err(lookup(error)),
        Err(_) => Err(lookup(std::io::ErrorKind::TimedOut.into())),
    }
}

/// `entry` is a line of passwd(5), `groups` numbers with blanks between them.
pub(crate) fn parse(entry: &str, groups: &str) -> Option<SystemUser> {
    let fields: Vec<&str> = entry.trim_end().split(':').collect();
    let [name, _, uid, gid, _, home, ..] = fields.as_slice() else { return None };
    Some(SystemUser {
        name: (*name).to_owned(),
        uid: uid.parse().ok()?,
        gid: gid.parse().ok()?,
        groups: groups.split_whitespace().filter_map(|group| group.parse().ok()).collect(),
        home: (*home).to_owned(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_entry_is_read() {
        let user = parse("oar:x:102:105::/var/lib/oar:/usr/lib/oar/oarsh_shell\n", "105 4\n").unwrap();
        let home = "/var/lib/oar".to_owned();
        assert_eq!(user, SystemUser { name: "oar".into(), uid: 102, gid: 105, groups: vec![105, 4], home });
        assert_eq!(parse("", ""), None);
        assert_eq!(parse("oar:x:a:b::/:", ""), None);
    }

    #[tokio::test]
    async fn users_are_found_or_named() {
        assert_eq!(SystemUser::lookup("root").await.unwrap().uid, 0);
        let error = SystemUser::lookup("no-such-user").await.unwrap_err();
        assert_eq!(error.to_string(), "no user \"no-such-user\" on this machine");
    }
}
