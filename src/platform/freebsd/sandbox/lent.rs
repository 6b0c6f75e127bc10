//! Snapshots lent to read-only replicas.
//!
//! ZFS mounts a snapshot once, and any number of replicas may run on it. So it is mounted in a place of its
//! own, each replica gets a read-only nullfs mount of that, and when the last of them is gone, so is it.

use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use sha2::{Digest, Sha256};

use super::super::mount::{self, Mount, Mounted};
use crate::fault::{Context, Result};

/// Not a replica's name: those have no dot.
const PLACE: &str = ".lent";

/// The snapshots that replicas below one `run_root` run on.
pub struct Lent {
    place: PathBuf,
    /// Held between a look at the mounts and the change that follows from it.
    turn: Mutex<()>,
}

impl Lent {
    /// Below `run_root`. Nothing is made before it is needed.
    pub fn new(run_root: &Path) -> Self {
        Self { place: run_root.join(PLACE), turn: Mutex::new(()) }
    }

    /// Shows `snapshot` on `root`, read-only.
    pub fn lend(&self, snapshot: &str, root: &Path) -> Result<()> {
        let _turn = self.turn.lock().unwrap_or_else(PoisonError::into_inner);
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
        let _turn = self.turn.lock().unwrap_or_else(PoisonError::into_inner);
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
