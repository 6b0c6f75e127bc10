//! What zfs-fuse needs: mounts one at a time.
//!
//! Its `zfsfuse_newfs` (zfsfuse/fuse_listener.c) tells its listener of a new mount in two writes to a pipe. When two
//! filesystems are mounted at once the writes mix, the listener waits for a mount point of a billion bytes, and every
//! filesystem on the host hangs.

use std::fs::File;
use std::os::fd::AsRawFd;
use std::path::Path;

/// Where zfs-fuse has its socket; locked, because it is there exactly when zfs-fuse may be.
const DIRECTORY: &str = "/run/zfs";

/// The verbs of zfs(8) after which something may be mounted.
const MOUNTING: [&str; 5] = ["create", "clone", "mount", "receive", "rename"];

/// The right to run zfs(8), until it is dropped.
pub(super) struct Turn {
    _locked: Option<File>,
}

/// Waits until nobody on this host mounts by zfs-fuse, if this is what runs here and `verb` may mount.
pub(super) fn turn(verb: &str) -> Turn {
    let lock = || {
        let directory = File::open(DIRECTORY).ok()?;
        // SAFETY: the descriptor is open.
        let rc = unsafe { libc::flock(directory.as_raw_fd(), libc::LOCK_EX) };
        (rc == 0).then_some(directory)
    };
    Turn { _locked: if MOUNTING.contains(&verb) && is_here() { lock() } else { None } }
}

/// Is ZFS on this host zfs-fuse? It has no /dev/zfs.
fn is_here() -> bool {
    !Path::new("/dev/zfs").exists()
}
