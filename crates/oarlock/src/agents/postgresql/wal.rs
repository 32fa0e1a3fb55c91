//! What stands in the write-ahead log of a copy on which nothing runs.

use super::account;
use super::context::Context;
use super::control::{Control, format_lsn, parse_lsn};
use super::error::{PgError, Result};
use super::files;
use crate::agents::launcher::Launcher;
use oarlock_core::resource::database::Position;
use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::PathBuf;

/// What a timeline's log holds at and after a position.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Tail {
    /// Nothing; this was seen, not concluded from silence.
    Nothing,
    /// These records, one per line, as `pg_waldump` prints them.
    Records(String),
    /// It could not be told, for this reason.
    Unread(String),
}

/// Pages before the position that are read too: records there show that the reader works.
const BEFORE: u64 = 4;
/// More records than these pages can hold.
const BEFORE_LINES: usize = 1400;

/// A timeline's files.
#[derive(Clone, Debug)]
pub(crate) struct Log {
    pub(crate) dir: PathBuf,
    pub(crate) timeline: u32,
    /// Bytes per file.
    pub(crate) segment: u64,
    /// Bytes per page.
    pub(crate) page: u64,
}

/// What to let `pg_waldump` read.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Stretch {
    start: Position,
    /// The files of the first and the last byte.
    first: String,
    last: String,
    /// Something was written on the page that follows the position, which begins there.
    next_page: bool,
}

impl<L: Launcher> Context<L> {
    /// Looks for records of `timeline` at and after `from`.
    pub async fn wal_after(&self, control: &Control, timeline: u32, from: Position) -> Result<Tail> {
        let dir = self.settings.data_dir.join("pg_wal");
        let log = Log { dir, timeline, segment: control.segment, page: control.wal_page };
        let (after, looked) = (self.settings.timing.start, log.clone());
        let find = move || looked.stretch(from);
        let Some(stretch) = files::blocking("look at the write-ahead log", after, find).await? else {
            return Ok(Tail::Nothing);
        };
        let (dir, start) = (log.dir.display().to_string(), format_lsn(stretch.start));
        let lines = (account::LINES + BEFORE_LINES).to_string();
        // Both files are named: it would take the size of a segment from whichever lies first in
        // the directory, which may be one made in advance, without a word in it.
        let args = ["-p", &dir, "-s", &start, "-n", &lines, &stretch.first, &stretch.last];
        let output = self.run_to_end("pg_waldump", &args, after).await?;
        let said = String::from_utf8_lossy(&output.stderr).trim().replace('\n', " | ");
        // Ends with an error at the end of the log, always; what counts is what it found before.
        if output.status.code().is_none() {
            return Ok(Tail::Unread(format!("pg_waldump: {}: {said}", output.status)));
        }
        Ok(log.judge(&String::from_utf8_lossy(&output.stdout), from, stretch.next_page, &said))
    }
}

impl Log {
    fn file(&self, position: u64) -> String {
        let number = position / self.segment;
        let per_high = (1u64 << 32) / self.segment;
        format!("{:08X}{:08X}{:08X}", self.timeline, number / per_high, number % per_high)
    }

    /// Whether the page that `position` is on was written: one made in advance is empty, and one
    /// of a file that is used again bears its former address.
    fn is_written(&self, position: u64) -> Result<bool> {
        let path = self.dir.join(self.file(position));
        let file = match File::open(&path) {
            Ok(file) => file,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(false),
            Err(error) => return Err(PgError::io("open", &path)(error)),
        };
        let begin = position - position % self.page;
        // Magic number, flags, timeline, then the page's own address.
        let mut header = [0; 16];
        file.read_exact_at(&mut header, begin % self.segment).map_err(PgError::io("read", &path))?;
        let [.., a, b, c, d, e, f, g, h] = header;
        Ok(header[..2] != [0, 0] && u64::from_ne_bytes([a, b, c, d, e, f, g, h]) == begin)
    }

    /// What to read to know what follows `from`; `None` when the log does not come so far.
    fn stretch(&self, from: Position) -> Result<Option<Stretch>> {
        check_sizes(self.segment, self.page)?;
        let before = from.0.saturating_sub(1);
        let (here, there) = (self.is_written(before)?, self.is_written(from.0)?);
        if !here && !there {
            return Ok(None);
        }
        let start = if here {
            let page = before - before % self.page;
            page.saturating_sub(BEFORE * self.page).max(before - before % self.segment)
        } else {
            from.0
        };
        let mut last = from.0.max(start);
        if !there {
            last = before;
        }
        while self.dir.join(self.file(last + self.segment)).exists() {
            last += self.segment;
        }
        let next_page = there && from.0.is_multiple_of(self.page);
        Ok(Some(Stretch { start: Position(start), first: self.file(start), last: self.file(last), next_page }))
    }

    /// What the text of `pg_waldump` shows about `from`.
    pub(crate) fn judge(&self, text: &str, from: Position, next_page: bool, said: &str) -> Tail {
        let mut reached = Position(0);
        let mut after = String::new();
        for line in text.lines().filter(|line| line.starts_with("rmgr:")) {
            let Some(end) = self.end(line) else { return Tail::Unread(format!("pg_waldump printed \"{line}\"")) };
            reached = end;
            if end > from {
                after.push_str(line);
                after.push('\n');
            }
        }
        if !after.is_empty() {
            return Tail::Records(after);
        }
        if reached == from && !next_page {
            return Tail::Nothing;
        }
        let upto = if reached == Position(0) { "nothing".to_owned() } else { format!("up to {}", format_lsn(reached)) };
        let said = if said.is_empty() { "no reason given" } else { said };
        Tail::Unread(format!("pg_waldump found {upto} before {} ({said})", format_lsn(from)))
    }

    /// Where the record of a line ends; `None` where no record can.
    fn end(&self, line: &str) -> Option<Position> {
        let begin = parse_lsn(line.split_once(" lsn: ")?.1.split(',').next()?)?.0;
        // No more than its header can say, or a damaged line would keep us counting pages for ever.
        let total: u32 =
            line.split_once("len (rec/tot):")?.1.split_once('/')?.1.split(',').next()?.trim().parse().ok()?;
        let mut left = u64::from(total);
        let mut end = begin;
        while left > 0 {
            if end.is_multiple_of(self.page) {
                end = end.checked_add(if end.is_multiple_of(self.segment) { LONG_HEADER } else { SHORT_HEADER })?;
            }
            let step = left.min(self.page - end % self.page);
            end = end.checked_add(step)?;
            left -= step;
        }
        end = end.checked_next_multiple_of(ALIGNED)?;
        // The rest of its segment is skipped.
        let switch = line.starts_with("rmgr: XLOG ") && line.contains("desc: SWITCH");
        Some(Position(if switch { end.checked_next_multiple_of(self.segment)? } else { end }))
    }
}

/// Bytes at the head of a segment's first page, and of any other.
const LONG_HEADER: u64 = 40;
const SHORT_HEADER: u64 = 24;
/// Records begin at multiples of this.
const ALIGNED: u64 = 8;

fn check_sizes(segment: u64, page: u64) -> Result<()> {
    let sound = page.is_power_of_two() && segment.is_power_of_two() && page >= 1024 && segment >= page;
    if sound && segment < 1 << 32 {
        return Ok(());
    }
    Err(PgError::other(format!("the control file tells of segments of {segment} bytes with pages of {page}")))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;
    use std::path::Path;

    const SEGMENT: u64 = 1 << 20;
    const PAGE: u64 = 8192;

    fn log(dir: &Path) -> Log {
        Log { dir: dir.to_owned(), timeline: 31, segment: SEGMENT, page: PAGE }
    }

    /// A file whose pages are written up to `end`.
    fn written(log: &Log, end: u64) {
        let begin = (end - 1) - (end - 1) % SEGMENT;
        let mut content = vec![0; usize::try_from(SEGMENT).unwrap()];
        for page in (begin..end).step_by(usize::try_from(PAGE).unwrap()) {
            let at = usize::try_from(page - begin).unwrap();
            content[at..at + 2].copy_from_slice(&[0x10, 0xd1]);
            content[at + 8..at + 16].copy_from_slice(&page.to_ne_bytes());
        }
        fs::write(log.dir.join(log.file(begin)), content).unwrap();
    }

    #[test]
    fn a_log_that_does_not_come_so_far_holds_nothing() {
        let root = tempfile::tempdir().unwrap();
        let log = log(root.path());
        let fork = Position(5 * SEGMENT + 3 * PAGE + 160);
        assert_eq!(log.stretch(fork).unwrap(), None, "no such file");
        written(&log, 5 * SEGMENT + 2 * PAGE);
        assert_eq!(log.stretch(fork).unwrap(), None, "not written so far");
        written(&log, fork.0);
        // A file made in advance.
        fs::write(log.dir.join(log.file(6 * SEGMENT)), vec![0; 100]).unwrap();
        let stretch = log.stretch(fork).unwrap().unwrap();
        assert_eq!((stretch.start, stretch.next_page), (Position(5 * SEGMENT), false));
        assert_eq!((stretch.first, stretch.last), (log.file(5 * SEGMENT), log.file(6 * SEGMENT)));
    }

    #[test]
    fn a_fork_between_two_segments_is_looked_at_on_both_sides() {
        let root = tempfile::tempdir().unwrap();
        let log = log(root.path());
        let fork = Position(5 * SEGMENT);
        written(&log, fork.0 + 100);
        let stretch = log.stretch(fork).unwrap().unwrap();
        assert_eq!((stretch.start, stretch.next_page), (fork, true), "the timeline begins here");
        written(&log, fork.0);
        let stretch = log.stretch(fork).unwrap().unwrap();
        assert_eq!((stretch.start, stretch.next_page), (Position(fork.0 - (BEFORE + 1) * PAGE), true));
    }

    const BEFORE_FORK: &str = "\
rmgr: Heap        len (rec/tot):     59/    59, tx:        735, lsn: 0/030037C0, prev 0/03003788, desc: INSERT off 11
rmgr: Transaction len (rec/tot):     34/    34, tx:        735, lsn: 0/03003800, prev 0/030037C0, desc: COMMIT 2026
";

    #[test]
    fn silence_is_not_nothing() {
        let log = log(Path::new("/"));
        let fork = Position(0x0300_3828);
        assert!(matches!(log.judge("", fork, false, "segment size"), Tail::Unread(_)));
        assert!(matches!(log.judge("rmgr: what", fork, false, ""), Tail::Unread(_)));
        assert_eq!(log.judge(BEFORE_FORK, fork, false, ""), Tail::Nothing);
        assert!(matches!(log.judge(BEFORE_FORK, fork, true, ""), Tail::Unread(_)), "more is written");
        assert!(matches!(log.judge(BEFORE_FORK, Position(fork.0 + 8), false, ""), Tail::Unread(_)), "stopped before");
        let Tail::Records(text) = log.judge(BEFORE_FORK, Position(fork.0 - 8), false, "") else {
            panic!("in a record")
        };
        assert_eq!(text.lines().count(), 1);
    }

    #[test]
    fn ends_of_records_are_found() {
        let log = log(Path::new("/"));
        let line = |lsn: &str, tot: u64, rest: &str| {
            let text = format!(
                "rmgr: XLOG        len (rec/tot):     51/{tot:>6}, tx:          0, lsn: {lsn}, prev 0/1, {rest}"
            );
            log.end(&text).map(|end| end.0)
        };
        assert_eq!(line("0/030037C0", 59, "desc: FPI"), Some(0x0300_3800));
        // Over a page's end, over a segment's end, and exactly at one.
        assert_eq!(line("0/00301FF0", 40, "desc: FPI"), Some(0x0030_2000 + 24 + 24));
        assert_eq!(line("0/003FFFF0", 40, "desc: FPI"), Some(0x0040_0000 + 40 + 24));
        assert_eq!(line("0/00301FE0", 32, "desc: FPI"), Some(0x0030_2000));
        assert_eq!(line("0/00301FE0", 24, "desc: SWITCH"), Some(0x0040_0000));
        // Damaged: beyond the last position there is, and longer than any record.
        assert_eq!(line("FFFFFFFF/FFFFFFF0", 40, "desc: FPI"), None);
        assert_eq!(line("0/00301FE0", 1_u64 << 60, "desc: FPI"), None);
    }
}
