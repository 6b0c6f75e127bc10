//! Linux: roots on overlayfs, replicas in namespaces behind a bridge, limits by cgroups.

mod cgroup;
mod freezer;
mod hierarchy;
pub mod init;
mod memory;
mod nat;
mod netlink;
pub mod network;
mod open;
pub mod overlay;
mod probe;
pub mod sandbox;
mod sealed;
mod trash;

pub use memory::memory_available;
pub use open::{image_target, open, open_zfs};
pub use probe::{check, probe};
pub use sealed::seal;

use std::io;
use std::os::fd::RawFd;

use crate::fault::Fault;

impl From<rustix::io::Errno> for Fault {
    fn from(errno: rustix::io::Errno) -> Self {
        std::io::Error::from(errno).into()
    }
}

/// Gives the bytes `[offset, offset + length)` of a file back to the file system; the file keeps its length
/// (fallocate(2), `FALLOC_FL_PUNCH_HOLE`).
pub fn punch_hole(fd: RawFd, offset: u64, length: u64) -> io::Result<()> {
    let mode = libc::FALLOC_FL_PUNCH_HOLE | libc::FALLOC_FL_KEEP_SIZE;
    // SAFETY: plain integers.
    let rc = unsafe { libc::fallocate(fd, mode, offset as libc::off_t, length as libc::off_t) };
    if rc == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}
