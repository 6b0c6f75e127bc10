//! The only place that knows which operating system this is. Equal names behind each choice.

use std::io;
use std::os::fd::RawFd;

#[cfg(target_os = "freebsd")]
pub mod freebsd;
#[cfg(target_os = "linux")]
pub mod linux;
pub mod xattr;
pub mod zfs;

#[cfg(target_os = "freebsd")]
use freebsd as os;
#[cfg(target_os = "linux")]
use linux as os;

pub use os::punch_hole;

/// The first byte at or after `offset` that is not in a hole (lseek(2), SEEK_DATA).
pub fn seek_data(fd: RawFd, offset: u64) -> io::Result<u64> {
    // SAFETY: plain integers.
    let at = unsafe { libc::lseek(fd, offset as libc::off_t, libc::SEEK_DATA) };
    u64::try_from(at).map_err(|_| io::Error::last_os_error())
}
