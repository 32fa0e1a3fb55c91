//! Keeping the log file of a service within its bound.

use super::LogFile;
use std::fs::{self, File, OpenOptions};
use std::io;
use std::path::PathBuf;
use std::time::Duration;

/// How often the size is looked at.
const INTERVAL: Duration = Duration::from_secs(20);
/// A hung disk under the log must not keep a service from starting.
const PREPARE_DEADLINE: Duration = Duration::from_millis(500);

/// Makes the directory of the log file, if that is possible in time.
pub(super) async fn prepare(log: &LogFile) {
    let Some(directory) = log.file.parent().map(PathBuf::from) else { return };
    let made = tokio::task::spawn_blocking(move || fs::create_dir_all(directory));
    match tokio::time::timeout(PREPARE_DEADLINE, made).await {
        Ok(Ok(Ok(()))) => {}
        Ok(Ok(Err(error))) => tracing::warn!(file = %log.file.display(), %error, "cannot make the directory of a log"),
        Ok(Err(_)) | Err(_) => tracing::warn!(file = %log.file.display(), "the directory of a log does not answer"),
    }
}

/// Bounds the log for ever.
pub(super) async fn keep_bounded(log: LogFile) {
    loop {
        tokio::time::sleep(INTERVAL).await;
        let one = log.clone();
        if let Ok(Err(error)) = tokio::task::spawn_blocking(move || bound(&one)).await {
            tracing::warn!(file = %log.file.display(), %error, "cannot bound a log");
        }
    }
}

/// Copies a log that is too long aside and empties it. The service holds the file open for
/// appending, so it cannot be renamed; lines written between copy and cut are lost.
pub(super) fn bound(log: &LogFile) -> io::Result<()> {
    let length = match fs::metadata(&log.file) {
        Ok(metadata) => metadata.len(),
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(error),
    };
    if length <= log.max_bytes {
        return Ok(());
    }
    let mut aside = log.file.clone().into_os_string();
    aside.push(".1");
    let mut from = File::open(&log.file)?;
    // A program that wrote without bound between two looks must not fill the disk twice.
    io::Seek::seek(&mut from, io::SeekFrom::Start(length.saturating_sub(log.max_bytes)))?;
    io::copy(&mut from, &mut File::create(aside)?)?;
    OpenOptions::new().write(true).open(&log.file)?.set_len(0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;

    #[test]
    fn a_long_log_is_copied_aside_and_emptied() {
        let directory = tempfile::tempdir().unwrap();
        let log = LogFile { file: directory.path().join("log"), max_bytes: 8 };
        bound(&log).unwrap();
        let mut service = OpenOptions::new().create(true).append(true).open(&log.file).unwrap();
        service.write_all(b"12345678").unwrap();
        bound(&log).unwrap();
        assert_eq!(fs::read(&log.file).unwrap(), b"12345678", "still within its bound");
        service.write_all(b"9abc").unwrap();
        bound(&log).unwrap();
        assert_eq!(fs::read(directory.path().join("log.1")).unwrap(), b"56789abc", "its newest part");
        service.write_all(b"next").unwrap();
        assert_eq!(fs::read(&log.file).unwrap(), b"next", "the service writes on from the beginning");
    }
}
