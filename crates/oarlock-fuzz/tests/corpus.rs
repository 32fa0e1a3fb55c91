//! The corpus as it is, and a few thousand changes of each input, without libFuzzer.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test")]

use oarlock_fuzz::{TARGETS, Target};
use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};

/// Enough to see what a change of a decoder breaks at once.
const CHANGES: usize = 2_000;
/// A debug build, or a machine with much to do, plays fewer of them.
const PATIENCE: Duration = Duration::from_secs(2);

/// The corpus of a target.
fn corpus(target: &Target) -> Vec<Vec<u8>> {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("corpus").join(target.name);
    let entries = fs::read_dir(&directory).unwrap_or_else(|error| panic!("{}: {error}", directory.display()));
    let mut paths: Vec<_> = entries.map(|entry| entry.unwrap().path()).collect();
    paths.sort();
    paths.iter().map(|path| fs::read(path).unwrap()).collect()
}

fn changed(random: &mut fastrand::Rng, mut bytes: Vec<u8>, other: &[u8]) -> Vec<u8> {
    for _ in 0..random.usize(1..5) {
        let at = random.usize(0..=bytes.len());
        match random.u8(0..6) {
            0 if at < bytes.len() => bytes[at] = random.u8(..),
            1 if at < bytes.len() => bytes[at] ^= 1 << random.u8(0..8),
            2 => bytes.insert(at, random.choice([0, 1, b'"', b'\n', 0x7f, 0xff]).unwrap_or(0)),
            3 => bytes.truncate(at),
            4 => bytes.extend_from_slice(&other[random.usize(0..=other.len())..]),
            _ => drop(bytes.splice(at..at, std::iter::repeat_n(random.u8(..), random.usize(0..12)))),
        }
    }
    bytes.truncate(16 * 1024);
    bytes
}

#[test]
fn every_decoder_survives_its_corpus_and_changes_of_it() {
    for target in TARGETS {
        let seeds = corpus(target);
        assert!(!seeds.is_empty(), "{}: no corpus", target.name);
        seeds.iter().for_each(|seed| target.check(seed));
        let (mut random, start) = (fastrand::Rng::with_seed(1), Instant::now());
        for _ in 0..CHANGES {
            if start.elapsed() > PATIENCE {
                break;
            }
            let (seed, other) = (random.choice(&seeds).unwrap(), random.choice(&seeds).unwrap());
            let input = changed(&mut random, seed.clone(), other);
            target.check(&input);
        }
    }
}

/// Every directory of the corpus is a target's, and the other way round: `cargo xtask fuzz` goes by them.
#[test]
fn the_corpus_is_small_and_belongs_to_targets() {
    let corpus = Path::new(env!("CARGO_MANIFEST_DIR")).join("corpus");
    let mut names: Vec<String> =
        fs::read_dir(corpus).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    assert_eq!(names, TARGETS.iter().map(|target| target.name).collect::<Vec<_>>());
    let bytes: usize = TARGETS.iter().flat_map(corpus_sizes).sum();
    assert!(bytes < 200_000, "{bytes} bytes");
}

fn corpus_sizes(target: &Target) -> Vec<usize> {
    corpus(target).iter().map(Vec::len).collect()
}
