//! What the kernel, the user database and OAR tell.

use super::{Outcome, choice, read, text};
use crate::agents::service::Http;
use crate::agents::user;
use crate::process::{cgroup, identity};
use crate::profiles::oar::{OarConf, node, processes};

/// Files of /proc, a line of passwd(5), and the address of a page to look at.
pub fn proc_files(bytes: &[u8]) -> Outcome {
    let (first, rest) = choice(bytes);
    let given = text(rest);
    match first % 5 {
        0 => read(identity::parse_stat(&given).ok_or("no stat of a process")?),
        1 => read(processes::parse_stat(&given).ok_or("no stat of a process")?),
        2 => read(cgroup::unified_mount(&given).ok_or("no unified hierarchy")?),
        3 => read(user::parse(&given, &given).ok_or("no user")?),
        _ => read(Http::parse(&given).ok_or("no address of a page")?),
    }
}

/// OAR's configuration, and what a compute node answers.
pub fn oar(bytes: &[u8]) -> Outcome {
    let (first, rest) = choice(bytes);
    let given = text(rest);
    if first % 2 == 0 {
        return read(node::parse(&given).ok_or("no answer of a node")?);
    }
    let conf = OarConf::parse(&given);
    let all = (conf.detaches_jobs(), conf.ssh_command(), conf.frontend("COSYSTEM_HOSTNAME").map(str::to_owned));
    let (port, access) = (conf.server_port(), conf.database());
    port.and(access.map(|access| access.port)).map_err(super::words).and_then(|port| read((all, port, &conf)))
}
