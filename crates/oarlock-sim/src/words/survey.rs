//! All words up to a length, on all threads, and what came of them.

use super::{Course, Pace, Told, Word};
use crate::run::Plan;
use crate::scenario::Layout;
use std::collections::BTreeSet;
use std::fmt;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

/// What came of many words.
#[derive(Clone, Debug, Default)]
pub struct Survey {
    /// How many were played.
    pub words: u64,
    /// How many in which every machine that was asked to serve did.
    pub accepted: u64,
    /// How many with a step that had to be refused.
    pub refused: u64,
    /// Steps in which the machine that was asked to serve did.
    pub steps_accepted: u64,
    /// Steps that were refused.
    pub steps_refused: u64,
    /// The different reasons that were given.
    pub reasons: BTreeSet<String>,
    /// Writes whose acknowledgement reached a client.
    pub acknowledged: u64,
    /// Longest time a lone machine took to serve, in milliseconds.
    pub slowest_ms: u64,
    /// Words that went wrong, each with the step and how to see it again.
    pub wrong: Vec<String>,
}

impl Survey {
    /// Plays all words up to `longest` letters; a word's place in their order is its seed.
    #[must_use]
    pub fn of(longest: usize, layout: Layout, pace: Pace, witness: bool, threads: usize) -> Survey {
        let course = |(seed, word)| Course { word, plan: Plan::new(seed, layout), pace, witness };
        Survey::of_courses(&(1..).zip(Word::all(longest)).map(course).collect::<Vec<_>>(), threads)
    }

    /// Plays these.
    #[must_use]
    pub fn of_courses(courses: &[Course], threads: usize) -> Survey {
        let (next, survey) = (AtomicUsize::new(0), Mutex::new(Survey::default()));
        std::thread::scope(|scope| {
            for _ in 0..threads.max(1) {
                scope.spawn(|| {
                    while let Some(course) = courses.get(next.fetch_add(1, Ordering::Relaxed)) {
                        let told = course.play();
                        survey.lock().unwrap_or_else(std::sync::PoisonError::into_inner).add(course, told);
                    }
                });
            }
        });
        survey.into_inner().unwrap_or_else(std::sync::PoisonError::into_inner)
    }

    fn add(&mut self, course: &Course, told: Told) {
        self.words += 1;
        self.steps_accepted += told.accepted;
        self.steps_refused += told.refused.len() as u64;
        self.acknowledged += told.acknowledged as u64;
        self.slowest_ms = self.slowest_ms.max(told.slowest_ms);
        match told.wrong {
            Some((step, text)) => self.wrong.push(format!(
                "word {} step {step}: {text}\n  reproduce with: {}",
                course.word,
                course.command()
            )),
            None if told.refused.is_empty() => self.accepted += 1,
            None => self.refused += 1,
        }
        self.reasons.extend(told.refused);
    }
}

impl fmt::Display for Survey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Survey { words, accepted, refused, steps_accepted, steps_refused, acknowledged, .. } = self;
        write!(
            f,
            "{words} state words: {accepted} accepted, {refused} with a step refused, {} wrong; ",
            self.wrong.len()
        )?;
        write!(f, "{steps_accepted} steps accepted, {steps_refused} refused; {acknowledged} writes acknowledged")?;
        if self.slowest_ms > 0 {
            write!(f, "; a lone machine served within {} ms", self.slowest_ms)?;
        }
        Ok(())
    }
}
