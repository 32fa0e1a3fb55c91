//! The lab: real processes on namespace hosts.
