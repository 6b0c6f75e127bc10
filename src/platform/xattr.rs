//! Extended attributes of a file that is open: the two kinds that a layer may leave.

use std::io;
use std::os::fd::BorrowedFd;

/// Sets `user.NAME` (Linux) or NAME in the user namespace (FreeBSD, extattr(2)). `name` is without `user.`.
/// A filesystem that keeps no such attributes is no error.
pub fn set_user(file: BorrowedFd<'_>, name: &str, value: &[u8]) -> io::Result<()> {
    match imp::set_user(file, name, value) {
        Err(error) if error.raw_os_error() == Some(libc::EOPNOTSUPP) => Ok(()),
        other => other,
    }
}

/// Marks a directory as opaque for overlayfs (Linux, Documentation/filesystems/overlayfs.rst).
pub fn set_overlay_opaque(directory: BorrowedFd<'_>) -> io::Result<()> {
    imp::set_overlay_opaque(directory)
}

#[cfg(target_os = "linux")]
mod imp {
    use std::io;
    use std::os::fd::BorrowedFd;

    use rustix::fs::{XattrFlags, fsetxattr};

    pub fn set_user(file: BorrowedFd<'_>, name: &str, value: &[u8]) -> io::Result<()> {
        Ok(fsetxattr(file, format!("user.{name}"), value, XattrFlags::empty())?)
    }

    pub fn set_overlay_opaque(directory: BorrowedFd<'_>) -> io::Result<()> {
        Ok(fsetxattr(directory, "trusted.overlay.opaque", b"y", XattrFlags::empty())?)
    }
}

#[cfg(target_os = "freebsd")]
mod imp {
    use std::ffi::CString;
    use std::io;
    use std::os::fd::{AsRawFd, BorrowedFd};

    pub fn set_user(file: BorrowedFd<'_>, name: &str, value: &[u8]) -> io::Result<()> {
        let name = CString::new(name)?;
        // SAFETY: the descriptor is borrowed for the call, `name` ends in NUL, and `value` is a readable
        // buffer of the length that is passed.
        let done = unsafe {
            libc::extattr_set_fd(
                file.as_raw_fd(),
                libc::EXTATTR_NAMESPACE_USER,
                name.as_ptr(),
                value.as_ptr().cast(),
                value.len(),
            )
        };
        if done < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
    }

    pub fn set_overlay_opaque(_directory: BorrowedFd<'_>) -> io::Result<()> {
        Err(io::Error::from(io::ErrorKind::Unsupported))
    }
}
