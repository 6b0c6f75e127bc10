//! Roots made ahead of need.
//!
//! A ZFS clone waits for a transaction group, which a request that waits for a new replica should not. So each
//! function whose replicas write has one clone lying ready, under the name that its next replica will have. Nothing
//! is lost by a crash: a root whose replica does not run is swept at the next start.

use std::collections::HashMap;
use std::sync::atomic::Ordering;
use std::sync::{Mutex, MutexGuard, PoisonError};

use super::catalog::Deployed;
use super::{Annotations, Provider};
use crate::config::StorageKind;
use crate::fault::Result;
use crate::function::{FunctionKey, ReplicaName};
use crate::image::Layer;
use crate::storage::{Root, RootOptions};

/// Of each function, the root that lies ready.
#[derive(Default)]
pub(super) struct Ready(Mutex<HashMap<FunctionKey, Spare>>);

struct Spare {
    name: ReplicaName,
    root: Root,
    layers: Vec<Layer>,
    quota: Option<u64>,
}

impl Ready {
    fn roots(&self) -> MutexGuard<'_, HashMap<FunctionKey, Spare>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The root that lies ready for a replica of `deployed`, with the name it is kept under.
    fn take(&self, deployed: &Deployed, quota: Option<u64>) -> Option<(ReplicaName, Root)> {
        let mut roots = self.roots();
        let fits = |spare: &Spare| spare.layers == deployed.image.layers && spare.quota == quota;
        let key = &deployed.spec.key;
        roots.get(key).is_some_and(fits).then(|| roots.remove(key))?.map(|spare| (spare.name, spare.root))
    }

    /// Forgets them all; somebody else destroys them.
    pub(super) fn clear(&self) {
        self.roots().clear();
    }
}

impl Provider {
    /// A name for a new replica, and its root if one lies ready.
    pub(super) fn name_and_root(&self, deployed: &Deployed) -> Result<(ReplicaName, Option<Root>)> {
        let quota = Annotations::read(&deployed.spec.annotations)?.disk;
        let ready = if deployed.spec.read_only_root { None } else { self.ready.take(deployed, quota) };
        Ok(match ready {
            Some((name, root)) => (name, Some(root)),
            None => (ReplicaName::new(&self.config.realm, &deployed.spec.key), None),
        })
    }

    /// Sees in the background to it that a root lies ready for the function's next replica, if it is deployed and
    /// may need one, and that none does otherwise.
    pub(super) fn make_ready(&self, key: &FunctionKey) {
        if self.config.storage != StorageKind::Zfs {
            return;
        }
        let (provider, key) = (self.me(), key.clone());
        self.background.spawn(async move {
            let work = move |p: &Provider| p.refill(&key);
            if let Err(fault) = provider.run(work).await {
                tracing::warn!(%fault, "no root lies ready; the next replica waits for its own");
            }
        });
    }

    fn refill(&self, key: &FunctionKey) -> Result<()> {
        let lock = self.locks.of(key);
        let _held = lock.hold();
        let wanted = self.catalog.get(key).map(|function| function.deployed());
        let wanted = wanted.filter(|d| !d.spec.read_only_root && !self.stopping.load(Ordering::SeqCst));
        let quota = wanted.as_ref().map(|d| Annotations::read(&d.spec.annotations)).transpose()?.and_then(|a| a.disk);
        let spare = self.ready.roots().remove(key);
        match (spare, wanted) {
            (Some(spare), Some(wanted)) if spare.layers == wanted.image.layers && spare.quota == quota => {
                self.ready.roots().insert(key.clone(), spare);
                Ok(())
            }
            (spare, wanted) => {
                let discarded = spare.map_or(Ok(()), |spare| self.discard(&spare.name));
                let made = wanted.map_or(Ok(()), |wanted| self.clone_ahead(&wanted, quota));
                discarded.and(made)
            }
        }
    }

    fn clone_ahead(&self, deployed: &Deployed, quota: Option<u64>) -> Result<()> {
        let name = ReplicaName::new(&self.config.realm, &deployed.spec.key);
        let layers = deployed.image.layers.clone();
        let options = RootOptions { read_only: false, quota };
        let root = self.platform.storage.clone_root(&layers, &name, &options)?;
        self.ready.roots().insert(deployed.spec.key.clone(), Spare { name, root, layers, quota });
        Ok(())
    }
}
