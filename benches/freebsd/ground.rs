//! A platform of its own on the dataset that `FAAS_JAILS_TEST_DATASET` names, with one image, taken away at the end.

use std::collections::BTreeMap;
use std::fs;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::sync::mpsc;
use std::time::{Duration, Instant};

use faas_jails::config::{Config, Network, StorageKind, Zfs};
use faas_jails::function::{FunctionKey, Realm, ReplicaName};
use faas_jails::image::{Digest, Layer};
use faas_jails::network::ipam::Pool;
use faas_jails::network::{Link, Mode};
use faas_jails::platform::{self, Platform};
use faas_jails::sandbox::{Limits, Personality, Plan, User};
use faas_jails::storage::{Root, RootOptions};

use crate::steps::step;

/// One ends at once, the other sleeps.
const PROGRAMS: [&str; 2] = ["/usr/bin/true", "/bin/sleep"];

pub struct Ground {
    pub realm: Realm,
    pub platform: Platform,
    config: Config,
    dir: tempfile::TempDir,
    layers: Vec<Layer>,
    pool: Pool,
}

/// Whether a replica writes to its root.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Surface {
    ReadOnly,
    Writable,
}

/// A replica that is there, or about to be.
pub struct Replica {
    pub name: ReplicaName,
    pub root: Root,
    pub link: Link,
    surface: Surface,
}

impl Ground {
    /// For replicas that are connected like this.
    pub fn make(mode: Mode) -> Self {
        let parent = std::env::var("FAAS_JAILS_TEST_DATASET").expect("FAAS_JAILS_TEST_DATASET names a dataset");
        let (realm, octet) = match mode {
            Mode::Vnet => ("bnv", 254),
            _ => ("bna", 253),
        };
        let dataset = format!("{parent}/{realm}");
        command("zfs", &["create", "-o", "canmount=off", &dataset]);
        let dir = tempfile::Builder::new().prefix("faas-jails-bench").tempdir().expect("a temporary directory");
        let config = Config {
            root: dir.path().join("root"),
            realm: realm.parse().expect("a realm"),
            storage: StorageKind::Zfs,
            zfs: Zfs { dataset },
            network: Network {
                mode,
                subnet: format!("10.{octet}.0.0/16").parse().expect("a network"),
                nat: false,
                ..Network::default()
            },
            ..Config::default()
        };
        let platform = platform::open(&config).unwrap_or_else(|fault| panic!("{fault}"));
        platform.network.setup(&config.network.networks()).unwrap_or_else(|fault| panic!("{fault}"));
        let id = Digest::of("bench");
        let layers = vec![Layer { diff_id: id.clone(), chain_id: id, parent: None }];
        let pool = Pool::new(&config.network.networks()).expect("a pool");
        let mut ground = Self { realm: config.realm.clone(), platform, config, dir, layers, pool };
        ground.load();
        ground
    }

    fn load(&mut self) {
        let storage = &self.platform.storage;
        let staging = storage.stage(&self.layers[0]).unwrap_or_else(|fault| panic!("{fault}"));
        let listed = Command::new("ldd").args(["-f", "%p\n"]).args(PROGRAMS).output().expect("running ldd");
        let listed = String::from_utf8_lossy(&listed.stdout).into_owned();
        let libraries = listed.lines().filter(|line| line.starts_with('/') && !line.ends_with(':'));
        for file in libraries.chain(PROGRAMS).chain(["/libexec/ld-elf.so.1"]) {
            let inside = staging.dir.join(file.trim_start_matches('/'));
            fs::create_dir_all(inside.parent().expect("a directory")).expect("making a directory");
            fs::copy(file, inside).expect("copying a program");
        }
        storage.commit(staging).unwrap_or_else(|fault| panic!("{fault}"));
    }

    /// A name, an address, and a root.
    pub fn replica(&mut self, surface: Surface) -> Replica {
        let name = ReplicaName::new(&self.realm, &FunctionKey::parse("bench", &"f".parse().expect("f")).expect("f"));
        let addresses = self.pool.take(&name).unwrap_or_else(|fault| panic!("{fault}"));
        let link = Link { mode: self.config.network.mode, addresses };
        let options = RootOptions { read_only: surface == Surface::ReadOnly, quota: None };
        let clone = || self.platform.storage.clone_root(&self.layers, &name, &options);
        let root = step("clone", clone).unwrap_or_else(|fault| panic!("{fault}"));
        Replica { name, root, link, surface }
    }

    /// Starts it, as the provider does.
    pub fn start(&self, replica: &Replica, argv: &[&str]) {
        self.launch(&self.plan(replica, argv));
    }

    /// Makes all of it but its program, as the provider does ahead of need.
    pub fn prepare(&self, replica: &Replica, argv: &[&str]) -> Plan {
        let plan = self.plan(replica, argv);
        self.platform.sandbox.prepare(&plan).unwrap_or_else(|fault| panic!("{fault}"));
        plan
    }

    /// Starts what is planned, or prepared.
    pub fn launch(&self, plan: &Plan) {
        self.platform.sandbox.start(plan).unwrap_or_else(|fault| panic!("{fault}"));
    }

    fn plan(&self, replica: &Replica, argv: &[&str]) -> Plan {
        let attach = || self.platform.network.attach(&replica.name, &replica.link);
        let network = step("network", attach).unwrap_or_else(|fault| panic!("{fault}"));
        let run_dir = self.config.root.join("run").join(replica.name.to_string());
        fs::create_dir_all(&run_dir).expect("making the run directory");
        let output = fs::File::options().write(true).open("/dev/null").expect("opening /dev/null");
        let files =
            ["/etc/hosts", "/etc/resolv.conf", "/etc/hostname"].map(|path| (PathBuf::from(path), b"x".to_vec()));
        Plan {
            replica: replica.name.clone(),
            root: replica.root.clone(),
            read_only: replica.surface == Surface::ReadOnly,
            network,
            hostname: "f".into(),
            argv: argv.iter().map(|word| (*word).to_owned()).collect(),
            env: BTreeMap::from([("PATH".into(), "/usr/bin:/bin".into())]),
            workdir: "/".into(),
            user: User { uid: 1000, gid: 1000, groups: Vec::new() },
            secrets: None,
            files: files.into(),
            limits: Limits {
                memory: Some(128 << 20),
                cpu_millis: None,
                pids: Some(self.config.limits.pids),
                open_files: Some(self.config.limits.open_files),
                ..Limits::default()
            },
            personality: Personality::Native,
            mounts: Vec::new(),
            input: None,
            output: output.into(),
            errors: None,
            run_dir,
        }
    }

    /// Waits for the end of its program.
    pub fn await_exit(&self, replica: &Replica) {
        let (sender, receiver) = mpsc::channel();
        let told = self
            .platform
            .sandbox
            .watch(&replica.name, Box::new(move |exit| sender.send(exit).expect("the bench waits")));
        told.unwrap_or_else(|fault| panic!("{fault}"));
        receiver.recv_timeout(Duration::from_secs(120)).expect("the program ends");
    }

    /// Takes it away.
    pub fn remove(&mut self, replica: &Replica) {
        let name = &replica.name;
        let results = [
            step("remove jail and mounts", || self.platform.sandbox.remove(name)),
            step("remove network", || self.platform.network.detach(name)),
            step("destroy clone", || self.platform.storage.destroy_root(name)),
        ];
        results.into_iter().for_each(|result| result.unwrap_or_else(|fault| panic!("{fault}")));
        let _ = fs::remove_dir(self.config.root.join("run").join(name.to_string()));
        self.pool.give_back(name);
    }
}

impl Drop for Ground {
    fn drop(&mut self) {
        let undone = [self.platform.sandbox.teardown(), self.platform.network.teardown()];
        if !std::thread::panicking() {
            undone.into_iter().for_each(|result| result.unwrap_or_else(|fault| panic!("{fault}")));
        }
        command("zfs", &["destroy", "-R", &self.config.zfs.dataset]);
        let _ = fs::remove_dir_all(self.dir.path());
    }
}

/// Fork, exec, and waiting for the end of the same program, without a jail.
pub fn bare() -> Duration {
    let begun = Instant::now();
    command(PROGRAMS[0], &[]);
    begun.elapsed()
}

/// Runs a command that must succeed.
pub fn command(program: &str, arguments: &[&str]) {
    let status = Command::new(program).args(arguments).stdin(Stdio::null()).status().expect("running a command");
    assert!(status.success(), "{program} {}", arguments.join(" "));
}
