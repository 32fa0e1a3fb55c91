//! Deterministic simulator of an oarlock cluster: many nodes on one thread, driven by a seed.
//!
//! A [`run::Plan`] makes a [`world::World`] of hosts, network, disks, model databases and clients,
//! lets a swarm of faults loose on it, heals everything and demands that it comes back. The rules
//! that must hold all the time are in `invariants`, one file each.

pub mod checks;
pub mod cli;
pub mod client;
pub mod clock;
pub mod database;
pub mod directed;
pub mod disk;
pub mod faults;
pub mod healing;
pub mod host;
pub mod invariants;
pub mod machine;
pub mod network;
pub mod replication;
pub mod rng;
pub mod run;
pub mod sabotage;
pub mod scenario;
pub mod shell;
pub mod shrink;
pub mod succession;
pub mod words;
pub mod world;
