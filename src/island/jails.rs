//! Which runs there are now, and which addresses of the pool are held.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr};
use std::sync::PoisonError;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;

use ipnetwork::IpNetwork;

use super::Island;
use super::wire::{Addresses, Jail};
use crate::fault::{Fault, Kind, Result};
use crate::function::ReplicaName;
use crate::network::{Link, Mode};
use crate::sandbox::Signal;

/// Most addresses that one answer lists; a larger pool is listed up to here.
const LISTED: usize = 1 << 16;

/// A run that has begun and not been cleared away.
#[derive(Debug, Default)]
pub(super) struct Live {
    link: Option<Link>,
    killed: AtomicBool,
}

/// A run's entry in the list of those that live, and its address; gives both back when it is dropped.
pub(super) struct Entry<'i> {
    island: &'i Island,
    name: ReplicaName,
    /// Its addresses; none for a run without network.
    pub link: Option<Link>,
}

impl Entry<'_> {
    /// Whether somebody has killed it through the admin API.
    pub fn killed(&self) -> bool {
        self.island.live().get(&self.name).is_some_and(|live| live.killed.load(Ordering::Relaxed))
    }
}

impl Drop for Entry<'_> {
    fn drop(&mut self) {
        self.island.live().remove(&self.name);
        if self.link.is_some() {
            self.island.provider.addresses().give_back(&self.name);
        }
    }
}

impl Island {
    fn live(&self) -> std::sync::MutexGuard<'_, BTreeMap<ReplicaName, Live>> {
        self.live.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Notes a run; with `ip4`, it gets an address of the pool.
    pub(super) fn begin(&self, name: &ReplicaName, ip4: bool) -> Result<Entry<'_>> {
        let link = ip4.then(|| self.allocate(name)).transpose()?;
        self.live().insert(name.clone(), Live { link: link.clone(), ..Live::default() });
        Ok(Entry { island: self, name: name.clone(), link })
    }

    fn allocate(&self, name: &ReplicaName) -> Result<Link> {
        let begun = Instant::now();
        let mode = self.provider.config.network.mode;
        let none = |why: &str| Err(Fault::new(Kind::Unsupported, format!("ip4: {why}")));
        if matches!(mode, Mode::None | Mode::Inherit) {
            return none(&format!("functions have no network of their own here (network.mode is {mode})"));
        }
        let addresses = {
            let mut pool = self.provider.addresses();
            if !pool.networks().iter().any(IpNetwork::is_ipv4) {
                return none("the pool has no IPv4 addresses");
            }
            pool.take(name)?
        };
        self.statsd.timing("network.allocate", begun.elapsed());
        addresses.iter().for_each(|address| self.statsd.event(&format!("network.{}", address.ip())));
        Ok(Link { mode, addresses })
    }

    /// The runs that there are now, and no other sandbox of this host.
    pub(super) fn jails(&self) -> Result<Vec<Jail>> {
        Ok(self.found()?.into_iter().map(|(_, jail)| jail).collect())
    }

    /// One run.
    pub(super) fn jail(&self, jid: i32) -> Result<Jail> {
        self.one(jid).map(|(_, jail)| jail)
    }

    /// Ends one run; its caller is told.
    pub(super) fn kill(&self, jid: i32) -> Result<()> {
        let (name, _) = self.one(jid)?;
        self.end(&name)
    }

    /// Ends every run.
    pub(super) fn kill_all(&self) -> Result<()> {
        let names: Vec<ReplicaName> = self.live().keys().cloned().collect();
        // Each of them is tried, whatever came of the others.
        let failed: Vec<Fault> = names.iter().filter_map(|name| self.end(name).err()).collect();
        match failed.into_iter().reduce(|first, other| first.and_cleanup(Err(other))) {
            Some(fault) => Err(fault),
            None => Ok(()),
        }
    }

    fn end(&self, name: &ReplicaName) -> Result<()> {
        let begun = Instant::now();
        if let Some(live) = self.live().get(name) {
            live.killed.store(true, Ordering::Relaxed);
        }
        self.provider.platform.sandbox.signal(name, Signal::Kill)?;
        self.statsd.timing("jail.kill_jail_time", begun.elapsed());
        self.statsd.event("jail.killed");
        Ok(())
    }

    fn one(&self, jid: i32) -> Result<(ReplicaName, Jail)> {
        let found = self.found()?.into_iter().find(|(_, jail)| jail.jid == jid);
        found.ok_or_else(|| Fault::not_found(format!("no function runs in a jail {jid}")))
    }

    fn found(&self) -> Result<Vec<(ReplicaName, Jail)>> {
        let found = self.provider.platform.sandbox.list()?;
        let live = self.live();
        let running = found.into_iter().filter_map(|found| {
            let (live, jid) = (live.get(&found.replica)?, found.number?);
            Some((found.replica.clone(), self.describe(&found.replica, live, jid)))
        });
        Ok(running.collect())
    }

    fn describe(&self, name: &ReplicaName, live: &Live, jid: i32) -> Jail {
        let address = |v4: bool| {
            let mut addresses = live.link.iter().flat_map(|link| &link.addresses);
            let address = addresses.find(|address| address.is_ipv4() == v4);
            address.map_or_else(|| "disable".to_owned(), |address| address.ip().to_string())
        };
        Jail {
            host: "new".into(),
            ip4: address(true),
            ip6: address(false),
            jid,
            name: name.to_string(),
            os_release: rustix::system::uname().release().to_string_lossy().into_owned(),
            path: self.provider.config.root.join("run").join(name.to_string()).display().to_string(),
            hostname: name.function().name.to_string(),
        }
    }

    /// The pool's IPv4 addresses with their holders, functions' replicas among them.
    pub(super) fn addresses(&self) -> Addresses {
        let pool = self.provider.addresses();
        let held = pool.holders().keys().filter_map(|address| match address {
            IpAddr::V4(address) => Some(*address),
            IpAddr::V6(_) => None,
        });
        let holder =
            |address: Ipv4Addr| pool.holders().get(&address.into()).map(|name| STANDARD.encode(name.to_string()));
        pool.all_v4().take(LISTED).chain(held).map(|address| (address, holder(address))).collect()
    }

    /// Frees an address whose holder is gone. One in use stays its holder's: two sandboxes must not have the same.
    pub(super) fn free(&self, address: Ipv4Addr) -> Result<()> {
        let begun = Instant::now();
        let address = IpAddr::V4(address);
        let holder = {
            let pool = self.provider.addresses();
            if !pool.hands_out(address) {
                return Err(Fault::not_found(format!("{address} is not an address of the pool")));
            }
            pool.holders().get(&address).cloned()
        };
        if let Some(holder) = holder {
            if self.provider.replicas_anywhere()?.contains(&holder) || self.live().contains_key(&holder) {
                let message = format!("{address} is in use by {holder}; it is free again when that has ended");
                return Err(Fault::new(Kind::Busy, message));
            }
            self.provider.addresses().give_back(&holder);
        }
        self.statsd.timing("network.update_ip_state", begun.elapsed());
        Ok(())
    }
}
