//! What the machine shows of a daemon: the things that must be gone when it says they are.

use std::collections::BTreeSet;
use std::fmt;
use std::fs;
use std::path::Path;
use std::process::Command;

/// Things of one realm, found by asking the kernel, not the daemon.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Traces {
    /// Processes in the realm's cgroups, or with an argument under its root directory (not the daemon itself).
    pub processes: BTreeSet<String>,
    /// Its cgroups, or jails.
    pub groups: BTreeSet<String>,
    /// Network interfaces.
    pub interfaces: BTreeSet<String>,
    /// Named network namespaces.
    pub namespaces: BTreeSet<String>,
    /// Firewall tables and rules.
    pub firewall: BTreeSet<String>,
    /// Mounts.
    pub mounts: BTreeSet<String>,
    /// What lies in its `replicas` directory.
    pub replicas: BTreeSet<String>,
}

impl Traces {
    /// Looks for everything of this realm, whose state directory is `root`.
    pub fn of(realm: &str, root: &Path) -> Self {
        let mut traces = Self::default();
        walk_cgroups(Path::new("/sys/fs/cgroup"), realm, 0, &mut traces);
        traces.interfaces = names_in("/sys/class/net", |name| name.starts_with(realm));
        traces.namespaces = names_in("/run/netns", |name| name.starts_with(realm));
        traces.replicas = names_in(root.join("replicas"), |_| true);
        let root = root.display().to_string();
        let prefix = format!("{realm}_");
        traces.mounts = lines_with(&fs::read_to_string("/proc/self/mountinfo").unwrap_or_default(), &[&root, &prefix]);
        if let Ok(out) = Command::new("nft").args(["list", "ruleset"]).output() {
            let rules = String::from_utf8_lossy(&out.stdout).into_owned();
            traces.firewall = rules
                .lines()
                .filter(|l| l.split(|c: char| !c.is_ascii_alphanumeric()).any(|word| word.starts_with(realm)))
                .map(str::to_owned)
                .collect();
        }
        traces
    }

    /// Whether there is nothing at all.
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    /// How many replicas live: groups with a process are counted once, whatever the number of hierarchies.
    pub fn replica_names(&self) -> BTreeSet<String> {
        let names = self.groups.iter().filter_map(|g| g.rsplit('/').next());
        names.filter(|n| n.matches('_').count() == 3).map(str::to_owned).collect()
    }
}

impl fmt::Display for Traces {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (what, things) in [
            ("processes", &self.processes),
            ("groups", &self.groups),
            ("interfaces", &self.interfaces),
            ("network namespaces", &self.namespaces),
            ("firewall", &self.firewall),
            ("mounts", &self.mounts),
            ("replica directories", &self.replicas),
        ] {
            if !things.is_empty() {
                write!(f, "\n  {what}:")?;
                for thing in things {
                    write!(f, "\n    {thing}")?;
                }
            }
        }
        Ok(())
    }
}

fn names_in(directory: impl AsRef<Path>, wanted: impl Fn(&str) -> bool) -> BTreeSet<String> {
    let Ok(entries) = fs::read_dir(directory) else { return BTreeSet::new() };
    entries.flatten().filter_map(|e| e.file_name().into_string().ok()).filter(|name| wanted(name)).collect()
}

fn lines_with(text: &str, needles: &[&str]) -> BTreeSet<String> {
    text.lines().filter(|line| needles.iter().any(|n| line.contains(n))).map(str::to_owned).collect()
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
            for pid in processes.lines() {
                let command = fs::read_to_string(format!("/proc/{pid}/comm")).unwrap_or_default();
                traces.processes.insert(format!("{pid} {}", command.trim()));
            }
        }
        walk_cgroups(&path, realm, depth + 1, traces);
    }
}
