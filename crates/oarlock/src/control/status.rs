//! The state of the cluster as `oarlock status --json` prints it; the core makes it.

pub use oarlock_core::status::{
    GroupStatus, LinkStatus, MemberStatus, NodeStatus, ResourceStatus, Status as StatusReport,
};
