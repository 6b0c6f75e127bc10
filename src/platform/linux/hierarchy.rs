//! [`Hierarchy`]: one mounted tree of cgroups, what it controls, and how a limit is written in it. Pure.

use std::collections::BTreeSet;
use std::path::PathBuf;

use crate::sandbox::{Limits, Rates};

/// Controllers that this program uses. cpuacct counts only; it and the freezer are of version 1, where version 2 needs
/// no controller.
const WANTED: &[&str] = &["cpu", "cpuacct", "freezer", "memory", "pids", "cpuset", "io", "blkio"];
/// Those that a replica is in only when it has a limit of theirs.
const SELDOM: &[&str] = &["cpuset", "io", "blkio"];
/// In which a processor limit is counted, microseconds: the kernel's default (sched-bwc.rst).
const PERIOD: u64 = 100_000;
/// The least quota that the kernel takes, microseconds.
const LEAST_QUOTA: u64 = 1_000;

/// Which of the two interfaces.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Version {
    One,
    Two,
}

/// A mounted hierarchy.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Hierarchy {
    pub version: Version,
    pub mount: PathBuf,
    /// Those of it that this program uses.
    pub controllers: BTreeSet<String>,
}

/// A value for a file of a cgroup.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Setting {
    pub file: &'static str,
    pub value: String,
    /// Not on every kernel: swap accounting can be off.
    pub optional: bool,
}

impl Hierarchy {
    /// Whether every replica is in it.
    pub fn is_usual(&self) -> bool {
        self.controllers.is_empty() || self.controllers.iter().any(|controller| !SELDOM.contains(&controller.as_str()))
    }

    /// Whether a replica with these limits is in this hierarchy.
    pub fn concerns(&self, limits: &Limits) -> bool {
        let needed = [("cpuset", limits.cpus.is_some()), ("blkio", limits.io != Rates::default())];
        self.is_usual() || needed.iter().any(|(controller, needed)| *needed && self.controllers.contains(*controller))
    }

    /// What the limits are in this hierarchy, in the order of writing. `disk` is the one that limits on input and
    /// output are about, as `major:minor`.
    pub fn settings(&self, limits: &Limits, disk: &str) -> Vec<Setting> {
        let mut settings = Vec::new();
        let mut add = |file, value: String, optional| settings.push(Setting { file, value, optional });
        let has = |controller: &str| self.controllers.contains(controller);
        if let Some(bytes) = limits.memory.filter(|_| has("memory")) {
            match self.version {
                Version::One => {
                    add("memory.limit_in_bytes", bytes.to_string(), false);
                    // Memory and swap together; not below the limit on memory, so after it.
                    add("memory.memsw.limit_in_bytes", bytes.to_string(), true);
                }
                Version::Two => {
                    add("memory.max", bytes.to_string(), false);
                    add("memory.swap.max", "0".into(), true);
                    // Half of a function is no use to anybody.
                    add("memory.oom.group", "1".into(), true);
                }
            }
        }
        if let Some(millis) = limits.cpu_millis.filter(|_| has("cpu")) {
            let quota = (millis.saturating_mul(PERIOD) / 1000).max(LEAST_QUOTA);
            match self.version {
                Version::One => {
                    add("cpu.cfs_period_us", PERIOD.to_string(), false);
                    add("cpu.cfs_quota_us", quota.to_string(), false);
                }
                Version::Two => add("cpu.max", format!("{quota} {PERIOD}"), false),
            }
        }
        if let Some(pids) = limits.pids.filter(|_| has("pids")) {
            add("pids.max", pids.to_string(), false);
        }
        if let Some(cpus) = limits.cpus.as_ref().filter(|_| has("cpuset")) {
            add("cpuset.cpus", cpus.to_string(), false);
        }
        let Rates { read_bytes, write_bytes, read_ops, write_ops } = limits.io;
        for (rate, one, two) in [
            (read_bytes, "blkio.throttle.read_bps_device", "rbps"),
            (write_bytes, "blkio.throttle.write_bps_device", "wbps"),
            (read_ops, "blkio.throttle.read_iops_device", "riops"),
            (write_ops, "blkio.throttle.write_iops_device", "wiops"),
        ] {
            let Some(rate) = rate else { continue };
            match self.version {
                Version::One if has("blkio") => add(one, format!("{disk} {rate}"), false),
                Version::Two if has("io") => add("io.max", format!("{disk} {two}={rate}"), false),
                _ => {}
            }
        }
        settings
    }
}

/// Chooses from /proc/self/mountinfo (proc_pid_mountinfo(5)): the unified hierarchy if it has the controllers,
/// else those of version 1 that have them, else the unified one without.
pub(super) fn choose(mountinfo: &str) -> Vec<Hierarchy> {
    let all: Vec<Hierarchy> = mountinfo.lines().filter_map(parse).collect();
    let (unified, mut old): (Vec<_>, Vec<_>) = all.into_iter().partition(|h| h.version == Version::Two);
    let unified: Vec<Hierarchy> = unified.into_iter().take(1).collect();
    // One hierarchy can be mounted at several places.
    let mut seen = BTreeSet::new();
    old.retain(|h| !h.controllers.is_empty() && seen.insert(h.controllers.clone()));
    let whole = unified.iter().any(|h| h.controllers.contains("memory") && h.controllers.contains("pids"));
    if whole || old.is_empty() { unified } else { old }
}

/// `36 35 98:0 /root /mount rw,relatime shared:1 - cgroup cgroup rw,cpu,cpuacct`
fn parse(line: &str) -> Option<Hierarchy> {
    let (left, right) = line.split_once(" - ")?;
    let mount = PathBuf::from(left.split(' ').nth(4)?);
    let mut right = right.split(' ');
    let (version, names) = match right.next()? {
        "cgroup" => (Version::One, right.nth(1)?.replace(',', " ")),
        "cgroup2" => (Version::Two, std::fs::read_to_string(mount.join("cgroup.controllers")).unwrap_or_default()),
        _ => return None,
    };
    let controllers = names.split_whitespace().filter(|name| WANTED.contains(name)).map(str::to_owned).collect();
    Some(Hierarchy { version, mount, controllers })
}

#[cfg(test)]
mod tests {
    use super::*;

    const HYBRID: &str = "\
31 23 0:28 / /sys/fs/cgroup rw,relatime - tmpfs tmpfs rw,mode=755
32 31 0:29 / /sys/fs/cgroup/cpu,cpuacct rw,relatime shared:4 - cgroup cgroup rw,cpu,cpuacct
34 31 0:31 / /sys/fs/cgroup/cpuset rw,relatime - cgroup cgroup rw,cpuset
35 31 0:32 / /sys/fs/cgroup/memory rw,relatime - cgroup cgroup rw,memory
39 31 0:36 / /sys/fs/cgroup/pids rw,relatime - cgroup cgroup rw,pids
39 31 0:36 / /elsewhere/pids rw,relatime - cgroup cgroup rw,pids
40 31 0:37 / /sys/fs/cgroup/systemd rw,relatime - cgroup cgroup rw,name=systemd
41 31 0:38 / /no/such/unified rw,relatime - cgroup2 cgroup2 rw
";

    fn names(hierarchy: &Hierarchy) -> Vec<&str> {
        hierarchy.controllers.iter().map(String::as_str).collect()
    }

    #[test]
    fn a_hybrid_host_is_used_by_its_old_hierarchies_each_once() {
        let chosen = choose(HYBRID);
        assert_eq!(
            chosen.iter().map(names).collect::<Vec<_>>(),
            [vec!["cpu", "cpuacct"], vec!["cpuset"], vec!["memory"], vec!["pids"]]
        );
        assert!(chosen.iter().all(|h| h.version == Version::One && h.mount.starts_with("/sys/fs/cgroup")));
    }

    #[test]
    fn a_unified_host_is_used_by_its_one_hierarchy() {
        let mount = tempfile::tempdir().unwrap();
        std::fs::write(mount.path().join("cgroup.controllers"), "cpuset cpu io memory hugetlb pids rdma\n").unwrap();
        let line =
            format!("25 30 0:26 / {} rw,nosuid shared:9 - cgroup2 cgroup2 rw,nsdelegate\n", mount.path().display());
        let chosen = choose(&line);
        assert_eq!(chosen.len(), 1);
        assert_eq!(
            (chosen[0].version, names(&chosen[0])),
            (Version::Two, vec!["cpu", "cpuset", "io", "memory", "pids"])
        );
    }

    #[test]
    fn a_host_without_controllers_still_has_somewhere_to_list_replicas() {
        let line = HYBRID.lines().last().unwrap();
        assert_eq!(choose(line).len(), 1);
        assert!(choose("").is_empty());
    }

    #[test]
    fn a_replica_is_in_the_seldom_hierarchies_only_when_it_has_their_limits() {
        let chosen = choose(HYBRID);
        let concerned = |limits: &Limits| chosen.iter().filter(|h| h.concerns(limits)).count();
        assert_eq!(concerned(&Limits::default()), chosen.len() - 1);
        assert_eq!(concerned(&Limits { cpus: Some("0".parse().unwrap()), ..Limits::default() }), chosen.len());
    }

    #[test]
    fn limits_in_both_languages() {
        let limits = Limits {
            memory: Some(64 << 20),
            cpu_millis: Some(250),
            pids: Some(9),
            open_files: Some(1),
            io: Rates { read_bytes: Some(1 << 20), write_ops: Some(7), ..Rates::default() },
            cpus: Some("0-2,4".parse().unwrap()),
        };
        let hierarchy = |version| Hierarchy {
            version,
            mount: "/".into(),
            controllers: WANTED.iter().map(|&c| c.to_owned()).collect(),
        };
        let written = |version| {
            let settings = hierarchy(version).settings(&limits, "8:0");
            settings.iter().map(|s| format!("{}={}", s.file, s.value)).collect::<Vec<_>>()
        };
        assert_eq!(
            written(Version::One),
            [
                "memory.limit_in_bytes=67108864",
                "memory.memsw.limit_in_bytes=67108864",
                "cpu.cfs_period_us=100000",
                "cpu.cfs_quota_us=25000",
                "pids.max=9",
                "cpuset.cpus=0-2,4",
                "blkio.throttle.read_bps_device=8:0 1048576",
                "blkio.throttle.write_iops_device=8:0 7",
            ]
        );
        assert_eq!(
            written(Version::Two),
            [
                "memory.max=67108864",
                "memory.swap.max=0",
                "memory.oom.group=1",
                "cpu.max=25000 100000",
                "pids.max=9",
                "cpuset.cpus=0-2,4",
                "io.max=8:0 rbps=1048576",
                "io.max=8:0 wiops=7",
            ]
        );
        let tiny = Limits { cpu_millis: Some(1), ..Limits::default() };
        assert_eq!(hierarchy(Version::Two).settings(&tiny, "8:0")[0].value, "1000 100000");
        assert!(hierarchy(Version::One).settings(&Limits::default(), "8:0").is_empty());
    }
}
