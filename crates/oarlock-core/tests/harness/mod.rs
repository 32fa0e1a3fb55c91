//! A small cluster for the scripts: real cores, everything around them obedient and on one clock.
//!
//! This is not the simulator: nothing is random, messages arrive in order after the same short
//! while, disks never fail, resources do what they are told unless a script says otherwise.

mod cluster;
mod commands;
mod database;
mod machine;
mod resources;
mod trace;
mod words;

pub use commands::Session;
