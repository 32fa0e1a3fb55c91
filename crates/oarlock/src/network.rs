//! Addresses, the neighbours that hear of them and the clients that use them.

pub mod clients;
