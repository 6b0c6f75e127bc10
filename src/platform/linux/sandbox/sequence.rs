//! From a [`Plan`] to the [`Step`]s that its first process takes. Pure: nothing is done here.
//!
//! ```text
//! cgroup, network, host name          still in the host's tree
//! scratch tmpfs on the run directory  in the replica's mount namespace only: the host never sees a mount
//! root: overlay | bind | zfs          writable, even if only so that what follows has a place
//! pivot                               from here on every path, through any link, stays in the image's tree
//! directories, files                  /etc/hosts and the like
//! /dev /proc /sys /tmp, the plan's mounts, secrets
//! root read-only
//! output, limits, user, capabilities, signals, filter, exec
//! ```
//!
//! A read-only root gets a tmpfs for its overlay's upper directory, filled and then made read-only with the root:
//! so every sort of root is made the same way, and images without /proc or /etc work.

use std::collections::BTreeMap;
use std::ffi::CString;
use std::os::fd::{AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Component, Path, PathBuf};
use std::rc::Rc;

use seccompiler::BpfProgram;

use super::exec::{Program, text};
use super::step::{Mount, Step};
use crate::fault::{Fault, Kind, Result};
use crate::network::Attachment;
use crate::sandbox::{self, Access, Plan, User};
use crate::storage::Root;

/// Where functions expect their secrets.
const SECRETS: &str = "/var/openfaas/secrets";
/// What root in an image keeps: enough to start as root and become somebody else. Bits of capability.h:
/// CHOWN, DAC_OVERRIDE, FOWNER, FSETID, KILL, SETGID, SETUID, NET_BIND_SERVICE.
const ROOT_CAPABILITIES: u64 = 1 | 1 << 1 | 1 << 3 | 1 << 4 | 1 << 5 | 1 << 6 | 1 << 7 | 1 << 10;
/// core(5): with a limit of 1 the kernel neither writes a core file nor runs the host's core handler on hostile memory.
const NO_CORE: u64 = 1;
const PLAIN: libc::c_ulong = libc::MS_NOSUID | libc::MS_NODEV;
const DATA: libc::c_ulong = PLAIN | libc::MS_NOEXEC;
const REMOUNT: libc::c_ulong = libc::MS_REMOUNT | libc::MS_BIND | libc::MS_RDONLY;

/// Descriptors and programs that a sequence refers to, open until the child has run.
pub(super) struct Tools<'a> {
    /// `tasks` files of the replica's cgroups (v1); a v2 cgroup is entered by clone3.
    pub tasks: &'a [OwnedFd],
    /// The secrets directory as a detached mount.
    pub secrets: Option<BorrowedFd<'a>>,
    /// The plan's mounts, detached, in its order.
    pub mounts: &'a [OwnedFd],
    /// System call filters.
    pub filters: &'a [BpfProgram],
    /// Whether /sys/fs/cgroup inside can show the replica's own limits (v2 only).
    pub show_cgroup: bool,
}

/// Everything that the replica's first process does.
pub(super) fn sequence<'a>(plan: &'a Plan, tools: &Tools<'a>) -> Result<Vec<Step<'a>>> {
    let mut steps = Vec::with_capacity(128);
    enter(plan, tools, &mut steps)?;
    root(plan, &mut steps)?;
    place(plan, tools, &mut steps)?;
    devices(&mut steps);
    proc(&mut steps);
    sys(tools, &mut steps);
    if plan.read_only {
        steps.push(tmpfs("/tmp", PLAIN, "mode=1777"));
    }
    for (tree, shown) in tools.mounts.iter().zip(&plan.mounts) {
        let target = os_path(&shown.target)?;
        steps.push(Step::Attach { tree: tree.as_raw_fd(), target: target.clone() });
        let access = if shown.access == Access::Read { libc::MS_RDONLY } else { 0 };
        steps.push(Step::Mount(Mount {
            source: None,
            target,
            kind: None,
            flags: libc::MS_REMOUNT | libc::MS_BIND | PLAIN | access,
            data: None,
            optional: false,
        }));
    }
    if let Some(tree) = tools.secrets {
        steps.push(Step::Attach { tree: tree.as_raw_fd(), target: path(SECRETS) });
        steps.push(mount(None, SECRETS, None, REMOUNT | DATA, None));
    }
    if plan.read_only {
        steps.push(mount(None, "/", None, REMOUNT | PLAIN, None));
    }
    finish(plan, tools, &mut steps)?;
    Ok(steps)
}

fn enter<'a>(plan: &'a Plan, tools: &Tools<'a>, steps: &mut Vec<Step<'a>>) -> Result<()> {
    steps.extend(tools.tasks.iter().map(|tasks| Step::JoinCgroup(tasks.as_raw_fd())));
    steps.push(Step::HideCgroup);
    match &plan.network {
        Attachment::None => steps.push(Step::Loopback),
        Attachment::Inherit => {}
        Attachment::Namespace(fd) => steps.push(Step::EnterNetwork(fd.as_raw_fd())),
        Attachment::Alias(_) | Attachment::Vnet { .. } => {
            return Err(Fault::new(Kind::Unsupported, format!("{} has a FreeBSD network on Linux", plan.replica)));
        }
    }
    steps.push(Step::Hostname(text(&plan.hostname)?));
    steps.push(Step::Umask(0));
    steps.push(mount(None, "/", None, libc::MS_REC | libc::MS_PRIVATE, None));
    Ok(())
}

/// Builds the root in a scratch tmpfs over the run directory, where short names keep mount options below the page
/// that mount(2) takes, however many layers there are.
fn root(plan: &Plan, steps: &mut Vec<Step<'_>>) -> Result<()> {
    let scratch = os_path(&plan.run_dir)?;
    steps.push(Step::Mount(Mount {
        source: Some(c"tmpfs".into()),
        target: scratch.clone(),
        kind: Some(c"tmpfs".into()),
        flags: PLAIN,
        data: Some(c"mode=0700".into()),
        optional: false,
    }));
    steps.push(Step::Enter(scratch));
    steps.push(directory("root", 0o755));
    match &plan.root {
        Root::Overlay { lower, upper } => {
            let upper = upper.as_ref().filter(|_| !plan.read_only);
            overlay(lower, upper, steps)?;
        }
        Root::Directory(dir) if plan.read_only => overlay(std::slice::from_ref(dir), None, steps)?,
        Root::Directory(dir) => {
            steps.push(Step::Mount(Mount {
                source: Some(os_path(dir)?),
                target: path("root"),
                kind: None,
                flags: libc::MS_BIND,
                data: None,
                optional: false,
            }));
            steps.push(mount(None, "root", None, libc::MS_REMOUNT | libc::MS_BIND | PLAIN, None));
        }
        // A snapshot cannot be written to; what is mounted on it needs its places all the same.
        Root::Zfs(name) if plan.read_only || name.contains('@') => {
            steps.push(directory("zfs", 0o755));
            steps.push(mount(Some(&text(name)?), "zfs", Some(c"zfs"), PLAIN | libc::MS_RDONLY, None));
            overlay(&[PathBuf::from("zfs")], None, steps)?;
        }
        Root::Zfs(name) => steps.push(mount(Some(&text(name)?), "root", Some(c"zfs"), PLAIN, None)),
    }
    steps.push(Step::Enter(path("root")));
    steps.push(Step::Pivot);
    Ok(())
}

/// overlayfs on `root`. No layer of an image may redirect into another place (redirect_dir, metacopy), and nothing
/// in a root that is thrown away is worth a sync (volatile).
fn overlay(lower: &[PathBuf], upper: Option<&(PathBuf, PathBuf)>, steps: &mut Vec<Step<'_>>) -> Result<()> {
    let mut names: Vec<String> = Vec::with_capacity(lower.len());
    for (index, dir) in lower.iter().enumerate() {
        steps.push(Step::Link { target: os_path(dir)?, path: path(&index.to_string()) });
        names.push(index.to_string());
    }
    if names.is_empty() {
        steps.push(directory("0", 0o755));
        names.push("0".into());
    }
    match upper {
        Some((upper, work)) => {
            steps.push(Step::Link { target: os_path(upper)?, path: path("upper") });
            steps.push(Step::Link { target: os_path(work)?, path: path("work") });
        }
        None => steps.extend([directory("upper", 0o755), directory("work", 0o755)]),
    }
    let options = format!(
        "lowerdir={},upperdir=upper,workdir=work,index=off,redirect_dir=nofollow,metacopy=off,volatile",
        names.join(":")
    );
    steps.push(mount(Some(c"overlay"), "root", Some(c"overlay"), PLAIN, Some(&text(&options)?)));
    Ok(())
}

/// Places for what is mounted, the working directory, and the plan's files.
fn place<'a>(plan: &'a Plan, tools: &Tools<'a>, steps: &mut Vec<Step<'a>>) -> Result<()> {
    let mut directories = BTreeMap::from([
        ("/dev".into(), 0o755),
        ("/proc".into(), 0o555),
        ("/sys".into(), 0o555),
        ("/tmp".into(), 0o1777),
    ]);
    let mut with_parents = |dir: &Path| -> Result<()> {
        let mut so_far = PathBuf::from("/");
        for component in dir.components() {
            match component {
                Component::RootDir | Component::CurDir => {}
                Component::Normal(name) => {
                    so_far.push(name);
                    directories.entry(so_far.clone()).or_insert(0o755);
                }
                Component::ParentDir | Component::Prefix(_) => {
                    return Err(Fault::invalid(format!("path {} must not have .. in it", dir.display())));
                }
            }
        }
        Ok(())
    };
    with_parents(&plan.workdir)?;
    if tools.secrets.is_some() {
        with_parents(Path::new(SECRETS))?;
    }
    for shown in &plan.mounts {
        with_parents(&shown.target)?;
    }
    for file in plan.files.keys() {
        with_parents(file.parent().unwrap_or(Path::new("/")))?;
    }
    for (dir, mode) in &directories {
        steps.push(Step::Directory { path: os_path(dir)?, mode: *mode });
    }
    for (file, content) in &plan.files {
        if !file.is_absolute() {
            return Err(Fault::invalid(format!("file {} must have an absolute path", file.display())));
        }
        steps.push(Step::File { path: os_path(file)?, content });
    }
    Ok(())
}

fn devices(steps: &mut Vec<Step<'_>>) {
    steps.push(tmpfs("/dev", libc::MS_NOSUID | libc::MS_NOEXEC, "mode=0755,size=64k"));
    // Numbers from the kernel's admin-guide/devices.txt.
    for (name, major, minor) in
        [("null", 1, 3), ("zero", 1, 5), ("full", 1, 7), ("random", 1, 8), ("urandom", 1, 9), ("tty", 5, 0)]
    {
        steps.push(Step::Device { path: path(&format!("/dev/{name}")), major, minor });
    }
    for (name, target) in [
        ("fd", "/proc/self/fd"),
        ("stdin", "/proc/self/fd/0"),
        ("stdout", "/proc/self/fd/1"),
        ("stderr", "/proc/self/fd/2"),
        ("ptmx", "pts/ptmx"),
    ] {
        steps.push(Step::Link { target: path(target), path: path(&format!("/dev/{name}")) });
    }
    steps.extend(["/dev/shm", "/dev/pts", "/dev/mqueue"].map(|dir| directory(dir, 0o755)));
    steps.push(tmpfs("/dev/shm", DATA, "mode=1777,size=64m"));
    let pts = "newinstance,ptmxmode=0666,mode=0620";
    steps.push(mount(
        Some(c"devpts"),
        "/dev/pts",
        Some(c"devpts"),
        libc::MS_NOSUID | libc::MS_NOEXEC,
        Some(&path(pts)),
    ));
    steps.push(Step::Mount(Mount {
        source: Some(c"mqueue".into()),
        target: path("/dev/mqueue"),
        kind: Some(c"mqueue".into()),
        flags: DATA,
        data: None,
        optional: true,
    }));
}

/// /proc without what tells of, or reaches, the host: the list of runc and containerd, and four files more that leave
/// traces of kernel memory layout (slabinfo, vmallocinfo, pagetypeinfo, kpage*).
fn proc(steps: &mut Vec<Step<'_>>) {
    steps.push(mount(Some(c"proc"), "/proc", Some(c"proc"), DATA, None));
    for name in ["bus", "fs", "irq", "sys", "sysrq-trigger"] {
        let target = path(&format!("/proc/{name}"));
        for (source, flags) in [(Some(target.clone()), libc::MS_BIND), (None, REMOUNT | DATA)] {
            steps.push(Step::Mount(Mount {
                source,
                target: target.clone(),
                kind: None,
                flags,
                data: None,
                optional: true,
            }));
        }
    }
    for name in [
        "interrupts",
        "kcore",
        "keys",
        "key-users",
        "kmsg",
        "kpagecgroup",
        "kpagecount",
        "kpageflags",
        "latency_stats",
        "pagetypeinfo",
        "sched_debug",
        "slabinfo",
        "timer_list",
        "timer_stats",
        "vmallocinfo",
    ] {
        steps.push(Step::Mount(Mount {
            source: Some(c"/dev/null".into()),
            target: path(&format!("/proc/{name}")),
            kind: None,
            flags: libc::MS_BIND,
            data: None,
            optional: true,
        }));
    }
    for name in ["acpi", "asound", "scsi"] {
        steps.push(Step::Mount(Mount {
            source: Some(c"tmpfs".into()),
            target: path(&format!("/proc/{name}")),
            kind: Some(c"tmpfs".into()),
            flags: DATA | libc::MS_RDONLY,
            data: None,
            optional: true,
        }));
    }
}

/// /sys is empty: a function has no business with the host's hardware. With cgroup v2 it holds the replica's own
/// cgroup, from which language runtimes learn their limits.
fn sys(tools: &Tools<'_>, steps: &mut Vec<Step<'_>>) {
    steps.push(tmpfs("/sys", DATA, "mode=0555,size=4k"));
    if tools.show_cgroup {
        steps.extend([directory("/sys/fs", 0o555), directory("/sys/fs/cgroup", 0o555)]);
        steps.push(mount(Some(c"cgroup2"), "/sys/fs/cgroup", Some(c"cgroup2"), DATA | libc::MS_RDONLY, None));
    }
    steps.push(mount(None, "/sys", None, REMOUNT | DATA, None));
}

/// `files`, or as many as this daemon may give: without CAP_SYS_RESOURCE no more than its own hard limit.
fn attainable(files: u64) -> u64 {
    let own = rustix::process::getrlimit(rustix::process::Resource::Nofile).maximum.unwrap_or(u64::MAX);
    let may_raise = rustix::thread::capabilities(None)
        .is_ok_and(|sets| sets.effective.contains(rustix::thread::CapabilitySet::SYS_RESOURCE));
    if may_raise { files } else { files.min(own) }
}

fn finish<'a>(plan: &'a Plan, tools: &Tools<'a>, steps: &mut Vec<Step<'a>>) -> Result<()> {
    // A daemon that the kernel is told to spare must not pass that on.
    steps.push(Step::Write { path: path("/proc/self/oom_score_adj"), content: b"0" });
    let output = plan.output.as_raw_fd();
    let errors = plan.errors.as_ref().map_or(output, AsRawFd::as_raw_fd);
    steps.push(Step::Stdio { input: plan.input.as_ref().map(AsRawFd::as_raw_fd), output, errors });
    let program = Rc::new(Program::new(&plan.argv, &plan.env)?);
    confine(&plan.workdir, &plan.user, plan.limits.open_files, &program, steps)?;
    steps.push(Step::Filter(tools.filters));
    steps.push(Step::Exec(program));
    Ok(())
}

/// From root with nothing open but standard input and output to the image's user. Every descriptor of this process
/// must be closed by now: a working directory of `/proc/self/fd/7` would otherwise be one of the host's (what
/// CVE-2024-21626 was to runc).
fn confine<'a>(
    workdir: &Path,
    user: &'a User,
    open_files: Option<u64>,
    program: &Rc<Program>,
    steps: &mut Vec<Step<'a>>,
) -> Result<()> {
    let keep = if user.uid == 0 { ROOT_CAPABILITIES } else { 0 };
    steps.push(Step::Enter(os_path(workdir)?));
    steps.push(Step::Examine(Rc::clone(program)));
    if let Some(files) = open_files {
        steps.push(Step::Limit { resource: libc::RLIMIT_NOFILE as libc::c_int, value: attainable(files) });
    }
    steps.push(Step::Limit { resource: libc::RLIMIT_CORE as libc::c_int, value: NO_CORE });
    steps.push(Step::Session);
    steps.push(Step::Umask(0o022));
    steps.push(Step::Bound(keep));
    steps.push(Step::Become(user));
    steps.push(Step::Capabilities(keep));
    steps.push(Step::Signals);
    Ok(())
}

/// What another program does to get into a live replica, and how many of these steps come before the fork that puts
/// it into the replica's pid namespace.
pub(super) fn joining<'a>(
    program: &'a sandbox::Program,
    first: BorrowedFd<'_>,
    tools: &Tools<'a>,
) -> Result<(Vec<Step<'a>>, usize)> {
    let mut steps: Vec<Step<'a>> = tools.tasks.iter().map(|tasks| Step::JoinCgroup(tasks.as_raw_fd())).collect();
    // Before anybody inside can see this process.
    steps.push(Step::Conceal);
    steps.push(Step::Join(first.as_raw_fd()));
    let outside = steps.len();
    let [input, output, errors] = program.stdio.each_ref().map(AsRawFd::as_raw_fd);
    steps.push(Step::Stdio { input: Some(input), output, errors });
    let executed = Rc::new(Program::new(&program.argv, &program.env)?);
    confine(&program.workdir, &program.user, program.open_files, &executed, &mut steps)?;
    // Forgotten whenever a process changes its user.
    steps.push(Step::EndTogether);
    steps.push(Step::Filter(tools.filters));
    steps.push(Step::Exec(executed));
    Ok((steps, outside))
}

fn directory(at: &str, mode: libc::mode_t) -> Step<'static> {
    Step::Directory { path: path(at), mode }
}

fn tmpfs(target: &str, flags: libc::c_ulong, options: &str) -> Step<'static> {
    mount(Some(c"tmpfs"), target, Some(c"tmpfs"), flags, Some(&path(options)))
}

fn mount(
    source: Option<&std::ffi::CStr>,
    target: &str,
    kind: Option<&std::ffi::CStr>,
    flags: libc::c_ulong,
    data: Option<&std::ffi::CStr>,
) -> Step<'static> {
    let own = |text: Option<&std::ffi::CStr>| text.map(CString::from);
    Step::Mount(Mount {
        source: own(source),
        target: path(target),
        kind: own(kind),
        flags,
        data: own(data),
        optional: false,
    })
}

/// One of this file's own texts, which have no NUL.
fn path(text: &str) -> CString {
    CString::new(text).unwrap_or_default()
}

fn os_path(path: &Path) -> Result<CString> {
    CString::new(path.as_os_str().as_bytes())
        .map_err(|_| Fault::invalid(format!("path {} has a NUL byte in it", path.display())))
}
