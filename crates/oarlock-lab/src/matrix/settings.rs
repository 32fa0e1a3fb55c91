//! Changing the cluster's configuration as an administrator would: `apply` of an edited file.

use super::bed::Bed;
use anyhow::{Context, Result, bail};
use std::time::Duration;

const COMMAND: Duration = Duration::from_secs(15);
const FILE: &str = "/etc/oarlock/oarlock.toml";
/// Where an edited file lies before it is applied.
const EDITED: &str = "/tmp/edited.toml";

/// Whether a group returns to its preferred node by itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Failback {
    /// It stays.
    Never,
    /// It returns.
    Auto,
}

impl Bed {
    /// Applies the group's failback and waits until it is in force. A no-op if it is already.
    pub fn set_failback(&self, failback: Failback) -> Result<()> {
        let word = match failback {
            Failback::Never => "never",
            Failback::Auto => "auto",
        };
        let owner = self.owner()?;
        let text = self.shell(&owner, &format!("cat {FILE}"), COMMAND)?;
        let Some(edited) = with_failback(&text, word).with_context(|| format!("{FILE} on {owner}"))? else {
            return Ok(());
        };
        let generation = self.cluster()?.generation;
        let host = self.host(&owner)?;
        host.exec_with_input(&["tee", EDITED], Some(&edited), COMMAND)?.ok()?;
        self.request(&owner, &["apply", EDITED])?;
        self.until("the new configuration", COMMAND, || match self.cluster()?.generation {
            new if new > generation => Ok(()),
            old => bail!("generation {old}"),
        })
    }
}

/// The configuration with its only failback line changed; None if it says so already.
fn with_failback(text: &str, word: &str) -> Result<Option<String>> {
    let is_failback = |line: &&str| line.trim_start().starts_with("failback");
    let lines: Vec<&str> = text.lines().filter(is_failback).collect();
    let [line] = lines[..] else {
        bail!("{} failback lines, not one", lines.len());
    };
    let (_, value) = line.split_once('"').with_context(|| format!("no value in {line:?}"))?;
    if value.starts_with(&format!("{word}\"")) {
        return Ok(None);
    }
    Ok(Some(text.replace(line, &format!("failback = \"{word}\""))))
}

#[cfg(test)]
mod tests {
    use super::with_failback;

    #[test]
    fn changes_the_failback_line_only() {
        let text = "[[group]]\nname = \"oar\"\n  failback = \"never\"   # never | auto\nx = 1\n";
        let expected = "[[group]]\nname = \"oar\"\nfailback = \"auto\"\nx = 1\n";
        assert_eq!(with_failback(text, "auto").unwrap().as_deref(), Some(expected));
        assert_eq!(with_failback(text, "never").unwrap(), None);
        assert!(with_failback("x = 1\n", "auto").is_err());
    }
}
