//! A directory for one build, removed with it; and the sweeping of those that a crash left.

use std::fs::{self, DirBuilder, File};
use std::os::unix::fs::{DirBuilderExt, PermissionsExt, chown};
use std::path::{Path, PathBuf};

use uuid::Uuid;

use crate::fault::{Context, Fault, Kind, Result};
use crate::files;
use crate::job::NOBODY;

const LOCK: &str = "lock";

/// A new directory below one that is root's alone. Goes when it is dropped.
#[derive(Debug)]
pub struct Workspace {
    dir: PathBuf,
    _lock: File,
}

impl Workspace {
    /// Makes one in `parent`.
    pub fn make(parent: &Path) -> Result<Self> {
        let dir = parent.join(Uuid::new_v4().simple().to_string());
        let what = || format!("cannot make {}", dir.display());
        private(&dir)?;
        let lock = File::create(dir.join(LOCK)).context(what)?;
        lock.try_lock().map_err(|e| Fault::new(Kind::Busy, e.to_string())).context(what)?;
        Ok(Self { dir, _lock: lock })
    }

    /// A path in it.
    pub fn path(&self, name: &str) -> PathBuf {
        self.dir.join(name)
    }

    /// Makes a directory in it that builds may write to.
    pub fn writable(&self, name: &str) -> Result<PathBuf> {
        let dir = self.path(name);
        writable(&dir)?;
        Ok(dir)
    }
}

impl Drop for Workspace {
    fn drop(&mut self) {
        if let Err(fault) = files::remove_tree(&self.dir) {
            tracing::error!(%fault, "a build's directory is left; the next start of faas-jails tries again");
        }
    }
}

/// Makes a directory, and those above it, that only root may enter.
pub fn private(dir: &Path) -> Result<()> {
    let made = DirBuilder::new().recursive(true).mode(0o700).create(dir);
    made.context(|| format!("cannot make {}", dir.display()))
}

/// Makes a directory that all may read.
pub fn open_to_all(dir: &Path) -> Result<()> {
    let made = fs::create_dir_all(dir).and_then(|()| fs::set_permissions(dir, fs::Permissions::from_mode(0o755)));
    made.context(|| format!("cannot make {}", dir.display()))
}

/// Makes a directory that belongs to those who build.
pub fn writable(dir: &Path) -> Result<()> {
    fs::create_dir_all(dir)
        .and_then(|()| chown(dir, Some(NOBODY), Some(NOBODY)))
        .context(|| format!("cannot make {}", dir.display()))
}

/// Removes what dead processes left in `parent`.
pub fn sweep(parent: &Path) -> Result<()> {
    for name in files::names(parent)? {
        let dir = parent.join(name);
        let alive = File::open(dir.join(LOCK)).is_ok_and(|lock| lock.try_lock_shared().is_err());
        if !alive {
            files::remove_tree(&dir)?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_workspace_goes_by_itself_and_a_dead_one_is_swept() {
        let temp = tempfile::tempdir().unwrap();
        let alive = Workspace::make(temp.path()).unwrap();
        fs::create_dir_all(temp.path().join("dead/sub")).unwrap();
        sweep(temp.path()).unwrap();
        assert!(alive.path("lock").exists());
        assert!(!temp.path().join("dead").exists());
        drop(alive);
        assert_eq!(files::names(temp.path()).unwrap(), Vec::<String>::new());
    }
}
