//! The unified cgroup hierarchy, which a hybrid host has beside the old ones: placing, listing and removing work on it
//! without a controller. Everything else is in tests/linux_platform, on whatever cgroups the host has.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use super::super::hierarchy::{Hierarchy, Version};
use super::*;
use crate::function::FunctionKey;
use crate::sandbox::{Limits, User};

fn unified() -> Option<PathBuf> {
    let places = ["/sys/fs/cgroup", "/sys/fs/cgroup/unified"].map(Path::new);
    places.into_iter().find(|place| place.join("cgroup.controllers").exists()).map(Path::to_owned)
}

fn plan(dir: &Path, replica: ReplicaName, program: &str) -> Plan {
    Plan {
        replica,
        root: Root::Directory(dir.join("root")),
        read_only: true,
        network: Attachment::None,
        hostname: "unified".into(),
        argv: vec![program.into(), "sleep".into(), "1000".into()],
        env: BTreeMap::new(),
        workdir: "/".into(),
        user: User { uid: 1, gid: 1, groups: vec![] },
        secrets: None,
        files: BTreeMap::new(),
        limits: Limits::default(),
        personality: Default::default(),
        mounts: Vec::new(),
        input: None,
        errors: None,
        output: File::create(dir.join("log")).unwrap().into(),
        run_dir: dir.join("run"),
    }
}

/// Removes the replica when the test fails.
struct Guard<'a>(&'a NamespaceSandbox, &'a ReplicaName);

impl Drop for Guard<'_> {
    fn drop(&mut self) {
        let _ = self.0.remove(self.1);
    }
}

#[test]
fn a_replica_is_born_into_its_unified_cgroup() {
    if !rustix::process::geteuid().is_root() {
        eprintln!("SKIPPED: needs root");
        return;
    }
    let mount = unified().expect("a kernel since 4.5 has cgroup2; mount it");
    let hierarchy = Hierarchy { version: Version::Two, mount: mount.clone(), controllers: Default::default() };
    let id = uuid::Uuid::new_v4().simple().to_string();
    let realm: Realm = format!("u{}", &id[..3]).parse().unwrap();
    let sandbox = NamespaceSandbox::with(Cgroups::with(vec![hierarchy], realm.clone()).unwrap()).unwrap();
    let dir = tempfile::tempdir().unwrap();
    for name in ["root", "run"] {
        std::fs::create_dir(dir.path().join(name)).unwrap();
    }
    std::fs::copy("/bin/busybox", dir.path().join("root/busybox")).expect("this test needs a static busybox");
    let replica = ReplicaName::new(&realm, &FunctionKey::parse("f", &"n".parse().unwrap()).unwrap());

    let own = mount.join("faas-jails").join(realm.as_str());
    let _guard = Guard(&sandbox, &replica);
    let failing = plan(dir.path(), replica.clone(), "/nothing");
    assert!(sandbox.start(&failing).unwrap_err().to_string().contains("no such program"));
    assert!(!own.exists());

    // An image's working directory is no way to a directory that this process has open (CVE-2024-21626).
    let open = File::open("/etc").unwrap();
    let workdir = PathBuf::from(format!("/proc/self/fd/{}", std::os::fd::AsRawFd::as_raw_fd(&open)));
    let leaking = Plan { workdir, ..plan(dir.path(), replica.clone(), "/busybox") };
    let fault = sandbox.start(&leaking).unwrap_err();
    assert!(fault.to_string().contains("change to directory"), "{fault}");

    sandbox.start(&plan(dir.path(), replica.clone(), "/busybox")).unwrap();
    let [found] = &*sandbox.list().unwrap() else { panic!("one is there") };
    assert!(found.replica == replica && found.alive && found.number.is_some(), "{found:?}");
    let members = std::fs::read_to_string(own.join(replica.to_string()).join("cgroup.procs")).unwrap();
    assert_eq!(members.lines().count(), 1);
    assert_eq!(sandbox.usage(&replica).unwrap().pids, 1);
    sandbox.remove(&replica).unwrap();
    assert_eq!(sandbox.list().unwrap(), []);
    let limited = Plan {
        limits: Limits { memory: Some(1 << 26), ..Limits::default() },
        ..plan(dir.path(), replica.clone(), "/busybox")
    };
    let fault = sandbox.start(&limited).unwrap_err();
    assert_eq!(fault.kind(), Kind::Unsupported, "{fault}");
    assert!(fault.to_string().contains("no memory controller"), "{fault}");
    assert!(!own.exists());
}
