//! Snapshots lent to read-only replicas.
//!
//! ZFS mounts a snapshot once, and any number of replicas may run on it. So it is mounted in a place of its
//! own, each replica gets a read-only nullfs mount of that, and when the last of them is gone, so is it.

use std::fs::File;
use std::path::{Path, PathBuf};

use sha2::{Digest, Sha256};

use super::super::mount::{self, Mount, Mounted};
use crate::fault::{Context, Result};

/// Not a replica's name: those have no dot.
const PLACE: &str = ".lent";

/// The snapshots that replicas below one `run_root` run on.
pub struct Lent {
    run_root: PathBuf,
    place: PathBuf,
}

impl Lent {
    /// Below `run_root`. Nothing is made before it is needed.
    pub fn new(run_root: &Path) -> Self {
        Self { run_root: run_root.to_owned(), place: run_root.join(PLACE) }
    }

    /// Held between a look at the mounts and the change that follows from it: by one thread of one process, as the
    /// commands that a person types look beside the daemon. Nothing is there to change where the directory is not.
    fn turn(&self) -> Result<Option<File>> {
        let directory = match File::open(&self.run_root) {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
            opened => opened.context(|| format!("cannot open {}", self.run_root.display()))?,
        };
        directory.lock().context(|| format!("cannot lock {}", self.run_root.display()))?;
        Ok(Some(directory))
    }

    /// Shows `snapshot` on `root`, read-only.
    pub fn lend(&self, snapshot: &str, root: &Path) -> Result<()> {
        let _turn = self.turn()?;
        let mut shared = self.place.join(hex::encode(&Sha256::digest(snapshot)[..16]));
        // One question about the usual place: the list of all mounts grows with the replicas.
        if mount::from(&shared)?.as_deref() != Some(snapshot) {
            shared = match mount::all()?.into_iter().find(|there| there.fstype == "zfs" && there.from == snapshot) {
                Some(elsewhere) => elsewhere.on,
                None => mount_on(shared, snapshot)?,
            };
        }
        Mount::nullfs(&shared)?.read_only().at(root)
    }

    /// Unmounts those that no replica runs on.
    pub fn sweep(&self) -> Result<()> {
        let Some(_turn) = self.turn()? else { return Ok(()) };
        let mounts = mount::all()?;
        for shared in mounts.iter().filter(|mounted| mounted.on.starts_with(&self.place)) {
            let used = |other: &Mounted| other.fstype == "nullfs" && Path::new(&other.from) == shared.on;
            if !mounts.iter().any(used) {
                // Busy for a moment longer when its last program has only just died.
                mount::unmount(shared)?;
                std::fs::remove_dir(&shared.on).context(|| format!("cannot remove {}", shared.on.display()))?;
            }
        }
        // Goes with the last of them; while there are others it is not empty and stays.
        let _ = std::fs::remove_dir(&self.place);
        Ok(())
    }
}

fn mount_on(shared: PathBuf, snapshot: &str) -> Result<PathBuf> {
    std::fs::create_dir_all(&shared).context(|| format!("cannot make {}", shared.display()))?;
    Mount::zfs(snapshot)?.read_only().at(&shared)?;
    Ok(shared)
}
