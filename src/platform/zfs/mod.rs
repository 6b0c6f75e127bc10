//! [`crate::storage::Storage`] on ZFS: one dataset per layer, one clone per replica.
//!
//! ```text
//! stage:   clone layers/<below>@layer -> staging/<..>, mount      (create, for a lowest layer)
//! commit:  unmount, snapshot staging/<..>@layer, rename to layers/<chain-id>
//! clone:   clone layers/<top>@layer -> roots/<replica>            (nothing, for a read-only root)
//! destroy: destroy roots/<replica>
//! ```
//!
//! | file | room |
//! |---|---|
//! | `names` | the layout, and how names are read back |
//! | `mounting` | who mounts what where, in two styles |
//! | `layers`, `roots`, `lent`, `survey` | the capability itself |
//! | `engine` | what changes datasets: `core` (libzfs_core, found at run time) or `command` (zfs(8)) |
//! | [`stream`] | images as files: `zfs send` streams, signed |
//! | `fuse` | what zfs-fuse needs |
//! | `refusal` | what ZFS says when it refuses, sorted |
//!
//! Invariants: a layer is complete when its `@layer` snapshot is in `layers`, and gets there by one rename; what is
//! in `staging` at start is left over; nothing is destroyed that this program has not named; no dataset below the
//! parent is mounted but by this program or the sandbox.

use std::collections::{HashMap, HashSet};
use std::sync::{Mutex, MutexGuard, PoisonError};

use crate::fault::{Fault, Kind, Result};
use crate::function::{Realm, ReplicaName};
use crate::image::Layer;
use crate::storage::{Inventory, Root, RootOptions, Staging, Storage};

mod command;
mod core;
mod engine;
mod fuse;
mod layers;
mod lent;
mod mounting;
mod names;
mod nvlist;
mod refusal;
mod roots;
mod setup;
pub mod stream;
mod survey;

pub use engine::{Choice, describe};
pub use mounting::{Mounter, Mounting};
pub use names::Parent;

use engine::Engine;
use refusal::{Refusal, Why};

/// What [`ZfsStorage::open`] needs to know.
pub struct Settings {
    /// The dataset to keep everything below. It must exist.
    pub parent: Parent,
    /// The daemon whose roots and staged layers these are. Layers are shared by all.
    pub realm: Realm,
    /// How datasets become directories.
    pub mounting: Mounting,
    /// What changes datasets.
    pub engine: Choice,
}

/// Layers and roots below one dataset.
pub struct ZfsStorage {
    parent: Parent,
    realm: Realm,
    mounting: Mounting,
    engine: Box<dyn Engine>,
    layers: Mutex<Layers>,
}

/// What this process knows of layers and the pool does not tell, or not fast.
#[derive(Debug, Default)]
struct Layers {
    /// Those that replicas have as their read-only root.
    lent: lent::Lent,
    /// Those that are being removed, and cannot be lent any more.
    going: HashSet<String>,
    /// Bytes that those which were cloned with a quota refer to. A layer never changes.
    sizes: HashMap<String, u64>,
}

impl ZfsStorage {
    /// What changes datasets here: `libzfs_core.so.2` or `zfs(8)`.
    pub fn engine(&self) -> &str {
        self.engine.describe()
    }

    /// The dataset that everything is kept below.
    pub fn parent(&self) -> &Parent {
        &self.parent
    }

    fn layers(&self) -> MutexGuard<'_, Layers> {
        self.layers.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A refusal as a fault about this pool.
    fn fault(&self, refusal: Refusal, what: impl Into<String>) -> Fault {
        refusal.fault(what, self.parent.pool())
    }

    /// Destroys a filesystem or snapshot, patiently. Already gone is success.
    fn destroy(&self, name: &str) -> Result<()> {
        match refusal::patiently(|| self.engine.destroy(name)) {
            Err(refusal) if refusal.why == Why::Missing => Ok(()),
            outcome => outcome.map_err(|refusal| self.fault(refusal, format!("cannot destroy {name}"))),
        }
    }
}

impl Storage for ZfsStorage {
    fn has(&self, layer: &Layer) -> Result<bool> {
        self.has_layer(layer.chain_id.hex())
    }

    fn stage(&self, layer: &Layer) -> Result<Staging> {
        self.stage_layer(layer)
    }

    fn commit(&self, staging: Staging) -> Result<()> {
        self.commit_layer(&staging)
    }

    fn abort(&self, staging: Staging) -> Result<()> {
        self.abort_layer(&staging)
    }

    fn clone_root(&self, layers: &[Layer], replica: &ReplicaName, options: &RootOptions) -> Result<Root> {
        if replica.realm() != &self.realm {
            return Err(Fault::new(
                Kind::Invalid,
                format!("replica {replica} is not of realm {}, whose roots are kept here", self.realm),
            ));
        }
        match options.read_only {
            true => self.lend_layer(layers, replica),
            false => self.clone_layer(layers, replica, options.quota),
        }
    }

    fn destroy_root(&self, replica: &ReplicaName) -> Result<()> {
        self.drop_root(replica)
    }

    fn remove_layer(&self, layer: &Layer) -> Result<()> {
        self.remove(layer.chain_id.hex())
    }

    fn inventory(&self) -> Result<Inventory> {
        self.take_inventory()
    }

    fn recover(&self) -> Result<()> {
        self.sweep()
    }
}
