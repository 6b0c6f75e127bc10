//! [`OverlayStorage`]: a layer is a directory named by its diff-id, a root is what overlayfs joins from them.
//!
//! ```text
//! <root>/layers/<diff-id>          complete layers, each on its own: no layer waits for its parent
//! <root>/staging/<realm>.<random>  layers being unpacked, roots being made; renamed into place
//! <root>/roots/<replica>/          layers.json (what it stands on), upper/, work/
//! <root>/trash/<realm>.<random>    on its way out
//! <root>/lock                      held while roots are made and layers removed
//! ```
//!
//! One directory can serve several daemons with realms of their own.

use std::fs::{self, File};
use std::io;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};

use rustix::fs::{FlockOperation, XattrFlags};
use uuid::Uuid;

use super::trash::Trash;
use crate::fault::{Context, Fault, Kind, Result};
use crate::function::{Realm, ReplicaName};
use crate::image::{Digest, Layer};
use crate::storage::{Inventory, LayerOnDisk, Root, RootOptions, Staging, Storage, Whiteouts};

/// Where a layer remembers its size. Processes without CAP_SYS_ADMIN do not see trusted attributes (xattr(7)).
const SIZE: &str = "trusted.faas-jails.bytes";
const RECORD: &str = "layers.json";

/// Layers and roots under one directory. Cannot limit what a replica writes: a root with a quota is refused.
#[derive(Debug)]
pub struct OverlayStorage {
    root: PathBuf,
    realm: Realm,
    trash: Trash,
}

impl OverlayStorage {
    /// Uses (and makes) the directory `root`, on a filesystem that overlayfs takes for its upper directory.
    pub fn new(root: PathBuf, realm: Realm) -> Result<Self> {
        let root = std::path::absolute(&root).context(|| format!("cannot use directory {}", root.display()))?;
        for dir in ["layers", "staging", "roots", "trash"] {
            let dir = root.join(dir);
            fs::create_dir_all(&dir).context(|| format!("cannot make directory {}", dir.display()))?;
        }
        // Layers hold other people's files; nobody but root has business here.
        fs::set_permissions(&root, fs::Permissions::from_mode(0o700))
            .context(|| format!("cannot protect directory {}", root.display()))?;
        let trash = Trash::new(root.join("trash"), format!("{realm}."));
        Ok(Self { root, realm, trash })
    }

    fn layer_dir(&self, diff_id: &Digest) -> PathBuf {
        self.root.join("layers").join(diff_id.hex())
    }

    fn root_dir(&self, replica: &ReplicaName) -> PathBuf {
        self.root.join("roots").join(replica.to_string())
    }

    fn new_staging(&self) -> Result<PathBuf> {
        let dir = self.root.join("staging").join(format!("{}.{}", self.realm, Uuid::new_v4().simple()));
        fs::create_dir(&dir).context(|| format!("cannot make directory {}", dir.display()))?;
        Ok(dir)
    }

    /// Held until the file is dropped. Keeps layers from going while a root is being made on them.
    fn lock(&self) -> Result<File> {
        let path = self.root.join("lock");
        let file = File::create(&path).context(|| format!("cannot open {}", path.display()))?;
        rustix::fs::flock(&file, FlockOperation::LockExclusive)
            .context(|| format!("cannot lock {}", path.display()))?;
        Ok(file)
    }

    fn fill_root(&self, dir: &Path, layers: &[Layer], options: &RootOptions) -> Result<()> {
        let ids: Vec<&Digest> = layers.iter().map(|layer| &layer.diff_id).collect();
        let record = serde_json::to_vec(&ids).map_err(io::Error::from)?;
        fs::write(dir.join(RECORD), record)?;
        if !options.read_only {
            let upper = dir.join("upper");
            fs::create_dir(&upper)?;
            fs::create_dir(dir.join("work"))?;
            // The top of the tree looks as the image wants it.
            if let Some(top) = layers.last() {
                let like = fs::metadata(self.layer_dir(&top.diff_id))?;
                std::os::unix::fs::chown(&upper, Some(like.uid()), Some(like.gid()))?;
                fs::set_permissions(&upper, like.permissions())?;
            }
        }
        Ok(())
    }

    fn make_root(&self, layers: &[Layer], replica: &ReplicaName, options: &RootOptions) -> Result<()> {
        let _lock = self.lock()?;
        let dir = self.root_dir(replica);
        if dir.exists() {
            return Err(Fault::new(Kind::Busy, format!("{} exists already", dir.display())));
        }
        for layer in layers {
            if !self.has(layer)? {
                return Err(Fault::not_found(format!("layer {} is not in {}", layer.diff_id, self.root.display())));
            }
        }
        let staging = self.new_staging()?;
        self.fill_root(&staging, layers, options)
            .and_then(|()| fs::rename(&staging, &dir).map_err(Fault::from))
            .map_err(|fault| fault.and_cleanup(self.trash.delete(&staging)))
    }

    /// The first root that stands on this layer.
    fn user_of(&self, layer: &Layer) -> Result<Option<String>> {
        for name in names(&self.root.join("roots"))? {
            let record = self.root.join("roots").join(&name).join(RECORD);
            let bytes = match fs::read(&record) {
                Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
                read => read.context(|| format!("cannot read {}", record.display()))?,
            };
            let ids: Vec<Digest> = serde_json::from_slice(&bytes)
                .map_err(io::Error::from)
                .context(|| format!("cannot read {}", record.display()))?;
            if ids.contains(&layer.diff_id) {
                return Ok(Some(name));
            }
        }
        Ok(None)
    }
}

impl Storage for OverlayStorage {
    fn has(&self, layer: &Layer) -> Result<bool> {
        let dir = self.layer_dir(&layer.diff_id);
        dir.try_exists().context(|| format!("cannot look up {}", dir.display()))
    }

    fn stage(&self, layer: &Layer) -> Result<Staging> {
        let dir = self.new_staging()?;
        fs::set_permissions(&dir, fs::Permissions::from_mode(0o755))
            .context(|| format!("cannot set the mode of {}", dir.display()))?;
        Ok(Staging { layer: layer.clone(), dir, whiteouts: Whiteouts::Overlay })
    }

    fn commit(&self, staging: Staging) -> Result<()> {
        let target = self.layer_dir(&staging.layer.diff_id);
        if target.exists() {
            return self.abort(staging);
        }
        let place = || -> Result<()> {
            let bytes = disk_usage(&staging.dir)?;
            match rustix::fs::setxattr(&staging.dir, SIZE, bytes.to_string().as_bytes(), XattrFlags::empty()) {
                Ok(()) | Err(rustix::io::Errno::NOTSUP) => {}
                Err(errno) => return Err(errno.into()),
            }
            rustix::fs::syncfs(File::open(&staging.dir)?)?;
            fs::rename(&staging.dir, &target)?;
            File::open(self.root.join("layers"))?.sync_all()?;
            Ok(())
        };
        match place() {
            Err(_) if target.exists() => self.abort(staging), // Another thread brought the same layer.
            result => result.context(|| format!("cannot keep layer {}", staging.layer.diff_id)),
        }
    }

    fn abort(&self, staging: Staging) -> Result<()> {
        self.trash.delete(&staging.dir)
    }

    fn clone_root(&self, layers: &[Layer], replica: &ReplicaName, options: &RootOptions) -> Result<Root> {
        if options.quota.is_some() && !options.read_only {
            return Err(Fault::new(
                Kind::Unsupported,
                "overlay storage cannot limit what a replica writes to its disk; leave the limit out, or use \
                 storage = \"zfs\" or a read-only root",
            ));
        }
        self.make_root(layers, replica, options).context(|| format!("cannot make a root for {replica}"))?;
        let dir = self.root_dir(replica);
        let lower = layers.iter().rev().map(|layer| self.layer_dir(&layer.diff_id)).collect();
        let upper = (!options.read_only).then(|| (dir.join("upper"), dir.join("work")));
        Ok(Root::Overlay { lower, upper })
    }

    fn destroy_root(&self, replica: &ReplicaName) -> Result<()> {
        self.trash.delete(&self.root_dir(replica))
    }

    fn remove_layer(&self, layer: &Layer) -> Result<()> {
        let taken = {
            let _lock = self.lock()?;
            if let Some(root) = self.user_of(layer)? {
                return Err(Fault::new(Kind::Busy, format!("layer {} is in use by replica {root}", layer.diff_id)));
            }
            self.trash.take(&self.layer_dir(&layer.diff_id))?
        };
        taken.map_or(Ok(()), |taken| self.trash.finish(taken))
    }

    fn inventory(&self) -> Result<Inventory> {
        let roots = names(&self.root.join("roots"))?
            .iter()
            .filter_map(|name| name.parse::<ReplicaName>().ok())
            .filter(|replica| *replica.realm() == self.realm)
            .collect();
        let layers = names(&self.root.join("layers"))?
            .into_iter()
            .map(|hex| LayerOnDisk {
                bytes: remembered(&self.root.join("layers").join(&hex)),
                id: format!("sha256:{hex}"),
            })
            .collect();
        Ok(Inventory { roots, layers })
    }

    fn recover(&self) -> Result<()> {
        let staging = self.root.join("staging");
        let own = format!("{}.", self.realm);
        for name in names(&staging)?.iter().filter(|name| name.starts_with(&own)) {
            self.trash.delete(&staging.join(name))?;
        }
        self.trash.empty()
    }
}

fn names(dir: &Path) -> Result<Vec<String>> {
    let read = || -> io::Result<Vec<String>> {
        fs::read_dir(dir)?.map(|entry| Ok(entry?.file_name().to_string_lossy().into_owned())).collect()
    };
    read().context(|| format!("cannot list {}", dir.display()))
}

fn remembered(layer: &Path) -> Option<u64> {
    let mut buffer = [0; 20];
    let length = rustix::fs::getxattr(layer, SIZE, &mut buffer[..]).ok()?;
    std::str::from_utf8(buffer.get(..length)?).ok()?.parse().ok()
}

/// Bytes that a tree occupies. A file's blocks are shared out over its names.
fn disk_usage(tree: &Path) -> io::Result<u64> {
    let mut bytes = 0;
    let mut waiting = vec![tree.to_owned()];
    while let Some(dir) = waiting.pop() {
        for entry in fs::read_dir(dir)? {
            let entry = entry?;
            let metadata = entry.metadata()?;
            let names = if metadata.is_dir() { 1 } else { metadata.nlink().max(1) };
            bytes += metadata.blocks() * 512 / names;
            if metadata.is_dir() {
                waiting.push(entry.path());
            }
        }
    }
    Ok(bytes)
}
