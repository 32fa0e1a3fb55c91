//! The committed configuration as the file on this node.

use super::Inner;
use std::fs;
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use tokio::sync::{mpsc, watch};

/// Mode of the file where there was none: it holds no secret, and people look into it.
const MODE: u32 = 0o644;

/// Writes the newest committed text whenever there is another, beside the loop: a slow disk must not
/// hold that up.
pub async fn keep(path: PathBuf, mut newest: watch::Receiver<Arc<str>>, inner: mpsc::Sender<Inner>) {
    while newest.changed().await.is_ok() {
        let (path, text) = (path.clone(), newest.borrow_and_update().clone());
        let shown = path.display().to_string();
        let written = tokio::task::spawn_blocking(move || write(&path, &text)).await;
        let report = match written.unwrap_or_else(|error| Err(io::Error::other(error))) {
            Ok(()) => Inner::ConfigWritten,
            Err(error) => Inner::Note(format!("cannot write {shown}: {error}")),
        };
        let _ = inner.send(report).await;
    }
}

/// Replaces the file as a whole, on the disk when this returns; who may read it stays as it was.
fn write(path: &Path, text: &str) -> io::Result<()> {
    if fs::read(path).is_ok_and(|old| old == text.as_bytes()) {
        return Ok(());
    }
    let mode = fs::metadata(path).map_or(MODE, |data| data.permissions().mode() & 0o777);
    crate::enrol::write_file(path, text.as_bytes(), mode)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_file_is_replaced_and_stays_readable() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("oarlock.toml");
        let mode = |wanted| {
            fs::set_permissions(&path, fs::Permissions::from_mode(wanted)).unwrap();
            write(&path, &format!("new {wanted:o}")).unwrap();
            fs::metadata(&path).unwrap().permissions().mode() & 0o777
        };
        fs::write(&path, "old").unwrap();
        assert_eq!((mode(0o640), mode(0o664)), (0o640, 0o664));
        assert_eq!(fs::read_to_string(&path).unwrap(), "new 664");
        assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 1);
    }

    #[test]
    fn what_stands_there_already_is_left_alone() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("oarlock.toml");
        let inode = || std::os::unix::fs::MetadataExt::ino(&fs::metadata(&path).unwrap());
        write(&path, "text").unwrap();
        let before = inode();
        write(&path, "text").unwrap();
        assert_eq!(inode(), before);
    }
}
