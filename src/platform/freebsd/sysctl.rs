//! Kernel state by name: sysctl(3).

use std::ffi::{CString, c_int};
use std::io;

use super::sys::check;

/// Whether the kernel knows `name`.
pub fn exists(name: &str) -> bool {
    mib(name).is_ok()
}

/// The value of an integer variable, of four or eight bytes, or of a boolean one, of one byte; `None` where
/// the kernel does not know it.
pub fn integer(name: &str) -> Option<i64> {
    let bytes = read(&mib(name).ok()?).ok()?;
    match bytes.len() {
        1 => Some(bytes[0].into()),
        4 => Some(i32::from_ne_bytes(bytes.try_into().ok()?).into()),
        8 => Some(i64::from_ne_bytes(bytes.try_into().ok()?)),
        _ => None,
    }
}

/// The value of a string variable; `None` where the kernel does not know it.
pub fn string(name: &str) -> Option<String> {
    let bytes = read(&mib(name).ok()?).ok()?;
    Some(until_nul(&bytes))
}

/// Sets an `int` variable.
pub fn set(name: &str, value: i32) -> io::Result<()> {
    let mib = mib(name)?;
    // SAFETY: the new value is a live i32 of the length given; no old value is asked for.
    check(unsafe {
        libc::sysctl(
            mib.as_ptr(),
            mib.len() as u32,
            std::ptr::null_mut(),
            std::ptr::null_mut(),
            std::ptr::from_ref(&value).cast(),
            size_of::<i32>(),
        )
    })
    .map(drop)
}

/// The names of all variables below `prefix`, without it: `("security.jail.param", ["allow.mount.zfs", …])`.
/// A node that has a value of its own shows up with a trailing dot in the kernel; here without it.
pub fn names_below(prefix: &str) -> io::Result<Vec<String>> {
    let base = mib(prefix)?;
    let mut names = Vec::new();
    let mut at = base.clone();
    loop {
        // sysctl(9): {0, 2, …} gives the next variable's number, {0, 1, …} a number's name.
        let next = match read(&[&[0, 2], at.as_slice()].concat()) {
            Ok(bytes) => numbers(&bytes),
            Err(e) if e.raw_os_error() == Some(libc::ENOENT) => break,
            Err(e) => return Err(e),
        };
        if !next.starts_with(&base) {
            break;
        }
        let name = until_nul(&read(&[&[0, 1], next.as_slice()].concat())?);
        if let Some(rest) = name.strip_prefix(prefix).and_then(|r| r.strip_prefix('.')) {
            names.push(rest.trim_end_matches('.').to_owned());
        }
        at = next;
    }
    Ok(names)
}

/// The value of the variable with this number. The kernel's lists grow while they are read, so this asks
/// again with more room until the answer fits.
pub fn read(mib: &[c_int]) -> io::Result<Vec<u8>> {
    let mut room = 1024;
    loop {
        let mut bytes = vec![0u8; room];
        let mut length = room;
        // SAFETY: `bytes` has `length` bytes of room, and nothing is set.
        let result = unsafe {
            libc::sysctl(mib.as_ptr(), mib.len() as u32, bytes.as_mut_ptr().cast(), &mut length, std::ptr::null(), 0)
        };
        match check(result) {
            Ok(_) => {
                bytes.truncate(length);
                return Ok(bytes);
            }
            Err(e) if e.raw_os_error() == Some(libc::ENOMEM) && room < 1 << 28 => room *= 4,
            Err(e) => return Err(e),
        }
    }
}

fn mib(name: &str) -> io::Result<Vec<c_int>> {
    let name = CString::new(name).map_err(|_| io::Error::from_raw_os_error(libc::EINVAL))?;
    let mut numbers = [0; libc::CTL_MAXNAME as usize];
    let mut length = numbers.len();
    // SAFETY: `numbers` has room for `length` numbers.
    check(unsafe { libc::sysctlnametomib(name.as_ptr(), numbers.as_mut_ptr(), &mut length) })?;
    Ok(numbers[..length].to_vec())
}

fn numbers(bytes: &[u8]) -> Vec<c_int> {
    bytes.chunks_exact(4).map(|four| c_int::from_ne_bytes([four[0], four[1], four[2], four[3]])).collect()
}

fn until_nul(bytes: &[u8]) -> String {
    let end = bytes.iter().position(|b| *b == 0).unwrap_or(bytes.len());
    String::from_utf8_lossy(&bytes[..end]).into_owned()
}
