//! Linux under the tests: how a daemon is configured, and where the kernel shows what is there of it.

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use super::dataset::{self, Dataset};
use super::image::Layer;
use super::leaks::Traces;

/// Calls of the probe's /syscall that must fail even for root in a sandbox.
pub const REFUSED_TO_ROOT: &[&str] =
    &["mount", "reboot", "settime", "sethostname", "mknod", "unshare", "packetsocket", "rawsocket"];

/// What this machine lacks to run replicas.
pub fn lacks() -> Option<&'static str> {
    (!super::is_root()).then_some("needs root")
}

/// Whether rules can be had without addresses being translated.
pub fn filters_packets() -> bool {
    true
}

/// What the kernel shows of limits on input and output in this realm.
pub fn rates(realm: &str) -> String {
    let mut traces = Traces::default();
    walk_cgroups(Path::new("/sys/fs/cgroup"), realm, 0, &mut traces);
    let file = |group: &String, name: &str| fs::read_to_string(Path::new(group).join(name)).unwrap_or_default();
    let names = ["io.max", "blkio.throttle.read_bps_device", "blkio.throttle.write_iops_device"];
    traces.groups.iter().flat_map(|group| names.map(|name| file(group, name))).collect()
}

/// What this platform needs beside the state directory: a dataset, where the test or the whole run is on ZFS.
pub struct Ground(Option<Dataset>);

impl Ground {
    /// Makes it, unless it is given.
    pub fn make(realm: &str, dataset: Option<&str>) -> Self {
        Self(Dataset::for_daemon(realm, dataset))
    }

    /// The configuration's lines: first those above all tables, then those of `[network]`.
    pub fn settings(&self) -> (String, &'static str) {
        let storage = if self.0.is_some() { "storage = \"zfs\"\n" } else { "" };
        (storage.to_owned(), "mode = \"bridge\"")
    }

    /// How many layers there are, if they are datasets.
    pub fn layers(&self) -> Option<usize> {
        self.0.as_ref().map(Dataset::layers)
    }

    /// The configuration's own tables.
    pub fn tables(&self) -> String {
        self.0.as_ref().map_or_else(String::new, Dataset::table)
    }
}

/// A test run that is killed must not leave its daemons running.
pub fn ends_with_us(command: &mut Command) {
    // SAFETY: prctl(PR_SET_PDEATHSIG) is async-signal-safe and touches no memory.
    unsafe {
        command.pre_exec(|| {
            libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL);
            Ok(())
        });
    }
}

/// Bytes of memory that a process occupies.
pub fn memory(pid: u32) -> u64 {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).expect("the process's status");
    let line = status.lines().find_map(|l| l.strip_prefix("VmRSS:")).expect("VmRSS");
    line.trim().trim_end_matches(" kB").parse::<u64>().expect("a number") << 10
}

/// How many files a process has open.
pub fn open_files(pid: u32) -> usize {
    fs::read_dir(format!("/proc/{pid}/fd")).map_or(0, Iterator::count)
}

/// Where the probe's binary is when it comes with the tests: it is built here.
pub fn shipped_parts() -> Option<PathBuf> {
    None
}

/// Adds Debian's statically linked busybox, by the names that tests use.
pub fn add_tools(layer: Layer) -> Layer {
    let busybox = fs::read("/bin/busybox").expect("reading /bin/busybox; tools/setup.sh installs it");
    let names = ["sh", "cat", "echo", "env", "sleep", "false"].into_iter();
    names.fold(layer.file("bin/busybox", 0o755, &busybox), |layer, name| {
        layer.symlink(&format!("bin/{name}"), "busybox")
    })
}

/// Looks for everything of this realm, whose state directory is `root`.
pub fn look(realm: &str, root: &Path, traces: &mut Traces) {
    walk_cgroups(Path::new("/sys/fs/cgroup"), realm, 0, traces);
    traces.interfaces = names_in("/sys/class/net", realm);
    traces.namespaces = names_in("/run/netns", realm);
    let (root, prefix) = (root.display().to_string(), format!("{realm}_"));
    let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
    traces.mounts = mounts.lines().filter(|l| l.contains(&root) || l.contains(&prefix)).map(str::to_owned).collect();
    traces.datasets = dataset::roots(realm);
    if let Ok(out) = Command::new("nft").args(["list", "ruleset"]).output() {
        let rules = String::from_utf8_lossy(&out.stdout).into_owned();
        traces.firewall = rules
            .lines()
            .filter(|l| l.split(|c: char| !c.is_ascii_alphanumeric()).any(|word| word.starts_with(realm)))
            .map(str::to_owned)
            .collect();
    }
}

/// Sandboxes that are removed and still there: there is no such state here.
pub fn dying(_realm: &str) -> usize {
    0
}

fn names_in(directory: &str, realm: &str) -> BTreeSet<String> {
    let Ok(entries) = fs::read_dir(directory) else { return BTreeSet::new() };
    entries.flatten().filter_map(|e| e.file_name().into_string().ok()).filter(|name| name.starts_with(realm)).collect()
}

/// Notes every cgroup of the realm, with the processes in it.
fn walk_cgroups(directory: &Path, realm: &str, depth: usize, traces: &mut Traces) {
    let Ok(entries) = fs::read_dir(directory) else { return };
    for entry in entries.flatten() {
        if depth > 8 || !entry.file_type().is_ok_and(|t| t.is_dir()) {
            continue;
        }
        let path = entry.path();
        let name = entry.file_name().into_string().unwrap_or_default();
        if name == realm || name.starts_with(&format!("{realm}_")) || name.ends_with(&format!("-{realm}")) {
            traces.groups.insert(path.display().to_string());
            let processes = fs::read_to_string(path.join("cgroup.procs")).unwrap_or_default();
            if !processes.is_empty() {
                traces.populated.insert(name);
            }
            for pid in processes.lines() {
                let command = fs::read_to_string(format!("/proc/{pid}/comm")).unwrap_or_default();
                traces.processes.insert(format!("{pid} {}", command.trim()));
            }
        }
        walk_cgroups(&path, realm, depth + 1, traces);
    }
}
