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
/// Reported for a program that is no file of the image. No errno has this value.
const NOT_OF_THE_IMAGE: i32 = 4097;
/// What the kernel reads of a program to tell its format (linux/binfmts.h, BINPRM_BUF_SIZE).
const HEAD: usize = 256;
/// How many interpreters of interpreters the kernel follows (fs/exec.c), and one more.
const INTERPRETERS: usize = 6;

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

    /// Refuses a program that is reached through a magic link of /proc, by itself or as the interpreter of a script.
    /// `/proc/self/exe` is the daemon's own file until execve(2): executed from an image, with the image's loader, it
    /// would give hostile code a handle on the host's binary, to be overwritten as soon as the daemon is not running
    /// (what CVE-2019-5736 was to runc). Nothing else runs in the sandbox yet, so that what is looked at stays as it is.
    /// To be called as root: a program that its user may execute need not be readable.
    pub fn examine(&self) -> Result<(), Errno> {
        for candidate in &self.candidates {
            let mut path;
            let mut next: *const libc::c_char = candidate.as_ptr();
            for _ in 0..INTERPRETERS {
                let mut head = [0u8; HEAD];
                let Some(length) = read_head(next, &mut head)? else { break };
                let Some(interpreter) = interpreter(head.get(..length).unwrap_or_default()) else { break };
                path = [0u8; HEAD + 1];
                path.iter_mut().zip(interpreter).for_each(|(to, from)| *to = *from);
                next = path.as_ptr().cast();
            }
        }
        Ok(())
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
            NOT_OF_THE_IMAGE => {
                format!(
                    "exec {self}: it, or the interpreter it asks for, is a link in /proc; it must be a file of the image"
                )
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

/// The start of a file; `None` if there is none to be read, which is execve(2)'s to report.
fn read_head(path: *const libc::c_char, head: &mut [u8; HEAD]) -> Result<Option<usize>, Errno> {
    // SAFETY: all zero is a valid open_how.
    let mut how: libc::open_how = unsafe { std::mem::zeroed() };
    how.flags = (libc::O_RDONLY | libc::O_NONBLOCK | libc::O_NOCTTY | libc::O_CLOEXEC) as u64;
    how.resolve = libc::RESOLVE_NO_MAGICLINKS;
    // SAFETY: the path is NUL-terminated (its callers' duty), the structure has the size that is given.
    let fd =
        unsafe { libc::syscall(libc::SYS_openat2, libc::AT_FDCWD, path, &raw const how, size_of::<libc::open_how>()) };
    if fd < 0 {
        return if last().0 == libc::ELOOP { Err(Errno(NOT_OF_THE_IMAGE)) } else { Ok(None) };
    }
    // SAFETY: pointer and length are the array's; `fd` was opened above and is used by nobody else.
    let length = unsafe {
        let length = libc::read(fd as RawFd, head.as_mut_ptr().cast(), head.len());
        libc::close(fd as RawFd);
        length
    };
    Ok(usize::try_from(length).ok())
}

/// What follows `#!`, up to a blank, as fs/binfmt_script.c reads it.
fn interpreter(head: &[u8]) -> Option<&[u8]> {
    let line = head.strip_prefix(b"#!")?.split(|&byte| byte == b'\n' || byte == 0).next()?;
    line.split(|&byte| byte == b' ' || byte == b'\t').find(|word| !word.is_empty())
}

/// A C string, or a fault that names the text with the NUL in it.
pub(super) fn text(text: &str) -> Result<CString> {
    CString::new(text).map_err(|_| Fault::invalid(format!("{} has a NUL byte in it", text.escape_debug())))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn interpreters_are_read_as_the_kernel_reads_them() {
        for (head, expected) in [
            ("#!/bin/sh\n", Some("/bin/sh")),
            ("#! \t /bin/env  python\nrest", Some("/bin/env")),
            ("#!/bin/sh", Some("/bin/sh")),
            ("#!/a\0/b\n", Some("/a")),
            ("#!\n/bin/sh", None),
            ("#!   ", None),
            ("# !/bin/sh", None),
            ("\x7fELF", None),
            ("", None),
        ] {
            assert_eq!(interpreter(head.as_bytes()), expected.map(str::as_bytes), "{head:?}");
        }
    }

    #[test]
    fn magic_links_are_refused_at_any_depth() {
        let temp = tempfile::tempdir().unwrap();
        let path = |name: &str| temp.path().join(name).to_str().unwrap().to_owned();
        let script =
            |name: &str, interpreter: &str| std::fs::write(path(name), format!("#!{interpreter} x\n")).unwrap();
        script("direct", "/proc/self/exe");
        script("nested", &path("direct"));
        script("deeper", &path("nested"));
        script("endless", &path("endless"));
        script("fine", "/bin/sh");
        std::os::unix::fs::symlink("/proc/self/exe", path("link")).unwrap();
        let examine = |name: &str| Program::new(&[name.to_owned()], &BTreeMap::new()).unwrap().examine();
        for bad in ["direct", "nested", "deeper", "link"] {
            assert_eq!(examine(&path(bad)), Err(Errno(NOT_OF_THE_IMAGE)), "{bad}");
        }
        for bad in ["/proc/self/exe", "/proc/thread-self/exe", "/proc/self/root/bin/sh", "/proc/self/cwd/x"] {
            assert_eq!(examine(bad), Err(Errno(NOT_OF_THE_IMAGE)), "{bad}");
        }
        for good in [path("fine"), path("endless"), "/bin/sh".to_owned(), path("absent"), "sh".to_owned()] {
            assert_eq!(examine(&good), Ok(()), "{good}");
        }
    }
}
