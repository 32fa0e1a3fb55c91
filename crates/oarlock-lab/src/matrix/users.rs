//! The user's side of every case: his commands, again and again, while things fail and heal.

use crate::history::Stamp;
use crate::jobs::USER;
use crate::lab::Lab;
use anyhow::{Result, anyhow};
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

/// No command may hang longer than this while things go wrong.
pub const HANG: Duration = Duration::from_secs(30);
/// Between two commands.
const PAUSE: Duration = Duration::from_secs(1);
/// Between two submissions: each takes the only place for a while.
const SUBMIT: Duration = Duration::from_secs(10);
const LOOK: Duration = Duration::from_millis(50);

/// What users ask.
const COMMANDS: [&str; 3] = ["oarstat", "oarnodes -l", "oarsub true"];

/// What came of one command's calls.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Answers {
    /// How many were answered.
    pub answered: usize,
    /// How many said that they could not.
    pub failed: usize,
    /// How many had to be killed.
    pub hung: usize,
    /// The longest time until an answer, milliseconds.
    pub slowest_ms: f64,
    /// What the last one that failed said.
    pub said: Option<String>,
    /// Whether the last one was answered.
    pub last: bool,
}

/// What came of all of them, in the order in which they are called.
#[derive(Debug, Clone, PartialEq)]
pub struct Told(Vec<(&'static str, Answers)>);

impl Told {
    /// What must not be.
    pub fn wrong(&self) -> Vec<String> {
        let mut wrong = Vec::new();
        for (command, answers) in &self.0 {
            if answers.hung > 0 {
                wrong.push(format!("{command}: {} hung longer than {} s", answers.hung, HANG.as_secs()));
            } else if !answers.last {
                let said = answers.said.as_deref().unwrap_or("never called");
                wrong.push(format!("{command} does not answer in the end: {said}"));
            }
        }
        wrong
    }
}

impl fmt::Display for Told {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let one = |(command, answers): &(&str, Answers)| {
            let failed = if answers.failed > 0 { format!(", {} refused", answers.failed) } else { String::new() };
            format!("{command} {} times{failed}, at most {:.0} ms", answers.answered, answers.slowest_ms)
        };
        write!(f, "{}", self.0.iter().map(one).collect::<Vec<_>>().join("; "))
    }
}

/// A user at work, until he is stopped.
#[derive(Debug)]
pub struct Users {
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<Told>>,
}

impl Users {
    /// Begins to work in `host`; submits jobs only with `submits`.
    pub fn begin(lab: &Lab, host: &str, submits: bool) -> Users {
        let stop = Arc::new(AtomicBool::new(false));
        let (lab, host, stopped) = (lab.clone(), host.to_owned(), Arc::clone(&stop));
        Users { stop, thread: Some(thread::spawn(move || work(&lab, &host, submits, &stopped))) }
    }

    /// Has each command called once more, and says how all went.
    pub fn end(mut self) -> Result<Told> {
        self.stop.store(true, Ordering::SeqCst);
        let thread = self.thread.take().ok_or_else(|| anyhow!("ended twice"))?;
        thread.join().map_err(|_| anyhow!("the user's thread ended in a panic"))
    }
}

impl Drop for Users {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::SeqCst);
        if let Some(thread) = self.thread.take() {
            // What it told is of no more interest; that it has ended is.
            let _ = thread.join();
        }
    }
}

fn work(lab: &Lab, host: &str, submits: bool, stop: &AtomicBool) -> Told {
    let commands = &COMMANDS[..if submits { 3 } else { 2 }];
    let mut told: Vec<_> = commands.iter().map(|command| (*command, Answers::default())).collect();
    let mut submitted: Option<Instant> = None;
    loop {
        let last = stop.load(Ordering::SeqCst);
        for (command, answers) in &mut told {
            let submission = command.starts_with("oarsub");
            if submission && !last && submitted.is_some_and(|at| at.elapsed() < SUBMIT) {
                continue;
            }
            if submission {
                submitted = Some(Instant::now());
            }
            call(lab, host, command, answers);
            rest(stop);
        }
        if last {
            return Told(told);
        }
    }
}

fn rest(stop: &AtomicBool) {
    let end = Instant::now() + PAUSE;
    while Instant::now() < end && !stop.load(Ordering::SeqCst) {
        thread::sleep(LOOK);
    }
}

fn call(lab: &Lab, host: &str, command: &str, answers: &mut Answers) {
    // A user whose own machine is off asks nothing.
    let Ok(host) = lab.host(host) else { return };
    let begun = Stamp::now();
    let outcome = host.exec(&["runuser", "-l", USER, "-c", command], HANG);
    let ms = Stamp::now().ms_since(begun);
    answers.last = false;
    match outcome {
        Ok(outcome) if outcome.status.success() => {
            answers.answered += 1;
            answers.slowest_ms = answers.slowest_ms.max(ms);
            answers.last = true;
        }
        Ok(outcome) => {
            answers.failed += 1;
            answers.said = Some(format!("{} {}", outcome.status, outcome.stderr.trim()));
        }
        Err(error) if ms >= HANG.as_secs_f64() * 1_000.0 => {
            answers.hung += 1;
            answers.said = Some(format!("{error:#}"));
        }
        Err(error) => {
            answers.failed += 1;
            answers.said = Some(format!("{error:#}"));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_hangs_and_what_does_not_come_back_is_wrong() {
        let fine = Answers { answered: 3, failed: 1, last: true, slowest_ms: 812.0, ..Answers::default() };
        let hung = Answers { hung: 1, last: true, ..Answers::default() };
        let gone = Answers { failed: 1, said: Some("no route".into()), ..Answers::default() };
        assert_eq!(Told(vec![("oarstat", fine.clone())]).wrong(), Vec::<String>::new());
        assert_eq!(Told(vec![("oarstat", hung)]).wrong(), ["oarstat: 1 hung longer than 30 s"]);
        assert_eq!(Told(vec![("oarstat", gone)]).wrong(), ["oarstat does not answer in the end: no route"]);
        assert_eq!(Told(vec![("oarstat", fine)]).to_string(), "oarstat 3 times, 1 refused, at most 812 ms");
    }
}
