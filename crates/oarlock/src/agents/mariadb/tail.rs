//! What a copy's log holds that the cluster's history has not: found by numbers, saved before the
//! copy is replaced.

use super::binlog::{self, Gtid, GtidList};
use super::conf::BINLOG;
use super::error::{MariaError, Result};
use super::inspect::io;
use crate::agents::postgresql::divergent::{KIND, saved_of};
use crate::agents::postgresql::{copy, files, layout};
use std::fmt::Write;
use std::fs;
use std::path::{Path, PathBuf};

/// How many transactions an account lists.
const LISTED: usize = 5000;

/// Transactions that only this copy has.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub(super) struct Tail {
    /// The files that hold them, oldest first, and where in each the first of them begins, in bytes.
    pub files: Vec<(PathBuf, u64)>,
    /// Their numbers, oldest first.
    pub transactions: Vec<Gtid>,
}

/// What the copy in `data` has that a history of `known` has not. An error means: nobody can tell.
pub(super) fn find(data: &Path, known: &GtidList) -> Result<Tail> {
    let logs = binlog::files(&data.join(format!("{BINLOG}.index")))?;
    if logs.is_empty() {
        return Err(MariaError::other(format!("{} has no log to compare", data.display())));
    }
    let mut tail = Tail::default();
    for log in logs.iter().rev() {
        let (mut first, mut some, mut own) = (None, false, Vec::new());
        binlog::transactions(log, |seen| {
            some = true;
            if !known.contains(&seen.gtid) {
                first.get_or_insert(seen.offset);
                own.push(seen.gtid);
            }
        })?;
        match first {
            Some(offset) => {
                tail.files.insert(0, (log.clone(), offset));
                own.append(&mut tail.transactions);
                tail.transactions = own;
            }
            // One history leaves the other once: before a file that is all shared, all is.
            None if some => break,
            None => {}
        }
    }
    Ok(tail)
}

/// Saves a tail in a dated directory beside the data directory; says what was done.
pub(super) fn save(data: &Path, node: &str, tail: &Tail) -> Result<String> {
    if let Some(saved) = saved_of(data, copy::read(data, node)?, node)? {
        return Ok(format!("what only this copy had was saved before: {}", saved.display()));
    }
    let target = layout::dated(data, KIND)?;
    let making = layout::beside(&target, ".part");
    fs::create_dir_all(&making).map_err(io("create", &making))?;
    let mut account = String::from("Transactions that only this copy had; read them with mariadb-binlog:\n");
    for (log, offset) in &tail.files {
        let name = log.file_name().unwrap_or_default();
        save_file(log, &making.join(name))?;
        let _ = writeln!(account, "mariadb-binlog --verbose --start-position={offset} {}", name.to_string_lossy());
    }
    for gtid in tail.transactions.iter().take(LISTED) {
        let _ = writeln!(account, "{gtid}");
    }
    let path = making.join("account.txt");
    fs::write(&path, account).map_err(io("write", &path))?;
    sync(&path)?;
    let id = data.join("oarlock-copy-id");
    if id.exists() {
        save_file(&id, &making.join("oarlock-copy-id"))?;
    }
    fs::rename(&making, &target).map_err(io("rename", &making))?;
    files::sync_parent(&target)?;
    let (count, place) = (tail.transactions.len(), target.display());
    let first = tail.transactions.first().map(ToString::to_string).unwrap_or_default();
    Ok(format!("only this copy had {count} transactions from {first} on: saved in {place}"))
}

fn save_file(from: &Path, to: &Path) -> Result<()> {
    fs::copy(from, to).map_err(io("save to", to))?;
    sync(to)
}

fn sync(path: &Path) -> Result<()> {
    let file = fs::File::open(path).map_err(io("open", path))?;
    file.sync_all().map_err(io("flush", path))
}
