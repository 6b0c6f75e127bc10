//! The store's files: records of images, facts about layers, locks.
//!
//! ```text
//! refs/HEX.json     an Image; HEX is the SHA-256 of its reference's canonical form
//! facts/HEX.json    Facts of the layer with this diff-id
//! layers/HEX.json   a Layer that may be in storage, by chain-id; written before it is made
//! tmp/              what is being written; emptied at start
//! lock              shared: an image is being added; exclusive: layers are being removed
//! locks/HEX         exclusive: this layer is being made
//! ```

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use rustix::fs::{FlockOperation, flock};
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::fault::{Context, Fault, Kind, Result};
use crate::image::unpack::Facts;
use crate::image::{Digest, Image, Layer, Reference};

const DIRECTORIES: [&str; 5] = ["refs", "facts", "layers", "tmp", "locks"];
/// How long a removal waits for images that are being added.
const PATIENCE: Duration = Duration::from_secs(5);

/// The directory of the store.
#[derive(Debug, Clone)]
pub struct Files {
    root: PathBuf,
}

/// A lock that is held as long as this lives; the kernel gives it back when the process dies.
#[derive(Debug)]
pub struct Lock(#[expect(dead_code, reason = "closing it is what unlocks")] File);

impl Files {
    /// Opens the store's directory, making it if it is not there. Only root may look inside.
    pub fn open(root: PathBuf) -> Result<Self> {
        use std::os::unix::fs::DirBuilderExt;
        for directory in DIRECTORIES {
            let path = root.join(directory);
            let made = fs::DirBuilder::new().recursive(true).mode(0o700).create(&path);
            made.context(|| format!("cannot make {}", path.display()))?;
        }
        Ok(Self { root })
    }

    fn path(&self, directory: &str, digest: &Digest) -> PathBuf {
        self.root.join(directory).join(digest.hex()).with_extension("json")
    }

    fn image_path(&self, reference: &Reference) -> PathBuf {
        self.path("refs", &Digest::of(reference.canonical()))
    }

    /// The record of an image.
    pub fn image(&self, reference: &Reference) -> Result<Option<Image>> {
        read_json(&self.image_path(reference))
    }

    /// Records an image, replacing what had its name.
    pub fn keep_image(&self, image: &Image) -> Result<()> {
        self.write_json(&self.image_path(&image.reference), image)
    }

    /// Forgets an image; `false` if it was not there.
    pub fn forget_image(&self, reference: &Reference) -> Result<bool> {
        remove_file(&self.image_path(reference))
    }

    /// Every image.
    pub fn images(&self) -> Result<Vec<Image>> {
        self.read_all("refs")
    }

    /// What is known of a layer.
    pub fn facts(&self, diff_id: &Digest) -> Result<Option<Facts>> {
        read_json(&self.path("facts", diff_id))
    }

    /// Keeps what is known of a layer.
    pub fn keep_facts(&self, diff_id: &Digest, facts: &Facts) -> Result<()> {
        self.write_json(&self.path("facts", diff_id), facts)
    }

    /// Forgets what is known of a layer.
    pub fn forget_facts(&self, diff_id: &Digest) -> Result<()> {
        remove_file(&self.path("facts", diff_id)).map(|_| ())
    }

    /// Notes layers before they are made, so that one whose image was never finished is found again.
    pub fn note_layers<'a>(&self, layers: impl IntoIterator<Item = &'a Layer>) -> Result<()> {
        for layer in layers {
            let path = self.path("layers", &layer.chain_id);
            if !path.exists() {
                self.write_json(&path, layer)?;
            }
        }
        Ok(())
    }

    /// Every layer noted.
    pub fn layers(&self) -> Result<Vec<Layer>> {
        self.read_all("layers")
    }

    /// Takes back the note of a layer.
    pub fn forget_layer(&self, layer: &Layer) -> Result<()> {
        remove_file(&self.path("layers", &layer.chain_id)).map(|_| ())
    }

    /// The directory for what is being written.
    pub fn scratch_dir(&self) -> PathBuf {
        self.root.join("tmp")
    }

    /// A new file that has no name and goes when it is closed.
    pub fn scratch(&self) -> Result<File> {
        let (path, file) = self.temporary()?;
        fs::remove_file(&path).context(|| format!("cannot unlink {}", path.display()))?;
        Ok(file)
    }

    /// Empties `tmp`.
    pub fn clean(&self) -> Result<()> {
        for entry in self.entries("tmp")? {
            remove_file(&entry)?;
        }
        Ok(())
    }

    /// Says that an image is being added; layers are not removed meanwhile.
    pub fn lock_shared(&self) -> Result<Lock> {
        let file = self.lock_file(&self.root.join("lock"))?;
        flock(&file, FlockOperation::LockShared).map_err(io::Error::from).context(|| "cannot lock the image store")?;
        Ok(Lock(file))
    }

    /// Says that layers are being removed. Fails with `Busy` when images are being added for too long.
    pub fn lock_exclusive(&self) -> Result<Lock> {
        let file = self.lock_file(&self.root.join("lock"))?;
        let started = Instant::now();
        loop {
            match flock(&file, FlockOperation::NonBlockingLockExclusive) {
                Ok(()) => return Ok(Lock(file)),
                Err(rustix::io::Errno::WOULDBLOCK | rustix::io::Errno::INTR) if started.elapsed() < PATIENCE => {
                    std::thread::sleep(Duration::from_millis(50));
                }
                Err(rustix::io::Errno::WOULDBLOCK) => {
                    return Err(Fault::new(
                        Kind::Busy,
                        "images are being loaded or pulled; try again when that is done",
                    ));
                }
                Err(errno) => return Err(Fault::from(io::Error::from(errno)).within("cannot lock the image store")),
            }
        }
    }

    /// Waits until nobody else makes this layer, then keeps others from it.
    pub fn lock_layer(&self, diff_id: &Digest) -> Result<Lock> {
        let path = self.root.join("locks").join(diff_id.hex());
        let what = || format!("cannot lock layer {diff_id}");
        loop {
            let file = self.lock_file(&path)?;
            rustix::io::retry_on_intr(|| flock(&file, FlockOperation::LockExclusive))
                .map_err(io::Error::from)
                .context(what)?;
            // Whoever cleans up may have removed the file between opening and locking it.
            let same = fs::metadata(&path).is_ok_and(|m| file.metadata().is_ok_and(|own| own.ino() == m.ino()));
            if same {
                return Ok(Lock(file));
            }
        }
    }

    /// Removes the lock file of a layer; the caller holds the exclusive lock of the store.
    pub fn forget_lock(&self, diff_id: &Digest) -> Result<()> {
        remove_file(&self.root.join("locks").join(diff_id.hex())).map(|_| ())
    }

    fn lock_file(&self, path: &Path) -> Result<File> {
        let file = OpenOptions::new().create(true).truncate(false).write(true).mode(0o600).open(path);
        file.context(|| format!("cannot open {}", path.display()))
    }

    fn temporary(&self) -> Result<(PathBuf, File)> {
        static COUNT: AtomicU64 = AtomicU64::new(0);
        let count = COUNT.fetch_add(1, Ordering::Relaxed);
        let path = self.root.join("tmp").join(format!("{}-{count}", std::process::id()));
        // A dead process may have had this number.
        remove_file(&path)?;
        let file = OpenOptions::new().read(true).write(true).create_new(true).mode(0o600).open(&path);
        file.context(|| format!("cannot make {}", path.display())).map(|file| (path, file))
    }

    /// Writes to a temporary name, syncs, renames: a reader sees the old or the new, never a part.
    fn write_json(&self, path: &Path, value: &impl Serialize) -> Result<()> {
        let what = || format!("cannot write {}", path.display());
        let text = serde_json::to_vec(value).map_err(io::Error::from).context(what)?;
        let (temporary, mut file) = self.temporary()?;
        let written = (|| {
            file.write_all(&text)?;
            file.sync_all()?;
            fs::rename(&temporary, path)?;
            path.parent().map_or(Ok(()), |dir| File::open(dir)?.sync_all())
        })();
        written.context(what).map_err(|fault| fault.and_cleanup(remove_file(&temporary).map(|_| ())))
    }

    fn entries(&self, directory: &str) -> Result<Vec<PathBuf>> {
        let path = self.root.join(directory);
        let list = || fs::read_dir(&path)?.map(|entry| entry.map(|e| e.path())).collect::<io::Result<Vec<_>>>();
        list().context(|| format!("cannot list {}", path.display()))
    }

    fn read_all<T: DeserializeOwned>(&self, directory: &str) -> Result<Vec<T>> {
        let all = self.entries(directory)?.into_iter().map(|path| read_json(&path));
        all.filter_map(Result::transpose).collect()
    }
}

fn remove_file(path: &Path) -> Result<bool> {
    match fs::remove_file(path) {
        Ok(()) => Ok(true),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(error) => Err(Fault::from(error).within(format!("cannot remove {}", path.display()))),
    }
}

fn read_json<T: DeserializeOwned>(path: &Path) -> Result<Option<T>> {
    let bytes = match fs::read(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        other => other.context(|| format!("cannot read {}", path.display()))?,
    };
    let value = serde_json::from_slice(&bytes).map_err(io::Error::from);
    value.context(|| format!("{} is damaged; remove it and load or pull the image again", path.display())).map(Some)
}
