//! Row 21: the disk under the owner's database is full, stands still, or may only be read.

use super::Row;
use super::trial::Trial;
use crate::disk::{Disk, Trouble};
use anyhow::Result;
use std::time::Duration;

const COMMAND: Duration = Duration::from_secs(15);
const TAKEOVER: Duration = Duration::from_secs(60);

/// The cases of this file, for hosts with disks of their own.
pub const ROWS: &[Row] = &[
    Row::new("21 full", "the disk of the owner's database is full", |t| trouble(t, Trouble::Full))
        .needs_disks()
        .heals_in(120)
        .moves(),
    Row::new("21 frozen", "the disk of the owner's database stands still", |t| trouble(t, Trouble::Frozen))
        .needs_disks()
        .heals_in(120)
        .moves(),
    Row::new("21 read-only", "the disk of the owner's database can only be read", read_only)
        .needs_disks()
        .heals_in(120)
        .moves(),
];

fn trouble(trial: &mut Trial<'_>, trouble: Trouble) -> Result<()> {
    let owner = trial.owner.clone();
    trial.mark(format!("disk of {owner}: {trouble:?}"));
    trial.bed.lab.trouble(&owner, Disk::Database, trouble)?;
    let moved = trial.until_served(TAKEOVER).and_then(|()| trial.until_moved(TAKEOVER)).map(drop);
    trial.mark(format!("disk of {owner} in order"));
    trial.bed.lab.relieve(&owner, Disk::Database, trouble)?;
    moved
}

/// What the kernel does with a file system that it found damaged.
fn read_only(trial: &mut Trial<'_>) -> Result<()> {
    let owner = trial.owner.clone();
    let place = Disk::Database.place(trial.bed.shape.db);
    let spoil = format!(
        "set -e; device=$(findmnt -n -o SOURCE {place}); mount -o remount,errors=remount-ro {place}; \
         echo lab >/sys/fs/ext4/${{device#/dev/}}/trigger_fs_error"
    );
    trial.mark(format!("disk of {owner} read-only"));
    trial.bed.shell(&owner, &spoil, COMMAND)?;
    let moved = trial.until_served(TAKEOVER).and_then(|()| trial.until_moved(TAKEOVER)).map(drop);
    // Nothing less makes it writable again.
    trial.power_off(&[&owner])?;
    trial.power_on(&[&owner])?;
    moved
}
