//! One file per rule that must hold.

pub mod convergence;
pub mod leases;
pub mod monotone_epochs;
pub mod no_lost_write;
pub mod no_stale_promotion;
pub mod one_acknowledger;
pub mod one_owner;
pub mod start_order;
pub mod voters;
pub mod witness_memory;
