//! Other programs, always under a deadline.

use std::io::{self, Read, Write};
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

/// Between two looks whether it has ended.
const POLL: Duration = Duration::from_millis(10);
/// Most of its output that is kept, in bytes.
const OUTPUT_MAX_BYTES: u64 = 64 * 1024;

/// How a program ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Output {
    /// It exited with 0.
    pub success: bool,
    /// What it wrote.
    pub stdout: String,
    /// What it complained of.
    pub stderr: String,
}

/// Why a program could not be run to its end.
#[derive(Debug, thiserror::Error)]
pub enum ChildError {
    /// It could not be started.
    #[error("cannot run {program}")]
    Start {
        /// Its name.
        program: String,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// It took too long and was killed.
    #[error("{program} took longer than {} s", deadline.as_secs())]
    Late {
        /// Its name.
        program: String,
        /// What it had.
        deadline: Duration,
    },
}

/// Runs a program without input until it ends or `deadline` has passed.
pub fn run(argv: &[&str], deadline: Duration) -> Result<Output, ChildError> {
    run_with(argv, None, OUTPUT_MAX_BYTES, deadline)
}

/// Runs a program with `input` on its standard input; keeps at most `max_bytes` of what it writes.
pub fn run_with(argv: &[&str], input: Option<&str>, max_bytes: u64, deadline: Duration) -> Result<Output, ChildError> {
    let program = argv.first().copied().unwrap_or_default().to_owned();
    let start = |source| ChildError::Start { program: program.clone(), source };
    let mut child = Command::new(&program)
        .args(argv.get(1..).unwrap_or_default())
        .stdin(if input.is_some() { Stdio::piped() } else { Stdio::null() })
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .map_err(start)?;
    // Read while it runs: a full pipe would stop it.
    let stdout = child.stdout.take().map(|pipe| drain(pipe, max_bytes));
    let stderr = child.stderr.take().map(|pipe| drain(pipe, max_bytes));
    if let (Some(input), Some(mut pipe)) = (input, child.stdin.take()) {
        let input = input.to_owned();
        // Beside, for it may stop reading; that it did shows in how it ends.
        thread::spawn(move || pipe.write_all(input.as_bytes()));
    }
    let success = wait(&mut child, deadline).map_err(start)?;
    let Some(success) = success else { return Err(ChildError::Late { program, deadline }) };
    let text = |reader: Option<thread::JoinHandle<String>>| reader.and_then(|r| r.join().ok()).unwrap_or_default();
    Ok(Output { success, stdout: text(stdout), stderr: text(stderr) })
}

fn drain(pipe: impl Read + Send + 'static, max_bytes: u64) -> thread::JoinHandle<String> {
    thread::spawn(move || {
        let mut bytes = Vec::new();
        let mut pipe = pipe.take(max_bytes);
        // What was read before an error is still worth showing.
        let _ = pipe.read_to_end(&mut bytes);
        // The rest is read away so that the program does not stop.
        let _ = io::copy(&mut pipe.into_inner(), &mut io::sink());
        String::from_utf8_lossy(&bytes).into_owned()
    })
}

/// Whether it succeeded; `None` when it had to be killed.
fn wait(child: &mut Child, deadline: Duration) -> io::Result<Option<bool>> {
    let began = Instant::now();
    loop {
        if let Some(status) = child.try_wait()? {
            return Ok(Some(status.success()));
        }
        if began.elapsed() >= deadline {
            child.kill()?;
            child.wait()?;
            return Ok(None);
        }
        thread::sleep(POLL);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn programs_end_or_are_killed() {
        let ten = Duration::from_secs(10);
        let output = run(&["sh", "-c", "echo out; echo err >&2; exit 3"], ten).unwrap();
        assert_eq!(output, Output { success: false, stdout: "out\n".to_owned(), stderr: "err\n".to_owned() });
        let large = run(&["sh", "-c", "head -c 1000000 /dev/zero"], ten).unwrap();
        assert!(large.success && large.stdout.len() == 65_536);
        assert!(matches!(run(&["sleep", "60"], Duration::from_millis(50)), Err(ChildError::Late { .. })));
        assert!(matches!(run(&["/nonexistent"], ten), Err(ChildError::Start { .. })));
    }
}
