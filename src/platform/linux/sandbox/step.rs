//! [`Step`]: one thing that a replica's first process does to itself before it becomes the user's program.
//!
//! The steps are prepared by the daemon, with every string and buffer they need, and run in a forked child of a
//! process with threads. Such a child may make system calls and nothing else: no allocation, no lock, no libc function
//! that keeps state (glibc's setuid, for one, would wait for threads that are not there).

use std::ffi::CString;
use std::fmt;
use std::os::fd::RawFd;
use std::rc::Rc;

use seccompiler::BpfProgram;

use super::exec::Program;
use crate::sandbox::User;

/// Where the descriptor for reporting goes when all others are closed.
const REPORT: RawFd = 3;
/// `_LINUX_CAPABILITY_VERSION_3` (linux/capability.h): two words of 32 bits for each set.
const CAPABILITY_VERSION: u32 = 0x2008_0522;
/// More than any kernel has; the kernel says EINVAL at its own last one.
const CAPABILITIES: u64 = 64;
/// What a replica has of its own: all but the user namespace.
const EVERY_NAMESPACE: libc::c_int = libc::CLONE_NEWNS
    | libc::CLONE_NEWPID
    | libc::CLONE_NEWUTS
    | libc::CLONE_NEWIPC
    | libc::CLONE_NEWNET
    | libc::CLONE_NEWCGROUP;
/// `_NSIG` on both architectures.
const SIGNALS: libc::c_int = 64;

/// A failed system call: its errno.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Errno(pub i32);

/// A mount(2) call.
#[derive(Debug)]
pub(super) struct Mount {
    pub source: Option<CString>,
    pub target: CString,
    pub kind: Option<CString>,
    pub flags: libc::c_ulong,
    pub data: Option<CString>,
    /// Neither the target nor the file system need be there: kernels differ in what /proc has, and in message queues.
    pub optional: bool,
}

/// One step. Strings are paths inside the root once [`Step::Pivot`] has run.
#[derive(Debug)]
pub(super) enum Step<'a> {
    /// Moves into the cgroup whose `tasks` file (v1) this is.
    JoinCgroup(RawFd),
    /// A cgroup namespace: the replica sees its cgroup as the root.
    HideCgroup,
    /// Keeps others from looking into this process, whoever they are, until it executes a program
    /// (PR_SET_DUMPABLE(2const)).
    Conceal,
    /// Enters every namespace of the process whose pidfd this is; its pid namespace only with the next fork.
    Join(RawFd),
    /// Enters a network namespace.
    EnterNetwork(RawFd),
    /// Brings `lo` up in a namespace that was just made.
    Loopback,
    /// sethostname(2).
    Hostname(CString),
    /// mount(2).
    Mount(Mount),
    /// Attaches a detached mount.
    Attach { tree: RawFd, target: CString },
    /// mkdir(2); there already is fine.
    Directory { path: CString, mode: libc::mode_t },
    /// symlink(2).
    Link { target: CString, path: CString },
    /// A character device.
    Device { path: CString, major: u32, minor: u32 },
    /// A file with this content, in place of anything that has its name. Follows no link at its name.
    File { path: CString, content: &'a [u8] },
    /// Writes to a file that is there.
    Write { path: CString, content: &'a [u8] },
    /// chdir(2).
    Enter(CString),
    /// Makes the current directory the root and lets go of the old one.
    Pivot,
    /// umask(2).
    Umask(libc::mode_t),
    /// Standard input from this descriptor or /dev/null, output and error to these; closes all others.
    Stdio { input: Option<RawFd>, output: RawFd, errors: RawFd },
    /// setrlimit(2), soft and hard.
    Limit { resource: libc::c_int, value: u64 },
    /// setsid(2).
    Session,
    /// Takes capabilities out of reach, except those in the mask.
    Bound(u64),
    /// Becomes this user.
    Become(&'a User),
    /// Holds these capabilities and no others.
    Capabilities(u64),
    /// Default action for every signal, none blocked.
    Signals,
    /// Ends with the process that started it.
    EndTogether,
    /// No new privileges from now on, and these filters on every system call.
    Filter(&'a [BpfProgram]),
    /// Makes sure that the program is a file of the image.
    Examine(Rc<Program>),
    /// execve(2). Returns on failure only.
    Exec(Rc<Program>),
}

impl Step<'_> {
    /// Does it. `report` is the descriptor for reporting, which [`Step::Stdio`] moves.
    pub fn run(&self, report: &mut RawFd) -> Result<(), Errno> {
        // SAFETY (of every call below): pointers are to NUL-terminated strings or buffers that live as long as
        // `self`, lengths are theirs, and results are checked by `check`. Nothing here allocates or locks.
        match self {
            Step::JoinCgroup(tasks) => write_all(*tasks, b"0"),
            // SAFETY: see above; no pointers.
            Step::HideCgroup => check(unsafe { libc::unshare(libc::CLONE_NEWCGROUP) }),
            // SAFETY: see above; no pointers.
            Step::Conceal => check(unsafe { libc::prctl(libc::PR_SET_DUMPABLE, 0, 0, 0, 0) }),
            // SAFETY: see above; no pointers.
            Step::Join(pidfd) => check(unsafe { libc::setns(*pidfd, EVERY_NAMESPACE) }),
            // SAFETY: see above; no pointers.
            Step::EnterNetwork(fd) => check(unsafe { libc::setns(*fd, libc::CLONE_NEWNET) }),
            Step::Loopback => loopback_up(),
            // SAFETY: see above.
            Step::Hostname(name) => check(unsafe { libc::sethostname(name.as_ptr(), name.count_bytes()) }),
            Step::Mount(mount) => mount.run(),
            Step::Attach { tree, target } => attach(*tree, target),
            // SAFETY: see above.
            Step::Directory { path, mode } => allow(check(unsafe { libc::mkdir(path.as_ptr(), *mode) }), libc::EEXIST),
            // SAFETY: see above.
            Step::Link { target, path } => check(unsafe { libc::symlink(target.as_ptr(), path.as_ptr()) }),
            Step::Device { path, major, minor } => {
                let device = libc::makedev(*major, *minor);
                // SAFETY: see above.
                check(unsafe { libc::mknod(path.as_ptr(), libc::S_IFCHR | 0o666, device) })
            }
            Step::File { path, content } => {
                // SAFETY: see above.
                allow(check(unsafe { libc::unlink(path.as_ptr()) }), libc::ENOENT)?;
                write_file(path, libc::O_CREAT | libc::O_EXCL | libc::O_NOFOLLOW, content)
            }
            Step::Write { path, content } => write_file(path, 0, content),
            // SAFETY: see above.
            Step::Enter(path) => check(unsafe { libc::chdir(path.as_ptr()) }),
            Step::Pivot => pivot(),
            Step::Umask(mask) => {
                // SAFETY: always succeeds, no pointers.
                unsafe { libc::umask(*mask) };
                Ok(())
            }
            Step::Stdio { input, output, errors } => stdio(*input, *output, *errors, report),
            Step::Limit { resource, value } => set_limit(*resource, *value),
            // SAFETY: no pointers.
            Step::Session => check(unsafe { libc::setsid() }),
            Step::Bound(keep) => bound(*keep),
            Step::Become(user) => become_user(user),
            Step::Capabilities(keep) => set_capabilities(*keep),
            Step::Signals => default_signals(),
            // SAFETY: no pointers.
            Step::EndTogether => check(unsafe { libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL, 0, 0, 0) }),
            Step::Filter(filters) => filter(filters),
            Step::Examine(program) => program.examine(),
            Step::Exec(program) => Err(program.exec(*report)),
        }
    }
}

impl Mount {
    fn run(&self) -> Result<(), Errno> {
        let text = |text: &Option<CString>| text.as_ref().map_or(std::ptr::null(), |text| text.as_ptr());
        // SAFETY: every pointer is null or to a NUL-terminated string of `self`; mount(2) allows null for all but the target.
        let result = check(unsafe {
            libc::mount(text(&self.source), self.target.as_ptr(), text(&self.kind), self.flags, text(&self.data).cast())
        });
        if self.optional { allow(allow(result, libc::ENOENT), libc::ENODEV) } else { result }
    }
}

fn check(result: libc::c_int) -> Result<(), Errno> {
    if result >= 0 { Ok(()) } else { Err(last()) }
}

fn check_long(result: libc::c_long) -> Result<(), Errno> {
    if result >= 0 { Ok(()) } else { Err(last()) }
}

pub(super) fn last() -> Errno {
    // SAFETY: the location is this thread's own, always valid.
    Errno(unsafe { *libc::__errno_location() })
}

fn allow(result: Result<(), Errno>, errno: i32) -> Result<(), Errno> {
    if result == Err(Errno(errno)) { Ok(()) } else { result }
}

/// write(2) until all is written.
pub(super) fn write_all(fd: RawFd, mut bytes: &[u8]) -> Result<(), Errno> {
    while !bytes.is_empty() {
        // SAFETY: pointer and length are the slice's.
        let written = unsafe { libc::write(fd, bytes.as_ptr().cast(), bytes.len()) };
        match usize::try_from(written) {
            Ok(written) => bytes = bytes.get(written..).unwrap_or_default(),
            Err(_) if last().0 == libc::EINTR => {}
            Err(_) => return Err(last()),
        }
    }
    Ok(())
}

fn write_file(path: &CString, flags: libc::c_int, content: &[u8]) -> Result<(), Errno> {
    // SAFETY: the path is NUL-terminated; the mode is given for O_CREAT.
    let fd = unsafe { libc::open(path.as_ptr(), libc::O_WRONLY | libc::O_CLOEXEC | flags, 0o644) };
    check(fd)?;
    let written = write_all(fd, content);
    // SAFETY: `fd` was opened above and is used by nobody else.
    unsafe { libc::close(fd) };
    written
}

fn loopback_up() -> Result<(), Errno> {
    // SAFETY: no pointers.
    let fd = unsafe { libc::socket(libc::AF_INET, libc::SOCK_DGRAM | libc::SOCK_CLOEXEC, 0) };
    check(fd)?;
    // SAFETY: all zero is a valid ifreq.
    let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
    request.ifr_name[0] = b'l' as libc::c_char;
    request.ifr_name[1] = b'o' as libc::c_char;
    request.ifr_ifru.ifru_flags = libc::IFF_UP as libc::c_short;
    // SAFETY: SIOCSIFFLAGS reads one ifreq (netdevice(7)).
    let result = check(unsafe { libc::ioctl(fd, libc::SIOCSIFFLAGS as _, &raw const request) });
    // SAFETY: `fd` was opened above and is used by nobody else.
    unsafe { libc::close(fd) };
    result
}

fn attach(tree: RawFd, target: &CString) -> Result<(), Errno> {
    // linux/mount.h; not in libc for every target.
    const MOVE_MOUNT_F_EMPTY_PATH: libc::c_uint = 0x4;
    // SAFETY: both paths are NUL-terminated.
    check_long(unsafe {
        libc::syscall(
            libc::SYS_move_mount,
            tree,
            c"".as_ptr(),
            libc::AT_FDCWD,
            target.as_ptr(),
            MOVE_MOUNT_F_EMPTY_PATH,
        )
    })
}

/// pivot_root(2), "pivot_root(".", ".")": the old root lies over the new one until it is unmounted.
fn pivot() -> Result<(), Errno> {
    // SAFETY: constant NUL-terminated strings.
    check_long(unsafe { libc::syscall(libc::SYS_pivot_root, c".".as_ptr(), c".".as_ptr()) })?;
    // SAFETY: constant NUL-terminated string.
    check(unsafe { libc::umount2(c".".as_ptr(), libc::MNT_DETACH) })?;
    // SAFETY: constant NUL-terminated string.
    check(unsafe { libc::chdir(c"/".as_ptr()) })
}

fn stdio(input: Option<RawFd>, output: RawFd, errors: RawFd, report: &mut RawFd) -> Result<(), Errno> {
    let input = match input {
        Some(input) => input,
        // SAFETY: constant NUL-terminated string.
        None => unsafe { libc::open(c"/dev/null".as_ptr(), libc::O_RDONLY | libc::O_CLOEXEC) },
    };
    check(input)?;
    for (from, to) in [(input, 0), (output, 1), (errors, 2)] {
        // SAFETY: no pointers; `from` is never `to`, because 0 to 2 are in use in every Rust program.
        check(unsafe { libc::dup2(from, to) })?;
    }
    if *report != REPORT {
        // SAFETY: no pointers.
        check(unsafe { libc::dup3(*report, REPORT, libc::O_CLOEXEC) })?;
        *report = REPORT;
    }
    // SAFETY: no pointers; nothing uses those descriptors any more.
    check_long(unsafe { libc::syscall(libc::SYS_close_range, REPORT + 1, libc::c_uint::MAX, 0) })
}

fn set_limit(resource: libc::c_int, value: u64) -> Result<(), Errno> {
    let limit = libc::rlimit64 { rlim_cur: value, rlim_max: value };
    let none: *mut libc::rlimit64 = std::ptr::null_mut();
    // SAFETY: the new limit is valid for reading, the old one is not asked for.
    check_long(unsafe { libc::syscall(libc::SYS_prlimit64, 0, resource, &raw const limit, none) })
}

fn bound(keep: u64) -> Result<(), Errno> {
    for capability in (0..CAPABILITIES).filter(|capability| keep & (1 << capability) == 0) {
        // SAFETY: no pointers.
        match check(unsafe { libc::prctl(libc::PR_CAPBSET_DROP, capability, 0, 0, 0) }) {
            Err(Errno(libc::EINVAL)) => break,
            result => result?,
        }
    }
    // SAFETY: no pointers.
    check(unsafe { libc::prctl(libc::PR_CAP_AMBIENT, libc::PR_CAP_AMBIENT_CLEAR_ALL, 0, 0, 0) })
}

fn become_user(user: &User) -> Result<(), Errno> {
    // SAFETY: pointer and length are the vector's.
    check_long(unsafe { libc::syscall(libc::SYS_setgroups, user.groups.len(), user.groups.as_ptr()) })?;
    // SAFETY: no pointers.
    check_long(unsafe { libc::syscall(libc::SYS_setresgid, user.gid, user.gid, user.gid) })?;
    // SAFETY: no pointers.
    check_long(unsafe { libc::syscall(libc::SYS_setresuid, user.uid, user.uid, user.uid) })
}

fn set_capabilities(keep: u64) -> Result<(), Errno> {
    let header = [CAPABILITY_VERSION, 0];
    let (low, high) = (keep as u32, (keep >> 32) as u32);
    // Two of struct __user_cap_data_struct: effective, permitted, inheritable.
    let data = [low, low, 0, high, high, 0];
    // SAFETY: header and data have the sizes that version 3 asks for (capset(2)).
    check_long(unsafe { libc::syscall(libc::SYS_capset, header.as_ptr(), data.as_ptr()) })
}

fn default_signals() -> Result<(), Errno> {
    // All zero is SIG_DFL, no flags, an empty mask; larger than any architecture's struct. The raw call, because libc's
    // keeps two signals for itself, which whoever started the daemon may have left ignored.
    let default = [0u64; 8];
    let none: *mut u64 = std::ptr::null_mut();
    for signal in 1..=SIGNALS {
        // SAFETY: reads one struct sigaction. Fails for SIGKILL and SIGSTOP, which are always at their default.
        unsafe { libc::syscall(libc::SYS_rt_sigaction, signal, default.as_ptr(), none, size_of::<u64>()) };
    }
    // SAFETY: reads one set of 64 signals.
    check_long(unsafe {
        libc::syscall(libc::SYS_rt_sigprocmask, libc::SIG_SETMASK, default.as_ptr(), none, size_of::<u64>())
    })
}

fn filter(filters: &[BpfProgram]) -> Result<(), Errno> {
    // SAFETY: no pointers.
    check(unsafe { libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) })?;
    for program in filters {
        let program = libc::sock_fprog { len: program.len() as u16, filter: program.as_ptr().cast_mut().cast() };
        // SAFETY: the program is valid for reading; seccompiler's sock_filter has the kernel's layout.
        check_long(unsafe { libc::syscall(libc::SYS_seccomp, libc::SECCOMP_SET_MODE_FILTER, 0, &raw const program) })?;
    }
    Ok(())
}

impl fmt::Display for Step<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let show = |text: &CString| text.to_string_lossy().into_owned();
        match self {
            Step::JoinCgroup(_) => f.write_str("join cgroup"),
            Step::HideCgroup => f.write_str("make cgroup namespace"),
            Step::Conceal => f.write_str("conceal itself"),
            Step::Join(_) => f.write_str("enter the replica's namespaces"),
            Step::EnterNetwork(_) => f.write_str("enter network namespace"),
            Step::Loopback => f.write_str("bring up loopback"),
            Step::Hostname(name) => write!(f, "set host name {}", show(name)),
            Step::Mount(mount) => {
                let what = mount.kind.as_ref().or(mount.source.as_ref()).map_or("flags".to_owned(), show);
                write!(f, "mount {what} on {}", show(&mount.target))
            }
            Step::Attach { target, .. } => write!(f, "mount {}", show(target)),
            Step::Directory { path, .. } => write!(f, "make directory {}", show(path)),
            Step::Link { path, .. } => write!(f, "make link {}", show(path)),
            Step::Device { path, .. } => write!(f, "make device {}", show(path)),
            Step::File { path, .. } | Step::Write { path, .. } => write!(f, "write {}", show(path)),
            Step::Enter(path) => write!(f, "change to directory {}", show(path)),
            Step::Pivot => f.write_str("change root"),
            Step::Umask(_) => f.write_str("set umask"),
            Step::Stdio { .. } => f.write_str("connect input and output"),
            Step::Limit { resource, value } => write!(f, "set resource limit {resource} to {value}"),
            Step::Session => f.write_str("start session"),
            Step::Bound(_) | Step::Capabilities(_) => f.write_str("drop capabilities"),
            Step::Become(user) => write!(f, "become user {}:{}", user.uid, user.gid),
            Step::Signals => f.write_str("reset signals"),
            Step::EndTogether => f.write_str("tie its life to its parent's"),
            Step::Filter(_) => f.write_str("filter system calls"),
            Step::Examine(program) | Step::Exec(program) => write!(f, "exec {program}"),
        }
    }
}
