//! What to do with a job that was between two states when a server died. Pure: evidence in,
//! decision out; every decision is in the table below the function.

use std::fmt;

/// A job's number.
pub(super) type JobId = i64;

/// States in which a job can be left for ever.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Stuck {
    /// A server was starting it on its node.
    Launching,
    /// It has ended; a server was cleaning up after it.
    Finishing,
}

/// What is known of the job's first process, `oarexec`, on its node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Oarexec {
    /// It is there: the job runs, or is about to, or waits to report its end.
    Running,
    /// It is not there, and the node has been up since before the job was launched.
    Absent,
    /// It is not there, but the node has restarted since: it may have been.
    NodeRestarted,
    /// The node could not be asked.
    Unknown {
        /// In words.
        reason: String,
    },
}

/// Everything that is known of one job that came into its state before this server started.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Evidence {
    /// Its number.
    pub job: JobId,
    /// Its state in the database.
    pub stuck: Stuck,
    /// A helper of this server works on it now.
    pub at_work: bool,
    /// OAR has an event of it to look at, which may change its state.
    pub event_pending: bool,
    /// Somebody or something asked for its deletion.
    pub deletion: Deletion,
    /// Another job was made to replace it.
    pub replaced: bool,
    /// The exit code of its script, if known.
    pub exit_code: Option<i32>,
    /// The secret that proves a message about it.
    pub challenge: Option<String>,
    /// Of its first process. Not asked for while finishing.
    pub oarexec: Oarexec,
}

/// How far the deletion of a job has got.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Deletion {
    /// Nobody asked for it.
    None,
    /// It was asked for.
    Asked,
    /// Its first process did not listen: the server ends it without.
    Exterminating,
}

/// What to do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Decision {
    /// Nothing: OAR deals with it.
    Leave,
    /// Nothing yet: look again later; what to tell an administrator if it stays so.
    Wait(String),
    /// Nothing: only an administrator can decide; what to tell him.
    Tell(String),
    /// Give it back to the scheduler: it starts again.
    Relaunch,
    /// Send the server this message.
    Send(String),
    /// Take it back to running and send the server this message: its end is dealt with again.
    FinishAgain(String),
}

/// `oarexec` ended well.
const ENDED: u8 = 0;
/// `oarexec` was ended by the server, as for a deletion.
const ENDED_BY_SERVER: u8 = 3;

/// Decides. A wrong `Relaunch` would run a job twice, so it needs proof; everything else OAR
/// itself checks again.
pub(super) fn decide(evidence: &Evidence) -> Decision {
    if evidence.at_work {
        return Decision::Leave;
    }
    if evidence.event_pending {
        return Decision::Wait(format!("{evidence}: oar has an event of it to look at and does not"));
    }
    match evidence.stuck {
        Stuck::Launching => launching(evidence),
        Stuck::Finishing => finishing(evidence),
    }
}

fn launching(evidence: &Evidence) -> Decision {
    if evidence.deletion != Deletion::None {
        return Decision::Wait(format!("{evidence}: it is being deleted and does not end"));
    }
    match &evidence.oarexec {
        Oarexec::Absent => Decision::Relaunch,
        Oarexec::Running => Decision::Wait(format!(
            "{evidence}: its oarexec is on the node, so it was not started again; it ends by itself, or after oarexec is killed"
        )),
        Oarexec::Unknown { reason } => Decision::Wait(format!(
            "{evidence}: its node cannot say whether it runs ({reason}), so it was not started again; hint: if it does not, delete and submit it again"
        )),
        Oarexec::NodeRestarted => Decision::Tell(format!(
            "{evidence}: its node has restarted since, so it may have run; hint: delete it, and submit it again if it did not"
        )),
    }
}

fn finishing(evidence: &Evidence) -> Decision {
    let job = evidence.job;
    if evidence.deletion == Deletion::Exterminating {
        return Decision::Send(format!("LEONEXTERMINATE_{job}"));
    }
    let Some(challenge) = &evidence.challenge else {
        return Decision::Tell(format!("{evidence}: it has no challenge, so its end cannot be repeated"));
    };
    // A replaced job must not be replaced again, which an end by deletion could do.
    let deleted = evidence.deletion == Deletion::Asked && !evidence.replaced;
    let end = if deleted { ENDED_BY_SERVER } else { ENDED };
    let code = evidence.exit_code.map_or_else(|| "N".to_owned(), |code| code.to_string());
    Decision::FinishAgain(format!("OAREXEC_{job}_{end}_{code}_{challenge}"))
}

impl fmt::Display for Evidence {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let state = match self.stuck {
            Stuck::Launching => "Launching",
            Stuck::Finishing => "Finishing",
        };
        write!(f, "job {} is still {state}", self.job)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn left(stuck: Stuck) -> Evidence {
        Evidence {
            job: 43,
            stuck,
            at_work: false,
            event_pending: false,
            deletion: Deletion::None,
            replaced: false,
            exit_code: None,
            challenge: Some("99".into()),
            oarexec: Oarexec::Absent,
        }
    }

    /// One word per decision, to read the table by.
    fn word(evidence: &Evidence) -> String {
        match decide(evidence) {
            Decision::Leave => "leave".into(),
            Decision::Wait(_) => "wait".into(),
            Decision::Tell(_) => "tell".into(),
            Decision::Relaunch => "relaunch".into(),
            Decision::Send(message) => format!("send {message}"),
            Decision::FinishAgain(message) => format!("finish {message}"),
        }
    }

    type Change = fn(&mut Evidence);

    #[test]
    fn the_table_of_a_job_that_was_being_launched() {
        let unknown = || Oarexec::Unknown { reason: "no route".into() };
        let table: [(&str, Change, &str); 8] = [
            ("nothing of it runs", |_| {}, "relaunch"),
            ("it runs on its node", |e| e.oarexec = Oarexec::Running, "wait"),
            ("its node does not answer", |e| e.oarexec = Oarexec::Unknown { reason: String::new() }, "wait"),
            ("its node has restarted", |e| e.oarexec = Oarexec::NodeRestarted, "tell"),
            ("a helper launches it now", |e| e.at_work = true, "leave"),
            ("an event will change its state", |e| e.event_pending = true, "wait"),
            ("it is being deleted", |e| e.deletion = Deletion::Asked, "wait"),
            ("it is being exterminated", |e| e.deletion = Deletion::Exterminating, "wait"),
        ];
        for (what, change, expected) in table {
            let mut evidence = left(Stuck::Launching);
            change(&mut evidence);
            assert_eq!(word(&evidence), expected, "{what}");
        }
        let evidence = Evidence { oarexec: unknown(), ..left(Stuck::Launching) };
        let Decision::Wait(text) = decide(&evidence) else { panic!("{evidence:?}") };
        assert!(
            text.starts_with("job 43 is still Launching: its node cannot say whether it runs (no route)"),
            "{text}"
        );
    }

    #[test]
    fn the_table_of_a_job_that_was_being_finished() {
        let table: [(&str, Change, &str); 9] = [
            ("its exit code is not known", |_| {}, "finish OAREXEC_43_0_N_99"),
            ("its exit code is known", |e| e.exit_code = Some(256), "finish OAREXEC_43_0_256_99"),
            ("it was deleted", |e| e.deletion = Deletion::Asked, "finish OAREXEC_43_3_N_99"),
            ("it was being exterminated", |e| e.deletion = Deletion::Exterminating, "send LEONEXTERMINATE_43"),
            ("its secret is lost", |e| e.challenge = None, "tell"),
            ("a helper finishes it now", |e| e.at_work = true, "leave"),
            ("an event will change its state", |e| e.event_pending = true, "wait"),
            ("its node does not matter", |e| e.oarexec = Oarexec::Running, "finish OAREXEC_43_0_N_99"),
            (
                "it was deleted and replaced",
                |e| {
                    e.deletion = Deletion::Asked;
                    e.replaced = true;
                },
                "finish OAREXEC_43_0_N_99",
            ),
        ];
        for (what, change, expected) in table {
            let mut evidence = left(Stuck::Finishing);
            change(&mut evidence);
            assert_eq!(word(&evidence), expected, "{what}");
        }
    }

    #[test]
    fn only_proof_makes_a_job_start_again() {
        // Every combination: a relaunch needs an absent oarexec and nobody else at work.
        for bits in 0..8u8 {
            for oarexec in [Oarexec::Running, Oarexec::NodeRestarted, Oarexec::Unknown { reason: String::new() }] {
                let evidence = Evidence {
                    at_work: bits & 1 != 0,
                    event_pending: bits & 2 != 0,
                    replaced: bits & 4 != 0,
                    oarexec,
                    ..left(Stuck::Launching)
                };
                assert_ne!(decide(&evidence), Decision::Relaunch, "{evidence:?}");
            }
        }
    }
}
