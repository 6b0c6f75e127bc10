//! One realm per test, and the census that ends it.

use std::collections::BTreeMap;
use std::fs;
use std::io::Read;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Mutex, MutexGuard, PoisonError, mpsc};
use std::time::{Duration, Instant};

use faas_jails::fault::Result;
use faas_jails::function::{FunctionKey, Realm, ReplicaName};
use faas_jails::network::Attachment;
use faas_jails::platform::freebsd::network::control;
use faas_jails::platform::freebsd::sandbox::{JailSandbox, Settings, Uncounted};
use faas_jails::platform::freebsd::{jail, mount, rctl};
use faas_jails::sandbox::{Exit, Limits, Personality, Plan, Sandbox, User};
use faas_jails::storage::Root;

/// Programs that tests run in jails.
const PROGRAMS: &[&str] = &[
    "/bin/sh",
    "/bin/cat",
    "/bin/chmod",
    "/bin/cp",
    "/bin/dd",
    "/bin/echo",
    "/bin/hostname",
    "/bin/kill",
    "/bin/ls",
    "/bin/ps",
    "/bin/sleep",
    "/sbin/ifconfig",
    "/sbin/kldload",
    "/sbin/mknod",
    "/sbin/mount",
    "/sbin/ping",
    "/sbin/sysctl",
    "/usr/bin/id",
    "/usr/bin/nc",
    "/usr/bin/netstat",
    "/usr/sbin/chown",
    "/usr/sbin/jail",
];

/// How long anything may take; the guest may be an emulated machine.
pub const PATIENCE: Duration = Duration::from_secs(60);

static ONE_AT_A_TIME: Mutex<()> = Mutex::new(());

/// A realm for one test.
pub struct Host {
    pub realm: Realm,
    pub sandbox: Option<JailSandbox>,
    dir: tempfile::TempDir,
    before: Census,
    _turn: MutexGuard<'static, ()>,
}

/// What a test could leave behind.
#[derive(Debug, PartialEq, Eq)]
struct Census {
    jails: Vec<String>,
    mounts: Vec<PathBuf>,
    interfaces: Vec<String>,
    rules: Vec<String>,
    descriptors: usize,
}

impl Host {
    /// `None`, with a line that says so, when this process may not make jails.
    pub fn new() -> Option<Self> {
        // SAFETY: geteuid(2) takes nothing and cannot fail.
        if unsafe { libc::geteuid() } != 0 {
            eprintln!("SKIPPED: needs root on FreeBSD");
            return None;
        }
        let turn = ONE_AT_A_TIME.lock().unwrap_or_else(PoisonError::into_inner);
        let dir = tempfile::Builder::new().prefix("faas-jails-test").tempdir().unwrap();
        // The jails' users have to get through.
        fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o755)).unwrap();
        let dir_path = fs::canonicalize(dir.path()).unwrap();
        assert_eq!(dir_path, dir.path(), "TMPDIR must not lead through a link");
        fs::create_dir(dir.path().join("run")).unwrap();
        let realm = unused_realm();
        let before = Census::take(&realm, dir.path());
        let mut host = Self { realm, sandbox: None, dir, before, _turn: turn };
        host.sandbox = Some(host.open(Uncounted::Refuse));
        Some(host)
    }

    /// As [`Host::new`]; also says aloud when the kernel does not count resources.
    pub fn counted() -> Option<Self> {
        let host = Self::new()?;
        if !rctl::enabled() {
            eprintln!("SKIPPED: needs kern.racct.enable=1");
            return None;
        }
        Some(host)
    }

    /// Another daemon's sandbox over the same realm.
    pub fn open(&self, uncounted: Uncounted) -> JailSandbox {
        JailSandbox::open(Settings { realm: self.realm.clone(), run_root: self.path("run"), uncounted }).unwrap()
    }

    pub fn sandbox(&self) -> &JailSandbox {
        self.sandbox.as_ref().unwrap()
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    pub fn replica(&self) -> ReplicaName {
        ReplicaName::new(&self.realm, &FunctionKey::parse("f", &"test".parse().unwrap()).unwrap())
    }

    /// A fresh root directory with the test programs in it.
    pub fn tree(&self) -> PathBuf {
        let root = tempfile::Builder::new().prefix("tree").tempdir_in(self.dir.path()).unwrap().keep();
        fs::set_permissions(&root, fs::Permissions::from_mode(0o755)).unwrap();
        furnish(&root);
        root
    }

    /// `sh -c script` as an ordinary user, in a fresh tree, without a network.
    pub fn plan(&self, script: &str) -> Plan {
        let root = Root::Directory(self.tree());
        self.plan_on(root, script)
    }

    pub fn plan_on(&self, root: Root, script: &str) -> Plan {
        let replica = self.replica();
        let run_dir = self.path("run").join(replica.to_string());
        fs::create_dir(&run_dir).unwrap();
        let output = fs::File::options().create(true).append(true).open(self.log(&replica)).unwrap();
        Plan {
            replica,
            root,
            read_only: false,
            network: Attachment::None,
            hostname: "hello".into(),
            argv: ["sh", "-c", script].map(str::to_owned).into(),
            env: BTreeMap::from([("PATH".into(), "/bin:/usr/bin:/sbin:/usr/sbin".into())]),
            workdir: "/".into(),
            user: User { uid: 1234, gid: 4321, groups: vec![77] },
            secrets: None,
            files: BTreeMap::new(),
            limits: Limits::default(),
            personality: Personality::Native,
            mounts: Vec::new(),
            input: None,
            errors: None,
            output: output.into(),
            run_dir,
        }
    }

    fn log(&self, replica: &ReplicaName) -> PathBuf {
        self.path(&format!("{replica}.log"))
    }

    /// What a replica has written so far.
    pub fn output(&self, replica: &ReplicaName) -> String {
        let mut text = Vec::new();
        fs::File::open(self.log(replica)).unwrap().read_to_end(&mut text).unwrap();
        String::from_utf8_lossy(&text).into_owned()
    }

    /// Waits until a replica has written `text`.
    pub fn wait_for(&self, replica: &ReplicaName, text: &str) {
        let found = until(|| self.output(replica).contains(text));
        assert!(found, "{replica} did not say {text:?} but {:?}", self.output(replica));
    }

    /// Starts `plan`, waits for its end, removes it, and gives what it wrote and how it ended.
    pub fn run(&self, plan: &Plan) -> (String, Exit) {
        self.sandbox().start(plan).unwrap_or_else(|fault| panic!("{fault}"));
        let exit = self.exit(self.sandbox(), &plan.replica);
        self.remove(&plan.replica).unwrap_or_else(|fault| panic!("{fault}"));
        (self.output(&plan.replica), exit)
    }

    /// Waits for the end of a replica's first process.
    pub fn exit(&self, sandbox: &JailSandbox, replica: &ReplicaName) -> Exit {
        let (sender, receiver) = mpsc::channel();
        sandbox.watch(replica, Box::new(move |exit| sender.send(exit).unwrap())).unwrap();
        receiver.recv_timeout(PATIENCE).unwrap_or_else(|e| panic!("{replica} does not end: {e}"))
    }

    /// Removes a replica and its directory, as the daemon does.
    pub fn remove(&self, replica: &ReplicaName) -> Result<()> {
        self.sandbox().remove(replica)?;
        let run_dir = self.path("run").join(replica.to_string());
        if run_dir.exists() {
            fs::remove_dir(&run_dir).unwrap_or_else(|e| panic!("{} is not empty: {e}", run_dir.display()));
        }
        Ok(())
    }
}

impl Drop for Host {
    /// Counts; a test that has failed already only cleans up.
    fn drop(&mut self) {
        if let Some(sandbox) = self.sandbox.take() {
            if std::thread::panicking() {
                for found in sandbox.list().unwrap_or_default() {
                    drop(sandbox.remove(&found.replica));
                }
                return;
            }
            drop(sandbox);
        }
        assert_eq!(Census::take(&self.realm, self.dir.path()), self.before, "the test left something behind");
    }
}

impl Census {
    fn take(realm: &Realm, dir: &Path) -> Self {
        let ours = |name: &String| name.starts_with(realm.as_str());
        let jails = jail::list(jail::View::Alive).unwrap().into_iter().map(|jail| jail.name).filter(ours).collect();
        Self {
            jails,
            mounts: mount::list(dir).unwrap().into_iter().map(|mounted| mounted.on).collect(),
            interfaces: control::names().unwrap().into_iter().filter(ours).collect(),
            rules: rctl::jails().unwrap().into_iter().filter(ours).collect(),
            descriptors: fs::read_dir("/dev/fd").unwrap().count(),
        }
    }
}

/// A realm that nothing on this host is named after.
fn unused_realm() -> Realm {
    use rand::Rng;
    let mut rng = rand::rng();
    format!("t{:03}", rng.random_range(0..1000)).parse().unwrap()
}

/// Copies the test programs and the libraries they name into `root`.
pub fn furnish(root: &Path) {
    let programs: Vec<&Path> = PROGRAMS.iter().map(Path::new).collect();
    let linker = PathBuf::from("/libexec/ld-elf.so.1");
    for file in libraries(&programs).iter().map(PathBuf::as_path).chain(programs).chain([linker.as_path()]) {
        copy(file, &root.join(file.strip_prefix("/").unwrap()));
    }
    for (directory, mode) in [("etc", 0o755), ("tmp", 0o1777), ("var", 0o755)] {
        fs::create_dir_all(root.join(directory)).unwrap();
        fs::set_permissions(root.join(directory), fs::Permissions::from_mode(mode)).unwrap();
    }
}

/// Copies one more program into `root` as `/name`, with its libraries.
pub fn add_program(root: &Path, program: &Path, name: &str) {
    for library in libraries(&[program]) {
        copy(&library, &root.join(library.strip_prefix("/").unwrap()));
    }
    copy(program, &root.join(name));
}

fn libraries(programs: &[&Path]) -> Vec<PathBuf> {
    let listed = Command::new("ldd").args(["-f", "%p\n"]).args(programs).output().unwrap();
    assert!(listed.status.success(), "{}", String::from_utf8_lossy(&listed.stderr));
    let listed = String::from_utf8(listed.stdout).unwrap();
    listed.lines().filter(|line| line.starts_with('/') && !line.ends_with(':')).map(PathBuf::from).collect()
}

fn copy(from: &Path, to: &Path) {
    if !to.exists() {
        fs::create_dir_all(to.parent().unwrap()).unwrap();
        fs::copy(from, to).unwrap();
    }
}

/// Asks until the answer is yes or patience ends.
pub fn until(mut yes: impl FnMut() -> bool) -> bool {
    let begin = Instant::now();
    while begin.elapsed() < PATIENCE {
        if yes() {
            return true;
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    false
}
