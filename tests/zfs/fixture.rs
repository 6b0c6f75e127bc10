//! A storage on a new pool, in every style that this system has, and images to put into it.

use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use faas_jails::function::{FunctionKey, ReplicaName};
use faas_jails::image::{Digest, Layer};
use faas_jails::platform::zfs::{Choice, Mounting, Settings, ZfsStorage};
use faas_jails::storage::{Root, Storage};

use crate::zpool::{self, Pool};

#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Style {
    /// Directories, zfs(8).
    Path,
    /// Names, zfs(8).
    #[cfg_attr(not(target_os = "freebsd"), expect(dead_code, reason = "mounting by name is FreeBSD's"))]
    Legacy,
    /// Names, libzfs_core.
    Core,
}

#[cfg(target_os = "freebsd")]
const STYLES: &[Style] = &[Style::Path, Style::Legacy, Style::Core];

#[cfg(not(target_os = "freebsd"))]
const STYLES: &[Style] = &[Style::Path];

pub struct Fixture {
    pub pool: Pool,
    pub storage: ZfsStorage,
    pub style: Style,
    datasets: Vec<String>,
    snapshots: Mutex<()>,
}

/// Runs a test once for each style, each on its own pool, and checks that it leaves nothing.
pub fn each(mebibytes: u64, test: impl Fn(&Fixture)) {
    for style in STYLES {
        let Some(fixture) = Fixture::new(mebibytes, *style) else { return };
        test(&fixture);
        fixture.finish();
    }
}

impl Fixture {
    pub fn new(mebibytes: u64, style: Style) -> Option<Self> {
        let pool = Pool::new(mebibytes)?;
        zpool::zfs(&["create", "-o", "canmount=off", &format!("{}/fj", pool.name())]);
        let storage = open(&pool, style, "fj");
        if style == Style::Core {
            assert!(storage.engine().starts_with("libzfs_core"), "libzfs_core does not load");
        }
        let datasets = pool.datasets();
        Some(Self { pool, storage, style, datasets, snapshots: Mutex::default() })
    }

    /// Another daemon's storage on the same pool; or the same one's after a restart.
    pub fn reopen(&self, realm: &str) -> ZfsStorage {
        open(&self.pool, self.style, realm)
    }

    /// The full name of something below the parent.
    pub fn dataset(&self, below: &str) -> String {
        format!("{}/fj/{below}", self.pool.name())
    }

    /// Stages a layer, writes one file of its name into it, commits it.
    pub fn load(&self, layer: &Layer, name: &str, mebibytes: usize) {
        let staging = self.storage.stage(layer).unwrap();
        std::fs::write(staging.dir.join(name), noise(mebibytes)).unwrap();
        self.storage.commit(staging).unwrap();
    }

    /// Looks into a root as a sandbox would.
    pub fn enter<T>(&self, root: &Root, look: impl FnOnce(&Path) -> T) -> T {
        match root {
            Root::Directory(directory) => look(directory),
            Root::Zfs(name) => {
                // A snapshot is mounted once; sandboxes share that mount.
                let _turn = name.contains('@').then(|| self.snapshots.lock().unwrap_or_else(PoisonError::into_inner));
                let directory = self.pool.dir().join(format!("root{:x}", rand::random::<u32>()));
                std::fs::create_dir(&directory).unwrap();
                zpool::run("mount", &["-t", "zfs", name, directory.to_str().unwrap()]);
                let result = look(&directory);
                zpool::run("umount", &[directory.to_str().unwrap()]);
                std::fs::remove_dir(&directory).unwrap();
                result
            }
            Root::Overlay { .. } => panic!("ZFS gave an overlay"),
        }
    }

    /// Nothing but what was there at first, and nothing mounted.
    pub fn assert_empty(&self) {
        let is_empty_layer = |name: &String| name.contains("/layers/empty");
        let left: Vec<String> = self.pool.datasets().into_iter().filter(|name| !is_empty_layer(name)).collect();
        assert_eq!(left, self.datasets);
        assert_eq!(self.pool.mounts().iter().filter(|line| line.contains("/fj/")).collect::<Vec<_>>(), [""; 0]);
        let directories = walk(&self.pool.dir());
        assert_eq!(directories, self.containers());
    }

    fn containers(&self) -> Vec<PathBuf> {
        let base = self.pool.dir().join("m");
        match self.style {
            Style::Path => [base.clone(), base.join("layers"), base.join("roots"), base.join("staging")].to_vec(),
            _ => vec![base],
        }
    }

    pub fn finish(self) {
        self.assert_empty();
        self.pool.finish();
    }
}

fn open(pool: &Pool, style: Style, realm: &str) -> ZfsStorage {
    let base = pool.dir().join("m");
    let mounting = match style {
        Style::Path => Mounting::Path(base),
        _ => by_name(base),
    };
    let engine = if style == Style::Core { Choice::Best } else { Choice::Command };
    let parent = format!("{}/fj", pool.name()).parse().unwrap();
    ZfsStorage::open(Settings { parent, realm: realm.parse().unwrap(), mounting, engine }).unwrap()
}

#[cfg(target_os = "freebsd")]
fn by_name(staging: PathBuf) -> Mounting {
    Mounting::Legacy { staging, mounter: Box::new(faas_jails::platform::freebsd::zfs::Nmount) }
}

#[cfg(not(target_os = "freebsd"))]
fn by_name(_: PathBuf) -> Mounting {
    unreachable!("not in STYLES")
}

/// Directories below a directory, sorted.
fn walk(dir: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(dir).unwrap().map(Result::unwrap) {
        if entry.file_type().unwrap().is_dir() {
            found.push(entry.path());
            found.extend(walk(&entry.path()));
        }
    }
    found.sort();
    found
}

/// Bytes that do not compress.
pub fn noise(mebibytes: usize) -> Vec<u8> {
    use rand::RngCore;
    let mut bytes = vec![0; mebibytes << 20];
    rand::rng().fill_bytes(&mut bytes);
    bytes
}

/// Layers above one another, named by what is in them.
pub fn chain(names: &[&str]) -> Vec<Layer> {
    let mut layers: Vec<Layer> = Vec::new();
    for name in names {
        let parent = layers.last().map(|layer| layer.chain_id.clone());
        let diff_id = Digest::of(name);
        // OCI image-spec, config.md, "Layer ChainID".
        let chain_id = parent.as_ref().map_or(diff_id.clone(), |below| Digest::of(format!("{below} {diff_id}")));
        layers.push(Layer { diff_id, chain_id, parent });
    }
    layers
}

/// A new replica of a function in the default realm.
pub fn replica(function: &str) -> ReplicaName {
    let key = FunctionKey { namespace: "openfaas-fn".parse().unwrap(), name: function.parse().unwrap() };
    ReplicaName::new(&"fj".parse().unwrap(), &key)
}
