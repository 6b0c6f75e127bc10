//! What the machine shows of a daemon: the things that must be gone when it says they are.

use std::collections::BTreeSet;
use std::fmt;
use std::path::Path;

use super::platform;

/// Things of one realm, found by asking the kernel, not the daemon.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Traces {
    /// Processes in the realm's cgroups, or with an argument under its root directory (not the daemon itself).
    pub processes: BTreeSet<String>,
    /// Its cgroups, or jails.
    pub groups: BTreeSet<String>,
    /// Names of those that a process is in.
    pub populated: BTreeSet<String>,
    /// Network interfaces.
    pub interfaces: BTreeSet<String>,
    /// Addresses on them. (On Linux each replica's is on an interface of its own.)
    pub addresses: BTreeSet<String>,
    /// Named network namespaces.
    pub namespaces: BTreeSet<String>,
    /// Firewall tables and rules.
    pub firewall: BTreeSet<String>,
    /// Rules for resources.
    pub rules: BTreeSet<String>,
    /// Datasets of replicas.
    pub datasets: BTreeSet<String>,
    /// Mounts.
    pub mounts: BTreeSet<String>,
    /// What lies in its `replicas` directory.
    pub replicas: BTreeSet<String>,
}

impl Traces {
    /// Looks for everything of this realm, whose state directory is `root`.
    pub fn of(realm: &str, root: &Path) -> Self {
        let mut traces = Self::default();
        platform::look(realm, root, &mut traces);
        if let Ok(entries) = std::fs::read_dir(root.join("replicas")) {
            traces.replicas = entries.flatten().filter_map(|e| e.file_name().into_string().ok()).collect();
        }
        traces
    }

    /// Whether there is nothing at all.
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    /// Whether nothing of any replica is there, not even of one that lies ready or is being taken away.
    pub fn no_replica(&self) -> bool {
        let of_one = |group: &String| group.rsplit('/').next().is_some_and(is_replica);
        self.replicas.is_empty() && self.datasets.is_empty() && !self.groups.iter().any(of_one)
    }

    /// Replicas that run. One that lies ready for the next start has no process yet.
    pub fn replica_names(&self) -> BTreeSet<String> {
        self.populated.iter().filter(|name| is_replica(name)).cloned().collect()
    }
}

/// `realm_namespace_function_id`.
fn is_replica(name: &str) -> bool {
    name.matches('_').count() == 3
}

impl fmt::Display for Traces {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (what, things) in [
            ("processes", &self.processes),
            ("groups", &self.groups),
            ("interfaces", &self.interfaces),
            ("addresses", &self.addresses),
            ("network namespaces", &self.namespaces),
            ("firewall", &self.firewall),
            ("rules for resources", &self.rules),
            ("datasets", &self.datasets),
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
