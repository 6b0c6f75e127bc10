//! Layers: staged, committed, removed.

use super::engine::Property;
use super::names::{self, Container, EMPTY_LAYER, KIND, LAYER_SNAPSHOT, REALM};
use super::refusal::{Why, patiently};
use super::{Mounting, ZfsStorage, command, mounting};
use crate::fault::{Fault, Kind, Result};
use crate::image::Layer;
use crate::storage::{Staging, Whiteouts};

impl ZfsStorage {
    /// Is the layer of this name complete?
    pub(super) fn has_layer(&self, name: &str) -> Result<bool> {
        let snapshot = self.parent.layer_snapshot(name);
        self.engine.exists(&snapshot).map_err(|refusal| self.fault(refusal, format!("cannot look for {snapshot}")))
    }

    /// A mounted staging dataset for a layer: the parent's files, or none.
    pub(super) fn stage_layer(&self, layer: &Layer) -> Result<Staging> {
        let name = names::staging(&self.realm, layer.chain_id.hex());
        let below = layer.parent.as_ref();
        self.make_staging(&name, below.map(|below| below.hex())).map_err(|refusal| match (refusal.why, below) {
            (Why::Missing, Some(below)) if self.has_layer(below.hex()).is_ok_and(|there| !there) => {
                Fault::not_found(format!(
                    "layer {} needs the layer below it, {below}, which is not in {}: unpack that first",
                    layer.chain_id, self.parent
                ))
            }
            _ => self.fault(refusal, format!("cannot stage layer {}", layer.chain_id)),
        })?;
        match self.mounting.mount_staging(&self.parent, &name) {
            Ok(dir) => Ok(Staging { layer: layer.clone(), dir, whiteouts: Whiteouts::Apply }),
            Err(fault) => Err(fault.and_cleanup(self.discard_staging(&name))),
        }
    }

    /// Makes the dataset of a staged layer: a clone of the layer below, or an empty filesystem.
    fn make_staging(&self, name: &str, below: Option<&str>) -> super::refusal::Outcome {
        let dataset = self.parent.child(Container::Staging, name);
        let properties = self.labels(Container::Staging);
        match below {
            Some(below) => self.engine.clone_snapshot(&self.parent.layer_snapshot(below), &dataset, &properties),
            None => self.engine.create(&dataset, &properties),
        }
    }

    /// The properties that say what a dataset is and whose.
    pub(super) fn labels(&self, container: Container) -> Vec<Property> {
        vec![
            Property::NoAutoMount,
            Property::User(KIND, container.kind().to_owned()),
            Property::User(REALM, self.realm.to_string()),
        ]
    }

    /// Makes a staged layer a complete one. When another one was faster, that one counts.
    pub(super) fn commit_layer(&self, staging: &Staging) -> Result<()> {
        let name = self.staging_name(staging)?;
        let committed = self
            .mounting
            .unmount(&self.parent, Container::Staging, name)
            .and_then(|()| self.publish(name, staging.layer.chain_id.hex()));
        committed.map_err(|fault| {
            let fault = fault.within(format!("cannot keep layer {}", staging.layer.chain_id));
            fault.and_cleanup(self.discard_staging(name))
        })
    }

    /// Throws a staged layer away.
    pub(super) fn abort_layer(&self, staging: &Staging) -> Result<()> {
        self.discard_staging(self.staging_name(staging)?)
    }

    /// The dataset that a [`Staging`] is about: its mount point has its name.
    fn staging_name<'a>(&self, staging: &'a Staging) -> Result<&'a str> {
        let name = staging.dir.file_name().and_then(|name| name.to_str());
        name.filter(|name| self.mounting.directory(Container::Staging, name) == staging.dir)
            .ok_or_else(|| Fault::invalid(format!("{} was not staged in {}", staging.dir.display(), self.parent)))
    }

    /// Snapshots an unmounted staging dataset and gives it its place.
    fn publish(&self, staged: &str, layer: &str) -> Result<()> {
        let snapshot = format!("{}@{LAYER_SNAPSHOT}", self.parent.child(Container::Staging, staged));
        self.engine
            .snapshot(&snapshot)
            .map_err(|refusal| self.fault(refusal, format!("cannot make snapshot {snapshot}")))?;
        self.settle(staged, layer)
    }

    /// Renames a staging dataset that has its snapshot into `layers`: the moment that the layer is complete.
    pub(super) fn settle(&self, staged: &str, layer: &str) -> Result<()> {
        let (from, to) = (self.parent.child(Container::Staging, staged), self.parent.child(Container::Layers, layer));
        match patiently(|| self.engine.rename(&from, &to)) {
            Err(refusal) if refusal.why == Why::Exists && self.has_layer(layer)? => self.discard_staging(staged),
            outcome => outcome.map_err(|refusal| self.fault(refusal, format!("cannot rename {from} to {to}"))),
        }
    }

    /// Unmounts and destroys a staging dataset with its snapshots, whatever state it is in.
    pub(super) fn discard_staging(&self, name: &str) -> Result<()> {
        self.mounting.unmount(&self.parent, Container::Staging, name)?;
        let dataset = self.parent.child(Container::Staging, name);
        match patiently(|| command::zfs(&["destroy", "-r", &dataset])) {
            Err(refusal) if refusal.why != Why::Missing => {
                Err(self.fault(refusal, format!("cannot destroy {dataset}")))
            }
            _ => Ok(()),
        }
    }

    /// The layer of an image without layers: made when it is first needed.
    pub(super) fn provide_empty_layer(&self) -> Result<()> {
        if self.has_layer(EMPTY_LAYER)? {
            return Ok(());
        }
        let name = names::staging(&self.realm, EMPTY_LAYER);
        self.make_staging(&name, None).map_err(|refusal| self.fault(refusal, "cannot make the empty layer"))?;
        let unmounted = self.mounting.unmount(&self.parent, Container::Staging, &name);
        unmounted
            .and_then(|()| self.publish(&name, EMPTY_LAYER))
            .map_err(|fault| fault.and_cleanup(self.discard_staging(&name)))
    }

    /// Destroys a layer that nothing depends on. It is not lent meanwhile.
    pub(super) fn remove(&self, name: &str) -> Result<()> {
        let mut layers = self.layers();
        if let Some(replica) =
            self.lent(&mut layers)?.iter().find_map(|(replica, layer)| (layer == name).then_some(replica))
        {
            return Err(Fault::new(Kind::Busy, format!("layer {name} is the read-only root of replica {replica}")));
        }
        if !layers.going.insert(name.to_owned()) {
            return Err(Fault::new(Kind::Busy, format!("layer {name} is being removed already")));
        }
        layers.sizes.remove(name);
        drop(layers);
        let removed = self.remove_unlent(name);
        self.layers().going.remove(name);
        removed
    }

    /// First the snapshot goes, so that a layer half destroyed is incomplete.
    fn remove_unlent(&self, name: &str) -> Result<()> {
        let snapshot = self.parent.layer_snapshot(name);
        self.check_not_mounted(name)?;
        match patiently(|| self.engine.destroy(&snapshot)) {
            Err(refusal) if refusal.why == Why::Needed => return Err(self.needed(name)),
            Err(refusal) if refusal.why != Why::Missing => {
                return Err(self.fault(refusal, format!("cannot destroy {snapshot}")));
            }
            _ => {}
        }
        self.destroy(&self.parent.child(Container::Layers, name))
    }

    /// `Busy` when a layer is the root of a read-only replica that an earlier run of this daemon has started.
    fn check_not_mounted(&self, name: &str) -> Result<()> {
        let in_use = |cause: Fault| cause.within(format!("layer {name} is the root of a read-only replica"));
        if let Mounting::Legacy { mounter, .. } = &self.mounting {
            // Destroying a mounted snapshot would unmount it by force (zfs_ioctl.c, zfs_ioc_destroy_snaps).
            let snapshot = self.parent.layer_snapshot(name);
            let mounted = mounter.is_mounted(&snapshot)?;
            return if mounted {
                Err(in_use(Fault::new(Kind::Busy, format!("{snapshot} is mounted"))))
            } else {
                Ok(())
            };
        }
        // A mount in another mount namespace is not seen from here, and makes mounting fail.
        let unmount = || self.mounting.unmount(&self.parent, Container::Layers, name);
        unmount()?;
        if self.has_layer(name)? {
            let dataset = self.parent.child(Container::Layers, name);
            mounting::mount(&self.parent, &dataset, &["-o", "ro"]).map_err(in_use)?;
        }
        unmount()
    }

    /// Says who uses a layer.
    fn needed(&self, name: &str) -> Fault {
        let users = self.clones_of(&self.parent.layer_snapshot(name)).unwrap_or_default();
        let more = if users.len() > 3 { format!(" and {} more", users.len() - 3) } else { String::new() };
        let users = users.iter().take(3).cloned().collect::<Vec<_>>().join(", ");
        Fault::new(Kind::Busy, format!("layer {name} is still used by {users}{more}: remove what uses it first"))
    }
}
