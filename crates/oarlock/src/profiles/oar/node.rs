//! Asking compute nodes which jobs run there, and waking those that wait to report, over OAR's own ssh.

use super::decide::{JobId, Oarexec};
use crate::agents::service::run;
use crate::agents::user::SystemUser;
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;
use tokio::task::JoinSet;

/// How long one node may take; ssh itself gives up a little earlier.
const DEADLINE: Duration = Duration::from_secs(8);
/// How many nodes are asked at once.
const AT_ONCE: usize = 16;

/// Run by the shell of the user `oar` on the node. OAR starts a job there as `perl - JOB OAREXEC`;
/// the first `grep` finds such processes (and not itself: the pattern is not the word). The last
/// line tells a complete answer from a broken one.
const QUESTION: &str = "for f in $(grep -lszx '[O]AREXEC' /proc/[0-9]*/cmdline); do tr '\\0' ' ' < $f; echo; done; \
    echo up $(cut -d. -f1 /proc/uptime); echo complete";

/// As above. An `oarexec` whose job has ended reports that once; when that was heard by a server that
/// died before it wrote it down, it sleeps for up to fifteen minutes before it does so again. Any
/// signal that it has a handler for ends the sleep, and its handler of this one does nothing else
/// that matters (oarexec of 2.5).
const WAKE: &str = "for f in $(grep -lszx '[O]AREXEC' /proc/[0-9]*/cmdline); do p=${f#/proc/}; \
    kill -CONT ${p%/cmdline}; done; echo complete";

/// What a node said.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Answer {
    /// Jobs whose first process is there.
    jobs: BTreeSet<JobId>,
    /// For how long the node has been up, in seconds.
    up_s: i64,
}

/// What each node said, or why it did not.
pub(super) type Answers = BTreeMap<String, Result<Answer, String>>;

/// Asks all `nodes`, several at once.
pub(super) async fn ask(nodes: BTreeSet<String>, ssh: &[String], user: &SystemUser) -> Answers {
    let answers = on_all(nodes, QUESTION, ssh, user).await.into_iter();
    let read = |output: String| parse(&output).ok_or_else(|| "its answer makes no sense".to_owned());
    answers.map(|(node, output)| (node, output.and_then(read))).collect()
}

/// Has every job on `nodes` that has ended report that again; why it could not, per node.
pub(super) async fn wake(nodes: BTreeSet<String>, ssh: &[String], user: &SystemUser) -> BTreeMap<String, String> {
    let answers = on_all(nodes, WAKE, ssh, user).await.into_iter();
    answers.filter_map(|(node, output)| Some((node, output.err()?))).collect()
}

/// Runs `script` on all `nodes`; what each wrote.
async fn on_all(
    nodes: BTreeSet<String>,
    script: &'static str,
    ssh: &[String],
    user: &SystemUser,
) -> BTreeMap<String, Result<String, String>> {
    let (mut waiting, mut asked, mut answers) = (nodes.into_iter(), JoinSet::new(), BTreeMap::new());
    loop {
        while asked.len() < AT_ONCE
            && let Some(node) = waiting.next()
        {
            let (argv, user) = (command(ssh, &node, script), user.clone());
            asked.spawn(async move {
                let answer = match &argv {
                    Some(argv) => on_one(argv, &user).await,
                    None => Err("its name cannot be given to ssh".to_owned()),
                };
                (node, answer)
            });
        }
        match asked.join_next().await {
            Some(Ok((node, answer))) => answers.insert(node, answer),
            Some(Err(_)) => continue,
            None => return answers,
        };
    }
}

/// What is known of the first process of `job` on its node. The launch began at most `launching_s`
/// seconds before the node was asked.
pub(super) fn oarexec(answers: &Answers, node: &str, job: JobId, launching_s: Option<i64>) -> Oarexec {
    match answers.get(node) {
        None => Oarexec::Unknown { reason: format!("{node} was not asked") },
        Some(Err(reason)) => Oarexec::Unknown { reason: format!("{node}: {reason}") },
        Some(Ok(answer)) if answer.jobs.contains(&job) => Oarexec::Running,
        // Where the log does not say since when, a node that restarted cannot be ruled out.
        Some(Ok(answer)) if launching_s.is_some_and(|launching_s| answer.up_s > launching_s) => Oarexec::Absent,
        Some(Ok(_)) => Oarexec::NodeRestarted,
    }
}

async fn on_one(argv: &[String], user: &SystemUser) -> Result<String, String> {
    let outcome = run(argv, user, &[], DEADLINE).await?;
    // The exit code is not looked at: what counts is that the answer is complete.
    let last = outcome.output.lines().rev().map(str::trim).find(|line| !line.is_empty());
    if last == Some("complete") {
        return Ok(outcome.output);
    }
    outcome.check("ssh")?;
    Err("its answer is not complete".to_owned())
}

/// `None` for a node name that ssh would take for something else.
fn command(ssh: &[String], node: &str, script: &str) -> Option<Vec<String>> {
    let good = |byte: u8| byte.is_ascii_alphanumeric() || b"._-:".contains(&byte);
    if node.is_empty() || node.starts_with('-') || !node.bytes().all(good) || ssh.is_empty() {
        return None;
    }
    let options = ["-x", "-T", "-oBatchMode=yes", "-oConnectTimeout=5", node, script];
    Some(ssh.iter().cloned().chain(options.map(str::to_owned)).collect())
}

pub(crate) fn parse(output: &str) -> Option<Answer> {
    let mut lines = output.lines().rev().map(str::trim).filter(|line| !line.is_empty());
    lines.next().filter(|line| *line == "complete")?;
    let up_s = lines.next()?.strip_prefix("up ")?.parse().ok()?;
    let jobs = lines.filter_map(|line| {
        let mut words = line.split_whitespace().rev().skip_while(|word| *word != "OAREXEC").skip(1);
        words.next()?.parse().ok()
    });
    Some(Answer { jobs: jobs.collect(), up_s })
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::io::AsyncBufReadExt;

    #[test]
    fn an_answer_is_read() {
        let answer = parse("perl - 43 OAREXEC \nperl - 7 OAREXEC \nup 3600\ncomplete\n").unwrap();
        assert_eq!(answer, Answer { jobs: BTreeSet::from([43, 7]), up_s: 3600 });
        assert_eq!(parse("up 5\ncomplete").unwrap().jobs, BTreeSet::new());
        for broken in ["", "complete", "up 5", "perl - 43 OAREXEC \nup 5\n", "up x\ncomplete"] {
            assert_eq!(parse(broken), None, "{broken}");
        }
    }

    #[test]
    fn absence_needs_a_node_that_was_up_all_the_time() {
        let answer = Answer { jobs: BTreeSet::from([7]), up_s: 100 };
        let answers = Answers::from([("n1".into(), Ok(answer)), ("n2".into(), Err("no route".into()))]);
        assert_eq!(oarexec(&answers, "n1", 7, Some(10)), Oarexec::Running);
        assert_eq!(oarexec(&answers, "n1", 8, Some(10)), Oarexec::Absent);
        assert_eq!(oarexec(&answers, "n1", 8, Some(100)), Oarexec::NodeRestarted);
        assert_eq!(oarexec(&answers, "n1", 8, None), Oarexec::NodeRestarted);
        let reason = "n2: no route".to_owned();
        assert_eq!(oarexec(&answers, "n2", 8, Some(10)), Oarexec::Unknown { reason });
        assert!(matches!(oarexec(&answers, "n3", 8, Some(10)), Oarexec::Unknown { .. }));
    }

    #[test]
    fn a_node_name_cannot_become_an_option() {
        let ssh = ["ssh".to_owned()];
        assert_eq!(command(&ssh, "node1", QUESTION).unwrap()[5], "node1");
        for bad in ["-oProxyCommand=x", "", "a b", "a;b", "$(x)"] {
            assert_eq!(command(&ssh, bad, QUESTION), None, "{bad}");
        }
        assert_eq!(command(&[], "node1", QUESTION), None);
    }

    /// The question itself, asked of a shell on this machine in place of a node.
    #[tokio::test]
    async fn the_question_finds_a_first_process_and_not_itself() {
        let user = SystemUser::lookup("root").await.unwrap();
        let mut first = tokio::process::Command::new("sh")
            .args(["-c", "read line", "-", "98765", "OAREXEC"])
            .stdin(std::process::Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .unwrap();
        let shell = ["sh", "-c", QUESTION].map(str::to_owned);
        let asked = || async { parse(&on_one(&shell, &user).await.unwrap()).unwrap() };
        let answer = asked().await;
        assert!(answer.jobs.contains(&98765), "{answer:?}");
        assert!(answer.up_s > 0);
        first.kill().await.unwrap();
        assert!(!asked().await.jobs.contains(&98765));
    }

    /// Perl's own sleep, as oarexec's, is ended by it.
    #[tokio::test]
    async fn one_that_waits_to_report_is_woken() {
        let user = SystemUser::lookup("root").await.unwrap();
        let script = "$SIG{CONT} = sub {}; $| = 1; print qq(asleep\\n); sleep(900); print qq(awake\\n)";
        let mut first = tokio::process::Command::new("perl")
            .args(["-e", script, "98766", "OAREXEC"])
            .stdout(std::process::Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .unwrap();
        let mut lines = tokio::io::BufReader::new(first.stdout.take().unwrap()).lines();
        assert_eq!(lines.next_line().await.unwrap().as_deref(), Some("asleep"));
        let shell = ["sh", "-c", WAKE].map(str::to_owned);
        // Between the word and the sleep a signal is lost: it is sent until it is heard.
        let woken = async {
            loop {
                on_one(&shell, &user).await.unwrap();
                let heard = tokio::time::timeout(Duration::from_millis(100), lines.next_line()).await;
                if let Ok(line) = heard {
                    return line.unwrap();
                }
            }
        };
        let line = tokio::time::timeout(Duration::from_secs(20), woken).await.unwrap();
        assert_eq!(line.as_deref(), Some("awake"));
    }

    #[tokio::test]
    async fn a_node_that_cannot_be_asked_says_why() {
        let user = SystemUser::lookup("root").await.unwrap();
        let ssh = ["sh", "-c", "echo no route >&2; exit 255"].map(str::to_owned);
        let answers = ask(BTreeSet::from(["n1".into(), "n2".into()]), &ssh, &user).await;
        let reason = || Err("ssh ended with exit code 255: no route".to_owned());
        assert_eq!(answers, Answers::from([("n1".into(), reason()), ("n2".into(), reason())]));
    }
}
