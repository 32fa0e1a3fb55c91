//! How far a standby's data are, and what it has that its primary never wrote.

use super::binlog::{Gtid, GtidList};

/// What is in a standby's data, told by its two lists of transactions.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub(super) struct Progress {
    /// The last transaction of the primary's history in each domain.
    pub applied: GtidList,
    /// The last transaction of each domain that was written here, by somebody who may write on a
    /// standby.
    pub errant: Vec<Gtid>,
}

impl Progress {
    /// Of a standby whose own number is `own`: by what was `replicated` (`gtid_slave_pos`, kept with
    /// the data) and `logged` (`gtid_binlog_state`). A former primary's transactions, and those that
    /// are no transactions to the storage engine, are in the log only.
    ///
    /// A standby writes nothing under its own number. Where that is the newest of a domain, somebody did;
    /// an older one is from the time before this database was kept here.
    pub fn new(own: u32, replicated: &GtidList, logged: &GtidList) -> Progress {
        let mut progress = Progress { applied: replicated.clone(), errant: Vec::new() };
        for gtid in logged.0.iter().filter(|gtid| gtid.server != own) {
            progress.applied.reach(*gtid);
        }
        let newest = |gtid: &&Gtid| gtid.server == own && !progress.has(gtid);
        progress.errant = logged.0.iter().filter(newest).copied().collect();
        progress
    }

    /// Whether a transaction of the primary's history is in the data.
    pub fn has(&self, gtid: &Gtid) -> bool {
        self.applied.0.iter().any(|last| last.domain == gtid.domain && last.sequence >= gtid.sequence)
    }

    /// Whether all of `list` is.
    pub fn has_all(&self, list: &GtidList) -> bool {
        list.0.iter().all(|gtid| self.has(gtid))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn progress(replicated: &str, logged: &str) -> (String, String) {
        let list = |text| GtidList::parse(text).unwrap();
        let progress = Progress::new(2, &list(replicated), &list(logged));
        (progress.applied.to_string(), GtidList(progress.errant).to_string())
    }

    #[test]
    fn what_a_standby_wrote_itself_is_no_progress() {
        assert_eq!(progress("0-257-10", "0-257-10"), ("0-257-10".into(), String::new()));
        assert_eq!(progress("0-257-10", "0-257-10,0-2-11"), ("0-257-10".into(), "0-2-11".into()));
        assert_eq!(progress("0-257-10", "0-257-10,7-2-1"), ("0-257-10".into(), "7-2-1".into()));
        // A former primary, and a change of a table's form that only the log tells of.
        assert_eq!(progress("0-257-10", "0-257-10,0-514-20"), ("0-514-20".into(), String::new()));
        assert_eq!(progress("", "0-2-100,0-514-101"), ("0-514-101".into(), String::new()));
        assert_eq!(progress("0-257-101", "0-2-100"), ("0-257-101".into(), String::new()));
    }

    #[test]
    fn domains_are_apart() {
        let list = |text| GtidList::parse(text).unwrap();
        let progress = Progress::new(2, &list("0-257-10,1-257-3"), &GtidList::default());
        assert!(progress.has_all(&list("0-513-9,1-257-3")) && !progress.has_all(&list("0-257-10,2-257-1")));
        assert!(!progress.has_all(&list("1-257-4")) && progress.has_all(&GtidList::default()));
    }
}
