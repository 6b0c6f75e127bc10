//! OCI images in the local store: names, manifests, layers, and how they get here.
//!
//! ```text
//! Reference -> registry | archive -> manifest, config, layer blobs -> layers (verify + unpack) -> Storage
//! ```
//!
//! | module | room |
//! |---|---|
//! | `reference` | names and digests |
//! | `manifest`, `config`, `user`, [`target`] | documents to plain data: which platform, which layers, how to run |
//! | [`unpack`] | one layer: a hostile stream of bytes into files beneath one directory |
//! | `archive` | docker-save tars, OCI archives and OCI layouts, from a file, a directory or a stream |
//! | [`registry`] | the distribution protocol: tokens, redirects, resumed blobs, mirrors |
//! | `install` | an image's layers into storage, several at once |
//! | `spread` | an image's tree in a plain directory, past storage |
//! | [`store`] | which images are here: load, pull, ensure, list, remove, prune |
//!
//! Invariants: a layer's blob is never kept (its bytes are hashed, decompressed and unpacked in one pass); an
//! image is recorded only after all its layers are in storage; a digest is checked before it is believed.
//!
//! Deliberately absent: signatures, credential helpers (they would run foreign programs),
//! layers from foreign URLs.

use serde::{Deserialize, Serialize};

mod archive;
pub mod config;
mod install;
pub mod manifest;
mod progress;
mod reference;
pub mod registry;
pub mod settings;
mod spread;
pub mod store;
pub mod target;
pub mod unpack;
pub mod user;

pub use archive::Source;
pub use progress::{Progress, Silent};
pub use reference::{Digest, Reference, RepositorySource};
pub use registry::{Credentials, trusted_roots};
pub use settings::{PullPolicy, Registries, Settings};
pub use spread::spread;
pub use store::Store;
pub use target::{Platform, Target};

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
    /// The name it is kept under.
    pub reference: Reference,
    /// How it came here.
    pub origin: Origin,
    /// Digest of the manifest it was made from; of its config, when it came from a docker-save tar, which has
    /// no manifest.
    pub manifest: Digest,
    /// What the name led to: the digest of the manifest, or of the index that lists it.
    pub resolved: Digest,
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

/// How an image came here.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Origin {
    /// Put here by hand from an archive. It is used as it is, whatever the registry has under its name.
    Loaded,
    /// From a registry.
    Pulled,
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
