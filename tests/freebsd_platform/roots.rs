//! Roots: directories, ZFS filesystems and snapshots; what is placed in them, and links that lead out.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::Command;

use faas_jails::platform::freebsd::furnish::furnish as furnish_image;
use faas_jails::platform::freebsd::mount;
use faas_jails::sandbox::{Plan, Sandbox, User};
use faas_jails::storage::Root;

use crate::support::{Host, furnish};

const WRITES: &str = "for f in / /etc /bin /tmp /var/openfaas/secrets; do \
    if (: > $f/new) 2>/dev/null; then echo yes $f; else echo no $f; fi; done; cat /etc/hosts /var/openfaas/secrets/key";

/// As root inside, with a file and a secret.
fn furnished(host: &Host, mut plan: Plan) -> Plan {
    let secrets = host.path("secrets");
    fs::create_dir_all(&secrets).unwrap();
    fs::write(secrets.join("key"), "s3cret\n").unwrap();
    plan.secrets = Some(secrets);
    plan.files.insert("/etc/hosts".into(), b"10.0.0.1 gateway\n".to_vec());
    plan.user = User::default();
    plan
}

#[test]
fn a_writable_directory_is_written_to() {
    let Some(host) = Host::new() else { return };
    let (output, _) = host.run(&furnished(&host, host.plan(WRITES)));
    assert_eq!(output, "yes /\nyes /etc\nyes /bin\nyes /tmp\nno /var/openfaas/secrets\n10.0.0.1 gateway\ns3cret\n");
}

#[test]
fn a_read_only_directory_is_not_but_for_tmp() {
    let Some(host) = Host::new() else { return };
    let mut plan = furnished(&host, host.plan(WRITES));
    plan.read_only = true;
    let (output, _) = host.run(&plan);
    assert_eq!(output, "no /\nno /etc\nno /bin\nyes /tmp\nno /var/openfaas/secrets\n10.0.0.1 gateway\ns3cret\n");
}

#[test]
fn a_link_out_of_the_image_fails_the_start_and_harms_nothing() {
    let Some(host) = Host::new() else { return };
    let outside = host.path("outside");
    fs::create_dir(&outside).unwrap();
    for place in ["etc", "dev", "var/openfaas"] {
        let tree = host.tree();
        let link = tree.join(place);
        if link.is_dir() {
            fs::remove_dir_all(&link).unwrap();
        }
        symlink(&outside, &link).unwrap();
        let plan = furnished(&host, host.plan_on(Root::Directory(tree), "true"));
        let fault = host.sandbox().start(&plan).unwrap_err();
        assert!(fault.to_string().contains("link"), "{place}: {fault}");
        host.remove(&plan.replica).unwrap();
        assert_eq!(fs::read_dir(&outside).unwrap().count(), 0, "{place}");
    }
}

#[test]
fn a_linked_file_is_replaced_not_followed() {
    let Some(host) = Host::new() else { return };
    let victim = host.path("victim");
    fs::write(&victim, "untouched").unwrap();
    let tree = host.tree();
    symlink(&victim, tree.join("etc/hosts")).unwrap();
    let plan = furnished(&host, host.plan_on(Root::Directory(tree), "cat /etc/hosts"));
    assert_eq!(host.run(&plan).0, "10.0.0.1 gateway\n");
    assert_eq!(fs::read_to_string(&victim).unwrap(), "untouched");
}

/// Setuid means nothing on any of a running replica's mounts.
fn no_setuid(plan: &Plan) {
    let mut mounts = mount::list(&plan.run_dir).unwrap();
    // These report no flags, and no file can be made in them.
    mounts.retain(|mounted| !["devfs", "fdescfs"].contains(&mounted.fstype.as_str()));
    assert!(!mounts.is_empty());
    for mounted in mounts {
        assert!(mounted.flags & libc::MNT_NOSUID as u64 != 0, "{mounted:?}");
    }
}

/// A pool in a file, destroyed at the end.
struct Pool {
    name: String,
    mountpoint: PathBuf,
}

impl Pool {
    fn new(host: &Host) -> Option<Self> {
        let name = format!("faasjails{}", host.realm);
        let (file, mountpoint) = (host.path("pool"), host.path("pool-mounts"));
        fs::File::create(&file).unwrap().set_len(256 << 20).unwrap();
        let made = Command::new("zpool")
            .args(["create", "-m", "none", "-O", "compression=off", &name, file.to_str().unwrap()])
            .output();
        match made {
            Ok(output) if output.status.success() => Some(Self { name, mountpoint }),
            other => {
                eprintln!("SKIPPED: needs ZFS: {other:?}");
                None
            }
        }
    }

    fn zfs(&self, arguments: &[&str]) {
        let output = Command::new("zfs").args(arguments).output().unwrap();
        assert!(output.status.success(), "zfs {arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
    }

    /// An image's snapshot, with or without the places that mounts cover.
    fn image(&self, with_places: impl Fn(&Path)) -> String {
        let dataset = format!("{}/image", self.name);
        self.zfs(&["create", "-o", &format!("mountpoint={}", self.mountpoint.display()), &dataset]);
        furnish(&self.mountpoint);
        with_places(&self.mountpoint);
        self.zfs(&["unmount", &dataset]);
        self.zfs(&["set", "mountpoint=legacy", &dataset]);
        let snapshot = format!("{dataset}@done");
        self.zfs(&["snapshot", &snapshot]);
        snapshot
    }

    fn clone(&self, snapshot: &str) -> String {
        let dataset = format!("{}/clone", self.name);
        self.zfs(&["clone", "-o", "mountpoint=legacy", snapshot, &dataset]);
        dataset
    }
}

impl Drop for Pool {
    fn drop(&mut self) {
        let output = Command::new("zpool").args(["destroy", "-f", &self.name]).output().unwrap();
        if !std::thread::panicking() {
            assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        }
    }
}

#[test]
fn a_clone_is_written_to_and_can_be_destroyed_at_once() {
    let Some(host) = Host::new() else { return };
    let Some(pool) = Pool::new(&host) else { return };
    let clone = pool.clone(&pool.image(|_| ()));
    let plan = furnished(&host, host.plan_on(Root::Zfs(clone.clone()), &format!("{WRITES}; sleep 300")));
    host.sandbox().start(&plan).unwrap();
    host.wait_for(&plan.replica, "s3cret");
    no_setuid(&plan);
    assert!(host.output(&plan.replica).starts_with("yes /\nyes /etc\n"), "{}", host.output(&plan.replica));
    host.remove(&plan.replica).unwrap();
    pool.zfs(&["destroy", &clone]);
}

#[test]
fn a_read_only_clone_is_sealed_after_its_files_are_placed() {
    let Some(host) = Host::new() else { return };
    let Some(pool) = Pool::new(&host) else { return };
    let clone = pool.clone(&pool.image(|_| ()));
    let mut plan = furnished(&host, host.plan_on(Root::Zfs(clone), WRITES));
    plan.read_only = true;
    plan.argv[2] = format!("{WRITES}; echo end; sleep 300");
    host.sandbox().start(&plan).unwrap();
    host.wait_for(&plan.replica, "end");
    no_setuid(&plan);
    host.remove(&plan.replica).unwrap();
    let output = host.output(&plan.replica);
    assert_eq!(output, "no /\nno /etc\nno /bin\nyes /tmp\nno /var/openfaas/secrets\n10.0.0.1 gateway\ns3cret\nend\n");
}

#[test]
fn a_read_only_replica_needs_no_clone_of_a_furnished_image() {
    let Some(host) = Host::new() else { return };
    let Some(pool) = Pool::new(&host) else { return };
    let snapshot = pool.image(|dir| furnish_image(dir).unwrap());
    let mut plan = furnished(&host, host.plan_on(Root::Zfs(snapshot.clone()), WRITES));
    plan.read_only = true;
    let mut twin = furnished(&host, host.plan_on(Root::Zfs(snapshot), "echo up; sleep 300"));
    twin.read_only = true;
    host.sandbox().start(&twin).unwrap();
    let (output, _) = host.run(&plan);
    assert_eq!(output, "no /\nno /etc\nno /bin\nyes /tmp\nno /var/openfaas/secrets\n10.0.0.1 gateway\ns3cret\n");
    host.wait_for(&twin.replica, "up");
    no_setuid(&twin);
    host.remove(&twin.replica).unwrap();
}

#[test]
fn an_unfurnished_snapshot_is_refused_with_a_reason() {
    let Some(host) = Host::new() else { return };
    let Some(pool) = Pool::new(&host) else { return };
    let snapshot = pool.image(|_| ());
    let mut plan = furnished(&host, host.plan_on(Root::Zfs(snapshot.clone()), "true"));
    plan.read_only = true;
    let fault = host.sandbox().start(&plan).unwrap_err();
    assert!(fault.to_string().contains("run it on a clone instead"), "{fault}");
    host.remove(&plan.replica).unwrap();
    let plan = host.plan_on(Root::Zfs(snapshot), "true");
    let fault = host.sandbox().start(&plan).unwrap_err();
    assert!(fault.to_string().contains("give it a clone"), "{fault}");
    host.remove(&plan.replica).unwrap();
}
