//! OCI images in the local store: names, manifests, layers, and how they get here.
//!
//! ```text
//! Reference -> registry | archive -> manifest, config, layer blobs -> layers (verify + unpack) -> Storage
//! ```

use serde::{Deserialize, Serialize};

mod reference;
pub use reference::{Digest, Reference};

use crate::sandbox::User;

/// One layer of an image.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Layer {
    /// Digest of the uncompressed tar (OCI image-spec config.md, "Layer DiffID").
    pub diff_id: Digest,
    /// Identifies this layer applied above all below it (same place, "Layer ChainID").
    pub chain_id: Digest,
    /// The chain-id below, absent for the lowest layer.
    pub parent: Option<Digest>,
}

/// An image that is ready to run: every layer is in storage.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Image {
    /// Digest of the manifest it was made from.
    pub manifest: Digest,
    /// Lowest first.
    pub layers: Vec<Layer>,
    /// How to run it.
    pub run: RunConfig,
    /// `os/architecture[/variant]`.
    pub platform: String,
    /// Bytes of its layers as they were shipped.
    pub size: u64,
    /// When it came here.
    pub loaded: jiff::Timestamp,
}

/// What an image says about running it.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct RunConfig {
    /// Entrypoint followed by Cmd; never empty in a stored image.
    pub argv: Vec<String>,
    /// Environment as `NAME=value` pairs, split.
    pub env: std::collections::BTreeMap<String, String>,
    /// Absolute working directory.
    pub workdir: String,
    /// Its user, resolved against the image's own /etc/passwd and /etc/group.
    pub user: User,
    /// The signal that asks it to end, by number, if not SIGTERM.
    pub stop_signal: Option<i32>,
}
