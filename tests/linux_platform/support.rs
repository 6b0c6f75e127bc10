//! A realm of its own for each test, with a busybox image, that checks at its end that nothing is left.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::sync::mpsc;
use std::time::{Duration, Instant};

use faas_jails::function::{FunctionKey, Realm, ReplicaName};
use faas_jails::image::{Digest, Layer};
use faas_jails::network::Attachment;
use faas_jails::platform::linux::overlay::OverlayStorage;
use faas_jails::platform::linux::sandbox::NamespaceSandbox;
use faas_jails::sandbox::{Exit, Limits, Personality, Plan, Sandbox, User};
use faas_jails::storage::{Root, RootOptions, Storage};

/// Names under which busybox is in the image.
const APPLETS: &[&str] = &[
    "cat", "chroot", "date", "dd", "dmesg", "echo", "env", "false", "grep", "hostname", "httpd", "id", "ip", "kill",
    "ln", "ls", "mkdir", "mknod", "mount", "nc", "nsenter", "ping", "ps", "pwd", "readlink", "rm", "sh", "sleep",
    "stat", "sysctl", "tail", "test", "touch", "true", "umount", "unshare", "wget", "wc",
];

/// Whether this is root; says so loudly if not.
pub fn root() -> bool {
    let root = rustix::process::geteuid().is_root();
    if !root {
        eprintln!("SKIPPED: needs root");
    }
    root
}

pub struct World {
    pub realm: Realm,
    pub dir: tempfile::TempDir,
    pub storage: OverlayStorage,
    pub sandbox: NamespaceSandbox,
    pub busybox: Layer,
}

/// A realm that no other test has: four letters or digits.
pub fn realm() -> Realm {
    let id = uuid::Uuid::new_v4().as_u128();
    let letter = |n: u32| char::from_digit((id >> (n * 8)) as u32 % 36, 36).unwrap();
    format!("t{}{}{}", letter(0), letter(1), letter(2)).parse().unwrap()
}

pub fn layer(name: &str) -> Layer {
    Layer { diff_id: Digest::of(name), chain_id: Digest::of(format!("chain {name}")), parent: None }
}

impl World {
    pub fn new() -> Self {
        Self::of(realm())
    }

    pub fn of(realm: Realm) -> Self {
        let dir = tempfile::Builder::new().prefix("faas-jails-").tempdir().unwrap();
        let storage = OverlayStorage::new(dir.path().join("storage"), realm.clone()).unwrap();
        let sandbox = NamespaceSandbox::new(realm.clone()).unwrap();
        let mut world = Self { realm, dir, storage, sandbox, busybox: layer("busybox") };
        world.busybox = world.layer("busybox", |root| {
            fs::create_dir_all(root.join("bin")).unwrap();
            fs::copy("/bin/busybox", root.join("bin/busybox"))
                .expect("these tests need a static busybox: apt-get install busybox-static");
            for applet in APPLETS {
                symlink("busybox", root.join("bin").join(applet)).unwrap();
            }
        });
        world
    }

    /// A committed layer that `fill` writes.
    pub fn layer(&self, name: &str, fill: impl FnOnce(&Path)) -> Layer {
        let layer = layer(name);
        let staging = self.storage.stage(&layer).unwrap();
        fill(&staging.dir);
        self.storage.commit(staging).unwrap();
        assert!(self.storage.has(&layer).unwrap());
        layer
    }

    pub fn replica(&self) -> ReplicaName {
        let default = "openfaas-fn".parse().unwrap();
        ReplicaName::new(&self.realm, &FunctionKey::parse("hello", &default).unwrap())
    }

    /// A plan over these layers, topmost last, that runs as user 1234 without a network.
    pub fn plan_on(&self, layers: &[Layer], argv: &[&str]) -> Plan {
        self.plan_for(self.replica(), layers, argv, false)
    }

    pub fn plan_for(&self, replica: ReplicaName, layers: &[Layer], argv: &[&str], read_only: bool) -> Plan {
        let options = RootOptions { read_only, quota: None };
        let root = self.storage.clone_root(layers, &replica, &options).unwrap();
        self.plan_with(replica, root, argv, read_only)
    }

    pub fn plan_with(&self, replica: ReplicaName, root: Root, argv: &[&str], read_only: bool) -> Plan {
        let run_dir = self.dir.path().join("run").join(replica.to_string());
        fs::create_dir_all(&run_dir).unwrap();
        let log = fs::OpenOptions::new().create(true).append(true).open(self.log(&replica)).unwrap();
        Plan {
            root,
            read_only,
            network: Attachment::None,
            hostname: "hello".into(),
            argv: argv.iter().map(|&word| word.to_owned()).collect(),
            env: BTreeMap::from([("PATH".to_owned(), "/bin".to_owned())]),
            workdir: "/".into(),
            user: User { uid: 1234, gid: 4321, groups: vec![77] },
            secrets: None,
            files: BTreeMap::from([("/etc/hosts".into(), b"127.0.0.1 localhost\n".to_vec())]),
            limits: Limits::default(),
            personality: Personality::Native,
            mounts: Vec::new(),
            input: None,
            errors: None,
            output: log.into(),
            run_dir,
            replica,
        }
    }

    pub fn plan(&self, argv: &[&str]) -> Plan {
        self.plan_on(std::slice::from_ref(&self.busybox), argv)
    }

    pub fn read_only_plan(&self, argv: &[&str]) -> Plan {
        self.plan_for(self.replica(), std::slice::from_ref(&self.busybox), argv, true)
    }

    fn log(&self, replica: &ReplicaName) -> PathBuf {
        self.dir.path().join(format!("{replica}.log"))
    }

    /// What the replica has written.
    pub fn output(&self, replica: &ReplicaName) -> String {
        fs::read_to_string(self.log(replica)).unwrap()
    }

    /// Waits until the replica has written this.
    pub fn wait_for(&self, replica: &ReplicaName, text: &str) {
        until(&format!("{text:?} in {:?}", self.output(replica)), || self.output(replica).contains(text));
    }

    /// Runs a plan to its end, removes it, and returns how it ended and what it wrote.
    pub fn run(&self, plan: Plan) -> (Exit, String) {
        self.sandbox.start(&plan).unwrap();
        let exit = self.exit(&plan.replica);
        self.remove(&plan.replica);
        (exit, self.output(&plan.replica))
    }

    /// Waits for the end of a replica.
    pub fn exit(&self, replica: &ReplicaName) -> Exit {
        let (send, receive) = mpsc::channel();
        self.sandbox.watch(replica, Box::new(move |exit| send.send(exit).unwrap())).unwrap();
        receive.recv_timeout(Duration::from_secs(30)).expect("the replica should have ended")
    }

    /// Runs a shell script to its end and returns what it wrote.
    pub fn shell(&self, script: &str) -> String {
        let (exit, output) = self.run(self.plan(&["sh", "-c", script]));
        assert_eq!(exit, Exit::Code(0), "{output}");
        output
    }

    pub fn remove(&self, replica: &ReplicaName) {
        self.sandbox.remove(replica).unwrap();
        self.sandbox.remove(replica).unwrap();
        self.storage.destroy_root(replica).unwrap();
        self.storage.destroy_root(replica).unwrap();
        let run_dir = self.dir.path().join("run").join(replica.to_string());
        assert_eq!(fs::read_dir(&run_dir).unwrap().count(), 0, "the run directory is empty");
    }
}

impl Drop for World {
    fn drop(&mut self) {
        if std::thread::panicking() {
            for found in self.sandbox.list().unwrap_or_default() {
                let _ = self.sandbox.remove(&found.replica);
            }
            return;
        }
        assert_eq!(self.sandbox.list().unwrap(), []);
        let inventory = self.storage.inventory().unwrap();
        assert_eq!(inventory.roots, []);
        assert_eq!(cgroups_of(&self.realm), Vec::<PathBuf>::new());
        let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap();
        let own = self.dir.path().to_str().unwrap();
        assert!(!mounts.contains(own), "a mount is left: {mounts}");
    }
}

/// Every cgroup directory of a realm, in any hierarchy.
pub fn cgroups_of(realm: &Realm) -> Vec<PathBuf> {
    let top = [PathBuf::from("/sys/fs/cgroup")].into_iter();
    let below = fs::read_dir("/sys/fs/cgroup").unwrap().map(|entry| entry.unwrap().path());
    top.chain(below).map(|mount| mount.join("faas-jails").join(realm.as_str())).filter(|dir| dir.exists()).collect()
}

/// Waits for something that must come soon.
pub fn until(what: &str, mut is_so: impl FnMut() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(20);
    while !is_so() {
        assert!(Instant::now() < deadline, "waited in vain: {what}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// Makes a file that everybody may execute.
pub fn executable(path: &Path, content: &[u8]) {
    fs::write(path, content).unwrap();
    fs::set_permissions(path, fs::Permissions::from_mode(0o755)).unwrap();
}
