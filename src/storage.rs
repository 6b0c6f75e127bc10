//! Where layers and root filesystems live: the storage capability, as plain data.
//!
//! An image is a chain of layers. Storage keeps each layer once and gives every replica a private,
//! throw-away view of the last one: a ZFS clone, or an overlayfs upper directory.
//!
//! ```text
//! stage -> (unpack writes) -> commit        clone -> (sandbox uses the Root) -> destroy
//!      \-> abort, also after a crash: recover()
//! ```

use std::path::PathBuf;

use crate::fault::Result;
use crate::function::ReplicaName;
use crate::image::Layer;

/// Keeps unpacked layers and hands out root filesystems. Plain data in, plain data out.
pub trait Storage: Send + Sync {
    /// Is this layer (with all below it) there, complete?
    fn has(&self, layer: &Layer) -> Result<bool>;

    /// Makes an empty place where `layer` can be unpacked above its parent.
    /// Fails with [`crate::fault::Kind::NotFound`] when storage needs the parent first and has not got it.
    fn stage(&self, layer: &Layer) -> Result<Staging>;

    /// Makes a staged layer permanent and visible to [`Storage::has`], atomically.
    fn commit(&self, staging: Staging) -> Result<()>;

    /// Throws a staged layer away.
    fn abort(&self, staging: Staging) -> Result<()>;

    /// A new root for a replica from an image's layers, lowest first. An image may have none.
    fn clone_root(&self, layers: &[Layer], replica: &ReplicaName, options: &RootOptions) -> Result<Root>;

    /// Destroys a replica's root. Already gone is success.
    fn destroy_root(&self, replica: &ReplicaName) -> Result<()>;

    /// Destroys a layer that no root and no other layer uses; `Busy` when one does. Already gone is success.
    fn remove_layer(&self, layer: &Layer) -> Result<()>;

    /// Every replica root and every complete layer that is there, for adoption and sweeping.
    fn inventory(&self) -> Result<Inventory>;

    /// Throws away what an interrupted run left half made: staged layers, half-cloned roots. Run at start.
    fn recover(&self) -> Result<()>;
}

/// A place where one layer is being unpacked.
#[derive(Debug)]
pub struct Staging {
    /// The layer that is being made.
    pub layer: Layer,
    /// The directory to unpack into.
    pub dir: PathBuf,
    /// What a whiteout in the layer becomes.
    pub whiteouts: Whiteouts,
}

/// What a whiteout entry (OCI image-spec, layer.md, "Whiteouts") becomes on disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Whiteouts {
    /// The staging directory holds the parent's files: delete what is whited out.
    Apply,
    /// The staging directory holds this layer only: leave overlayfs's marks
    /// (a 0:0 character device; `trusted.overlay.opaque=y`).
    Overlay,
}

/// How a replica wants its root.
#[derive(Debug, Clone, Default)]
pub struct RootOptions {
    /// The replica never writes to it.
    pub read_only: bool,
    /// Most bytes the replica may add, if limited. Storage that cannot limit it refuses with
    /// [`crate::fault::Kind::Unsupported`].
    pub quota: Option<u64>,
}

/// A root filesystem as the sandbox gets it. The sandbox mounts it, so that its mounts have one owner.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Root {
    /// A directory with the whole tree in it, mounted by storage or plain.
    Directory(PathBuf),
    /// Directories that Linux's overlayfs joins, uppermost lower first. `upper` is absent for a read-only root.
    Overlay {
        /// Layer directories, topmost first.
        lower: Vec<PathBuf>,
        /// The replica's own writable directory and overlayfs's work directory.
        upper: Option<(PathBuf, PathBuf)>,
    },
    /// A ZFS filesystem or snapshot with `mountpoint=legacy`, by its full name.
    Zfs(String),
}

/// What is there.
#[derive(Debug, Default)]
pub struct Inventory {
    /// Replicas that have a root.
    pub roots: Vec<ReplicaName>,
    /// Layer keys (chain-id or diff-id, in the form the storage keeps), with their bytes on disk where known.
    pub layers: Vec<LayerOnDisk>,
}

/// A complete layer in storage.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LayerOnDisk {
    /// `sha256:…`: a chain-id with ZFS, a diff-id with overlay.
    pub id: String,
    /// Bytes it occupies, where storage knows.
    pub bytes: Option<u64>,
}
