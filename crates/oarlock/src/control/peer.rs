//! Who is at the other end of the control socket, and what they may do.

use std::fmt;
use std::os::fd::AsFd;

/// The process at the other end, as the kernel vouches for it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Peer {
    /// Its process number.
    pub pid: i32,
    /// Its user.
    pub uid: u32,
    /// Its groups, the primary one first.
    pub gids: Vec<u32>,
}

impl fmt::Display for Peer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "user {} (process {})", self.uid, self.pid)
    }
}

impl Peer {
    /// The peer of a connected Unix socket.
    pub fn of(socket: impl AsFd) -> std::io::Result<Peer> {
        let credentials = rustix::net::sockopt::socket_peercred(socket.as_fd())?;
        let mut gids = vec![credentials.gid.as_raw()];
        gids.extend(unsafe_peergroups::peer_groups(socket.as_fd())?);
        Ok(Peer { pid: credentials.pid.as_raw_nonzero().get(), uid: credentials.uid.as_raw(), gids })
    }
}

/// Who may change things.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Operators {
    /// Members of this group may, besides root and the agent's own user.
    pub gid: Option<u32>,
}

/// The group whose members may operate the cluster, if the system has it.
const OPERATORS_GROUP: &str = "oarlock";

impl Operators {
    /// Root, our own user and, where it exists, the local group `oarlock`.
    pub fn from_system() -> Operators {
        let groups = std::fs::read_to_string("/etc/group").unwrap_or_default();
        Operators { gid: find_group(&groups, OPERATORS_GROUP) }
    }

    /// Whether this peer may change things.
    pub fn include(&self, peer: &Peer) -> bool {
        peer.uid == 0
            || peer.uid == rustix::process::geteuid().as_raw()
            || self.gid.is_some_and(|gid| peer.gids.contains(&gid))
    }
}

fn find_group(groups: &str, name: &str) -> Option<u32> {
    groups.lines().find_map(|line| {
        let mut fields = line.split(':');
        (fields.next() == Some(name)).then(|| fields.nth(1)?.parse().ok()).flatten()
    })
}

mod unsafe_peergroups {
    //! rustix has no SO_PEERGROUPS; the groups from /proc could be those of another process that got
    //! the same number meanwhile.
    #![allow(unsafe_code)]

    use std::os::fd::{AsRawFd, BorrowedFd};

    /// From asm-generic/socket.h; the same on every architecture we build for.
    const SO_PEERGROUPS: libc::c_int = 59;
    /// Most groups of one process (NGROUPS_MAX).
    const GROUPS_MAX: usize = 65_536;

    /// The supplementary groups of the peer when it connected.
    pub fn peer_groups(socket: BorrowedFd<'_>) -> std::io::Result<Vec<u32>> {
        let mut groups: Vec<libc::gid_t> = vec![0; 64];
        loop {
            let room = groups.len() * size_of::<libc::gid_t>();
            let mut bytes = libc::socklen_t::try_from(room).unwrap_or(libc::socklen_t::MAX);
            // SAFETY: the pointer is to `bytes` bytes of plain integers that live until after the call.
            let result = unsafe {
                libc::getsockopt(
                    socket.as_raw_fd(),
                    libc::SOL_SOCKET,
                    SO_PEERGROUPS,
                    groups.as_mut_ptr().cast(),
                    &raw mut bytes,
                )
            };
            let filled = usize::try_from(bytes).unwrap_or(0) / size_of::<libc::gid_t>();
            if result == 0 {
                groups.truncate(filled);
                return Ok(groups);
            }
            let error = std::io::Error::last_os_error();
            if error.raw_os_error() != Some(libc::ERANGE) || filled <= groups.len() || filled > GROUPS_MAX {
                return Err(error);
            }
            groups.resize(filled, 0);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_group_is_found() {
        let groups = "root:x:0:\noarlock-x:x:7:\noarlock:x:998:alice,bob\n";
        assert_eq!(find_group(groups, "oarlock"), Some(998));
        assert_eq!(find_group(groups, "wheel"), None);
        assert_eq!(find_group("oarlock:x", "oarlock"), None);
    }

    #[test]
    fn operators() {
        let operators = Operators { gid: Some(998) };
        let own = rustix::process::geteuid().as_raw();
        let peer = |uid, gids: &[u32]| Peer { pid: 1, uid, gids: gids.to_vec() };
        assert!(operators.include(&peer(0, &[])) && operators.include(&peer(own, &[])));
        assert!(operators.include(&peer(own + 1, &[100, 998])));
        assert!(!operators.include(&peer(own + 1, &[100])));
        assert!(!Operators::default().include(&peer(own + 1, &[998])));
    }

    #[test]
    fn the_kernel_vouches_for_us() {
        let (a, _b) = std::os::unix::net::UnixStream::pair().unwrap();
        let peer = Peer::of(&a).unwrap();
        assert_eq!(peer.pid, i32::try_from(std::process::id()).unwrap());
        assert_eq!(peer.uid, rustix::process::getuid().as_raw());
    }
}
