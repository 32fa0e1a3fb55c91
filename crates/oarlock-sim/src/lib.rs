//! Deterministic simulator of an oarlock cluster.
