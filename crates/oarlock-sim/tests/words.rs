//! State words, exhaustive: every order in which two database machines lose and get their power.

use oarlock_core::Rules;
use oarlock_sim::run::Plan;
use oarlock_sim::sabotage::Sabotage;
use oarlock_sim::scenario::Layout;
use oarlock_sim::words::{Course, Pace, Survey, Told, Word};
use std::io::Write;
use std::time::Instant;

/// The test runner has the other cores.
const THREADS: usize = 1;

/// Plays all words and shows what came of them, on a line that the test runner does not swallow.
fn survey(name: &str, longest: usize, layout: Layout, pace: Pace, witness: bool) -> Survey {
    let began = Instant::now();
    let survey = Survey::of(longest, layout, pace, witness, THREADS);
    let line = format!("{name}, up to {longest} letters: {survey}; {:.1} s\n", began.elapsed().as_secs_f64());
    assert!(std::io::stdout().write_all(line.as_bytes()).is_ok());
    assert!(survey.wrong.is_empty(), "{}", survey.wrong.join("\n"));
    // Five letters each followed by any of the five.
    let words = (1..).take(longest).map(|letters| 5_u64.pow(letters)).sum();
    assert_eq!((survey.words, survey.accepted + survey.refused), (words, words));
    survey
}

#[test]
fn all_words_up_to_five() {
    let survey = survey("two servers", 5, Layout::Two, Pace::Settled, false);
    assert!(survey.accepted > 1_000 && survey.refused > 1_000, "{survey}");
}

#[test]
fn words_whose_steps_wait_for_nothing() {
    survey("two servers, hasty", 4, Layout::Two, Pace::Hasty, false);
}

#[test]
fn words_that_take_the_witness_along() {
    survey("two servers, the witness too", 4, Layout::Two, Pace::Settled, true);
}

#[test]
fn words_of_four_servers() {
    survey("four servers", 3, Layout::Four, Pace::Settled, false);
}

fn told(word: &str) -> Told {
    let known = Word::all(4).into_iter().find(|known| known.to_string() == word);
    let course = |word| Course { word, plan: Plan::new(1, Layout::Two), pace: Pace::Settled, witness: false };
    known.map(|word| course(word).play()).unwrap_or_default()
}

#[test]
fn a_copy_that_missed_a_write_refuses_and_says_so() {
    let told = told("MS,MX,XX,XM");
    assert_eq!((told.wrong, told.accepted), (None, 2));
    assert_eq!(told.refused, ["server1: not there; server2: its copy does not hold every acknowledged write"]);
}

#[test]
fn either_copy_serves_after_both_went_at_once() {
    for word in ["XX,MX", "XX,XM"] {
        let told = told(word);
        assert_eq!((told.wrong, told.accepted, told.refused), (None, 1, Vec::new()), "{word}");
    }
}

/// With a rule broken words go wrong, and each says how to see it again.
fn caught(rules: Rules, sabotage: Option<Sabotage>) {
    let plan = |seed| Plan { rules, sabotage, ..Plan::new(seed, Layout::Two) };
    let course = |(seed, word)| Course { word, plan: plan(seed), pace: Pace::Settled, witness: false };
    let courses: Vec<Course> = (1..).zip(Word::all(2)).map(course).collect();
    let wrong = Survey::of_courses(&courses, THREADS).wrong;
    assert!(wrong.iter().any(|text| text.contains("no_lost_write") && text.contains("sim --word ")), "{wrong:?}");
}

#[test]
fn leaving_before_the_commit_is_caught() {
    caught(Rules { leave_first: false, ..Rules::default() }, None);
}

#[test]
fn joining_without_the_catch_up_is_caught() {
    caught(Rules { join_catch_up: false, ..Rules::default() }, None);
}

#[test]
fn confirming_what_is_not_on_the_disk_is_caught() {
    caught(Rules::default(), Some(Sabotage::ConfirmUnflushed));
}

#[test]
fn a_word_is_read_as_it_is_written() {
    let words = Word::all(2);
    assert_eq!(words.len(), 30);
    for word in words {
        assert_eq!(word.to_string().parse(), Ok(word));
    }
    let wrong = "MS,MM".parse::<Word>();
    assert_eq!(wrong, Err("state \"MM\" in \"MS,MM\" is none of MS, SM, MX, XM, XX".to_owned()));
}
