//! What ZFS says when it refuses, sorted by what a caller can do about it.

use std::time::Duration;

use crate::fault::{Fault, Kind};

/// Why ZFS refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Why {
    /// The dataset, its parent or its pool does not exist.
    Missing,
    /// It exists already.
    Exists,
    /// Clones, snapshots or children depend on it.
    Needed,
    /// Somebody has it open or mounted. Passes, or does not.
    Busy,
    /// It is mounted already.
    Mounted,
    /// It is not mounted.
    NotMounted,
    /// The pool or a quota is used up.
    NoSpace,
    /// This user may not.
    NotAllowed,
    /// ZFS is not running on this host.
    NoZfs,
    /// Anything else.
    Other,
}

/// One refusal, in ZFS's own words.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Refusal {
    /// What sort it is.
    pub(super) why: Why,
    /// What ZFS said, on one line.
    pub(super) said: String,
}

/// What an operation on ZFS comes to.
pub(super) type Outcome<T = ()> = Result<T, Refusal>;

/// What zfs(8) writes to standard error and what it means, from OpenZFS's libzfs_util.c
/// (`libzfs_error_description`) and zfs-fuse 0.7. The first that matches counts.
const PHRASES: [(&str, Why); 26] = [
    ("zfs-fuse daemon is running", Why::NoZfs),
    ("ZFS modules are not loaded", Why::NoZfs),
    ("ZFS modules cannot be auto-loaded", Why::NoZfs),
    ("/dev/zfs and /proc/self/mounts are required", Why::NoZfs),
    ("failed to initialize ZFS library", Why::NoZfs),
    ("failed to initialize the libzfs library", Why::NoZfs),
    // zfs-fuse hangs up on a command now and then.
    ("zfsfuse_ioctl_read_loop(): file descriptor closed", Why::Busy),
    ("permission denied", Why::NotAllowed),
    ("Permission denied", Why::NotAllowed),
    ("out of space", Why::NoSpace),
    ("No space left on device", Why::NoSpace),
    ("quota exceeded", Why::NoSpace),
    ("has dependent clones", Why::Needed),
    ("has children", Why::Needed),
    ("dependent clone", Why::Needed),
    ("already mounted", Why::Mounted),
    ("not currently mounted", Why::NotMounted),
    ("not mounted", Why::NotMounted),
    ("is busy", Why::Busy),
    ("umount failed", Why::Busy),
    ("Device busy", Why::Busy),
    ("already exists", Why::Exists),
    ("does not exist", Why::Missing),
    ("no such pool", Why::Missing),
    ("could not find any snapshots to destroy", Why::Missing),
    ("No such file or directory", Why::Missing),
];

impl Refusal {
    /// Reads zfs(8)'s standard error.
    pub(super) fn read(stderr: &str) -> Self {
        let why = PHRASES.iter().find(|(phrase, _)| stderr.contains(phrase)).map_or(Why::Other, |(_, why)| *why);
        let lines: Vec<&str> = stderr.lines().map(str::trim).filter(|line| !line.is_empty()).collect();
        Self { why, said: if lines.is_empty() { "it gave no reason".to_owned() } else { lines.join("; ") } }
    }

    /// A refusal by error number (libzfs_core's functions return them: libzfs_core.c, "Overview").
    pub(super) fn errno(errno: i32) -> Self {
        let why = match errno {
            libc::ENOENT => Why::Missing,
            libc::EEXIST => Why::Exists,
            libc::EBUSY => Why::Busy,
            libc::ENOSPC | libc::EDQUOT => Why::NoSpace,
            libc::EPERM | libc::EACCES => Why::NotAllowed,
            _ => Why::Other,
        };
        Self { why, said: std::io::Error::from_raw_os_error(errno).to_string() }
    }

    /// The fault for people: `what` could not be done to a dataset of `pool`, why, and the way out.
    pub(super) fn fault(self, what: impl Into<String>, pool: &str) -> Fault {
        let (kind, way_out) = match self.why {
            Why::Missing => (Kind::NotFound, String::new()),
            Why::Exists | Why::Mounted | Why::NotMounted => (Kind::Busy, String::new()),
            Why::Needed => (Kind::Busy, String::new()),
            Why::Busy => (Kind::Busy, "; end what still has files in it open (fstat, fuser -m), then try again".into()),
            Why::NoSpace => (
                Kind::Exhausted,
                format!(
                    "; pool {pool} or a quota in it is full: remove unused images, or grow it with zpool add, \
                     or raise the quota with zfs set quota=..."
                ),
            ),
            Why::NotAllowed => (Kind::System, "; run it as root".into()),
            Why::NoZfs => {
                (Kind::Unsupported, "; start ZFS first: kldload zfs (FreeBSD), modprobe zfs or zfs-fuse (Linux)".into())
            }
            Why::Other => (Kind::System, String::new()),
        };
        Fault::new(kind, format!("{}{way_out}", self.said)).within(what)
    }
}

/// Tries again while ZFS says busy: a process that has just ended and a jail that is dying hold a dataset
/// a moment longer. Waits 10 ms at first and twice as long each time, about two and a half seconds in all.
pub(super) fn patiently<T>(mut attempt: impl FnMut() -> Outcome<T>) -> Outcome<T> {
    let mut wait = Duration::from_millis(10);
    for _ in 0..8 {
        match attempt() {
            Err(Refusal { why: Why::Busy, .. }) => std::thread::sleep(wait),
            other => return other,
        }
        wait *= 2;
    }
    attempt()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Recorded from zfs-fuse 0.7.0 and from OpenZFS 2.2.
    #[test]
    fn recorded_refusals_are_understood() {
        for (stderr, why) in [
            ("cannot create 'p/x/a': dataset already exists\n", Why::Exists),
            ("cannot create 'p/nope/a': parent does not exist\n", Why::Missing),
            ("cannot create 'nopool/a': no such pool 'nopool'\n", Why::Missing),
            ("cannot open 'p/x/zzz': dataset does not exist\n", Why::Missing),
            ("could not find any snapshots to destroy; check snapshot names.\n", Why::Missing),
            (
                "cannot destroy 'p/x/a@layer': snapshot has dependent clones\nuse '-R' to destroy the following \
                 datasets:\np/x/b\n",
                Why::Needed,
            ),
            (
                "cannot destroy 'p/x/a': filesystem has children\nuse '-r' to destroy the following \
                 datasets:\np/x/a@layer\n",
                Why::Needed,
            ),
            (
                "umount: /m/b: target is busy.\ncannot unmount '/m/b': umount failed: umount child process failed\n",
                Why::Busy,
            ),
            ("cannot destroy 'p/x/b': dataset is busy\n", Why::Busy),
            ("zfsfuse_ioctl_read_loop(): file descriptor closed\ncannot open 'p/b': I/O error\n", Why::Busy),
            ("cannot unmount '/m/b': pool or dataset is busy\n", Why::Busy),
            ("cannot mount 'p/a': filesystem already mounted\n", Why::Mounted),
            ("cannot unmount 'p/a': not currently mounted\n", Why::NotMounted),
            ("cannot create 'p/full': out of space\n", Why::NoSpace),
            ("cannot create 'p/a': permission denied\n", Why::NotAllowed),
            (
                "connect: No such file or directory\nPlease make sure that the zfs-fuse daemon is running.\ninternal \
                 error: failed to initialize ZFS library\n",
                Why::NoZfs,
            ),
            ("The ZFS modules are not loaded.\nTry running 'kldload zfs' as root to load them.\n", Why::NoZfs),
            ("", Why::Other),
            ("cannot create 'p/a': bad property\n", Why::Other),
        ] {
            assert_eq!(Refusal::read(stderr).why, why, "{stderr}");
        }
    }

    #[test]
    fn a_full_pool_is_a_sentence_with_a_way_out() {
        let refusal = Refusal::read("cannot create 'tank/a': out of space\n");
        let fault = refusal.fault("cannot stage layer sha256:1", "tank");
        assert_eq!(fault.kind(), Kind::Exhausted);
        let text = fault.to_string();
        assert!(text.contains("sha256:1") && text.contains("pool tank") && !text.contains('\n'), "{text}");
    }

    #[test]
    fn busy_is_tried_again_and_not_for_ever() {
        let mut left = 3;
        let outcome = patiently(|| {
            left -= 1;
            if left > 0 { Err(Refusal::errno(libc::EBUSY)) } else { Ok(()) }
        });
        assert_eq!((outcome, left), (Ok(()), 0));
        let mut calls = 0;
        let missing = patiently(|| -> Outcome {
            calls += 1;
            Err(Refusal::errno(libc::ENOENT))
        });
        assert_eq!((missing.unwrap_err().why, calls), (Why::Missing, 1));
    }
}
