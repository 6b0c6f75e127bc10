//! Places that mounts cover, made in a layer before it becomes a snapshot, so that a read-only replica can run
//! on the snapshot itself: it needs no clone, which is what costs.

use std::path::Path;

use super::sandbox::TARGETS;
use super::tree::Tree;
use crate::fault::Result;
use crate::function::ReplicaName;
use crate::image::Layer;
use crate::storage::{Inventory, Root, RootOptions, Staging, Storage};

/// Files that replicas get their own versions of.
const FILES: [&str; 3] = ["/etc/hostname", "/etc/hosts", "/etc/resolv.conf"];

/// Storage whose layers have those places.
pub struct Furnished<S>(pub S);

/// Makes, in an image's tree, the empty directories and files that mounts cover. What is there stays; a link
/// where a directory has to be is an error.
pub fn furnish(tree: &Path) -> Result<()> {
    let tree = Tree::open(tree)?;
    for target in TARGETS {
        tree.directory(Path::new(target))?;
    }
    FILES.iter().try_for_each(|file| tree.ensure_file(Path::new(file)))
}

impl<S: Storage> Storage for Furnished<S> {
    fn has(&self, layer: &Layer) -> Result<bool> {
        self.0.has(layer)
    }

    fn stage(&self, layer: &Layer) -> Result<Staging> {
        self.0.stage(layer)
    }

    fn commit(&self, staging: Staging) -> Result<()> {
        // An image that cannot be furnished runs on clones all the same.
        if let Err(fault) = furnish(&staging.dir) {
            tracing::info!("read-only replicas cannot run on layer {}: {fault}", staging.layer.chain_id);
        }
        self.0.commit(staging)
    }

    fn abort(&self, staging: Staging) -> Result<()> {
        self.0.abort(staging)
    }

    fn clone_root(&self, layers: &[Layer], replica: &ReplicaName, options: &RootOptions) -> Result<Root> {
        self.0.clone_root(layers, replica, options)
    }

    fn destroy_root(&self, replica: &ReplicaName) -> Result<()> {
        self.0.destroy_root(replica)
    }

    fn remove_layer(&self, layer: &Layer) -> Result<()> {
        self.0.remove_layer(layer)
    }

    fn inventory(&self) -> Result<Inventory> {
        self.0.inventory()
    }

    fn recover(&self) -> Result<()> {
        self.0.recover()
    }
}
