//! The lease and its promise round (rules 2 and 3; PROTOCOL §1.1-1.4): who holds one, and what a
//! voter owes to those who do.

mod holder;
mod voter;

pub use holder::{Holder, Moved};
pub use voter::{Reply, Voter};
