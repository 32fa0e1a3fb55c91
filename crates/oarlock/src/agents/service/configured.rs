//! From the checked configuration to what the agent needs.

use super::{Check, Http, LogFile, Probe, Run, ServiceSettings, Sql};
use crate::agents::user::SystemUser;
use crate::config::{CheckKind, Program, ServiceSettings as Configured};
use std::path::Path;

/// SIGTERM.
const STOP_SIGNAL: i32 = 15;
/// The log of a service, and the one before it, each at most; in bytes.
const LOG_BYTES: u64 = 16 << 20;
/// What every service finds, unless its configuration says otherwise.
const ENVIRONMENT: [(&str, &str); 2] =
    [("PATH", "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"), ("LANG", "C.UTF-8")];

impl ServiceSettings {
    /// `name` is unique on the node; `user` is the looked up `configured.user`; logs go to a file of
    /// the service's name in `log_dir`. What a profile adds is not in it.
    pub fn configured(name: &str, configured: &Configured, user: SystemUser, log_dir: &Path) -> ServiceSettings {
        let mut checks: Vec<Check> = Vec::new();
        let mut add = |probe| {
            let settings = &configured.check;
            let (interval, deadline, failures) = (settings.interval, settings.timeout, settings.failures.max(1));
            checks.push(Check { probe, interval, deadline, failures });
        };
        let run = match &configured.program {
            Program::Command(command) => Run::Supervised { command: command.clone(), stop_signal: STOP_SIGNAL },
            Program::Commands { start, stop, status } => {
                add(Probe::Command(status.clone()));
                Run::Scripts { start: start.clone(), stop: stop.clone() }
            }
        };
        if let Some(probe) = configured.check.kind.as_ref().and_then(probe) {
            add(probe);
        }
        ServiceSettings {
            name: name.to_owned(),
            run,
            env: environment(&configured.environment, &user),
            user,
            cwd: configured.working_dir.clone(),
            log: LogFile { file: log_dir.join(format!("{name}.log")), max_bytes: LOG_BYTES },
            checks,
            start_timeout: configured.start_timeout,
            stop_timeout: configured.stop_timeout,
            hooks: None,
        }
    }
}

fn environment(configured: &[(String, String)], user: &SystemUser) -> Vec<(String, String)> {
    let of_user = [("HOME", user.home.as_str()), ("USER", &user.name), ("LOGNAME", &user.name)];
    let fixed = ENVIRONMENT.into_iter().chain(of_user);
    let ours = fixed.map(|(name, value)| (name.to_owned(), value.to_owned()));
    let ours = ours.filter(|(name, _)| !configured.iter().any(|(theirs, _)| theirs == name));
    ours.chain(configured.iter().cloned()).collect()
}

/// `None` for a page that cannot be asked for, which the configuration has refused already.
fn probe(kind: &CheckKind) -> Option<Probe> {
    Some(match kind {
        CheckKind::Command(command) => Probe::Command(command.clone()),
        CheckKind::Tcp(address) => Probe::Tcp(address.clone()),
        CheckKind::Http(url) => Probe::Http(Http::parse(url)?),
        CheckKind::Sql { connection, query } => {
            Probe::Sql(Sql { connection: connection.clone(), query: query.clone() })
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::CheckSettings;
    use std::time::Duration;

    fn configured(program: Program, kind: Option<CheckKind>) -> Configured {
        let s = Duration::from_secs;
        Configured {
            profile: None,
            program,
            config_file: None,
            user: "oar".into(),
            environment: vec![("LANG".into(), "C".into()), ("X".into(), "1".into())],
            working_dir: "/".into(),
            check: CheckSettings { kind, interval: s(1), timeout: s(2), failures: 3 },
            start_timeout: s(4),
            stop_timeout: s(5),
        }
    }

    fn settings(program: Program, kind: Option<CheckKind>) -> ServiceSettings {
        let user = SystemUser { name: "oar".into(), uid: 1, gid: 2, groups: vec![], home: "/home".into() };
        ServiceSettings::configured("oar.server", &configured(program, kind), user, Path::new("/var/log/oarlock"))
    }

    #[test]
    fn the_administrators_environment_wins() {
        let settings = settings(Program::Command(vec!["/bin/true".into()]), None);
        for (name, expected) in [("LANG", "C"), ("X", "1"), ("HOME", "/home")] {
            let found: Vec<&String> =
                settings.env.iter().filter(|(key, _)| key == name).map(|(_, value)| value).collect();
            assert_eq!(found, [expected], "{name}");
        }
        assert_eq!(settings.log.file, Path::new("/var/log/oarlock/oar.server.log"));
        assert!(settings.checks.is_empty());
    }

    #[test]
    fn the_status_command_is_a_check_beside_the_other() {
        let word = |word: &str| vec![word.to_owned()];
        let program = Program::Commands { start: word("a"), stop: word("b"), status: word("c") };
        let settings = settings(program, Some(CheckKind::Tcp("oar:1".into())));
        assert_eq!(settings.run, Run::Scripts { start: word("a"), stop: word("b") });
        let probes: Vec<String> = settings.checks.iter().map(|check| check.probe.to_string()).collect();
        assert_eq!(probes, ["command c", "connection to oar:1"]);
        assert_eq!(settings.checks[0].failures, 3);
    }
}
