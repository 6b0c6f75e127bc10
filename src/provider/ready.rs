//! What is made ahead of need.
//!
//! A ZFS clone waits for a transaction group, and mounts, links and a network stack of its own take several times as
//! long as fork and exec; a request that waits for a new replica should wait for none of them. So each function whose
//! replicas write to a ZFS root has one clone lying ready, and those that a call or load may start next, up to
//! [`super::ElasticSettings::standby`] of them, a replica that lacks only its program. It bears the name that the
//! function's next replica will have.
//!
//! Nothing is lost by a crash: what has no program that runs is swept at the next start, and no file says that it holds
//! an address. Where addresses run out, or people change what is handed out, it is given up.

use std::collections::HashMap;
use std::sync::atomic::Ordering;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use super::catalog::{Deployed, Function};
use super::replica::Built;
use super::{Annotations, Provider};
use crate::config::StorageKind;
use crate::fault::Result;
use crate::function::{FunctionKey, ReplicaName};
use crate::image::Layer;
use crate::network::Mode;
use crate::storage::{Root, RootOptions};

/// How long a function at least keeps a replica that lies ready before another function may have one instead: where
/// many take turns, making and unmaking them would cost more than they save.
const KEPT: Duration = Duration::from_secs(60);

/// Of each function, what lies ready.
#[derive(Default)]
pub(super) struct Ready(Mutex<HashMap<FunctionKey, Spare>>);

/// Something of a function's next replica.
pub(super) struct Spare {
    pub name: ReplicaName,
    pub made: Made,
    layers: Vec<Layer>,
    quota: Option<u64>,
    since: Instant,
}

/// How much of a replica is there.
pub(super) enum Made {
    /// Its root.
    Root(Root),
    /// All but its program, in this revision of the function.
    Whole(Box<Built>),
}

impl Made {
    fn into_root(self) -> Option<Root> {
        match self {
            Made::Root(root) => Some(root),
            Made::Whole(_) => None,
        }
    }
}

impl Spare {
    fn fits(&self, deployed: &Deployed, quota: Option<u64>) -> bool {
        let revision = deployed.spec.revision;
        let built = !matches!(&self.made, Made::Whole(built) if built.record.revision != revision);
        built && self.layers == deployed.image.layers && self.quota == quota
    }

    fn is_whole(&self) -> bool {
        matches!(self.made, Made::Whole(_))
    }
}

impl Ready {
    fn spares(&self) -> MutexGuard<'_, HashMap<FunctionKey, Spare>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What lies ready for a replica of `deployed`.
    fn take(&self, deployed: &Deployed, quota: Option<u64>) -> Option<Spare> {
        let mut spares = self.spares();
        let key = &deployed.spec.key;
        spares.get(key).is_some_and(|spare| spare.fits(deployed, quota)).then(|| spares.remove(key))?
    }

    /// Forgets them all; somebody else destroys them.
    pub(super) fn clear(&self) {
        self.spares().clear();
    }

    /// Makes room for one more whole replica, if there may be: `Err` when not, or the one that has to go.
    fn make_room(&self, most: usize) -> std::result::Result<Option<(FunctionKey, Spare)>, ()> {
        let mut spares = self.spares();
        let whole = spares.iter().filter(|(_, spare)| spare.is_whole());
        if whole.clone().count() < most {
            return Ok(None);
        }
        let oldest = whole.min_by_key(|(_, spare)| spare.since).map(|(key, spare)| (key.clone(), spare.since));
        match oldest {
            Some((key, since)) if since.elapsed() >= KEPT => Ok(spares.remove_entry(&key)),
            _ => Err(()),
        }
    }
}

/// Whether a call or load may start the next replica.
fn may_be_started(function: &Function) -> bool {
    let (wanted, rules) = (function.wanted(), function.rules());
    wanted == 0 || rules.load.is_some() && wanted < rules.max
}

impl Provider {
    /// Replicas that lie ready.
    pub fn standby(&self) -> usize {
        self.ready.spares().values().filter(|spare| spare.is_whole()).count()
    }

    /// What lies ready for the next replica.
    pub(super) fn take_ready(&self, deployed: &Deployed) -> Result<Option<Spare>> {
        // People may have taken back its address.
        self.refresh_addresses()?;
        Ok(self.ready.take(deployed, Annotations::read(&deployed.spec.annotations)?.disk))
    }

    /// Sees in the background to it that what a function's next replica can have ahead of need is there, and nothing
    /// else.
    pub(super) fn make_ready(&self, key: &FunctionKey) {
        self.refill_soon(key, true);
    }

    fn refill_soon(&self, key: &FunctionKey, whole: bool) {
        let (provider, key) = (self.me(), key.clone());
        self.background.spawn(async move {
            let work = move |p: &Provider| p.refill(&key, whole);
            if let Err(fault) = provider.run(work).await {
                tracing::warn!(%fault, "nothing lies ready; the next replica takes longer");
            }
        });
    }

    fn refill(&self, key: &FunctionKey, whole: bool) -> Result<()> {
        let lock = self.locks.of(key);
        let _held = lock.hold();
        let Some(function) = self.catalog.get(key).filter(|_| !self.stopping.load(Ordering::SeqCst)) else {
            return Ok(());
        };
        let deployed = function.deployed();
        let quota = Annotations::read(&deployed.spec.annotations)?.disk;
        let found = self.ready.spares().remove(key);
        let spare = match found {
            Some(spare) if spare.fits(&deployed, quota) => Some(spare),
            Some(spare) => self.discard(&spare.name).map(|()| None)?,
            None => None,
        };
        let (name, made) = match spare.map(|spare| (spare.name, spare.made)) {
            Some((name, made @ Made::Whole(_))) => (name, made),
            rest if whole && may_be_started(&function) && self.may_stand_by(&deployed)? => {
                let (name, made) = rest.unzip();
                let name = name.unwrap_or_else(|| ReplicaName::new(&self.config.realm, key));
                let root = made.and_then(Made::into_root);
                let made = self.prepare(&name, root, &deployed)?;
                (name, made)
            }
            Some(root) => root,
            None if self.config.storage == StorageKind::Zfs && !deployed.spec.read_only_root => {
                let name = ReplicaName::new(&self.config.realm, key);
                let root = self.clone_root(&name, &deployed, quota)?;
                (name, Made::Root(root))
            }
            None => return Ok(()),
        };
        let layers = deployed.image.layers.clone();
        self.ready.spares().insert(key.clone(), Spare { name, made, layers, quota, since: Instant::now() });
        Ok(())
    }

    /// Whether one more function may have a whole replica lying ready.
    fn may_stand_by(&self, deployed: &Deployed) -> Result<bool> {
        let mode = self.mode(&Annotations::read(&deployed.spec.annotations)?)?;
        // Where it would share the host's ports, one that is free now may not be so later.
        if mode == Mode::Inherit || self.addresses().is_half_full() {
            return Ok(false);
        }
        match self.ready.make_room(self.config.elastic.standby) {
            Ok(None) => Ok(true),
            Ok(Some((key, spare))) => {
                self.give_up(&key, &spare);
                Ok(true)
            }
            Err(()) => Ok(false),
        }
    }

    fn prepare(&self, name: &ReplicaName, root: Option<Root>, deployed: &Deployed) -> Result<Made> {
        let prepared = self.build(name, root, deployed, |_| ()).and_then(|built| {
            self.place_secrets(name, deployed)?;
            self.platform.sandbox.prepare(&built.plan)?;
            Ok(Made::Whole(Box::new(built)))
        });
        prepared.map_err(|fault| fault.and_cleanup(self.discard(name)))
    }

    pub(super) fn clone_root(&self, name: &ReplicaName, deployed: &Deployed, quota: Option<u64>) -> Result<Root> {
        let options = RootOptions { read_only: deployed.spec.read_only_root, quota };
        self.platform.storage.clone_root(&deployed.image.layers, name, &options)
    }

    /// Takes away what lies ready of a function that is deleted. The caller holds the function's lock.
    pub(super) fn unmake_ready(&self, key: &FunctionKey) {
        let Some(spare) = self.ready.spares().remove(key) else { return };
        let provider = self.me();
        self.retiring.fetch_add(1, Ordering::Relaxed);
        self.background.spawn_blocking(move || {
            provider.discard_or_say(&spare.name);
            provider.retiring.fetch_sub(1, Ordering::Relaxed);
        });
    }

    /// Gives up every replica that lies ready, and with it its address. Says whether there were any.
    pub(super) fn give_up_all(&self) -> bool {
        let whole: Vec<(FunctionKey, Spare)> = self.ready.spares().extract_if(|_, spare| spare.is_whole()).collect();
        whole.iter().for_each(|(key, spare)| self.give_up(key, spare));
        !whole.is_empty()
    }

    fn give_up(&self, key: &FunctionKey, spare: &Spare) {
        self.discard_or_say(&spare.name);
        self.refill_soon(key, false);
    }
}
