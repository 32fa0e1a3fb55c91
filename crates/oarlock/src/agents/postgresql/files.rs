//! Small file operations: written whole or not at all, and never on the runtime's own thread when
//! the disk below may hang.

use super::error::{PgError, Result};
use super::settings::ServerUser;
use std::fs::{self, File, OpenOptions};
use std::io::{Read, Seek, SeekFrom, Write};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt, chown};
use std::path::Path;
use std::time::Duration;

/// Who a new file belongs to and what others may do with it.
#[derive(Clone, Copy, Debug)]
pub(in crate::agents) struct Owned<'a> {
    pub user: &'a ServerUser,
    pub mode: u32,
}

/// Runs file operations on a thread of their own; a disk that hangs costs that thread, not us.
pub(in crate::agents) async fn blocking<T: Send + 'static>(
    what: &str,
    deadline: Duration,
    work: impl FnOnce() -> Result<T> + Send + 'static,
) -> Result<T> {
    match tokio::time::timeout(deadline, tokio::task::spawn_blocking(work)).await {
        Ok(Ok(result)) => result,
        Ok(Err(error)) => Err(PgError::other(format!("{what}: {error}"))),
        Err(_) => Err(PgError::Timeout { what: what.to_owned(), after: deadline }),
    }
}

/// Replaces a file in one step, for readers; not flushed to disk.
pub(in crate::agents) fn replace(path: &Path, content: &[u8], owned: Owned<'_>) -> Result<()> {
    write_beside(path, content, owned, false)
}

/// Replaces a file in one step and durably.
pub(in crate::agents) fn replace_durably(path: &Path, content: &[u8], owned: Owned<'_>) -> Result<()> {
    write_beside(path, content, owned, true)?;
    sync_parent(path)
}

fn write_beside(path: &Path, content: &[u8], owned: Owned<'_>, durable: bool) -> Result<()> {
    let mut name = path.file_name().unwrap_or_default().to_owned();
    name.push(".new");
    let beside = path.with_file_name(name);
    // Never through something that is there already: in a data directory the server's user could
    // have put a link.
    remove_file(&beside)?;
    let mut options = OpenOptions::new();
    let file = options.write(true).create_new(true).mode(0o600).open(&beside);
    let mut file = file.map_err(PgError::io("create", &beside))?;
    file.write_all(content).map_err(PgError::io("write", &beside))?;
    give(&beside, owned)?;
    if durable {
        file.sync_all().map_err(PgError::io("flush", &beside))?;
    }
    fs::rename(&beside, path).map_err(PgError::io("replace", path))
}

/// Sets mode and, when we may, owner.
pub(in crate::agents) fn give(path: &Path, owned: Owned<'_>) -> Result<()> {
    let mode = fs::Permissions::from_mode(owned.mode);
    fs::set_permissions(path, mode).map_err(PgError::io("set the mode of", path))?;
    if rustix::process::geteuid().is_root() {
        chown(path, Some(owned.user.uid), Some(owned.user.gid)).map_err(PgError::io("set the owner of", path))?;
    }
    Ok(())
}

/// Flushes the directory that holds `path`.
pub(in crate::agents) fn sync_parent(path: &Path) -> Result<()> {
    let parent = path.parent().unwrap_or(Path::new("/"));
    let dir = File::open(parent).map_err(PgError::io("open", parent))?;
    dir.sync_all().map_err(PgError::io("flush", parent))
}

/// Removes a file; its absence is success.
pub(in crate::agents) fn remove_file(path: &Path) -> Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(PgError::io("remove", path)(error)),
        _ => Ok(()),
    }
}

/// Reads a small text file; `None` when it is not there.
pub(in crate::agents) fn read_optional(path: &Path) -> Result<Option<String>> {
    match fs::read(path) {
        Ok(bytes) => Ok(Some(String::from_utf8_lossy(&bytes).into_owned())),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(PgError::io("read", path)(error)),
    }
}

/// The last lines of a log from `offset` on, at most 2,000 bytes, in one line.
pub(in crate::agents) fn tail(path: &Path, offset: u64) -> String {
    let read = || -> std::io::Result<Vec<u8>> {
        let mut file = File::open(path)?;
        let length = file.metadata()?.len();
        file.seek(SeekFrom::Start(offset.min(length).max(length.saturating_sub(2000))))?;
        let mut text = Vec::new();
        file.take(2000).read_to_end(&mut text)?;
        Ok(text)
    };
    let text = read().unwrap_or_default();
    let text = String::from_utf8_lossy(&text);
    text.lines().map(str::trim).filter(|line| !line.is_empty()).collect::<Vec<_>>().join(" | ")
}

/// Length of a file, 0 when it is not there.
pub(in crate::agents) fn length(path: &Path) -> u64 {
    fs::metadata(path).map_or(0, |metadata| metadata.len())
}
