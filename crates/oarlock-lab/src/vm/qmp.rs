//! What is said to a running QEMU: one order, one answer.

use std::fs::File;
use std::io::{BufRead, BufReader, ErrorKind, Write};
use std::os::fd::AsRawFd;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use serde_json::{Value, json};

/// Name of the socket in a machine's directory.
pub(super) const SOCKET: &str = "qmp";
const DEADLINE: Duration = Duration::from_secs(20);
const LOOK: Duration = Duration::from_millis(10);

/// Gives the network card `card` of the machine in `dir` a carrier, or takes it away.
pub(super) fn set_link(dir: &Path, card: &str, up: bool) -> Result<()> {
    order(dir, "set_link", &json!({ "name": card, "up": up }))
}

fn order(dir: &Path, what: &str, arguments: &Value) -> Result<()> {
    // The path of a socket must be short, that of a checkout need not be.
    let open = File::open(dir).with_context(|| format!("cannot open {}", dir.display()))?;
    let path = format!("/proc/self/fd/{}/{SOCKET}", open.as_raw_fd());
    let mut stream = connect(Path::new(&path))?;
    stream.set_read_timeout(Some(DEADLINE))?;
    stream.set_write_timeout(Some(DEADLINE))?;
    let mut answers = BufReader::new(stream.try_clone()?);
    let mut line = String::new();
    answers.read_line(&mut line).context("QEMU does not greet")?;
    for (what, arguments) in [("qmp_capabilities", &json!({})), (what, arguments)] {
        writeln!(stream, "{}", json!({ "execute": what, "arguments": arguments })).context("cannot write to QEMU")?;
        answer(&mut answers).with_context(|| format!("QEMU did not do {what}"))?;
    }
    Ok(())
}

/// A QEMU that was just started needs a moment until it can be reached.
fn connect(path: &Path) -> Result<UnixStream> {
    let end = Instant::now() + DEADLINE;
    loop {
        match UnixStream::connect(path) {
            Err(error) if Instant::now() < end && error.kind() == ErrorKind::NotFound => thread::sleep(LOOK),
            Err(error) if Instant::now() < end && error.kind() == ErrorKind::ConnectionRefused => thread::sleep(LOOK),
            connected => return connected.context("cannot reach QEMU"),
        }
    }
}

/// Reads up to the answer; what happened meanwhile is told in between.
fn answer(answers: &mut impl BufRead) -> Result<()> {
    loop {
        let mut line = String::new();
        if answers.read_line(&mut line).context("no answer")? == 0 {
            bail!("it is gone");
        }
        let value: Value = serde_json::from_str(&line).context("an answer that is none")?;
        if let Some(error) = value.get("error") {
            bail!("it says {error}");
        }
        if value.get("return").is_some() {
            return Ok(());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn events_before_the_answer_are_passed_over_and_errors_told() {
        let mut good = &b"{\"event\": \"RESET\"}\n{\"return\": {}}\n"[..];
        answer(&mut good).unwrap();
        let mut bad = &b"{\"error\": {\"desc\": \"Device 'x' not found\"}}\n"[..];
        assert!(answer(&mut bad).unwrap_err().to_string().contains("not found"));
        assert!(answer(&mut &b""[..]).is_err());
        assert!(answer(&mut &b"no json\n"[..]).is_err());
    }
}
