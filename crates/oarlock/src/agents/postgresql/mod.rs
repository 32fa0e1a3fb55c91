//! The PostgreSQL agent: one copy of the database on this node.
//!
//! It runs `postgres` itself, with files of its own that include the administrator's, and carries
//! out one command of the core at a time. Every wait has a deadline; nothing here blocks the
//! runtime's thread. What is imposed on the server, and why: docs/internals/postgresql.md.

mod settings;

pub use settings::{Member, PgSecrets, PgSettings, PgTiming, ServerUser, UserFiles, debian_bin_dir};
