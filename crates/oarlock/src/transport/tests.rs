//! The whole transport, over loopback.
