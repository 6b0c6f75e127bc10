//! Roots: cloned for a replica that writes, lent to one that does not.

use super::engine::Property;
use super::names::{Container, EMPTY_LAYER, REPLICA};
use super::refusal::{Why, patiently};
use super::{Mounting, ZfsStorage, command, mounting};
use crate::fault::{Fault, Kind, Result};
use crate::function::ReplicaName;
use crate::image::Layer;
use crate::storage::Root;

impl ZfsStorage {
    /// The name of the last layer of an image; of the empty one if it has none.
    fn last<'a>(&self, layers: &'a [Layer]) -> Result<&'a str> {
        match layers.last() {
            Some(layer) => Ok(layer.chain_id.hex()),
            None => self.provide_empty_layer().map(|()| EMPTY_LAYER),
        }
    }

    /// A layer that a root is wanted of is not there.
    pub(super) fn layer_missing(&self, name: &str) -> Fault {
        Fault::not_found(format!("layer sha256:{name} is not in {}: pull its image again", self.parent))
    }

    /// A writable clone of the last layer. The replica may add `quota` bytes to what the image has.
    pub(super) fn clone_layer(&self, layers: &[Layer], replica: &ReplicaName, quota: Option<u64>) -> Result<Root> {
        let layer = self.last(layers)?;
        let dataset = self.parent.child(Container::Roots, &replica.to_string());
        let mut properties = self.labels(Container::Roots);
        properties.push(Property::User(REPLICA, replica.to_string()));
        if let Some(quota) = quota {
            // refquota counts what the clone shares with the image, too.
            let image = self.size(layer)?;
            properties.push(Property::ReferenceQuota(image.saturating_add(quota)));
        }
        self.engine.clone_snapshot(&self.parent.layer_snapshot(layer), &dataset, &properties).map_err(|refusal| {
            match refusal.why {
                Why::Missing if self.has_layer(layer).is_ok_and(|there| !there) => self.layer_missing(layer),
                Why::Exists => Fault::new(Kind::Busy, format!("replica {replica} has a root already, {dataset}")),
                _ => self.fault(refusal, format!("cannot make the root of replica {replica}")),
            }
        })?;
        if let Mounting::Legacy { .. } = self.mounting {
            return Ok(Root::Zfs(dataset));
        }
        match mounting::mount(&self.parent, &dataset, &[]) {
            Ok(()) => Ok(Root::Directory(self.mounting.directory(Container::Roots, &replica.to_string()))),
            Err(fault) => Err(fault.and_cleanup(self.drop_root(replica))),
        }
    }

    /// The last layer itself, for a replica that never writes to it: no dataset is made.
    pub(super) fn lend_layer(&self, layers: &[Layer], replica: &ReplicaName) -> Result<Root> {
        let layer = self.last(layers)?;
        // Held while it is mounted, so that nobody unmounts it for the replica before.
        let mut known = self.layers();
        if known.going.contains(layer) || !self.has_layer(layer)? {
            return Err(self.layer_missing(layer));
        }
        self.note_loan(&mut known, replica, layer)?;
        if let Mounting::Legacy { .. } = &self.mounting {
            return Ok(Root::Zfs(self.parent.layer_snapshot(layer)));
        }
        let dataset = self.parent.child(Container::Layers, layer);
        // Lent a moment ago, it may be on its way out still.
        match patiently(|| command::mount(&dataset, &["-o", "ro"])) {
            Ok(()) => Ok(Root::Directory(self.mounting.directory(Container::Layers, layer))),
            Err(refusal) => {
                let fault = self.fault(refusal, format!("cannot mount {dataset}"));
                Err(fault.and_cleanup(self.forget_loan(&mut known, replica)))
            }
        }
    }

    /// Destroys a replica's clone, or takes back the layer that was lent to it.
    pub(super) fn drop_root(&self, replica: &ReplicaName) -> Result<()> {
        let mut known = self.layers();
        let lent = self.lent(&mut known)?;
        if let Some(layer) = lent.remove(replica) {
            if !lent.values().any(|other| *other == layer) {
                match self.mounting.unmount(&self.parent, Container::Layers, &layer) {
                    // Somebody looks into it who is no replica.
                    Err(fault) if fault.kind() == Kind::Busy => {}
                    outcome => outcome?,
                }
            }
            // Last, so that a crash before it is made good by the next attempt.
            return self.forget_loan(&mut known, replica);
        }
        drop(known);
        let name = replica.to_string();
        self.mounting.unmount(&self.parent, Container::Roots, &name)?;
        self.destroy(&self.parent.child(Container::Roots, &name))
    }
}
