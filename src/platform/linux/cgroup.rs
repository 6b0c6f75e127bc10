//! [`Cgroups`]: limits, usage, and the list of what runs. A replica's cgroup is
//! `<hierarchy>/faas-jails/<realm>/<replica name>`: its name is all that a restarted daemon needs.
//!
//! Version 2 is one hierarchy with every controller; version 1 (and the hybrid of both) has one for each, so a replica
//! is a directory in several of them. See cgroups(7) and the kernel's admin-guide/cgroup-v2.rst and cgroup-v1/.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io;
use std::os::fd::{BorrowedFd, OwnedFd};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use crate::fault::{Context, Fault, Kind, Result};
use crate::function::{Realm, ReplicaName};
use crate::sandbox::{Limits, Rates, Usage};

use super::hierarchy::{self, Hierarchy, Version};

const BASE: &str = "faas-jails";
/// How long a killed replica's processes may take to go.
const PATIENCE: Duration = Duration::from_secs(10);
const ATTEMPTS: u32 = 20;

/// The cgroups of one realm.
#[derive(Debug)]
pub struct Cgroups {
    hierarchies: Vec<Hierarchy>,
    realm: Realm,
    /// Held while directories come and go, so that no parent is taken away under a child that is being made.
    shape: Mutex<()>,
}

/// A replica's cgroup, made and limited, that a process can be put into.
#[derive(Debug)]
pub(super) struct Group {
    directory: Option<OwnedFd>,
    tasks: Vec<OwnedFd>,
}

impl Group {
    /// For clone3's CLONE_INTO_CGROUP (version 2).
    pub fn directory(&self) -> Option<BorrowedFd<'_>> {
        self.directory.as_ref().map(std::os::fd::AsFd::as_fd)
    }

    /// `tasks` files, for a process that moves itself (version 1). Unlike a move by somebody else this takes no lock
    /// on all of the machine's forks (kernel/cgroup: cgroup_procs_write_start), which can take a dozen milliseconds.
    pub fn tasks(&self) -> &[OwnedFd] {
        &self.tasks
    }
}

impl Cgroups {
    /// Finds what this host has mounted.
    pub fn detect(realm: Realm) -> Result<Self> {
        let mounts = fs::read_to_string("/proc/self/mountinfo").context(|| "cannot read /proc/self/mountinfo")?;
        Self::with(hierarchy::choose(&mounts), realm)
    }

    /// Uses these hierarchies.
    pub(super) fn with(hierarchies: Vec<Hierarchy>, realm: Realm) -> Result<Self> {
        if hierarchies.is_empty() {
            return Err(Fault::new(
                Kind::Unsupported,
                "no cgroup hierarchy is mounted, and replicas are found by their cgroups; mount one with: mount -t cgroup2 none /sys/fs/cgroup",
            ));
        }
        Ok(Self { hierarchies, realm, shape: Mutex::new(()) })
    }

    /// Whether a cgroup namespace with cgroup2 mounted shows a replica its own limits.
    pub(super) fn is_unified(&self) -> bool {
        self.hierarchies.iter().all(|hierarchy| hierarchy.version == Version::Two)
    }

    /// One line for people: version and controllers.
    pub fn describe(&self) -> String {
        let one = |h: &Hierarchy| {
            let version = if h.version == Version::Two { "v2" } else { "v1" };
            let controllers: Vec<&str> = h.controllers.iter().map(String::as_str).collect();
            format!("{version} {} ({})", h.mount.display(), controllers.join(" "))
        };
        self.hierarchies.iter().map(one).collect::<Vec<_>>().join(", ")
    }

    fn realm_dir(&self, hierarchy: &Hierarchy) -> PathBuf {
        hierarchy.mount.join(BASE).join(self.realm.as_str())
    }

    fn dirs(&self, replica: &ReplicaName) -> impl Iterator<Item = (&Hierarchy, PathBuf)> {
        let name = replica.to_string();
        self.hierarchies.iter().map(move |h| (h, self.realm_dir(h).join(&name)))
    }

    /// The replica's directory in the first hierarchy that is such a one.
    pub(super) fn directory(
        &self,
        replica: &ReplicaName,
        such: impl Fn(&Hierarchy) -> bool,
    ) -> Option<(Version, PathBuf)> {
        self.dirs(replica).find(|(h, _)| such(h)).map(|(h, dir)| (h.version, dir))
    }

    fn with_controller(&self, replica: &ReplicaName, controller: &str) -> Option<(Version, PathBuf)> {
        self.directory(replica, |h| h.controllers.contains(controller))
    }

    /// Makes a replica's cgroup with its limits. On failure nothing of it remains.
    /// `below` is a directory on the disk that limits on input and output are about.
    pub(super) fn create(&self, replica: &ReplicaName, limits: &Limits, below: &Path) -> Result<Group> {
        let made = self.check(replica, limits).and_then(|()| {
            let disk = if limits.io == Rates::default() { String::new() } else { disk_of(below)? };
            let _shape = self.shape.lock().unwrap_or_else(PoisonError::into_inner);
            self.make(replica, limits, &disk)
        });
        made.map_err(|fault| {
            let undone = if fault.kind() == Kind::Busy { Ok(()) } else { self.remove_dirs(replica) };
            fault.and_cleanup(undone)
        })
    }

    fn check(&self, replica: &ReplicaName, limits: &Limits) -> Result<()> {
        let io = if self.is_unified() { "io" } else { "blkio" };
        for (controller, limited) in [
            ("memory", limits.memory.is_some()),
            ("cpu", limits.cpu_millis.is_some()),
            ("pids", limits.pids.is_some()),
            ("cpuset", limits.cpus.is_some()),
            (io, limits.io != Rates::default()),
        ] {
            if limited && self.with_controller(replica, controller).is_none() {
                return Err(Fault::new(
                    Kind::Unsupported,
                    format!(
                        "{replica} has a {controller} limit, and this host's cgroups have no {controller} controller ({}); remove the limit or boot with the controller enabled",
                        self.describe()
                    ),
                ));
            }
        }
        Ok(())
    }

    fn make(&self, replica: &ReplicaName, limits: &Limits, disk: &str) -> Result<Group> {
        for (hierarchy, dir) in self.dirs(replica).filter(|(hierarchy, _)| hierarchy.concerns(limits)) {
            self.make_dir(hierarchy, &dir)?;
            if hierarchy.version == Version::One && hierarchy.controllers.contains("cpuset") {
                inherit_places(&dir)?;
            }
            for setting in hierarchy.settings(limits, disk) {
                let file = dir.join(setting.file);
                if setting.optional && !file.exists() {
                    continue;
                }
                fs::write(&file, &setting.value)
                    .context(|| format!("cannot write {} to {}", setting.value, file.display()))?;
            }
        }
        self.group(replica)
    }

    /// A replica's cgroup as it is, for one more process.
    pub(super) fn group(&self, replica: &ReplicaName) -> Result<Group> {
        let mut group = Group { directory: None, tasks: Vec::new() };
        let concerned = |(hierarchy, dir): &(&Hierarchy, PathBuf)| hierarchy.is_usual() || dir.exists();
        for (hierarchy, dir) in self.dirs(replica).filter(concerned) {
            match hierarchy.version {
                Version::Two => group.directory = Some(open(&dir)?),
                Version::One => group.tasks.push(open_for_writing(&dir.join("tasks"))?),
            }
        }
        Ok(group)
    }

    fn make_dir(&self, hierarchy: &Hierarchy, dir: &Path) -> Result<()> {
        // Another realm's daemon may take away the directory that all realms share, until this one is in it.
        for _ in 0..ATTEMPTS {
            match fs::create_dir(dir) {
                Err(error) if error.kind() == io::ErrorKind::NotFound => self.make_parents(hierarchy)?,
                result => return result.context(|| format!("cannot make cgroup {}", dir.display())),
            }
        }
        Err(Fault::new(Kind::System, format!("cannot make cgroup {}: its parent keeps vanishing", dir.display())))
    }

    fn make_parents(&self, hierarchy: &Hierarchy) -> Result<()> {
        let realm = self.realm_dir(hierarchy);
        fs::create_dir_all(&realm).context(|| {
            format!("cannot make cgroup {}; faas-jails must be root with a writable cgroup tree", realm.display())
        })?;
        let base = hierarchy.mount.join(BASE);
        if hierarchy.version == Version::Two {
            for dir in [&hierarchy.mount, &base, &realm] {
                enable(dir, &hierarchy.controllers)?;
            }
        } else if hierarchy.controllers.contains("cpuset") {
            [&base, &realm].into_iter().try_for_each(|dir| inherit_places(dir))?;
        }
        Ok(())
    }

    /// Replicas that have a cgroup in any hierarchy.
    pub(super) fn replicas(&self) -> Result<BTreeSet<ReplicaName>> {
        let mut found = BTreeSet::new();
        for hierarchy in &self.hierarchies {
            let dir = self.realm_dir(hierarchy);
            let entries = match fs::read_dir(&dir) {
                Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
                entries => entries.context(|| format!("cannot list {}", dir.display()))?,
            };
            for entry in entries {
                let entry = entry.context(|| format!("cannot list {}", dir.display()))?;
                let replica = entry.file_name().to_string_lossy().parse::<ReplicaName>();
                found.extend(replica.ok().filter(|replica| *replica.realm() == self.realm));
            }
        }
        Ok(found)
    }

    /// The replica's processes, as this process's pid namespace numbers them.
    pub(super) fn processes(&self, replica: &ReplicaName) -> Vec<i32> {
        let read = |(_, dir): (&Hierarchy, PathBuf)| fs::read_to_string(dir.join("cgroup.procs")).unwrap_or_default();
        let all: BTreeSet<i32> = self
            .dirs(replica)
            .map(read)
            .flat_map(|text| text.lines().filter_map(|l| l.parse().ok()).collect::<Vec<_>>())
            .collect();
        // A process outside our pid namespace is shown as 0.
        all.into_iter().filter(|&pid| pid > 0).collect()
    }

    /// The replica's first process: number 1 in a pid namespace of its own.
    pub(super) fn init(&self, replica: &ReplicaName) -> Option<i32> {
        self.processes(replica).into_iter().find(|pid| {
            let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
            let zombie = status.lines().any(|line| line.starts_with("State:\tZ"));
            let numbers = status.lines().find_map(|line| line.strip_prefix("NSpid:")).unwrap_or_default();
            !zombie && numbers.split_whitespace().count() > 1 && numbers.split_whitespace().last() == Some("1")
        })
    }

    /// Kills everything in the replica's cgroup and takes the cgroup away. Already gone is success.
    pub(super) fn remove(&self, replica: &ReplicaName) -> Result<()> {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let processes = self.processes(replica);
            for pid in &processes {
                if let Some(pid) = rustix::process::Pid::from_raw(*pid) {
                    let _ = rustix::process::kill_process(pid, rustix::process::Signal::KILL);
                }
            }
            if processes.is_empty() {
                match self.remove_dirs(replica) {
                    Err(fault) if fault.kind() == Kind::Busy && Instant::now() < deadline => {}
                    result => return result,
                }
            } else if Instant::now() >= deadline {
                return Err(Fault::new(
                    Kind::Busy,
                    format!(
                        "{replica} still has processes {processes:?} after {} seconds of killing; one that the kernel holds in state D ends when its input or output does",
                        PATIENCE.as_secs()
                    ),
                ));
            }
            std::thread::sleep(Duration::from_millis(1));
        }
    }

    /// Takes away a replica's directories, and those that all replicas share if it was the last.
    fn remove_dirs(&self, replica: &ReplicaName) -> Result<()> {
        let _shape = self.shape.lock().unwrap_or_else(PoisonError::into_inner);
        let mut result = Ok(());
        for (hierarchy, dir) in self.dirs(replica) {
            let realm = self.realm_dir(hierarchy);
            let removed = remove_group(&dir, &[libc::ENOENT])
                .and_then(|()| remove_group(&realm, SHARED))
                .and_then(|()| remove_group(&hierarchy.mount.join(BASE), SHARED));
            result = match (result, removed) {
                (Ok(()), removed) => removed,
                (Err(fault), removed) => Err(Fault::and_cleanup(fault, removed)),
            };
        }
        result
    }

    /// What the replica uses now.
    pub(super) fn usage(&self, replica: &ReplicaName) -> Result<Usage> {
        let mut usage = Usage::default();
        let accounting = self.with_controller(replica, "cpuacct").or_else(|| {
            // cpu.stat is in every version 2 cgroup, with or without the cpu controller.
            self.directory(replica, |h| h.version == Version::Two)
        });
        if let Some((version, dir)) = accounting {
            usage.cpu = match version {
                Version::One => Duration::from_nanos(number(&dir.join("cpuacct.usage"))?),
                Version::Two => Duration::from_micros(field(&dir.join("cpu.stat"), "usage_usec")?),
            };
        }
        if let Some((version, dir)) = self.with_controller(replica, "memory") {
            // Page cache that nobody uses can go at once; it is not what a replica needs.
            let (current, idle) = match version {
                Version::One => ("memory.usage_in_bytes", "total_inactive_file"),
                Version::Two => ("memory.current", "inactive_file"),
            };
            usage.memory = number(&dir.join(current))?.saturating_sub(field(&dir.join("memory.stat"), idle)?);
        }
        usage.pids = match self.with_controller(replica, "pids") {
            Some((_, dir)) => number(&dir.join("pids.current"))?,
            None => self.processes(replica).len() as u64,
        };
        Ok(usage)
    }

    /// Whether the kernel has killed a process of it for lack of memory.
    pub(super) fn ran_out_of_memory(&self, replica: &ReplicaName) -> bool {
        self.with_controller(replica, "memory").is_some_and(|(version, dir)| {
            let file = match version {
                Version::One => "memory.oom_control",
                Version::Two => "memory.events",
            };
            field(&dir.join(file), "oom_kill").unwrap_or(0) > 0
        })
    }
}

/// Others are in it, or it is gone.
const SHARED: &[i32] = &[libc::EBUSY, libc::ENOTEMPTY, libc::ENOENT];

/// rmdir(2), which is all that a cgroup takes: its files go with it. A replica cannot have made cgroups below.
fn remove_group(dir: &Path, allowed: &[i32]) -> Result<()> {
    match fs::remove_dir(dir) {
        Err(error) if error.raw_os_error().is_some_and(|errno| allowed.contains(&errno)) => Ok(()),
        result => result.context(|| format!("cannot remove cgroup {}", dir.display())),
    }
}

fn enable(dir: &Path, controllers: &BTreeSet<String>) -> Result<()> {
    let file = dir.join("cgroup.subtree_control");
    let enabled = fs::read_to_string(&file).context(|| format!("cannot read {}", file.display()))?;
    for controller in controllers.iter().filter(|c| !enabled.split_whitespace().any(|e| e == c.as_str())) {
        fs::write(&file, format!("+{controller}")).context(|| {
            format!(
                "cannot enable controller {controller} in {}; a cgroup with processes in it, other than the root, cannot pass controllers on: move them to a cgroup below it",
                file.display()
            )
        })?;
    }
    Ok(())
}

/// A new cpuset (version 1) takes no process before it has processors and memory: those of its parent.
fn inherit_places(dir: &Path) -> Result<()> {
    for name in ["cpuset.cpus", "cpuset.mems"] {
        let own = dir.join(name);
        let read = |file: &Path| fs::read_to_string(file).context(|| format!("cannot read {}", file.display()));
        if read(&own)?.trim().is_empty() {
            let above = read(&dir.parent().unwrap_or(dir).join(name))?;
            fs::write(&own, above.trim()).context(|| format!("cannot write to {}", own.display()))?;
        }
    }
    Ok(())
}

/// The whole disk that a directory is on, as `major:minor`.
fn disk_of(dir: &Path) -> Result<String> {
    let device = fs::metadata(dir).context(|| format!("cannot look at {}", dir.display()))?.dev();
    let name = format!("{}:{}", libc::major(device), libc::minor(device));
    let block = PathBuf::from("/sys/dev/block").join(&name);
    if !block.exists() {
        return Err(Fault::new(
            Kind::Unsupported,
            format!(
                "{} is not on a disk of its own ({name}), so input and output cannot be limited there",
                dir.display()
            ),
        ));
    }
    if !block.join("partition").exists() {
        return Ok(name);
    }
    // A partition's directory is in its disk's.
    let whole = block.canonicalize().ok().and_then(|path| fs::read_to_string(path.parent()?.join("dev")).ok());
    whole.map(|text| text.trim().to_owned()).ok_or_else(|| Fault::not_found(format!("the disk of partition {name}")))
}

fn open(dir: &Path) -> Result<OwnedFd> {
    File::open(dir).map(OwnedFd::from).context(|| format!("cannot open cgroup {}", dir.display()))
}

fn open_for_writing(file: &Path) -> Result<OwnedFd> {
    let opened = fs::OpenOptions::new().write(true).open(file);
    opened.map(OwnedFd::from).context(|| format!("cannot open {}", file.display()))
}

fn number(file: &Path) -> Result<u64> {
    let text = fs::read_to_string(file).context(|| format!("cannot read {}", file.display()))?;
    text.trim().parse().map_err(|_| Fault::new(Kind::System, format!("{} holds no number", file.display())))
}

/// The number behind `name` in a file of `name number` lines.
fn field(file: &Path, name: &str) -> Result<u64> {
    let text = fs::read_to_string(file).context(|| format!("cannot read {}", file.display()))?;
    let value = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' ')?.trim().parse().ok());
    value.ok_or_else(|| Fault::new(Kind::System, format!("{} has no {name}", file.display())))
}
