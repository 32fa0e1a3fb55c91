//! What a stretch of WAL holds, from the text of `pg_waldump`.

use std::collections::BTreeSet;

/// Records after a fork.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub(super) struct Account {
    /// One line per record, at most [`LINES`].
    pub text: String,
    /// Records that were somebody's work.
    pub records: usize,
    /// Transactions of others than the agent that were committed.
    pub commits: usize,
    /// Why it does not hold everything, if so.
    pub unread: Option<String>,
}

/// How many records of a tail are looked at.
pub(super) const LINES: usize = 5000;

impl Account {
    /// Reads what `pg_waldump` printed.
    pub fn read(text: String) -> Account {
        // The deep probe's commits are nobody's.
        let probe = |line: &&str| line.contains("rmgr: LogicalMessage") && line.contains("prefix \"oarlock\"");
        let own: BTreeSet<&str> = text.lines().filter(probe).filter_map(transaction).collect();
        let housekeeping = |line: &str| line.starts_with("rmgr: XLOG ") || line.starts_with("rmgr: Standby ");
        let ours = |line: &str| transaction(line).is_some_and(|number| own.contains(number));
        let others: Vec<&str> = text.lines().filter(|line| !housekeeping(line) && !ours(line)).collect();
        let records = others.len();
        let commits = others.iter().filter(|line| line.contains("desc: COMMIT")).count();
        Account { text, records, commits, unread: None }
    }

    /// In words.
    pub fn summary(&self) -> String {
        let more = if self.text.lines().count() >= LINES { " or more" } else { "" };
        let unread =
            self.unread.as_ref().map(|reason| format!("; not all could be read: {reason}")).unwrap_or_default();
        format!("{} records{more}, {} commits{unread}", self.records, self.commits)
    }
}

/// The transaction number of a line, if it belongs to one.
fn transaction(line: &str) -> Option<&str> {
    let number = line.split_once("tx:")?.1.split(',').next()?.trim();
    (number != "0").then_some(number)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn own_probes_and_housekeeping_do_not_count() {
        let text = "\
rmgr: Heap        len (rec/tot):     59/    59, tx:        735, lsn: 0/030037C0, prev 0/03003788, desc: INSERT off 11
rmgr: Transaction len (rec/tot):     34/    34, tx:        735, lsn: 0/03003800, prev 0/030037C0, desc: COMMIT 2026
rmgr: LogicalMessage len (rec/tot):     59/    59, tx:        736, lsn: 0/03003828, prev 0/03003800, desc: MESSAGE transactional, prefix \"oarlock\"; payload (0 bytes):
rmgr: Transaction len (rec/tot):     46/    46, tx:        736, lsn: 0/03003868, prev 0/03003828, desc: COMMIT 2026
rmgr: Standby     len (rec/tot):     50/    50, tx:          0, lsn: 0/030038A0, prev 0/03003868, desc: RUNNING_XACTS
rmgr: XLOG        len (rec/tot):    114/   114, tx:          0, lsn: 0/030038D8, prev 0/030038A0, desc: CHECKPOINT_SHUTDOWN
";
        let account = Account::read(text.to_owned());
        assert_eq!((account.records, account.commits), (2, 1));
        assert_eq!(account.summary(), "2 records, 1 commits");
        let ours = text.lines().skip(2).collect::<Vec<_>>().join("\n");
        assert_eq!(Account::read(ours).records, 0);
    }
}
