//! The PostgreSQL agent against real servers: each node is a directory, an agent and a port of the
//! loopback interface. Skipped, and said so, where no PostgreSQL is installed.

// All of this is test code, also what is not itself a test.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod administrator;
mod bench;
mod copies;
mod disks;
mod divergence;
mod failover;
mod mishaps;
mod refusals;
