//! Frees what nobody uses.

use std::collections::{HashMap, HashSet};

use crate::fault::{Kind, Result};
use crate::image::{Digest, Image, Layer, Reference};

use super::Store;

/// What functions and replicas need.
#[derive(Debug, Clone, Default)]
pub struct InUse {
    /// Images that deployed functions name.
    pub references: Vec<Reference>,
    /// Layers that replicas stand on, perhaps of an image whose tag has moved on since.
    pub layers: Vec<Layer>,
}

/// What pruning freed.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Freed {
    /// Images forgotten.
    pub images: Vec<Reference>,
    /// Layers removed.
    pub layers: Vec<Layer>,
    /// Bytes they had on disk, where storage knew.
    pub bytes: u64,
}

impl Store {
    /// Forgets every image that is not in use, and removes every layer that then has no image. A layer that
    /// storage calls busy stays, for the next time.
    pub fn prune(&self, in_use: &InUse) -> Result<Freed> {
        let _lock = self.files.lock_exclusive()?;
        let needed: HashSet<String> = in_use.references.iter().map(Reference::canonical).collect();
        let (kept, gone): (Vec<Image>, Vec<Image>) =
            self.files.images()?.into_iter().partition(|image| needed.contains(&image.reference.canonical()));
        let mut freed = Freed::default();
        for image in gone {
            self.files.forget_image(&image.reference)?;
            freed.images.push(image.reference);
        }
        let used: Vec<&Layer> = kept.iter().flat_map(|image| &image.layers).chain(&in_use.layers).collect();
        self.remove_unused(&used, &mut freed)?;
        self.files.clean()?;
        Ok(freed)
    }

    fn remove_unused(&self, used: &[&Layer], freed: &mut Freed) -> Result<()> {
        let chains: HashSet<&Digest> = used.iter().map(|layer| &layer.chain_id).collect();
        let diffs: HashSet<&Digest> = used.iter().map(|layer| &layer.diff_id).collect();
        let on_disk: HashMap<String, u64> =
            self.storage.inventory()?.layers.into_iter().map(|l| (l.id, l.bytes.unwrap_or(0))).collect();
        for layer in topmost_first(self.files.layers()?) {
            if chains.contains(&layer.chain_id) {
                continue;
            }
            // Storage that keeps layers by diff-id has one for all the chains that the layer is part of. Of a
            // lowest layer both ids are the same, so it can't be told which way storage goes.
            let by_chain = on_disk.get(layer.chain_id.as_str()).filter(|_| layer.parent.is_some());
            let shared = diffs.contains(&layer.diff_id);
            if by_chain.is_some() || !shared {
                let bytes = by_chain.or_else(|| on_disk.get(layer.diff_id.as_str()));
                match self.storage.remove_layer(&layer) {
                    Err(fault) if fault.kind() == Kind::Busy => {
                        tracing::info!("layer {} stays for now: {fault}", layer.chain_id);
                        continue;
                    }
                    other => other?,
                }
                freed.bytes += bytes.copied().unwrap_or(0);
                if bytes.is_some() && !freed.layers.iter().any(|l| l.diff_id == layer.diff_id && by_chain.is_none()) {
                    freed.layers.push(layer.clone());
                }
            }
            self.files.forget_layer(&layer)?;
            if !shared {
                self.files.forget_facts(&layer.diff_id)?;
                self.files.forget_lock(&layer.diff_id)?;
            }
        }
        Ok(())
    }
}

/// A layer comes before the one it stands on.
fn topmost_first(layers: Vec<Layer>) -> Vec<Layer> {
    let parents: HashMap<Digest, Option<Digest>> =
        layers.iter().map(|layer| (layer.chain_id.clone(), layer.parent.clone())).collect();
    let depth = |layer: &Layer| {
        let mut at = layer.parent.as_ref();
        let mut depth = 0_usize;
        // A chain cannot be longer than the number of layers.
        while let Some(parent) = at.filter(|_| depth <= parents.len()) {
            depth += 1;
            at = parents.get(parent).and_then(Option::as_ref);
        }
        depth
    };
    let mut sorted: Vec<(usize, Layer)> = layers.into_iter().map(|layer| (depth(&layer), layer)).collect();
    sorted.sort_by_key(|(depth, _)| std::cmp::Reverse(*depth));
    sorted.into_iter().map(|(_, layer)| layer).collect()
}
