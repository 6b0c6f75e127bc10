//! One process in a jail: fork, attach, exec.
//!
//! jail_attach(2) moves a whole process, and refuses while any directory is open, so it happens in a forked
//! child that has closed everything else. The daemon has threads: between fork and exec the child may call
//! async-signal-safe functions only, so everything it needs is made ready before the fork ([`Program`]) and
//! what it does is in one place ([`child`]). The program is linked with all symbols bound at start (the
//! default of rustc for FreeBSD), so that no call in the child enters the run-time linker.
//!
//! ```text
//!  parent: prepare ── pdfork ── read pipe ──────────────────── EOF: exec'ed ── (pid, descriptor)
//!  child:               └ session, stdio, close, attach, network, user, limits, signals, cwd, exec
//!                          (a later one in a running jail: limits and user before it attaches)
//!                          └ at the first failure: stage and errno into the pipe
//! ```

use std::collections::BTreeMap;
use std::ffi::{CString, OsString};
use std::io::{self, Read};
use std::mem::MaybeUninit;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::os::unix::ffi::OsStringExt;
use std::path::{Path, PathBuf};

use super::jail::Jid;
use super::network::inside::Step;
use super::sys::{c_path, c_text, check};
use crate::fault::{Context, Fault, Kind, Result};
use crate::sandbox::{self, Exit, Plan, User};

mod child;

/// Where a program is looked up when the environment has no PATH: `_PATH_STDPATH` of paths.h.
const DEFAULT_PATH: &str = "/usr/bin:/bin:/usr/sbin:/sbin";

/// Everything the child needs, ready before the fork.
pub struct Program {
    jid: Jid,
    /// Full paths to try, in order.
    candidates: Vec<CString>,
    argv: Vec<CString>,
    env: Vec<CString>,
    workdir: CString,
    uid: libc::uid_t,
    gid: libc::gid_t,
    groups: Vec<libc::gid_t>,
    open_files: Option<u64>,
    network: Vec<Step>,
    stdio: [OwnedFd; 3],
    entry: Entry,
    /// For messages: what the user asked for.
    name: String,
}

/// How a program comes into its jail.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Entry {
    /// The first one: makes the network inside, and outlives this process.
    First,
    /// Another one, when the jail's root may have lost its privileges ([`super::jail::drop_root`]): takes its
    /// user's numbers with it, and ends with this process.
    Later,
}

/// A started program: its process descriptor (pdfork(2)) and number.
#[derive(Debug)]
pub struct Process {
    /// Closing it does not kill the process: a replica outlives the daemon.
    pub descriptor: OwnedFd,
    /// Its number on the host.
    pub pid: libc::pid_t,
}

impl Program {
    /// Makes `plan`'s program ready to run in jail `jid`, after `network`'s steps have been done inside.
    pub fn prepare(plan: &Plan, jid: Jid, network: Vec<Step>) -> Result<Self> {
        let Some(name) = plan.argv.first().filter(|name| !name.is_empty()) else {
            return Err(Fault::invalid(format!("{} has no program to run: the image names none", plan.replica)));
        };
        let hold = |fd: &OwnedFd| fd.try_clone().context(|| "cannot hold standard input and output open");
        let input = match &plan.input {
            Some(input) => hold(input)?,
            None => std::fs::File::open("/dev/null").context(|| "cannot open /dev/null")?.into(),
        };
        let errors = hold(plan.errors.as_ref().unwrap_or(&plan.output))?;
        Ok(Self {
            jid,
            candidates: candidates(name, path_of(&plan.env), &plan.workdir)?,
            argv: plan.argv.iter().map(|arg| c_text(arg)).collect::<Result<_>>()?,
            env: variables(&plan.env)?,
            workdir: c_path(&plan.workdir)?,
            uid: plan.user.uid,
            gid: plan.user.gid,
            groups: all_groups(&plan.user),
            open_files: plan.limits.open_files,
            network,
            stdio: [input, hold(&plan.output)?, errors],
            entry: Entry::First,
            name: name.clone(),
        })
    }

    /// Makes another program ready to run in jail `jid`, beside the first.
    pub fn beside(program: &sandbox::Program, jid: Jid) -> Result<Self> {
        let Some(name) = program.argv.first().filter(|name| !name.is_empty()) else {
            return Err(Fault::invalid("there is no program to run"));
        };
        let hold = |fd: &OwnedFd| fd.try_clone().context(|| "cannot hold standard input and output open");
        let [input, output, error] = &program.stdio;
        Ok(Self {
            jid,
            candidates: candidates(name, path_of(&program.env), &program.workdir)?,
            argv: program.argv.iter().map(|arg| c_text(arg)).collect::<Result<_>>()?,
            env: variables(&program.env)?,
            workdir: c_path(&program.workdir)?,
            uid: program.user.uid,
            gid: program.user.gid,
            groups: all_groups(&program.user),
            open_files: program.open_files,
            network: Vec::new(),
            stdio: [hold(input)?, hold(output)?, hold(error)?],
            entry: Entry::Later,
            name: name.clone(),
        })
    }

    /// Runs it. On return it has been exec'ed, or the call failed and the child is gone.
    pub fn spawn(&self) -> Result<Process> {
        let argv = pointers(&self.argv);
        let env = pointers(&self.env);
        let (reader, writer) = pipe().context(|| "cannot make a pipe")?;
        let mut descriptor = -1;
        // pdfork(2): without PD_DAEMON the process is killed when its last descriptor is closed.
        let lifetime = if self.entry == Entry::First { libc::PD_DAEMON } else { 0 };
        let forked = without_signals(|| {
            // SAFETY: the child calls async-signal-safe functions only (see `child`), and never returns.
            let pid = unsafe { libc::pdfork(&mut descriptor, lifetime | libc::PD_CLOEXEC) };
            if pid == 0 {
                child::run(self, &argv, &env, writer.as_raw_fd());
            }
            check(pid)
        });
        let pid = forked.context(|| format!("cannot fork for {}", self.name))?;
        // SAFETY: pdfork gave this descriptor to the parent, which owns it alone.
        let descriptor = unsafe { OwnedFd::from_raw_fd(descriptor) };
        drop(writer);
        match child::Failure::read(std::fs::File::from(reader))
            .context(|| format!("cannot watch {} start", self.name))?
        {
            None => Ok(Process { descriptor, pid }),
            Some(failure) => Err(failure.explain(self)),
        }
    }
}

impl Process {
    /// Waits for its end.
    pub fn wait(self) -> io::Result<Exit> {
        let mut status = 0;
        loop {
            // SAFETY: writes one int. A process with a descriptor is waited for by its number (pdfork(2)).
            match check(unsafe { libc::waitpid(self.pid, &mut status, 0) }) {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
                Ok(_) if libc::WIFEXITED(status) => return Ok(Exit::Code(libc::WEXITSTATUS(status))),
                Ok(_) => return Ok(Exit::Signal(libc::WTERMSIG(status))),
            }
        }
    }
}

fn path_of(env: &BTreeMap<String, String>) -> &str {
    env.get("PATH").map_or(DEFAULT_PATH, String::as_str)
}

fn variables(env: &BTreeMap<String, String>) -> Result<Vec<CString>> {
    env.iter().map(|(key, value)| c_text(&format!("{key}={value}"))).collect()
}

/// setgroups(2): before FreeBSD 15 the first entry is the effective group, later it is one of the rest.
fn all_groups(user: &User) -> Vec<libc::gid_t> {
    std::iter::once(user.gid).chain(user.groups.iter().copied()).collect()
}

/// Where inside its root the plan's program is looked for, in order.
pub fn programs(plan: &Plan) -> Result<Vec<PathBuf>> {
    let name = plan.argv.first().map_or("", String::as_str);
    let found = candidates(name, path_of(&plan.env), &plan.workdir)?;
    Ok(found.into_iter().map(|path| OsString::from_vec(path.into_bytes()).into()).collect())
}

/// The paths to try for `name`: itself if it has a slash (from `workdir` on), or one for each part of `path`.
fn candidates(name: &str, path: &str, workdir: &Path) -> Result<Vec<CString>> {
    if name.contains('/') {
        return Ok(vec![c_path(&workdir.join(name))?]);
    }
    // execvp(3): an empty part is the current directory.
    let directories =
        path.split(':').map(|part| if part.is_empty() { workdir.to_owned() } else { PathBuf::from(part) });
    directories.map(|directory| c_path(&workdir.join(directory).join(name))).collect()
}

/// A NULL-terminated list of pointers into `strings`, as execve(2) wants it.
fn pointers(strings: &[CString]) -> Vec<*const libc::c_char> {
    strings.iter().map(|string| string.as_ptr()).chain(std::iter::once(std::ptr::null())).collect()
}

fn pipe() -> io::Result<(OwnedFd, OwnedFd)> {
    let mut ends = [-1; 2];
    // SAFETY: `ends` has room for two descriptors.
    check(unsafe { libc::pipe2(ends.as_mut_ptr(), libc::O_CLOEXEC) })?;
    // SAFETY: pipe2 gave both, and nobody else has them.
    Ok(unsafe { (OwnedFd::from_raw_fd(ends[0]), OwnedFd::from_raw_fd(ends[1])) })
}

/// Runs `fork` with every signal blocked, so that no handler of the daemon's runs in the child.
fn without_signals<T>(fork: impl FnOnce() -> T) -> T {
    let mut all = MaybeUninit::uninit();
    let mut before = MaybeUninit::uninit();
    // SAFETY: sigfillset initialises `all`, pthread_sigmask `before`, which is then put back.
    unsafe {
        libc::sigfillset(all.as_mut_ptr());
        libc::pthread_sigmask(libc::SIG_SETMASK, all.as_ptr(), before.as_mut_ptr());
        let result = fork();
        libc::pthread_sigmask(libc::SIG_SETMASK, before.as_ptr(), std::ptr::null_mut());
        result
    }
}

impl child::Failure {
    /// Reads the child's report; `None` when the pipe closed without one, which exec does.
    fn read(mut reader: impl Read) -> io::Result<Option<Self>> {
        let mut report = Vec::new();
        reader.read_to_end(&mut report)?;
        Ok(Self::from_bytes(&report))
    }

    fn explain(&self, program: &Program) -> Fault {
        let error = io::Error::from_raw_os_error(self.errno);
        let name = &program.name;
        let workdir = program.workdir.to_string_lossy();
        let (kind, what) = match (self.stage, self.errno) {
            (child::Stage::Exec, libc::ENOENT) => {
                (Kind::Invalid, format!("the image has no program {name} on its PATH, or its interpreter is missing"))
            }
            (child::Stage::Exec, libc::EACCES) => {
                (Kind::Invalid, format!("{name} in the image is not executable for user {}", program.uid))
            }
            (child::Stage::Exec, libc::ENOEXEC) => (
                Kind::Invalid,
                format!("{name} in the image is no program for this host; a Linux program needs: kldload linux64"),
            ),
            (child::Stage::Chdir, _) => {
                (Kind::Invalid, format!("the working directory {workdir} cannot be entered by user {}", program.uid))
            }
            (stage, _) => (Kind::System, format!("cannot start {name}: {}", stage.doing())),
        };
        Fault::new(kind, what).because(error)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_program_is_looked_up_as_execvp_does() {
        let found = |name, path| -> Vec<String> {
            let list = candidates(name, path, Path::new("/home/app")).unwrap();
            list.iter().map(|c| c.to_str().unwrap().to_owned()).collect()
        };
        assert_eq!(found("sh", "/usr/bin:/bin"), ["/usr/bin/sh", "/bin/sh"]);
        assert_eq!(found("./run", "/bin"), ["/home/app/./run"]);
        assert_eq!(found("/run", "/bin"), ["/run"]);
        assert_eq!(found("x", ":/bin"), ["/home/app/x", "/bin/x"]);
        assert_eq!(found("x", "bin"), ["/home/app/bin/x"]);
    }
}
