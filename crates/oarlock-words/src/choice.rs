//! A sample of the words for where playing all of them takes too long.

use crate::{Expected, Letter, Word};
use std::collections::BTreeSet;

/// What a word shows: each step from a state of the oracle.
type Step = (Expected, Letter);

/// Words of at most `longest` letters: first as few as needed that together take every step that any
/// such word can take, so that no kind of refusal is missing; then others as `pick` draws them, up to
/// `count` in all, every second of them one with a refusal. `pick` gets a number and returns one below it.
pub fn choose(count: usize, longest: usize, mut pick: impl FnMut(usize) -> usize) -> Vec<Word> {
    let mut left = Word::all(longest);
    let mut chosen = Vec::new();
    let mut open: BTreeSet<Step> = left.iter().flat_map(steps).collect();
    while !open.is_empty() && chosen.len() < count {
        // The shortest of those that add most, which stands first.
        let gain = |word: &Word| steps(word).into_iter().collect::<BTreeSet<_>>().intersection(&open).count();
        let best = left.iter().map(gain).enumerate().rev().max_by_key(|(_, gain)| *gain);
        let Some((place, _)) = best else { break };
        let word = left.remove(place);
        steps(&word).iter().for_each(|step| {
            open.remove(step);
        });
        chosen.push(word);
    }
    while chosen.len() < count && !left.is_empty() {
        let refusing: Vec<usize> = (0..left.len()).filter(|place| refuses(&left[*place])).collect();
        let place = if chosen.len() % 2 == 0 && !refusing.is_empty() {
            refusing[pick(refusing.len()) % refusing.len()]
        } else {
            pick(left.len()) % left.len()
        };
        chosen.push(left.remove(place));
    }
    chosen
}

fn steps(word: &Word) -> Vec<Step> {
    let mut expected = Expected::begin();
    let step = |letter: &Letter| {
        let before = expected;
        expected.step(*letter);
        (before, *letter)
    };
    word.letters().iter().map(step).collect()
}

/// Whether any of its steps must be refused.
fn refuses(word: &Word) -> bool {
    let mut expected = Expected::begin();
    word.letters().iter().any(|letter| {
        expected.step(*letter);
        !expected.accepts(*letter)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn thirty_words_take_every_step_there_is() {
        let all: BTreeSet<Step> = Word::all(5).iter().flat_map(steps).collect();
        let chosen = choose(30, 5, |below| below / 2);
        assert_eq!(chosen.len(), 30);
        let taken: BTreeSet<Step> = chosen.iter().flat_map(steps).collect();
        assert_eq!(taken, all);
        assert!(chosen.iter().filter(|word| refuses(word)).count() >= 15);
        let distinct: BTreeSet<String> = chosen.iter().map(ToString::to_string).collect();
        assert_eq!(distinct.len(), 30);
    }

    #[test]
    fn the_word_of_the_stale_copy_refuses() {
        assert!(refuses(&"MS,MX,XX,XM".parse().unwrap()));
        assert!(!refuses(&"MS,XX,XM,SM".parse().unwrap()));
    }
}
