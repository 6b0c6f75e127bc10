//! Images: from an archive and from a registry into storage, and a replica's root out of them.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use faas_jails::config::Config;
use faas_jails::function::{FunctionKey, ReplicaName};
use faas_jails::image::{Reference, Store};
use faas_jails::platform;
use faas_jails::storage::{Root, RootOptions};

use crate::process::{Process, mebibytes, memory};
use crate::report::{columns, heading, median, row};
use crate::support::daemon::{Daemon, Options};
use crate::support::image::Image;
use crate::support::registry::{Access, Registry};
use crate::tree;
use crate::zpool::{Pool, zfs};

const ROUNDS: usize = 3;
const CLONES: usize = 50;
const FIRST: &str = "example.test/tree:1";
const SECOND: &str = "example.test/tree:2";

pub fn run() {
    let (first, second) = (tree::image(1), tree::image(2));
    let shipped: usize = first.layers.iter().map(|layer| layer.gz.len()).sum();
    heading("images: into storage, reference: tar xzf of the same three layers at once, in the same file system");
    println!(
        "{} files, {} MB in three layers, shipped as {} MB of gzip (a factor of {:.1}).\n",
        tree::files(),
        tree::bytes() / 1_000_000,
        shipped / 1_000_000,
        tree::bytes() as f64 / shipped as f64,
    );
    columns(&["storage", "way", "median s", "of tar", "peak memory"]);
    let registry = Registry::start(Access::Anonymous);
    registry.push("tree", "1", &first);
    registry.push("tree", "2", &second);
    let place = tempfile::tempdir().expect("making a temporary directory");
    let material = Material::new(&first, &second, place.path(), registry);
    material.compare("overlay", &|| Daemon::with().without_images(), place.path(), ROUNDS, CLONES);
    on_zfs(&material);
}

/// On zfs-fuse, where ZFS is not in the kernel: its times say nothing about ZFS, the ratio to tar in the same file
/// system says something about this program.
fn on_zfs(material: &Material) {
    let Some(pool) = Pool::new(4096) else { return };
    let options = || {
        let dataset = format!("{}/fj{:x}", pool.name(), rand::random::<u32>());
        zfs(&["create", "-o", "canmount=off", "-o", "mountpoint=none", &dataset]);
        Daemon::with().without_images().zfs(&dataset)
    };
    let (beside, dataset) = (pool.dir().join("tar"), format!("{}/tar", pool.name()));
    zfs(&["create", "-o", "compression=on", "-o", &format!("mountpoint={}", beside.display()), &dataset]);
    match Path::new("/dev/zfs").exists() {
        true => material.compare("ZFS", &options, &beside, ROUNDS, CLONES),
        false => material.compare("zfs-fuse", &options, &beside, 1, 5),
    }
    zfs(&["destroy", "-r", &dataset]);
    pool.finish();
}

/// What one way takes.
struct Row {
    way: &'static str,
    seconds: Vec<f64>,
    peak: Vec<f64>,
}

impl Row {
    fn add(&mut self, seconds: f64, peak: u64) {
        self.seconds.push(seconds);
        self.peak.push(peak as f64);
    }
}

/// What other programs do with an image.
#[derive(Clone, Copy)]
enum Peer {
    Unpack,
    Pull,
}

/// The images as files and in a registry.
struct Material {
    layers: Vec<PathBuf>,
    archives: [PathBuf; 2],
    registry: Registry,
}

impl Material {
    fn new(first: &Image, second: &Image, place: &Path, registry: Registry) -> Self {
        let file = |name: String, content: &[u8]| {
            let path = place.join(name);
            fs::write(&path, content).expect("writing the benchmark's material");
            path
        };
        let layers = first.layers.iter().enumerate();
        let layers = layers.map(|(n, layer)| file(format!("{n}.tgz"), &layer.gz)).collect();
        let archives = [("1.tar", first, FIRST), ("2.tar", second, SECOND)];
        let archives = archives.map(|(name, image, tag)| file(name.to_owned(), &image.oci_archive(tag)));
        Self { layers, archives, registry }
    }

    /// Compares on one kind of storage. `beside` is a directory on the same file system.
    fn compare(&self, storage: &str, options: &dyn Fn() -> Options, beside: &Path, rounds: usize, clones: usize) {
        let mut rows: Vec<Row> = Vec::new();
        let mut note = |way: &'static str, (seconds, peak): (f64, u64)| match rows.iter_mut().find(|r| r.way == way) {
            Some(row) => row.add(seconds, peak),
            None => rows.push(Row { way, seconds: vec![seconds], peak: vec![peak as f64] }),
        };
        let mut roots = Vec::new();
        for _ in 0..rounds {
            note("tar xzf", (self.tar(&beside.join("unpacked"), false), 0));
            // As an image in the store survives a loss of power.
            note("tar xzf, then sync -f", (self.tar(&beside.join("unpacked"), true), 0));
            let daemon = options().prepare();
            let load = |archive: &Path| verb(&daemon, &["image", "load", &archive.display().to_string()]);
            note("image load, OCI archive", load(&self.archives[0]));
            note("image load, two of three layers are there", load(&self.archives[1]));
            roots.push(cloning(&daemon, FIRST, clones));
            drop(daemon);
            let daemon = options().prepare();
            note(
                "image pull, registry on loopback",
                verb(&daemon, &["image", "pull", &self.registry.name("tree", "1")]),
            );
            drop(daemon);
            for (way, peer) in
                [("umoci unpack, OCI layout", Peer::Unpack), ("skopeo copy, then umoci unpack", Peer::Pull)]
            {
                self.peer(peer, beside).into_iter().for_each(|seen| note(way, seen));
            }
        }
        let reference = median(rows[0].seconds.iter().copied());
        for Row { way, seconds, peak } in rows {
            let (middle, peak) = (median(seconds), median(peak) as u64);
            let peak = if peak == 0 { String::new() } else { mebibytes(peak) };
            row(&[&storage, &way, &format!("{middle:.2}"), &format!("{:.2}", middle / reference), &peak]);
        }
        row(&[&storage, &"a root: clone and mount", &format!("{:.4}", median(roots)), &"", &""]);
    }

    /// What others do with the same image in the same file system; nothing where they are not installed.
    fn peer(&self, peer: Peer, beside: &Path) -> Option<(f64, u64)> {
        let (layout, bundle) = (beside.join("layout"), beside.join("bundle"));
        let copy = |from: &str| {
            let to = format!("oci:{}:1", layout.display());
            program("skopeo", &["--insecure-policy", "copy", "-q", "--src-tls-verify=false", from, &to])
        };
        let unpack = || {
            let image = format!("{}:1", layout.display());
            program("umoci", &["unpack", "--image", &image, &bundle.display().to_string()])
        };
        let seen = match peer {
            Peer::Unpack => copy(&format!("oci-archive:{}", self.archives[0].display())).and_then(|_| unpack()),
            Peer::Pull => copy(&format!("docker://{}", self.registry.name("tree", "1")))
                .and_then(|copied| unpack().map(|unpacked| (copied.0 + unpacked.0, copied.1.max(unpacked.1)))),
        };
        for made in [layout, bundle] {
            let _ = fs::remove_dir_all(made);
        }
        seen
    }

    /// Seconds to unpack all layers at once, and to have them on the disk when `synced`.
    fn tar(&self, into: &Path, synced: bool) -> f64 {
        sync();
        let begun = Instant::now();
        let mut processes: Vec<Process> = Vec::new();
        for (n, layer) in self.layers.iter().enumerate() {
            let into = into.join(n.to_string());
            fs::create_dir_all(&into).expect("making a directory");
            let mut command = Command::new("tar");
            command.arg("xzf").arg(layer).arg("-C").arg(into);
            processes.push(Process::start(command));
        }
        for process in &mut processes {
            assert!(wait(process, Duration::from_millis(2), || ()), "tar failed");
        }
        if synced {
            let status = Command::new("sync").arg("-f").arg(into).status().expect("running sync");
            assert!(status.success(), "sync failed");
        }
        let took = begun.elapsed().as_secs_f64();
        fs::remove_dir_all(into).expect("removing what tar has unpacked");
        took
    }
}

/// Runs a verb: seconds, and the most memory it had.
fn verb(daemon: &Daemon, arguments: &[&str]) -> (f64, u64) {
    let mut command = daemon.command();
    command.args(arguments);
    timed(command, &format!("faas-jails {}", arguments.join(" ")))
}

/// Runs another program in the same way, if it is installed.
fn program(name: &str, arguments: &[&str]) -> Option<(f64, u64)> {
    Command::new(name).arg("--version").output().ok()?;
    let mut command = Command::new(name);
    command.args(arguments);
    Some(timed(command, &format!("{name} {}", arguments.join(" "))))
}

fn timed(command: Command, what: &str) -> (f64, u64) {
    sync();
    let begun = Instant::now();
    let mut process = Process::start(command);
    let (pid, mut peak) = (process.pid(), 0);
    let well = wait(&mut process, Duration::from_millis(5), || peak = memory(pid, "status", "VmHWM").unwrap_or(peak));
    let took = begun.elapsed().as_secs_f64();
    assert!(well, "{what} failed");
    (took, peak)
}

/// Waits for the end of a process, at most five minutes, and looks at it meanwhile.
fn wait(process: &mut Process, pause: Duration, mut look: impl FnMut()) -> bool {
    let begun = Instant::now();
    loop {
        look();
        if let Some(well) = process.ended() {
            return well;
        }
        assert!(begun.elapsed() < Duration::from_secs(300), "a process does not end");
        std::thread::sleep(pause);
    }
}

/// Nobody pays for what another has left to be written.
fn sync() {
    // SAFETY: sync has no preconditions and cannot fail.
    unsafe { libc::sync() };
}

/// Seconds to make a replica's root and mount it, the median of some.
fn cloning(daemon: &Daemon, image: &str, times: usize) -> f64 {
    let config = Config::load(Some(&daemon.config)).expect("the benchmark's configuration");
    let platform = platform::open(&config).expect("opening the platform");
    let store = Store::open(&config.root, platform.storage.clone(), config.images.settings()).expect("the store");
    let reference: Reference = image.parse().expect("a reference");
    let image = store.get(&reference).expect("looking for the image").expect("the image was loaded");
    let point = daemon.scratch().join("mounted");
    fs::create_dir_all(&point).expect("making a mount point");
    let key = FunctionKey { namespace: config.namespace.clone(), name: "bench".parse().expect("a name") };
    let once = |_| {
        let replica = ReplicaName::new(&config.realm, &key);
        let begun = Instant::now();
        let root = platform.storage.clone_root(&image.layers, &replica, &RootOptions::default()).expect("a root");
        let mounted = mount(&root, &point);
        let took = begun.elapsed().as_secs_f64();
        if mounted {
            unmount(&point);
        }
        platform.storage.destroy_root(&replica).expect("removing the root");
        took
    };
    median((0..times).map(once))
}

/// Mounts what the sandbox would mount, and tells whether there was anything; a directory is mounted already.
#[cfg(target_os = "linux")]
fn mount(root: &Root, point: &Path) -> bool {
    use rustix::mount::{MountFlags, mount};
    let Root::Overlay { lower, upper: Some((upper, work)) } = root else { return false };
    let lower: Vec<_> = lower.iter().map(|dir| dir.display().to_string()).collect();
    let data = format!("lowerdir={},upperdir={},workdir={}", lower.join(":"), upper.display(), work.display());
    let data = std::ffi::CString::new(data).expect("no NUL in a path");
    mount("overlay", point, "overlay", MountFlags::empty(), data.as_c_str()).expect("mounting the root");
    true
}

#[cfg(target_os = "linux")]
fn unmount(point: &Path) {
    rustix::mount::unmount(point, rustix::mount::UnmountFlags::empty()).expect("unmounting the root");
}

/// Only ZFS there, which mounts by itself or not at all.
#[cfg(not(target_os = "linux"))]
fn mount(_: &Root, _: &Path) -> bool {
    false
}

#[cfg(not(target_os = "linux"))]
fn unmount(_: &Path) {}
