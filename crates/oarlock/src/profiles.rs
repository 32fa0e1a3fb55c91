//! What oarlock knows of particular programs beyond how to start and stop them.

pub mod oar;
