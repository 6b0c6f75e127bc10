//! Where datasets are mounted, and by whom. Two styles; everything above is the same for both.

use std::fs::DirBuilder;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

use super::command;
use super::names::{Container, Parent};
use super::refusal::patiently;
use crate::fault::{Context, Fault, Result};

/// Mounts and unmounts, for [`Mounting::Legacy`]: given by the operating system's own code.
pub trait Mounter: Send + Sync {
    /// Mounts a ZFS filesystem with `mountpoint=legacy` on a directory, writable, without setuid.
    fn mount(&self, dataset: &str, directory: &Path) -> Result<()>;

    /// Takes away what is mounted on a directory. Nothing mounted there is success; `Busy` when it is in use.
    fn unmount(&self, directory: &Path) -> Result<()>;

    /// Is this filesystem or snapshot mounted anywhere on the host?
    fn is_mounted(&self, name: &str) -> Result<bool>;
}

/// How datasets become directories.
pub enum Mounting {
    /// `mountpoint=legacy`: nothing is mounted unless asked for. Roots are handed out by name, as
    /// [`crate::storage::Root::Zfs`], and the sandbox mounts them; layers that are being unpacked are mounted
    /// below `staging`. For FreeBSD.
    Legacy {
        /// Directory for the mount points of staged layers.
        staging: PathBuf,
        /// Does the mounting.
        mounter: Box<dyn Mounter>,
    },
    /// `mountpoint=<directory>/...`, mounted by zfs(8). Roots are handed out as directories. For zfs-fuse, whose
    /// filesystems nothing else can mount.
    Path(PathBuf),
}

impl Mounting {
    /// The directory that a dataset of a container is mounted on, when it is.
    pub(super) fn directory(&self, container: Container, name: &str) -> PathBuf {
        match self {
            Mounting::Legacy { staging, .. } => staging.join(name),
            Mounting::Path(base) => base.join(container.as_str()).join(name),
        }
    }

    /// The `mountpoint` property of a container; what is in it inherits it.
    pub(super) fn property(&self, container: Container) -> Result<String> {
        let Mounting::Path(base) = self else { return Ok("legacy".to_owned()) };
        let directory = base.join(container.as_str());
        match directory.to_str() {
            Some(text) if directory.is_absolute() => Ok(text.to_owned()),
            _ => Err(Fault::invalid(format!(
                "directory {} cannot hold ZFS mount points: give an absolute path in UTF-8",
                directory.display()
            ))),
        }
    }

    /// Makes the directories that mount points are made in, closed to other users: what is below was not
    /// written by this host.
    pub(super) fn prepare(&self) -> Result<()> {
        let directories = match self {
            Mounting::Legacy { staging, .. } => vec![staging.clone()],
            Mounting::Path(base) => Container::ALL.map(|c| base.join(c.as_str())).to_vec(),
        };
        directories.iter().try_for_each(|directory| make_directory(directory))
    }

    /// Mounts a staged layer.
    pub(super) fn mount_staging(&self, parent: &Parent, name: &str) -> Result<PathBuf> {
        let dataset = parent.child(Container::Staging, name);
        let directory = self.directory(Container::Staging, name);
        match self {
            Mounting::Legacy { mounter, .. } => {
                make_directory(&directory)?;
                mounter.mount(&dataset, &directory)?;
            }
            Mounting::Path(_) => mount(parent, &dataset, &[])?,
        }
        Ok(directory)
    }

    /// Unmounts whatever this storage has mounted of a dataset, and removes the mount point. Where roots are
    /// handed out by name, the sandbox unmounts them.
    pub(super) fn unmount(&self, parent: &Parent, container: Container, name: &str) -> Result<()> {
        let dataset = parent.child(container, name);
        let directory = self.directory(container, name);
        match self {
            Mounting::Legacy { .. } if container != Container::Staging => return Ok(()),
            Mounting::Legacy { mounter, .. } => mounter.unmount(&directory)?,
            Mounting::Path(_) => patiently(|| command::unmount(&dataset))
                .map_err(|refusal| refusal.fault(format!("cannot unmount {dataset}"), parent.pool()))?,
        }
        match std::fs::remove_dir(&directory) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                Err(error).context(|| format!("cannot remove the mount point {}", directory.display()))
            }
            _ => Ok(()),
        }
    }
}

/// Mounts by zfs(8).
pub(super) fn mount(parent: &Parent, dataset: &str, options: &[&str]) -> Result<()> {
    command::mount(dataset, options).map_err(|refusal| refusal.fault(format!("cannot mount {dataset}"), parent.pool()))
}

/// Makes a directory and its parents, for root only.
fn make_directory(directory: &Path) -> Result<()> {
    DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(directory)
        .context(|| format!("cannot make directory {}", directory.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mount_points_are_absolute() {
        assert!(Mounting::Path("relative".into()).property(Container::Roots).is_err());
        assert_eq!(Mounting::Path("/m".into()).property(Container::Roots).unwrap(), "/m/roots");
    }
}
