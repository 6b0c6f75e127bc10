//! Mounting for [`crate::platform::zfs`], by nmount(2).

use std::path::Path;

use super::mount::{self, Mount};
use crate::fault::Result;
use crate::platform::zfs::Mounter;

/// Mounts datasets whose `mountpoint` is `legacy`.
#[derive(Debug, Clone, Copy, Default)]
pub struct Nmount;

impl Mounter for Nmount {
    fn mount(&self, dataset: &str, directory: &Path) -> Result<()> {
        Mount::zfs(dataset)?.at(directory)
    }

    fn unmount(&self, directory: &Path) -> Result<()> {
        mount::unmount_all(directory)
    }

    fn is_mounted(&self, name: &str) -> Result<bool> {
        Ok(mount::list(Path::new("/"))?.iter().any(|mounted| mounted.fstype == "zfs" && mounted.from == name))
    }
}
