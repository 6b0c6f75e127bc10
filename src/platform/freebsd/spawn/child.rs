//! What the forked child does between fork and exec. Only async-signal-safe functions (sigaction(2)) are
//! called here: no allocation, no lock, no formatting, no drop of anything that owns memory.

use std::ffi::{c_char, c_int};
use std::os::fd::{AsRawFd, RawFd};

use super::super::network::inside;
use super::{Entry, Program};

/// Where the error pipe is put: after standard input, output and error.
const REPORT: RawFd = 3;

/// SIGRTMAX of sys/signal.h.
const LAST_SIGNAL: c_int = 126;

/// What the child was doing when it failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum Stage {
    Session = 1,
    Stdio,
    Attach,
    Network,
    Limits,
    Groups,
    User,
    Control,
    Signals,
    Chdir,
    Exec,
}

impl Stage {
    const ALL: [Self; 11] = [
        Self::Session,
        Self::Stdio,
        Self::Attach,
        Self::Network,
        Self::Limits,
        Self::Groups,
        Self::User,
        Self::Control,
        Self::Signals,
        Self::Chdir,
        Self::Exec,
    ];

    /// For a message.
    pub fn doing(self) -> &'static str {
        match self {
            Self::Session => "starting a session",
            Self::Stdio => "connecting its standard input and output",
            Self::Attach => "entering the jail",
            Self::Network => "setting up the network inside",
            Self::Limits => "setting its resource limits",
            Self::Groups => "setting its groups",
            Self::User => "becoming its user",
            Self::Control => "giving up privileges",
            Self::Signals => "resetting signals",
            Self::Chdir => "entering its working directory",
            Self::Exec => "executing it",
        }
    }
}

/// A failure on its way through the pipe: the stage's number and errno.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Failure {
    pub stage: Stage,
    pub errno: c_int,
}

impl Failure {
    fn to_bytes(self) -> [u8; 5] {
        let errno = self.errno.to_ne_bytes();
        [self.stage as u8, errno[0], errno[1], errno[2], errno[3]]
    }

    /// `None` for anything that is not a whole report.
    pub fn from_bytes(bytes: &[u8]) -> Option<Self> {
        let [stage, errno @ ..] = bytes else { return None };
        let stage = Stage::ALL.into_iter().find(|known| *known as u8 == *stage)?;
        Some(Self { stage, errno: c_int::from_ne_bytes(errno.try_into().ok()?) })
    }
}

/// Becomes the program, or reports why not and exits.
pub fn run(program: &Program, argv: &[*const c_char], env: &[*const c_char], report: RawFd) -> ! {
    // SAFETY: this is the forked child, with one thread, and `argv` and `env` end with NULL; the pipe and the
    // descriptors in `program` are open. Every function called is async-signal-safe.
    unsafe {
        let Err((stage, report)) = become_program(program, argv, env, report);
        let bytes = Failure { stage, errno: *libc::__error() }.to_bytes();
        libc::write(report, bytes.as_ptr().cast(), bytes.len());
        libc::_exit(127)
    }
}

/// A stage, and the descriptor that can report it.
type Stop = (Stage, RawFd);

unsafe fn become_program(
    program: &Program,
    argv: &[*const c_char],
    env: &[*const c_char],
    report: RawFd,
) -> Result<std::convert::Infallible, Stop> {
    // SAFETY: see `run`.
    unsafe {
        done(libc::setsid(), Stage::Session, report)?;
        stdio(program, report)?;
        let report = REPORT;
        match program.entry {
            Entry::First => enter_first(program, report)?,
            Entry::Later => enter_later(program, report)?,
        }
        control(report)?;
        signals(report)?;
        libc::umask(0o022);
        done(libc::chdir(program.workdir.as_ptr()), Stage::Chdir, report)?;
        exec(program, argv, env);
        Err((Stage::Exec, report))
    }
}

/// The host's root is this jail's root, and then its user.
unsafe fn enter_first(program: &Program, report: RawFd) -> Result<(), Stop> {
    // SAFETY: see `run`.
    unsafe {
        done(libc::jail_attach(program.jid), Stage::Attach, report)?;
        for step in &program.network {
            done(inside::perform(step), Stage::Network, report)?;
        }
        limits(program, report)?;
        done(libc::setgroups(program.groups.len() as c_int, program.groups.as_ptr()), Stage::Groups, report)?;
        done(libc::setgid(program.gid), Stage::Groups, report)?;
        done(libc::setuid(program.uid), Stage::User, report)
    }
}

/// In the jail root may be nobody any more. What needs root is done outside; inside, root's number is given up for
/// one that the process holds already, which anybody may do (setresuid(2)).
unsafe fn enter_later(program: &Program, report: RawFd) -> Result<(), Stop> {
    let Program { uid, gid, .. } = *program;
    // SAFETY: see `run`.
    unsafe {
        limits(program, report)?;
        done(libc::setgroups(program.groups.len() as c_int, program.groups.as_ptr()), Stage::Groups, report)?;
        done(libc::setresgid(gid, gid, gid), Stage::Groups, report)?;
        done(libc::setresuid(uid, 0, uid), Stage::User, report)?;
        done(libc::jail_attach(program.jid), Stage::Attach, report)?;
        done(libc::setresuid(uid, uid, uid), Stage::User, report)
    }
}

fn done(result: c_int, stage: Stage, report: RawFd) -> Result<(), Stop> {
    if result == -1 { Err((stage, report)) } else { Ok(()) }
}

/// Nothing but standard input and output and the pipe stays open: a directory would make jail_attach fail,
/// and whatever else the daemon has open is none of the program's business.
unsafe fn stdio(program: &Program, report: RawFd) -> Result<(), Stop> {
    // SAFETY: see `run`. The daemon has 0, 1 and 2 open (the Rust runtime sees to it), so none of the
    // sources is among them, and the order overwrites no source before its use.
    unsafe {
        for (given, number) in program.stdio.iter().zip(0..) {
            done(libc::dup2(given.as_raw_fd(), number), Stage::Stdio, report)?;
        }
        done(libc::dup2(report, REPORT), Stage::Stdio, report)?;
        done(libc::fcntl(REPORT, libc::F_SETFD, libc::FD_CLOEXEC), Stage::Stdio, REPORT)?;
        done(libc::close_range(REPORT as u32 + 1, u32::MAX, 0), Stage::Stdio, REPORT)
    }
}

/// Limits that the process carries itself; those of the whole jail are rctl's.
unsafe fn limits(program: &Program, report: RawFd) -> Result<(), Stop> {
    let none = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: see `run`.
    unsafe {
        // A core file would fill the replica's disk with its memory.
        done(libc::setrlimit(libc::RLIMIT_CORE, &none), Stage::Limits, report)?;
        if let Some(most) = program.open_files {
            let most = most as libc::rlim_t;
            let files = libc::rlimit { rlim_cur: most, rlim_max: most };
            done(libc::setrlimit(libc::RLIMIT_NOFILE, &files), Stage::Limits, report)?;
        }
    }
    Ok(())
}

/// No privilege comes back by exec of a setuid file, and nobody traces it, by procctl(2).
unsafe fn control(report: RawFd) -> Result<(), Stop> {
    for (command, mut value) in [
        (libc::PROC_NO_NEW_PRIVS_CTL, libc::PROC_NO_NEW_PRIVS_ENABLE),
        (libc::PROC_TRACE_CTL, libc::PROC_TRACE_CTL_DISABLE_EXEC),
    ] {
        // SAFETY: see `run`; both commands read an int. Process number 0 is the caller.
        let result = unsafe { libc::procctl(libc::P_PID, 0, command, std::ptr::from_mut(&mut value).cast()) };
        done(result, Stage::Control, report)?;
    }
    Ok(())
}

/// Every signal at its default and none blocked, whatever the daemon ignores.
unsafe fn signals(report: RawFd) -> Result<(), Stop> {
    // SAFETY: see `run`; both structures are plain data, for which zeros are valid: SIG_DFL, an empty set.
    unsafe {
        let default: libc::sigaction = std::mem::zeroed();
        for signal in 1..=LAST_SIGNAL {
            // Fails for KILL, STOP and numbers that are no signal; nothing to do about those.
            libc::sigaction(signal, &default, std::ptr::null_mut());
        }
        let none: libc::sigset_t = std::mem::zeroed();
        done(libc::sigprocmask(libc::SIG_SETMASK, &none, std::ptr::null_mut()), Stage::Signals, report)
    }
}

/// Tries each candidate as execvp(3) does: one that is not there is passed over, and so is one that may not
/// be executed, but then that is what is reported if none works. Returns with `errno` set.
unsafe fn exec(program: &Program, argv: &[*const c_char], env: &[*const c_char]) {
    let mut denied = false;
    for candidate in &program.candidates {
        // SAFETY: see `run`.
        unsafe {
            libc::execve(candidate.as_ptr(), argv.as_ptr(), env.as_ptr());
            match *libc::__error() {
                libc::ENOENT | libc::ENOTDIR => {}
                libc::EACCES => denied = true,
                _ => return,
            }
        }
    }
    // SAFETY: the address of this thread's errno.
    unsafe { *libc::__error() = if denied { libc::EACCES } else { libc::ENOENT } };
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failure_survives_the_pipe() {
        for stage in Stage::ALL {
            let failure = Failure { stage, errno: libc::EPERM };
            assert_eq!(Failure::from_bytes(&failure.to_bytes()), Some(failure));
        }
        assert_eq!(Failure::from_bytes(&[]), None);
        assert_eq!(Failure::from_bytes(&[1, 2]), None);
    }
}
