//! [`spawn`]: a process in namespaces of its own that takes [`Step`]s, and what became of them.

use std::io::{self, Read};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::sync::{Mutex, PoisonError};

use rustix::pipe::PipeFlags;
use rustix::process::{WaitId, WaitIdOptions};

use super::exec::READY;
use super::step::{Errno, Step, last, write_all};
use crate::fault::{Context, Fault, Kind, Result};

/// Every namespace but the network's, which is made elsewhere, and the cgroup's, which must be made inside the cgroup.
const NAMESPACES: libc::c_int = libc::CLONE_NEWPID | libc::CLONE_NEWNS | libc::CLONE_NEWUTS | libc::CLONE_NEWIPC;
/// linux/sched.h, struct clone_args.
const CLONE_INTO_CGROUP: u64 = 0x2_0000_0000;

/// Held from making the report pipe until the child has it, so that no other child keeps its writing end open.
static FORK: Mutex<()> = Mutex::new(());

/// Where and how a child starts.
pub(super) struct Birth<'a> {
    /// Its cgroup (v2).
    pub cgroup: Option<BorrowedFd<'a>>,
    /// Whether it gets an empty network namespace.
    pub new_network: bool,
}

/// Runs the steps in a new process. On success the last of them, [`Step::Exec`], has worked.
/// On failure the process is gone and reaped.
pub(super) fn spawn(birth: &Birth<'_>, steps: &[Step<'_>]) -> Result<OwnedFd> {
    let (pidfd, report) = {
        let _guard = FORK.lock().unwrap_or_else(PoisonError::into_inner);
        let (read, write) = pipe()?;
        let network = if birth.new_network { libc::CLONE_NEWNET } else { 0 };
        let pidfd = clone(NAMESPACES | network, birth.cgroup, || child(steps, 0, write.as_raw_fd()));
        (pidfd.context(|| "cannot make a process")?, read)
    };
    let verdict = verdict(report, steps);
    if verdict.is_err() {
        end(&pidfd);
    }
    verdict.map(|()| pidfd)
}

/// Runs the first `outside` steps in a helper process, which a pid namespace that it enters does not have in it, and
/// the others in a child of this process that the helper makes, which it has. Otherwise as [`spawn`].
pub(super) fn join(cgroup: Option<BorrowedFd<'_>>, steps: &[Step<'_>], outside: usize) -> Result<OwnedFd> {
    let (helper, report, told) = {
        let _guard = FORK.lock().unwrap_or_else(PoisonError::into_inner);
        let (read, write) = pipe()?;
        let (told, tell) = pipe()?;
        let helper = clone(0, cgroup, || fork_inside(steps, outside, write.as_raw_fd(), tell.as_raw_fd()));
        (helper.context(|| "cannot make a process")?, read, told)
    };
    let mut number = [0; size_of::<libc::pid_t>()];
    let forked = std::fs::File::from(told).read_exact(&mut number);
    // It has done its work or failed; either way it ends by itself.
    wait(&helper).context(|| "cannot wait for the helper process")?;
    if forked.is_err() {
        // Without a child it has failed, and said how.
        return verdict(report, steps).and(Err(Fault::new(Kind::System, "the helper process ended without a word")));
    }
    // A child that has not been waited for keeps its number.
    let pid = rustix::process::Pid::from_raw(libc::pid_t::from_ne_bytes(number));
    let pid = pid.ok_or_else(|| Fault::new(Kind::System, "the helper process made no sense"))?;
    let pidfd = rustix::process::pidfd_open(pid, rustix::process::PidfdFlags::empty())
        .context(|| "cannot watch the new process")?;
    verdict(report, steps).inspect_err(|_| end(&pidfd))?;
    Ok(pidfd)
}

/// Waits for a child's end, which reaps it.
pub(super) fn wait(pidfd: &OwnedFd) -> rustix::io::Result<Option<rustix::process::WaitIdStatus>> {
    loop {
        match rustix::process::waitid(WaitId::PidFd(pidfd.as_fd()), WaitIdOptions::EXITED) {
            Err(rustix::io::Errno::INTR) => {}
            ended => return ended,
        }
    }
}

fn pipe() -> Result<(OwnedFd, OwnedFd)> {
    rustix::pipe::pipe_with(PipeFlags::CLOEXEC).context(|| "cannot make a pipe")
}

/// Kills and reaps a child of this process.
pub(super) fn end(pidfd: &OwnedFd) {
    // Errors mean that it has ended, or has been reaped.
    let _ = rustix::process::pidfd_send_signal(pidfd, rustix::process::Signal::KILL);
    let _ = rustix::process::waitid(WaitId::PidFd(pidfd.as_fd()), WaitIdOptions::EXITED);
}

/// A forked child that runs `work`, which makes system calls only.
fn clone(flags: libc::c_int, cgroup: Option<BorrowedFd<'_>>, work: impl FnOnce()) -> io::Result<OwnedFd> {
    let mut pidfd: RawFd = -1;
    // SAFETY: all zero is a valid clone_args.
    let mut args: libc::clone_args = unsafe { std::mem::zeroed() };
    args.flags = (flags | libc::CLONE_PIDFD) as u64;
    args.pidfd = (&raw mut pidfd) as u64;
    args.exit_signal = libc::SIGCHLD as u64;
    if let Some(cgroup) = cgroup {
        args.flags |= CLONE_INTO_CGROUP;
        args.cgroup = cgroup.as_raw_fd() as u64;
    }
    // No handler of the daemon may run in the child: it would write to pipes that the daemon reads.
    let before = block_signals();
    // SAFETY: without CLONE_VM and a stack this is fork(2): the child has its own copy of everything, and runs `work`,
    // which makes system calls only, and nothing after it.
    let pid = unsafe { libc::syscall(libc::SYS_clone3, &raw const args, size_of::<libc::clone_args>()) };
    if pid == 0 {
        work();
        // SAFETY: ends the process without running the daemon's exit handlers.
        unsafe { libc::_exit(127) }
    }
    let error = io::Error::last_os_error();
    // SAFETY: reads one set.
    unsafe { libc::pthread_sigmask(libc::SIG_SETMASK, &raw const before, std::ptr::null_mut()) };
    if pid < 0 {
        return Err(error);
    }
    // SAFETY: the kernel has put a new descriptor there, which nobody else owns.
    Ok(unsafe { OwnedFd::from_raw_fd(pidfd) })
}

fn block_signals() -> libc::sigset_t {
    // SAFETY: both are valid sets once filled, and filled by these calls, which cannot fail with these arguments.
    unsafe {
        let mut all: libc::sigset_t = std::mem::zeroed();
        let mut before: libc::sigset_t = std::mem::zeroed();
        libc::sigfillset(&raw mut all);
        libc::pthread_sigmask(libc::SIG_SETMASK, &raw const all, &raw mut before);
        before
    }
}

/// In the child: takes the steps, of which the first is number `from`. Reports `step number, errno` on failure, and
/// gives the descriptor that could report more.
fn child(steps: &[Step<'_>], from: usize, mut report: RawFd) {
    for (number, step) in steps.iter().enumerate().skip(from) {
        if let Err(Errno(errno)) = step.run(&mut report) {
            tell_failure(report, number, errno);
            return;
        }
    }
}

fn tell_failure(report: RawFd, number: usize, errno: i32) {
    let [a, b, c, d] = (number as u32).to_ne_bytes();
    let [e, f, g, h] = errno.to_ne_bytes();
    let _ = write_all(report, &[a, b, c, d, e, f, g, h]);
}

/// In the helper: takes the steps outside, forks a sibling that takes the others, and tells its number.
fn fork_inside(steps: &[Step<'_>], outside: usize, mut report: RawFd, tell: RawFd) {
    for (number, step) in steps.iter().enumerate().take(outside) {
        if let Err(Errno(errno)) = step.run(&mut report) {
            tell_failure(report, number, errno);
            return;
        }
    }
    // SAFETY: all zero is a valid clone_args.
    let mut args: libc::clone_args = unsafe { std::mem::zeroed() };
    // The caller's child, not this process's: the caller waits for it. Its exit signal is this process's (clone(2)).
    args.flags = libc::CLONE_PARENT as u64;
    // SAFETY: as in `clone`; this process has one thread.
    match unsafe { libc::syscall(libc::SYS_clone3, &raw const args, size_of::<libc::clone_args>()) } {
        0 => child(steps, outside, report),
        // The step that enters the pid namespace fails only now if that namespace has just ended.
        -1 => tell_failure(report, outside.saturating_sub(1), last().0),
        pid => drop(write_all(tell, &(pid as libc::pid_t).to_ne_bytes())),
    }
}

/// Reads the report to its end: the pipe closes when the program is exec'ed or the child ends.
fn verdict(report: OwnedFd, steps: &[Step<'_>]) -> Result<()> {
    let mut bytes = Vec::new();
    std::fs::File::from(report).read_to_end(&mut bytes).context(|| "cannot read the report of the new process")?;
    match *bytes {
        [READY] => Ok(()),
        [a, b, c, d, e, f, g, h] | [READY, a, b, c, d, e, f, g, h] => {
            let number = u32::from_ne_bytes([a, b, c, d]) as usize;
            let errno = Errno(i32::from_ne_bytes([e, f, g, h]));
            Err(explain(steps.get(number), errno))
        }
        _ => Err(Fault::new(
            Kind::System,
            "it was killed before its program ran; its memory limit may be too small to start in",
        )),
    }
}

fn explain(step: Option<&Step<'_>>, errno: Errno) -> Fault {
    match step {
        Some(Step::Examine(program) | Step::Exec(program)) => Fault::invalid(program.explain(errno)),
        Some(step) => {
            let fault = Fault::from(io::Error::from_raw_os_error(errno.0));
            fault.within(step.to_string())
        }
        None => Fault::new(Kind::System, "the new process made no sense"),
    }
}
