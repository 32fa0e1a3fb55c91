//! The control file of a database cluster, as `pg_controldata` prints it.

use super::conf::REPLAY_LIMITS;
use super::context::Context;
use super::error::{PgError, Result};
use crate::agents::launcher::Launcher;
use oarlock_core::resource::database::Position;
use std::collections::BTreeMap;

/// What we use of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Control {
    /// PostgreSQL's identifier of the database cluster.
    pub system: u64,
    /// Shut down in an orderly way, as a primary or as a standby.
    pub clean: bool,
    /// Whether it was last a primary (running or shut down) rather than in recovery.
    pub primary: bool,
    /// Timeline of the latest checkpoint.
    pub timeline: u32,
    /// Where the latest checkpoint's record begins.
    pub checkpoint: Position,
    /// A standby's end of recovery, zero on a primary.
    pub min_recovery: Position,
    /// Timeline of that.
    pub min_recovery_timeline: u32,
    /// Size of a WAL segment in bytes.
    pub segment: u64,
    /// Size of a page of WAL in bytes.
    pub wal_page: u64,
    /// What the primary had of [`REPLAY_LIMITS`].
    pub limits: BTreeMap<&'static str, u64>,
}

impl<L: Launcher> Context<L> {
    /// Reads the control file.
    pub async fn control(&self) -> Result<Control> {
        let dir = self.settings.data_dir.display().to_string();
        let after = self.settings.timing.tool;
        parse(&self.run_program("pg_controldata", &["-D", &dir], after).await?)
    }
}

/// Parses the text of `pg_controldata`.
pub(crate) fn parse(text: &str) -> Result<Control> {
    let fields: BTreeMap<&str, &str> =
        text.lines().filter_map(|line| line.split_once(':')).map(|(name, value)| (name.trim(), value.trim())).collect();
    let field = |name: &str| {
        let value = fields.get(name).copied();
        value.ok_or_else(|| PgError::other(format!("pg_controldata: no field \"{name}\"")))
    };
    let number = |name: &str| -> Result<u64> {
        let value = field(name)?;
        value.parse().map_err(|_| PgError::other(format!("pg_controldata: {name}: \"{value}\"")))
    };
    let position = |name: &str| -> Result<Position> {
        let value = field(name)?;
        parse_lsn(value).ok_or_else(|| PgError::other(format!("pg_controldata: {name}: \"{value}\"")))
    };
    let timeline = |name: &str| -> Result<u32> { Ok(u32::try_from(number(name)?).unwrap_or(0)) };
    let state = field("Database cluster state")?;
    let mut limits = BTreeMap::new();
    for name in REPLAY_LIMITS {
        // The control file abbreviates one of them.
        let printed = if name == "max_prepared_transactions" { "max_prepared_xacts" } else { name };
        let printed = if name == "max_locks_per_transaction" { "max_locks_per_xact" } else { printed };
        limits.insert(name, number(&format!("{printed} setting"))?);
    }
    Ok(Control {
        system: number("Database system identifier")?,
        clean: state == "shut down" || state == "shut down in recovery",
        primary: matches!(state, "shut down" | "shutting down" | "in crash recovery" | "in production" | "starting up"),
        timeline: timeline("Latest checkpoint's TimeLineID")?,
        checkpoint: position("Latest checkpoint location")?,
        min_recovery: position("Minimum recovery ending location")?,
        min_recovery_timeline: timeline("Min recovery ending loc's timeline")?,
        segment: number("Bytes per WAL segment")?,
        wal_page: number("WAL block size")?,
        limits,
    })
}

/// Reads a position as PostgreSQL prints it, for instance `16/B374D848`.
pub(crate) fn parse_lsn(text: &str) -> Option<Position> {
    let (high, low) = text.split_once('/')?;
    let high = u64::from(u32::from_str_radix(high, 16).ok()?);
    let low = u64::from(u32::from_str_radix(low, 16).ok()?);
    Some(Position(high << 32 | low))
}

/// Prints a position as PostgreSQL does.
pub(crate) fn format_lsn(position: Position) -> String {
    format!("{:X}/{:X}", position.0 >> 32, position.0 & 0xFFFF_FFFF)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn positions_are_read_and_printed() {
        assert_eq!(parse_lsn("16/B374D848"), Some(Position(0x16_B374_D848)));
        assert_eq!(format_lsn(Position(0x16_B374_D848)), "16/B374D848");
        assert_eq!(parse_lsn("16B374D848"), None);
    }

    #[test]
    fn missing_fields_are_named() {
        let error = parse("Database system identifier: 7").unwrap_err();
        assert!(error.in_words().contains("Database cluster state"), "{}", error.in_words());
    }
}
