//! OAR's processes as the kernel lists them.

use super::decide::JobId;
use std::collections::{BTreeMap, BTreeSet};
use std::fs;

/// What listens to messages, by its own title.
pub(super) const LISTENER: &str = "Almighty: appendice";

/// One process.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Process {
    /// Its parent.
    pub parent: u32,
    /// The kernel's letter for its state.
    pub state: char,
    /// Its arguments, or the title it gave itself.
    pub arguments: Vec<String>,
}

impl Process {
    fn is(&self, title: &str) -> bool {
        self.arguments.join(" ").trim_end() == title
    }
}

/// `main` and its children. Cheap enough for every check: it reads a few files, where the kernel
/// lists children. Such a list may lack one while others come and go.
pub(super) fn near(main: u32) -> BTreeMap<u32, Process> {
    match fs::read_to_string(format!("/proc/{main}/task/{main}/children")) {
        Ok(children) => {
            let pids = children.split_whitespace().filter_map(|pid| pid.parse().ok()).chain([main]);
            pids.filter_map(|pid| Some((pid, read(pid)?))).collect()
        }
        Err(_) => tree(main),
    }
}

/// All processes at or below `main`: reads every process of the machine and misses none.
pub(super) fn tree(main: u32) -> BTreeMap<u32, Process> {
    let all: BTreeMap<u32, Process> = fs::read_dir("/proc")
        .into_iter()
        .flatten()
        .filter_map(|entry| {
            let pid = entry.ok()?.file_name().to_str()?.parse().ok()?;
            Some((pid, read(pid)?))
        })
        .collect();
    below(main, all)
}

fn below(main: u32, all: BTreeMap<u32, Process>) -> BTreeMap<u32, Process> {
    let mut found = BTreeSet::from([main]);
    loop {
        let more: Vec<u32> = all
            .iter()
            .filter(|(pid, process)| found.contains(&process.parent) && !found.contains(pid))
            .map(|(pid, _)| *pid)
            .collect();
        if more.is_empty() {
            return all.into_iter().filter(|(pid, _)| found.contains(pid)).collect();
        }
        found.extend(more);
    }
}

fn read(pid: u32) -> Option<Process> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let arguments = fs::read(format!("/proc/{pid}/cmdline")).ok()?;
    let arguments = arguments.split(|byte| *byte == 0).filter(|argument| !argument.is_empty());
    let arguments = arguments.map(|argument| String::from_utf8_lossy(argument).into_owned()).collect();
    let (state, parent) = parse_stat(&stat)?;
    Some(Process { parent, state, arguments })
}

/// State and parent. The program's name may hold blanks and parentheses: what follows the last one counts.
pub(crate) fn parse_stat(stat: &str) -> Option<(char, u32)> {
    let mut fields = stat.rsplit_once(')')?.1.split_whitespace();
    let state = fields.next()?.chars().next()?;
    Some((state, fields.next()?.parse().ok()?))
}

/// `Err` says what is wrong with the server `main` and its helpers.
pub(super) fn judge(main: u32, tree: &BTreeMap<u32, Process>) -> Result<(), String> {
    let alive = |state| !matches!(state, 'Z' | 'X');
    let server = tree.get(&main).filter(|server| alive(server.state));
    let server = server.ok_or_else(|| "the server is gone".to_owned())?;
    let mut listeners = tree.values().filter(|process| process.is(LISTENER) && alive(process.state));
    let listener = listeners.next().ok_or_else(|| format!("its helper \"{LISTENER}\" is gone"))?;
    match (server.state, listener.state) {
        ('T' | 't', _) => Err("the server is stopped by a signal".to_owned()),
        (_, 'T' | 't') => Err(format!("its helper \"{LISTENER}\" is stopped by a signal")),
        _ => Ok(()),
    }
}

/// Helpers that are always there; any other child is a module at work.
const LASTING: [&str; 3] = [LISTENER, "Almighty: bipbip", "Almighty: hulot"];

/// True while the server waits for a module, for instance the scheduler. (Such a child has replaced
/// the server's program by its own; one that still bears the server's arguments collects its output.)
pub(super) fn waits_for_module(main: u32, tree: &BTreeMap<u32, Process>) -> bool {
    let server = tree.get(&main).map(|server| &server.arguments);
    tree.values().any(|process| {
        process.parent == main
            && Some(&process.arguments) != server
            && !LASTING.iter().any(|title| process.is(title))
            && process.state != 'Z'
    })
}

/// Jobs that a helper of the server starts, finishes or exterminates now.
pub(super) fn jobs_at_work(tree: &BTreeMap<u32, Process>) -> BTreeSet<JobId> {
    tree.values().filter_map(job).collect()
}

fn job(process: &Process) -> Option<JobId> {
    let helper = |argument: &String| argument.ends_with("/bipbip") || argument.ends_with("/Leon");
    let arguments = &process.arguments;
    let at = arguments.iter().position(helper)?;
    arguments.get(at + 1)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn server(more: &[(u32, u32, char, &str)]) -> BTreeMap<u32, Process> {
        let almighty = "/usr/bin/perl /usr/lib/oar/Almighty";
        let always = [
            (10, 1, 'S', almighty),
            (11, 10, 'S', almighty),
            (12, 10, 'S', LISTENER),
            (13, 12, 'S', "Almighty: bipbip"),
        ];
        let process = |&(pid, parent, state, title): &(u32, u32, char, &str)| {
            // A title is one string, a command line is split.
            let split = if title.starts_with("Almighty: ") { vec![title] } else { title.split(' ').collect() };
            (pid, Process { parent, state, arguments: split.into_iter().map(str::to_owned).collect() })
        };
        always.iter().chain(more).map(process).collect()
    }

    #[test]
    fn a_server_without_its_listener_is_not_well() {
        assert_eq!(judge(10, &server(&[])), Ok(()));
        assert_eq!(judge(99, &server(&[])), Err("the server is gone".into()));
        assert_eq!(judge(10, &server(&[(10, 1, 'Z', "")])), Err("the server is gone".into()));
        let gone = "its helper \"Almighty: appendice\" is gone";
        assert_eq!(judge(10, &server(&[(12, 10, 'S', "x")])), Err(gone.into()));
        assert_eq!(judge(10, &server(&[(12, 10, 'Z', LISTENER)])), Err(gone.into()));
        let frozen = "its helper \"Almighty: appendice\" is stopped by a signal";
        assert_eq!(judge(10, &server(&[(12, 10, 'T', LISTENER)])), Err(frozen.into()));
    }

    #[test]
    fn a_module_at_work_is_seen() {
        assert!(!waits_for_module(10, &server(&[])));
        assert!(waits_for_module(10, &server(&[(20, 10, 'S', "/usr/bin/perl /usr/lib/oar/oar_meta_sched")])));
        assert!(!waits_for_module(10, &server(&[(20, 13, 'S', "/usr/bin/perl /usr/lib/oar/bipbip 7")])));
    }

    #[test]
    fn jobs_at_work_are_seen() {
        let tree = server(&[
            (20, 13, 'S', "/usr/bin/perl /usr/lib/oar/bipbip 43"),
            (21, 13, 'S', "/usr/bin/perl /usr/lib/oar/bipbip 44 0 0 123"),
            (22, 13, 'S', "/usr/bin/perl /usr/lib/oar/Leon 45"),
            (23, 10, 'S', "/usr/bin/perl /usr/lib/oar/Leon"),
        ]);
        assert_eq!(jobs_at_work(&tree), BTreeSet::from([43, 44, 45]));
    }

    #[test]
    fn only_what_is_below_the_server_counts() {
        let mut all = server(&[(13, 12, 'S', "Almighty: bipbip"), (20, 13, 'S', "x")]);
        all.insert(30, Process { parent: 1, state: 'S', arguments: vec!["y".into()] });
        assert_eq!(below(10, all).keys().copied().collect::<Vec<_>>(), [10, 11, 12, 13, 20]);
    }

    #[test]
    fn children_are_seen_both_ways() {
        use std::io::BufRead;
        use std::os::unix::process::CommandExt;
        let mut shell = std::process::Command::new("sh");
        shell.args(["-c", "sleep 30 & echo forked; wait"]).process_group(0).stdout(std::process::Stdio::piped());
        let mut shell = shell.spawn().unwrap();
        let mut said = String::new();
        std::io::BufReader::new(shell.stdout.take().unwrap()).read_line(&mut said).unwrap();
        let (near, tree) = (near(shell.id()), tree(shell.id()));
        let group = rustix::process::Pid::from_child(&shell);
        rustix::process::kill_process_group(group, rustix::process::Signal::KILL).unwrap();
        shell.wait().unwrap();
        assert_eq!(near.len(), 2, "{near:?}");
        assert_eq!(near.keys().collect::<Vec<_>>(), tree.keys().collect::<Vec<_>>());
    }

    #[test]
    fn this_process_is_in_its_own_tree() {
        let me = std::process::id();
        assert!(tree(me).contains_key(&me) && near(me).contains_key(&me));
        assert_eq!(parse_stat("7 (a) b) S 3 7 7 0"), Some(('S', 3)));
    }
}
