//! Changing the cluster's configuration as an administrator would: `apply` of an edited file.

use super::bed::Bed;
use crate::layout::Part;
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
    /// Applies a group's failback and waits until it is in force. A no-op if it is already.
    pub fn set_failback(&self, group: &str, failback: Failback) -> Result<()> {
        let word = match failback {
            Failback::Never => "never",
            Failback::Auto => "auto",
        };
        let owner = self.owner(Part::Database)?;
        let text = self.shell(&owner, &format!("cat {FILE}"), COMMAND)?;
        let Some(edited) = with_failback(&text, group, word).with_context(|| format!("{FILE} on {owner}"))? else {
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

/// The configuration with the failback line of one group changed; None if it says so already. A group's
/// own name stands before those of its resources, and before its failback.
fn with_failback(text: &str, group: &str, word: &str) -> Result<Option<String>> {
    let (mut lines, mut found): (Vec<String>, Vec<bool>) = (Vec::new(), Vec::new());
    let mut within: Option<&str> = None;
    for line in text.lines() {
        let trimmed = line.trim_start();
        let value = || line.split('"').nth(1).with_context(|| format!("no value in {line:?}"));
        if trimmed.starts_with("[[group]]") {
            within = None;
        } else if within.is_none() && trimmed.starts_with("name") {
            within = Some(value()?);
        }
        if trimmed.starts_with("failback") && within == Some(group) {
            found.push(value()? == word);
            lines.push(format!("failback = \"{word}\""));
        } else {
            lines.push(line.to_owned());
        }
    }
    match found[..] {
        [true] => Ok(None),
        [false] => Ok(Some(lines.join("\n") + "\n")),
        _ => bail!("{} failback lines of group {group:?}, not one", found.len()),
    }
}

#[cfg(test)]
mod tests {
    use super::with_failback;

    #[test]
    fn changes_the_failback_line_of_one_group_only() {
        let text = "name = \"lab\"\n[[group]]\nname = \"db\"\nfailback = \"never\"\n  name = \"oar\"\n\
            [[group]]\nname = \"oar\"\n  failback = \"never\"   # never | auto\nx = 1\n";
        let oar = text.replace("  failback = \"never\"   # never | auto", "failback = \"auto\"");
        assert_eq!(with_failback(text, "oar", "auto").unwrap().as_deref(), Some(oar.as_str()));
        let db = text.replacen("failback = \"never\"", "failback = \"auto\"", 1);
        assert_eq!(with_failback(text, "db", "auto").unwrap().as_deref(), Some(db.as_str()));
        assert_eq!(with_failback(text, "oar", "never").unwrap(), None);
        assert!(with_failback("x = 1\n", "oar", "auto").is_err());
        assert!(with_failback(text, "lab", "auto").is_err());
    }
}
