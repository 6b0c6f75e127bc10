//! What the `libc` crate lacks, from FreeBSD's headers, and two helpers for calls that want C data.

use std::ffi::{CString, c_char, c_int, c_ulong};
use std::io;
use std::os::fd::RawFd;
use std::path::Path;

use libc::size_t;

use crate::fault::{Fault, Result};

// sys/rctl.h; in libc.
unsafe extern "C" {
    /// rctl_add_rule(2).
    pub fn rctl_add_rule(input: *const c_char, inlen: size_t, output: *mut c_char, outlen: size_t) -> c_int;
    /// rctl_remove_rule(2).
    pub fn rctl_remove_rule(input: *const c_char, inlen: size_t, output: *mut c_char, outlen: size_t) -> c_int;
    /// rctl_get_racct(2).
    pub fn rctl_get_racct(input: *const c_char, inlen: size_t, output: *mut c_char, outlen: size_t) -> c_int;
    /// rctl_get_rules(2).
    pub fn rctl_get_rules(input: *const c_char, inlen: size_t, output: *mut c_char, outlen: size_t) -> c_int;
}

const IOC_OUT: c_ulong = 0x4000_0000;
const IOC_IN: c_ulong = 0x8000_0000;

/// `_IOC` of sys/ioccom.h.
const fn ioc(direction: c_ulong, group: u8, number: u8, size: usize) -> c_ulong {
    direction | ((size as c_ulong & 0x1fff) << 16) | ((group as c_ulong) << 8) | number as c_ulong
}

/// `_IOW`: the kernel reads a `T`.
pub const fn iow<T>(group: u8, number: u8) -> c_ulong {
    ioc(IOC_IN, group, number, size_of::<T>())
}

/// `_IOWR`: the kernel reads and writes a `T`.
pub const fn iowr<T>(group: u8, number: u8) -> c_ulong {
    ioc(IOC_IN | IOC_OUT, group, number, size_of::<T>())
}

/// Calls ioctl(2).
///
/// # Safety
/// `request` must be one whose argument is a `T`, and any pointer inside `argument` must be good for what
/// the request does with it.
pub unsafe fn ioctl<T>(fd: RawFd, request: c_ulong, argument: &mut T) -> io::Result<()> {
    // SAFETY: the caller vouches for request and argument.
    check(unsafe { libc::ioctl(fd, request, std::ptr::from_mut(argument)) }).map(drop)
}

/// The convention of most calls: -1 is an error, which `errno` names.
pub fn check(result: c_int) -> io::Result<c_int> {
    if result == -1 { Err(io::Error::last_os_error()) } else { Ok(result) }
}

/// Text for a call that wants a C string.
pub fn c_text(text: &str) -> Result<CString> {
    CString::new(text).map_err(|_| Fault::invalid(format!("{:?} holds a NUL byte", text)))
}

/// A path for a call that wants a C string.
pub fn c_path(path: &Path) -> Result<CString> {
    use std::os::unix::ffi::OsStrExt;
    CString::new(path.as_os_str().as_bytes()).map_err(|_| Fault::invalid(format!("path {path:?} holds a NUL byte")))
}

/// The text in a fixed-size C array, up to its NUL.
pub fn text_of(array: &[c_char]) -> String {
    let bytes: Vec<u8> = array.iter().take_while(|c| **c != 0).map(|c| *c as u8).collect();
    String::from_utf8_lossy(&bytes).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ioctl_numbers_are_those_of_the_headers() {
        // From FreeBSD's truss(1) tables: SIOCIFCREATE2 and DEVFSIO_RDEL.
        assert_eq!(iowr::<[u8; 32]>(b'i', 124), 0xc020_697c);
        assert_eq!(iow::<u32>(b'D', 1), 0x8004_4401);
    }
}
