//! The number of a copy, kept in its data directory.

use super::error::{PgError, Result};
use super::files::{self, Owned};
use crate::keys::random_bytes;
use oarlock_core::ids::CopyId;
use std::path::Path;

/// Name of the file. It names the node too: a directory copied by hand is another copy.
const FILE: &str = "oarlock-copy-id";

/// The number of the copy in `data_dir` if it has one that was given on `node`.
pub(in crate::agents) fn read(data_dir: &Path, node: &str) -> Result<Option<CopyId>> {
    let text = files::read_optional(&data_dir.join(FILE))?;
    Ok(text.as_deref().and_then(|text| parse(text, node)))
}

pub(crate) fn parse(text: &str, node: &str) -> Option<CopyId> {
    let (number, rest) = text.split_once('\n')?;
    let id = u64::from_str_radix(number, 16).ok()?;
    (rest.trim_end() == format!("node {node}")).then_some(CopyId(id))
}

/// Gives the copy in `data_dir` a new number, durably.
pub(in crate::agents) fn renew(data_dir: &Path, node: &str, owned: Owned<'_>) -> Result<CopyId> {
    let copy = random()?;
    files::replace_durably(&data_dir.join(FILE), format!("{copy}\nnode {node}\n").as_bytes(), owned)?;
    Ok(copy)
}

fn random() -> Result<CopyId> {
    let mut bytes = [0; 8];
    random_bytes(&mut bytes).map_err(|error| PgError::other(error.to_string()))?;
    Ok(CopyId(u64::from_le_bytes(bytes)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn number_counts_only_on_its_node() {
        let text = "00000000000000ff\nnode a\n";
        assert_eq!(parse(text, "a"), Some(CopyId(255)));
        assert_eq!(parse(text, "b"), None);
        assert_eq!(parse("xyz", "a"), None);
    }
}
