//! The MariaDB agent against real servers: each node is a directory, an agent and two ports of the
//! loopback interface. Skipped, and said so, where no MariaDB is installed.

// All of this is test code, also what is not itself a test.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod bench;
mod clones;
mod disks;
mod failover;
mod mishaps;
mod standbys;
