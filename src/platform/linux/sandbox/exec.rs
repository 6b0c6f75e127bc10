//! [`Program`]: what a replica becomes, and what to say when it cannot.

use std::collections::BTreeMap;
use std::ffi::CString;
use std::fmt;
use std::os::fd::RawFd;

use super::step::{Errno, last, write_all};
use crate::fault::{Fault, Result};

/// Sent right before execve(2): who hears nothing more after it knows that the program runs.
pub(super) const READY: u8 = 0xe5;
/// Where programs are looked for when the environment has no PATH (containerd's default for Linux).
const DEFAULT_PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
/// Reported for a program that is there while its loader is not. No errno has this value.
const NO_LOADER: i32 = 4096;

/// A program with its arguments and environment, ready for execve(2).
#[derive(Debug)]
pub(super) struct Program {
    /// Where it may be, in the order of PATH.
    candidates: Vec<CString>,
    argv: Vec<CString>,
    /// Owns what `env_pointers` point to.
    _env: Vec<CString>,
    argv_pointers: Vec<*const libc::c_char>,
    env_pointers: Vec<*const libc::c_char>,
}

impl Program {
    /// Looks nothing up: the root is not there yet.
    pub fn new(argv: &[String], env: &BTreeMap<String, String>) -> Result<Self> {
        let name = argv
            .first()
            .filter(|name| !name.is_empty())
            .ok_or_else(|| Fault::invalid("the image names no program; give it an ENTRYPOINT or CMD"))?;
        let path = env.get("PATH").map_or(DEFAULT_PATH, String::as_str);
        let candidates: Vec<CString> = match name.contains('/') {
            true => vec![text(name)?],
            false => path
                .split(':')
                .filter(|dir| dir.starts_with('/'))
                .map(|dir| text(&format!("{dir}/{name}")))
                .collect::<Result<_>>()?,
        };
        let argv: Vec<CString> = argv.iter().map(|word| text(word)).collect::<Result<_>>()?;
        let variable = |(key, value): (&String, &String)| {
            // The value may be a secret; it is not shown.
            CString::new(format!("{key}={value}")).map_err(|_| {
                Fault::invalid(format!("environment variable {} has a NUL byte in it", key.escape_debug()))
            })
        };
        let env: Vec<CString> = env.iter().map(variable).collect::<Result<_>>()?;
        let pointers = |strings: &[CString]| {
            strings.iter().map(|string| string.as_ptr()).chain([std::ptr::null()]).collect::<Vec<_>>()
        };
        Ok(Self { candidates, argv_pointers: pointers(&argv), env_pointers: pointers(&env), argv, _env: env })
    }

    /// Tries one candidate after the other. Like a shell, prefers the reason of one that is there but refused.
    pub fn exec(&self, report: RawFd) -> Errno {
        if let Err(errno) = write_all(report, &[READY]) {
            return errno;
        }
        let mut worst = Errno(libc::ENOENT);
        for candidate in &self.candidates {
            // SAFETY: the path is NUL-terminated; both arrays end with null and point to strings that `self` owns.
            unsafe { libc::execve(candidate.as_ptr(), self.argv_pointers.as_ptr(), self.env_pointers.as_ptr()) };
            match last().0 {
                libc::ENOENT => {
                    // SAFETY: NUL-terminated.
                    if unsafe { libc::access(candidate.as_ptr(), libc::F_OK) } == 0 {
                        worst = Errno(NO_LOADER);
                    }
                }
                libc::ENOTDIR => {}
                libc::EACCES => worst = Errno(libc::EACCES),
                other => return Errno(other),
            }
        }
        worst
    }

    /// A sentence for what [`Program::exec`] reported.
    pub fn explain(&self, errno: Errno) -> String {
        let error = std::io::Error::from_raw_os_error(errno.0);
        match errno.0 {
            NO_LOADER => {
                format!("exec {self}: the program is in the image, but the loader or interpreter it asks for is not")
            }
            libc::ENOENT if self.candidates.first() == self.argv.first() => {
                format!("exec {self}: {error}; the image has no such program")
            }
            libc::ENOENT => format!("exec {self}: {error}; the image has no such program in its PATH"),
            libc::EACCES => format!("exec {self}: {error}; it must be a file that the image's user may execute"),
            libc::ENOEXEC => {
                format!("exec {self}: {error}; it is for another architecture, or a script without a #! line")
            }
            libc::E2BIG => format!("exec {self}: {error}; arguments and environment are too large"),
            _ => format!("exec {self}: {error}"),
        }
    }
}

impl fmt::Display for Program {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.argv.first().map(|name| name.to_string_lossy()).unwrap_or_default())
    }
}

/// A C string, or a fault that names the text with the NUL in it.
pub(super) fn text(text: &str) -> Result<CString> {
    CString::new(text).map_err(|_| Fault::invalid(format!("{} has a NUL byte in it", text.escape_debug())))
}
