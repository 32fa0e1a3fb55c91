//! Scripts that drive a small cluster of cores; `tests/scripts/*.txt` hold what must come of it.
//!
//! A script is a sequence of blocks: commands (see `harness/commands.rs`), a line `----`, and the
//! trace they lead to, up to an empty line. `REWRITE=1 cargo test -p oarlock-core --test scripts`
//! writes the traces anew; read every change before it is committed.

// A script that cannot be followed ends the test; the core's purity does not bind its tests.
#![allow(clippy::expect_used, clippy::panic, clippy::disallowed_methods)]

mod harness;

use harness::Session;
use std::path::PathBuf;

const END_OF_COMMANDS: &str = "----";

/// Runs every command of a script; the script as it should be.
fn replay(script: &str) -> String {
    let mut session = Session::default();
    let mut whole = Vec::new();
    let mut trace = Vec::new();
    let mut lines = script.lines();
    while let Some(line) = lines.next() {
        whole.push(line.to_owned());
        if line == END_OF_COMMANDS {
            lines.by_ref().take_while(|line| !line.is_empty()).for_each(drop);
            whole.append(&mut trace);
            whole.push(String::new());
        } else if !line.is_empty() && !line.starts_with('#') {
            trace.extend(session.run(line));
        }
    }
    assert!(trace.is_empty(), "the last commands have no {END_OF_COMMANDS}");
    while whole.last().is_some_and(String::is_empty) {
        whole.pop();
    }
    whole.join("\n") + "\n"
}

fn directory() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/scripts")
}

fn check(name: &str) {
    let path = directory().join(name).with_extension("txt");
    let script = std::fs::read_to_string(&path).expect("the script");
    let replayed = replay(&script);
    if std::env::var_os("REWRITE").is_some() {
        std::fs::write(&path, replayed).expect("the script is written");
        return;
    }
    let differs = script.lines().zip(replayed.lines()).position(|(want, got)| want != got);
    let at = differs.unwrap_or(script.lines().count().min(replayed.lines().count()));
    let part = |text: &str| text.lines().skip(at.saturating_sub(3)).take(12).collect::<Vec<_>>().join("\n");
    assert!(
        script == replayed,
        "{name}.txt differs from line {} on\n--- expected\n{}\n--- happened\n{}",
        at + 1,
        part(&script),
        part(&replayed)
    );
}

macro_rules! scripts {
    ($($name:ident),* $(,)?) => {
        $(#[test] fn $name() { check(stringify!($name)); })*

        #[test]
        fn no_script_is_forgotten() {
            let named: std::collections::BTreeSet<String> = [$(stringify!($name).to_owned()),*].into();
            let files = std::fs::read_dir(directory()).expect("the scripts");
            let stem = |path: PathBuf| path.file_stem().map(|stem| stem.to_string_lossy().into_owned());
            let found = files.filter_map(|file| stem(file.ok()?.path())).collect();
            assert_eq!(named, found);
        }
    };
}

scripts!(membership, lease, ownership, planner, restarts, insync, promotion, hand_over, four_servers, depends, readers,);
