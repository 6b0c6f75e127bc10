//! The only place that knows which operating system this is. Equal names behind each choice.

use std::io;
use std::os::fd::RawFd;

pub mod zfs;

/// Gives the bytes `[offset, offset + length)` of a file back to the file system; the file keeps its length.
/// Linux: fallocate(2); FreeBSD: fspacectl(2).
pub fn punch_hole(fd: RawFd, offset: u64, length: u64) -> io::Result<()> {
    #[cfg(target_os = "linux")]
    // SAFETY: plain integers.
    let rc = unsafe {
        let mode = libc::FALLOC_FL_PUNCH_HOLE | libc::FALLOC_FL_KEEP_SIZE;
        libc::fallocate(fd, mode, offset as libc::off_t, length as libc::off_t)
    };
    #[cfg(target_os = "freebsd")]
    let rc = {
        // sys/fcntl.h: struct spacectl_range and SPACECTL_DEALLOC, fspacectl(2), FreeBSD 14.
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
        unsafe { fspacectl(fd, SPACECTL_DEALLOC, &range, 0, std::ptr::null_mut()) }
    };
    if rc == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// The first byte at or after `offset` that is not in a hole (lseek(2), SEEK_DATA).
pub fn seek_data(fd: RawFd, offset: u64) -> io::Result<u64> {
    // SAFETY: plain integers.
    let at = unsafe { libc::lseek(fd, offset as libc::off_t, libc::SEEK_DATA) };
    u64::try_from(at).map_err(|_| io::Error::last_os_error())
}
