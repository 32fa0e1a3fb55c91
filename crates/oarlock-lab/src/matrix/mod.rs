//! The fault matrix: every row a function that does something nasty to a healthy cluster, and
//! one common verdict.
//!
//! A case begins with the cluster whole, runs its fault under a writing client, waits until the
//! cluster has healed itself, moves the group onto the copy that rejoined, and counts the rows
//! there. Every run is stored as soon as it is over; a campaign that was interrupted goes on
//! where it stopped.

pub mod bed;
mod campaign;
pub mod case;
mod pids;
mod report;
mod rows_config;
mod rows_database;
mod rows_disk;
mod rows_four;
mod rows_network;
pub mod rows_oar;
mod rows_power;
mod rows_process;
mod rows_state;
mod rows_users;
mod settings;
mod tail;
pub mod trial;
pub mod users;
pub mod verdict;
pub mod writers;

pub use campaign::{MatrixArgs, main};

use crate::layout::{Layout, Part};
use anyhow::Result;
use trial::Trial;
use verdict::{Outage, Ownership};

const ALL: &[Layout] = &[Layout::Two, Layout::Four, Layout::FourPlain];
/// OAR and its database on servers of their own.
const APART: &[Layout] = &[Layout::Four, Layout::FourPlain];
/// With a witness.
const WITNESS: &[Layout] = &[Layout::Two, Layout::Four];

/// One case of the matrix.
#[derive(Debug, Clone, Copy)]
pub struct Row {
    /// Number of the row, with a letter or word where it has several cases; unique.
    pub id: &'static str,
    /// The fault, in a few words.
    pub title: &'static str,
    /// How long the cluster may take to be whole again, seconds.
    pub heal_s: u64,
    /// Where the users' client runs; elsewhere than at the frontend if that is what fails.
    pub users_at: &'static str,
    /// What is demanded of the outage.
    pub outage: Outage,
    /// What is demanded of the ownership.
    pub ownership: Ownership,
    /// Which group it is about: whose owner and standby are meant, and what is moved at the end.
    pub about: Part,
    /// The layouts it makes sense in.
    pub layouts: &'static [Layout],
    /// Whether it is about a disk, for which hosts must have their own.
    pub disks: bool,
    /// Whether it submits jobs itself, for which there is one place only.
    pub own_jobs: bool,
    /// Nobody is left who knows the users' connections: they break when they are used.
    pub forgets: bool,
    /// The fault. It returns when it has been done and undone; healing is awaited afterwards.
    pub fault: fn(&mut Trial<'_>) -> Result<()>,
}

impl Row {
    /// A case of which nothing is demanded but what all must show; the rest is set from here.
    pub const fn new(id: &'static str, title: &'static str, fault: fn(&mut Trial<'_>) -> Result<()>) -> Row {
        let (outage, ownership) = (Outage::Any, Ownership::Any);
        let (about, layouts, users_at) = (Part::Database, ALL, bed::FRONTEND);
        Row {
            id,
            title,
            heal_s: 60,
            users_at,
            outage,
            ownership,
            about,
            layouts,
            forgets: false,
            disks: false,
            own_jobs: false,
            fault,
        }
    }

    /// With another time for healing, seconds.
    const fn heals_in(self, heal_s: u64) -> Row {
        Row { heal_s, ..self }
    }

    /// With a limit to the outage.
    const fn with(self, outage: Outage) -> Row {
        Row { outage, ..self }
    }

    /// With the users' client in another host.
    const fn users_at(self, users_at: &'static str) -> Row {
        Row { users_at, ..self }
    }

    /// About OAR's group.
    const fn about_oar(self) -> Row {
        Row { about: Part::Oar, ..self }
    }

    /// For these layouts only.
    const fn only(self, layouts: &'static [Layout]) -> Row {
        Row { layouts, ..self }
    }

    /// For hosts with disks of their own.
    const fn needs_disks(self) -> Row {
        Row { disks: true, ..self }
    }

    /// With jobs of its own, which others must not wait before.
    const fn own_jobs(self) -> Row {
        Row { own_jobs: true, ..self }
    }

    /// About OAR's group where that is another than the database's, whose users must not notice.
    const fn oar_apart(self) -> Row {
        self.about_oar().only(APART).with(Outage::Unnoticed)
    }

    /// With every node off that could tell the users of their broken connections.
    const fn forgets(self) -> Row {
        Row { forgets: true, ..self }
    }

    /// The group moves.
    const fn moves(self) -> Row {
        Row { ownership: Ownership::Moves, ..self }
    }

    /// The group stays.
    const fn stays(self) -> Row {
        Row { ownership: Ownership::Stays, ..self }
    }

    /// Whether `--only` with this value means this case: "8" and "8b owner" both mean "8b owner"
    /// only if they are its id or its row's number.
    fn is_meant_by(&self, only: &str) -> bool {
        self.id == only || self.id.split(' ').next() == Some(only)
    }
}

/// The case with this id.
pub fn row(id: &str) -> Option<Row> {
    rows().into_iter().find(|row| row.id == id)
}

/// Every case, in the order of the matrix.
pub fn rows() -> Vec<Row> {
    let parts = [
        rows_power::ROWS,
        rows_database::ROWS,
        rows_oar::ROWS,
        rows_network::ROWS,
        rows_four::ROWS,
        rows_disk::ROWS,
        rows_users::ROWS,
        rows_process::ROWS,
        rows_config::ROWS,
        rows_state::ROWS,
    ];
    let mut rows = parts.concat();
    rows.sort_by_key(|row| order(row.id));
    rows
}

/// "8b owner" sorts after "8 owner" and before "9".
fn order(id: &str) -> (u32, String) {
    let digits = id.chars().take_while(char::is_ascii_digit).count();
    (id[..digits].parse().unwrap_or(u32::MAX), id[digits..].to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_are_unique_and_numbered() {
        let rows = rows();
        let mut ids: Vec<&str> = rows.iter().map(|r| r.id).collect();
        assert!(ids.iter().all(|id| id.starts_with(|c: char| c.is_ascii_digit())));
        let count = ids.len();
        ids.sort_unstable();
        ids.dedup();
        assert_eq!(ids.len(), count);
    }

    #[test]
    fn only_takes_an_id_or_a_whole_row() {
        let rows = rows();
        let meant = |only: &str| rows.iter().filter(|r| r.is_meant_by(only)).count();
        assert_eq!(meant("4"), 1);
        assert_eq!(meant("8b"), 6);
        assert_eq!(meant("8b owner carrier"), 1);
        assert_eq!(meant("99"), 0);
    }

    #[test]
    fn rows_come_in_the_order_of_the_matrix() {
        assert!(order("8 other") < order("8b owner"));
        assert!(order("8b owner") < order("9"));
        assert!(order("9") < order("10 batch"));
    }
}
