//! FreeBSD: every replica is a jail.
//!
//! | module | what it drives | source of its facts |
//! |---|---|---|
//! | [`jail`] | jails, by name | jail(2), jail(8) |
//! | [`spawn`] | one process in a jail | pdfork(2), procctl(2), jail_attach(2) |
//! | [`mount`] | mounts below one directory | nmount(2), unmount(2), getfsstat(2) |
//! | [`tree`] | directories and files in a root, following no link | open(2) |
//! | [`furnish`] | places for mounts in layers that become snapshots | |
//! | [`devfs`] | which devices a replica sees | devfs(8), `sys/fs/devfs/devfs.h` |
//! | [`rctl`] | limits and usage | rctl(8), rctl_add_rule(2) |
//! | [`process`] | processes of a jail | sysctl(3) `kern.proc` |
//! | [`monitor`] | exits | kqueue(2) |
//! | [`network`] | addresses, VNET links, pf | `sys/sockio.h`, bridge(4), epair(4), pf.conf(5) |
//! | [`sandbox`] | all of these, as [`crate::sandbox::Sandbox`] | |
//! | [`zfs`] | mounting for [`super::zfs`] | nmount(2) |
//! | [`probe()`], [`check`] | what this kernel offers | sysctl(3), modfind(2) |
//!
//! Deliberately absent: libjail and libzfs_core (the system calls suffice), jail descriptors (a replica
//! outlives the daemon, so its jail must not hang on a descriptor; names are never reused, so a jail id
//! cannot be mistaken), and any work in a jail's tree after its first program has started.

pub mod devfs;
pub mod freezer;
pub mod furnish;
pub mod init;
pub mod jail;
mod memory;
pub mod monitor;
pub mod mount;
pub mod network;
mod open;
mod probe;
pub mod process;
pub mod rctl;
pub mod sandbox;
pub mod spawn;
mod sys;
pub mod sysctl;
pub mod tree;
pub mod zfs;

pub use memory::memory_available;
pub use open::{image_target, open, open_zfs};
pub use probe::{check, probe};

use std::io;
use std::os::fd::RawFd;

/// Makes this process fit to enter a replica: here it is. A jail sees no file of the host through a process in it;
/// linprocfs(5) shows paths, which lead into the jail.
pub fn seal() -> crate::fault::Result<()> {
    Ok(())
}

/// Gives the bytes `[offset, offset + length)` of a file back to the file system; the file keeps its length
/// (fspacectl(2), FreeBSD 14). ZFS can; where the file system would only write zeros, as UFS does, this fails
/// with EOPNOTSUPP.
pub fn punch_hole(fd: RawFd, offset: u64, length: u64) -> io::Result<()> {
    // sys/unistd.h
    const PC_DEALLOC_PRESENT: libc::c_int = 65;
    // SAFETY: plain integers.
    if unsafe { libc::fpathconf(fd, PC_DEALLOC_PRESENT) } != 1 {
        return Err(io::Error::from_raw_os_error(libc::EOPNOTSUPP));
    }
    // sys/fcntl.h
    const SPACECTL_DEALLOC: libc::c_int = 1;
    #[repr(C)]
    struct Range {
        offset: libc::off_t,
        length: libc::off_t,
    }
    unsafe extern "C" {
        fn fspacectl(
            fd: libc::c_int,
            command: libc::c_int,
            range: *const Range,
            flags: libc::c_int,
            left: *mut Range,
        ) -> libc::c_int;
    }
    let range = Range { offset: offset as libc::off_t, length: length as libc::off_t };
    // SAFETY: `range` outlives the call, and the last argument may be null.
    let rc = unsafe { fspacectl(fd, SPACECTL_DEALLOC, &range, 0, std::ptr::null_mut()) };
    if rc == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}
