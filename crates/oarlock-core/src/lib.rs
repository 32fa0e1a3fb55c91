//! The pure core of oarlock.
