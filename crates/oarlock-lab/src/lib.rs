//! The lab: real processes on namespace hosts.
//!
//! A lab host is an overlay root file system over one shared Debian root, in its own mount, pid,
//! uts, ipc, net and cgroup namespaces. Veth pairs join the hosts to bridges that live in a
//! network namespace of the lab's own, so that nothing is installed on, or left behind on, the
//! machine that runs it. Everything a command needs to know about a running lab is read from
//! `target/lab/run`, so each command is stateless.

pub mod apt;
pub mod bench;
pub mod cgroup;
pub mod cli;
pub mod client;
pub mod cluster;
pub mod deadline;
pub mod demo;
pub mod disk;
pub mod flood;
pub mod history;
pub mod host;
pub mod jobs;
pub mod lab;
pub mod layer;
pub mod layout;
pub mod machine;
pub mod matrix;
pub mod net;
pub mod oracle;
pub mod paths;
pub mod plot;
pub mod process;
pub mod product;
pub mod report;
pub mod results;
pub mod root;
pub mod selfcheck;
pub mod soak;
pub mod state;
pub mod stats;
pub mod suite;
pub mod vm;
pub mod words;

pub use deadline::Outcome;
pub use host::{Host, Running};
pub use lab::Lab;
pub use net::{Cut, Direction};
pub use state::Engine;
