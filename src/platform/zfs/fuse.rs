//! What zfs-fuse needs: mounts one at a time.
//!
//! Its `zfsfuse_newfs` (zfsfuse/fuse_listener.c) tells its listener of a new mount in two writes to a pipe. When two
//! filesystems are mounted at once the writes mix, the listener waits for a mount point of a billion bytes, and every
//! filesystem on the host hangs.
//!
//! It can also hang when processes are killed in its filesystems, which nobody but itself can mend: tools/zfs-fuse.c.

use std::fs::File;
use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::Command;

/// Where zfs-fuse has its socket; locked, because it is there exactly when zfs-fuse may be.
const DIRECTORY: &str = "/run/zfs";

/// The verbs of zfs(8) after which something may be mounted.
const MOUNTING: [&str; 5] = ["create", "clone", "mount", "receive", "rename"];

/// The right to run zfs(8), until it is dropped.
pub(super) struct Turn {
    locked: Option<File>,
}

impl Turn {
    /// Gives the command that is about to be started a share: if this program is killed meanwhile, the turn lasts
    /// until the command ends.
    pub(super) fn share(&self, command: &mut Command) {
        let Some(locked) = &self.locked else { return };
        let descriptor = locked.as_raw_fd();
        // A flock(2) belongs to the open file, and ends when the last descriptor of it is closed.
        let keep = move || {
            // SAFETY: no memory is passed, and fcntl may be called between fork and exec (signal-safety(7)).
            match unsafe { libc::fcntl(descriptor, libc::F_SETFD, 0) } {
                0 => Ok(()),
                _ => Err(io::Error::last_os_error()),
            }
        };
        // SAFETY: `keep` makes one system call, on a descriptor that it has a copy of, and allocates nothing.
        unsafe { command.pre_exec(keep) };
    }
}

/// Waits until nobody on this host mounts by zfs-fuse, if this is what runs here and `verb` may mount.
pub(super) fn turn(verb: &str) -> Turn {
    let lock = || {
        let directory = File::open(DIRECTORY).ok()?;
        // SAFETY: the descriptor is open.
        let rc = unsafe { libc::flock(directory.as_raw_fd(), libc::LOCK_EX) };
        (rc == 0).then_some(directory)
    };
    Turn { locked: if MOUNTING.contains(&verb) && is_here() { lock() } else { None } }
}

/// Waits until what is being mounted is mounted: also what a daemon began that was killed, so that whoever looks for
/// what it has left behind finds it.
pub(super) fn settled() {
    drop(turn("mount"));
}

/// Is ZFS on this host zfs-fuse? It has no /dev/zfs.
fn is_here() -> bool {
    !Path::new("/dev/zfs").exists()
}
