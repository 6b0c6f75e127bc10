//! A process whose program file nobody can change, for entering a replica that runs hostile code.
//!
//! Between setns(2) and execve(2) the process is in the replica's pid namespace while `/proc/PID/exe` is still this
//! program. Code inside that got it executed, or held it open, could write to it once nobody runs it (what
//! CVE-2019-5736 was to runc). So the process first becomes a copy of itself in memory that is sealed.

use std::ffi::OsString;
use std::fs::File;
use std::os::fd::AsRawFd;
use std::os::unix::process::CommandExt;
use std::process::Command;

use rustix::fs::{MemfdFlags, SealFlags};

use crate::fault::{Context, Result};

const SEALS: SealFlags = SealFlags::SEAL.union(SealFlags::SHRINK).union(SealFlags::GROW).union(SealFlags::WRITE);

/// Whether this process runs from a file that nobody can change any more.
pub(super) fn is_sealed() -> bool {
    let Ok(program) = File::open("/proc/self/exe") else { return false };
    rustix::fs::fcntl_get_seals(&program).is_ok_and(|seals| seals.contains(SEALS))
}

/// Executes this program again, with the same arguments, from a sealed copy in memory, unless it runs from one.
/// Comes back only then.
pub fn seal() -> Result<()> {
    if is_sealed() {
        return Ok(());
    }
    let context = || "cannot make a sealed copy of this program";
    let mut program = File::open("/proc/self/exe").context(context)?;
    let copy = rustix::fs::memfd_create("faas-jails", MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING);
    let mut copy = File::from(copy.context(context)?);
    std::io::copy(&mut program, &mut copy).context(context)?;
    rustix::fs::fcntl_add_seals(&copy, SEALS).context(context)?;
    let mut arguments = std::env::args_os();
    let name = arguments.next().unwrap_or_else(|| OsString::from("faas-jails"));
    let path = format!("/proc/self/fd/{}", copy.as_raw_fd());
    Err(Command::new(path).arg0(name).args(arguments).exec()).context(context)
}
