//! Addresses on a cloned loopback interface, one per replica.
//!
//! Which replica has which address is written in its jail (`ip4.addr`, `ip6.addr`), which lives as long as
//! the replica. An address that no jail has is left over from a start that a crash interrupted;
//! [`Alias::setup`] takes it away.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::{Mutex, MutexGuard, PoisonError};

use super::control::{self, Control};
use super::{GROUP, Settings};
use crate::fault::{Context, Fault, Kind, Result};
use crate::function::ReplicaName;
use crate::network::{Attachment, ipam};
use crate::platform::freebsd::jail;
use ipnetwork::IpNetwork;

/// The default network of a realm.
pub struct Alias {
    settings: Settings,
    interface: String,
    held: Mutex<BTreeMap<ReplicaName, Vec<IpAddr>>>,
}

impl Alias {
    /// Nothing is made before [`Alias::setup`].
    pub fn new(settings: Settings) -> Self {
        let interface = format!("{}lo", settings.realm);
        Self { settings, interface, held: Mutex::default() }
    }

    fn held(&self) -> MutexGuard<'_, BTreeMap<ReplicaName, Vec<IpAddr>>> {
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn make(&self, control: &Control) -> Result<()> {
        let made = control.create("lo").context(|| "cannot make a loopback interface")?;
        let finish = || {
            control.rename(&made, &self.interface)?;
            control.describe(&self.interface, &self.settings.description())?;
            control.join(&self.interface, GROUP)?;
            control.up(&self.interface)
        };
        finish().context(|| format!("cannot set up interface {}", self.interface)).map_err(|fault| {
            let undo = control.destroy(&made).and_then(|()| control.destroy(&self.interface));
            fault.and_cleanup(undo)
        })
    }

    /// Learns the addresses of the realm's jails.
    fn adopt(&self) -> Result<()> {
        for jail in jail::list(jail::View::Alive)? {
            let Ok(replica) = jail.name.parse::<ReplicaName>() else { continue };
            if replica.realm() == &self.settings.realm {
                let addresses = jail::addresses(jail.jid)?;
                self.held().entry(replica).or_insert(addresses);
            }
        }
        Ok(())
    }

    fn sweep(&self, control: &Control, networks: &[IpNetwork]) -> Result<()> {
        let there = control::addresses(&self.interface).context(|| "cannot list addresses")?;
        let held = self.held();
        // The interface's own, which the kernel gave it.
        let local = |address: &IpAddr| matches!(address, IpAddr::V6(v6) if v6.is_unicast_link_local());
        let gateway = |address: &IpAddr| networks.iter().any(|network| ipam::gateway(*network) == *address);
        for address in there.into_iter().filter(|address| !local(address) && !gateway(address)) {
            if !held.values().flatten().any(|known| *known == address) {
                tracing::info!("taking {address} off {}: no jail has it", self.interface);
                control.remove_address(&self.interface, address)?;
            }
        }
        Ok(())
    }

    /// Whether the interface is there, whoever made it.
    pub fn is_there(&self) -> Result<bool> {
        Ok(control::names().context(|| "cannot list interfaces")?.contains(&self.interface))
    }

    /// The interface, with the host's address of each network.
    pub fn setup(&self, networks: &[IpNetwork]) -> Result<()> {
        let control = Control::open().context(|| "cannot open a socket")?;
        if self.is_there()? {
            belongs(&control, &self.interface, &self.settings)?;
        } else {
            self.make(&control)?;
        }
        for gateway in networks.iter().map(|network| ipam::gateway(*network)) {
            control
                .add_address(&self.interface, gateway, full(gateway))
                .context(|| format!("cannot put {gateway} on {}", self.interface))?;
        }
        self.adopt()?;
        self.sweep(&control, networks)
    }

    /// Takes it away.
    pub fn teardown(&self) -> Result<()> {
        let control = Control::open().context(|| "cannot open a socket")?;
        if self.is_there()? {
            belongs(&control, &self.interface, &self.settings)?;
        }
        control.destroy(&self.interface).context(|| format!("cannot destroy interface {}", self.interface))?;
        self.held().clear();
        Ok(())
    }

    /// Puts a replica's addresses on it.
    pub fn attach(&self, replica: &ReplicaName, addresses: &[IpNetwork]) -> Result<Attachment> {
        let control = Control::open().context(|| "cannot open a socket")?;
        let addresses: Vec<IpAddr> = addresses.iter().map(|address| address.ip()).collect();
        // Known before they are there, so that no sweep takes them for left-overs.
        self.held().insert(replica.clone(), addresses.clone());
        for address in &addresses {
            if let Err(fault) = control.add_address(&self.interface, *address, full(*address)) {
                let fault = Err(fault).context(|| format!("cannot put {address} on {} for {replica}", self.interface));
                return fault.map_err(|fault: Fault| fault.and_cleanup(self.detach(replica)));
            }
        }
        Ok(Attachment::Alias(addresses))
    }

    /// Takes them off.
    pub fn detach(&self, replica: &ReplicaName) -> Result<()> {
        self.adopt()?;
        let control = Control::open().context(|| "cannot open a socket")?;
        let mut held = self.held();
        let Some(addresses) = held.remove(replica) else { return Ok(()) };
        // A jail seen a moment before it went may have been noted again after its address was another's.
        let others = |address: &IpAddr| held.values().flatten().any(|other| other == address);
        let own: Vec<IpAddr> = addresses.into_iter().filter(|address| !others(address)).collect();
        for address in own {
            if let Err(fault) = control.remove_address(&self.interface, address) {
                held.entry(replica.clone()).or_default().push(address);
                return Err(fault).context(|| format!("cannot take {address} off {}", self.interface));
            }
        }
        Ok(())
    }

    /// Replicas that have addresses on it, or a jail.
    pub fn attached(&self) -> Result<Vec<ReplicaName>> {
        self.adopt()?;
        Ok(self.held().keys().cloned().collect())
    }
}

/// An interface of the right name must also be this realm's.
pub(super) fn belongs(control: &Control, interface: &str, settings: &Settings) -> Result<()> {
    let description = control.description(interface)?.unwrap_or_default();
    if description == settings.description() {
        return Ok(());
    }
    Err(Fault::new(
        Kind::Busy,
        format!(
            "interface {interface} belongs to somebody else (its description is {description:?}, not {:?}); \
             rename it, or choose another realm",
            settings.description()
        ),
    ))
}

/// The prefix of a single address.
fn full(address: IpAddr) -> u8 {
    if address.is_ipv4() { 32 } else { 128 }
}
