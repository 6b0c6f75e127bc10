//! Which link a replica gets, and the pool behind it: the configured networks, and what people decided since.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::ops::{Deref, DerefMut};
use std::path::Path;
use std::sync::{MutexGuard, PoisonError};

use super::replica::LINK;
use super::{Annotations, Provider};
use crate::config::Config;
use crate::fault::{Fault, Kind, Result};
use crate::files;
use crate::function::{FunctionSpec, ReplicaName};
use crate::network::book::{Book, Stamp};
use crate::network::ipam::Pool;
use crate::network::{Link, Mode};

/// The pool, and which state of the book it shows.
#[derive(Debug)]
pub struct Addresses {
    pool: Pool,
    stamp: Stamp,
}

impl Addresses {
    /// The pool of this configuration and its directory's book.
    pub(super) fn open(config: &Config) -> Result<Self> {
        let stamp = Book::stamp(&config.root);
        let book = Book::load(&config.root)?;
        let mut pool = Pool::new(&config.network.networks())?;
        pool.change(&book.all_networks(&config.network), book.reserved.into_keys().collect())?;
        Ok(Self { pool, stamp })
    }
}

impl Deref for Addresses {
    type Target = Pool;
    fn deref(&self) -> &Pool {
        &self.pool
    }
}

impl DerefMut for Addresses {
    fn deref_mut(&mut self) -> &mut Pool {
        &mut self.pool
    }
}

/// Which replica has which address, as is written down of them: also where no daemon runs.
pub fn held(root: &Path) -> Result<BTreeMap<IpAddr, ReplicaName>> {
    let replicas = root.join("replicas");
    let mut held = BTreeMap::new();
    for name in files::names(&replicas)? {
        let Ok(replica) = name.parse::<ReplicaName>() else { continue };
        let Some(link) = files::read_json::<Link>(&replicas.join(&name).join(LINK))? else { continue };
        held.extend(link.addresses.iter().map(|address| (address.ip(), replica.clone())));
    }
    Ok(held)
}

impl Provider {
    /// The address pool.
    pub fn addresses(&self) -> MutexGuard<'_, Addresses> {
        self.addresses.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Reads the book again if it has changed: one look at a file if not.
    pub fn refresh_addresses(&self) -> Result<()> {
        let stamp = Book::stamp(&self.config.root);
        if self.addresses().stamp == stamp {
            return Ok(());
        }
        // Replicas that lie ready may have addresses that nobody gets any more.
        self.give_up_all();
        let book = Book::load(&self.config.root)?;
        let networks = book.all_networks(&self.config.network);
        let changed = {
            let mut addresses = self.addresses();
            let changed = addresses.networks() != networks;
            addresses.change(&networks, book.reserved.into_keys().collect())?;
            addresses.stamp = stamp;
            changed
        };
        if changed {
            tracing::info!(?networks, "the address pool has changed");
            self.platform.network.setup(&networks)?;
            self.policy.forget();
            self.enforce_now()?;
        }
        Ok(())
    }

    /// How a function's replicas are connected.
    pub(super) fn mode(&self, annotations: &Annotations) -> Result<Mode> {
        let mode = annotations.network.unwrap_or(self.config.network.mode);
        if self.config.network.allows(mode) {
            return Ok(mode);
        }
        Err(Fault::invalid(format!(
            "network {mode} is not allowed here; add it to modes in [network] of the configuration, or use {}",
            self.config.network.mode
        )))
    }

    /// The link of a new replica, with addresses that are its own until it is discarded.
    pub(super) fn link(&self, replica: &ReplicaName, spec: &FunctionSpec) -> Result<Link> {
        let mode = self.mode(&Annotations::read(&spec.annotations)?)?;
        if !mode.has_addresses() {
            return Ok(Link { mode, addresses: Vec::new() });
        }
        self.refresh_addresses()?;
        let taken = self.addresses().take(replica);
        let addresses = match taken {
            Err(fault) if fault.kind() == Kind::Exhausted && self.give_up_all() => self.addresses().take(replica)?,
            taken => taken?,
        };
        Ok(Link { mode, addresses })
    }
}
