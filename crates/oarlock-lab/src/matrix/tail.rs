//! Following a client's log without reading it again and again: the machine that is measured is
//! the one that reads.

use crate::history::{Line, Outcome, Stamp};
use anyhow::{Context, Result};
use std::fs::File;
use std::io::Read;
use std::path::Path;

/// What a log has said so far.
#[derive(Debug)]
pub struct Tail {
    file: File,
    /// Bytes of a line that is not complete yet.
    rest: Vec<u8>,
    /// When each acknowledged attempt began, in the order of the acknowledgements.
    pub acked: Vec<Stamp>,
    /// Why the latest attempt that was not acknowledged was not.
    pub last_failure: Option<String>,
}

impl Tail {
    /// Follows a log from its beginning.
    pub fn open(log: &Path) -> Result<Tail> {
        let file = File::open(log).with_context(|| format!("open {}", log.display()))?;
        Ok(Tail { file, rest: Vec::new(), acked: Vec::new(), last_failure: None })
    }

    /// Takes in what was written since the last call.
    pub fn read(&mut self) -> Result<()> {
        self.file.read_to_end(&mut self.rest).context("read a client's log")?;
        let complete = self.rest.iter().rposition(|b| *b == b'\n').map_or(0, |at| at + 1);
        for line in self.rest[..complete].split(|b| *b == b'\n').filter(|l| !l.is_empty()) {
            if let Line::Attempt(attempt) = serde_json::from_slice(line).context("a line of a client's log")? {
                match attempt.outcome {
                    Outcome::Acked => self.acked.push(attempt.begun),
                    Outcome::Refused | Outcome::Unknown => self.last_failure = attempt.error,
                }
            }
        }
        self.rest.drain(..complete);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;

    fn attempt(id: i64, outcome: &str) -> String {
        let stamp = format!(r#"{{"wall_us":{id},"mono_us":{id}}}"#);
        format!(
            r#"{{"line":"attempt","id":{id},"writer":0,"outcome":"{outcome}","begun":{stamp},"sent":null,"done":{stamp},"error":"e{id}"}}"#
        )
    }

    #[test]
    fn takes_in_each_line_once_and_only_when_complete() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("log");
        let mut log = File::create(&path).unwrap();
        let mut tail = Tail::open(&path).unwrap();
        let seen = |tail: &mut Tail| {
            tail.read().unwrap();
            (tail.acked.iter().map(|s| s.mono_us).collect::<Vec<_>>(), tail.last_failure.clone())
        };
        assert_eq!(seen(&mut tail), (vec![], None));
        let second = attempt(2, "refused");
        write!(log, "{}\n{}", attempt(1, "acked"), &second[..20]).unwrap();
        assert_eq!(seen(&mut tail), (vec![1], None));
        write!(log, "{}\n{}\n", &second[20..], attempt(3, "acked")).unwrap();
        assert_eq!(seen(&mut tail), (vec![1, 3], Some("e2".to_owned())));
        assert_eq!(seen(&mut tail), (vec![1, 3], Some("e2".to_owned())));
    }
}
