//! The shell of oarlock: everything that touches the operating system.
