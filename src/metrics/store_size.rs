//! How large the image store is: asked of storage only when it may have changed, as that can take a while.

use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use crate::image::{Digest, Store};
use crate::storage::Storage;

/// How long an answer holds while the list of images stays as it is: pruning changes only the layers.
const HOLDS: Duration = Duration::from_secs(60);

/// Images and what their layers occupy. Layers that images share count once.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Size {
    /// Names of images.
    pub images: u64,
    /// Layers.
    pub layers: u64,
    /// Bytes that the layers occupy, where storage knows.
    pub bytes: u64,
}

/// The last answer.
#[derive(Default)]
pub struct Cached(Mutex<Option<(Instant, Vec<Digest>, Size)>>);

impl Cached {
    /// The size now, or as it was when last it was asked for. `None` when the store cannot be read.
    pub fn size(&self, images: &Store, storage: &dyn Storage) -> Option<Size> {
        let listed: Vec<Digest> = images.list().ok()?.into_iter().map(|image| image.manifest).collect();
        let mut last = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((at, known, size)) = &*last
            && *known == listed
            && at.elapsed() < HOLDS
        {
            return Some(*size);
        }
        let layers = storage.inventory().ok()?.layers;
        let size = Size {
            images: listed.len() as u64,
            layers: layers.len() as u64,
            bytes: layers.iter().filter_map(|layer| layer.bytes).sum(),
        };
        *last = Some((Instant::now(), listed, size));
        Some(size)
    }
}
