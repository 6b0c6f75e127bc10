//! How a replica's jail reaches the network.
//!
//! | mode | what a jail gets | for |
//! |---|---|---|
//! | [`Mode::Alias`] | an address of each family on a loopback interface of the realm, shared stack | the default: costs nothing |
//! | [`Mode::Vnet`] | its own stack, an epair, a private bridge port | functions that must not reach each other |
//! | [`Mode::None`] | the same, and pf(4) drops what it begins | functions that compute |
//! | [`Mode::Inherit`] | the host's addresses | trusted functions |
//!
//! In the alias mode the stack is the host's: a jail may bind its own address only (the kernel rewrites
//! INADDR_ANY and 127.0.0.1 to it), but it can connect to other replicas' addresses, and it sees the host's
//! interface names. Nothing on the path of a start or a stop runs a command; pfctl(8) runs when the network is set
//! up and when a [`Policy`] changes. The interfaces of a mode are made when the first replica needs them.

use std::collections::BTreeSet;
use std::sync::{Mutex, MutexGuard, PoisonError};

use ipnetwork::IpNetwork;

use crate::fault::{Fault, Kind, Result};
use crate::function::{Realm, ReplicaName};
use crate::network::{Attachment, Link, Mode, Network, Policy, ipam};

mod alias;
pub mod control;
pub mod inside;
pub mod ioctl;
mod pf;
mod vnet;

use alias::Alias;
pub use pf::{ANCHOR_LINES, missing_anchors};
use vnet::Vnet;

/// The group that all interfaces of this program are in, for ifconfig(8) and pf.conf(5).
pub const GROUP: &str = "faasjails";

/// What a network is made from.
#[derive(Debug, Clone)]
pub struct Settings {
    /// Whose replicas.
    pub realm: Realm,
    /// The interface that leads outside: published ports are there.
    pub egress: Option<String>,
    /// Whether replicas reach the world through address translation on `egress`.
    pub nat: bool,
}

impl Settings {
    /// What the description of the realm's own interface says.
    fn description(&self) -> String {
        format!("faas-jails realm {}", self.realm)
    }
}

/// Replicas of one realm, each in the mode that its link says.
pub struct Networks {
    settings: Settings,
    /// The mode whose interface is there from the start.
    mode: Mode,
    alias: Alias,
    vnet: Vnet,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    networks: Vec<IpNetwork>,
    made: BTreeSet<Mode>,
}

/// The network of a realm whose replicas are mostly in this mode. Nothing is made before [`Network::setup`].
pub fn connect(mode: Mode, settings: Settings) -> Box<dyn Network> {
    let (alias, vnet) = (Alias::new(settings.clone()), Vnet::new(settings.clone()));
    Box::new(Networks { settings, mode, alias, vnet, state: Mutex::default() })
}

impl Networks {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The interface that replicas of this mode share.
    fn make(&self, mode: Mode, networks: &[IpNetwork]) -> Result<()> {
        match mode {
            Mode::Alias => self.alias.setup(networks),
            Mode::Vnet | Mode::None => self.vnet.setup(networks),
            Mode::Inherit => Ok(()),
            Mode::Bridge => Err(Fault::new(
                Kind::Unsupported,
                "network bridge is Linux's; on FreeBSD it is alias, vnet, none or inherit",
            )),
        }
    }

    /// The same, once.
    fn provide(&self, mode: Mode) -> Result<()> {
        let mut state = self.state();
        if !state.made.contains(&mode) {
            self.make(mode, &state.networks)?;
            state.made.insert(mode);
        }
        Ok(())
    }

    fn filter<'a>(&'a self, networks: &'a [IpNetwork], policy: &'a Policy) -> pf::Filter<'a> {
        pf::Filter { settings: &self.settings, bridge: self.vnet.bridge(), networks, policy }
    }
}

impl Network for Networks {
    fn setup(&self, networks: &[IpNetwork]) -> Result<()> {
        ipam::check(networks)?;
        let mut state = self.state();
        let mut modes = BTreeSet::from([self.mode]);
        // What an earlier daemon made for single functions.
        modes.extend(self.alias.is_there()?.then_some(Mode::Alias));
        modes.extend(self.vnet.is_there()?.then_some(Mode::Vnet));
        for mode in &modes {
            self.make(*mode, networks)?;
        }
        *state = State { networks: networks.to_vec(), made: modes };
        Ok(())
    }

    fn teardown(&self) -> Result<()> {
        let steps = [self.filter(&[], &Policy::default()).unload(), self.vnet.teardown(), self.alias.teardown()];
        self.state().made.clear();
        let mut faults = steps.into_iter().filter_map(Result::err);
        match faults.next() {
            None => Ok(()),
            Some(first) => Err(faults.fold(first, |fault, next| fault.and_cleanup(Err(next)))),
        }
    }

    fn attach(&self, replica: &ReplicaName, link: &Link) -> Result<Attachment> {
        self.provide(link.mode)?;
        match link.mode {
            Mode::Inherit => Ok(Attachment::Inherit),
            Mode::Alias => self.alias.attach(replica, &link.addresses),
            Mode::Vnet | Mode::None | Mode::Bridge => self.vnet.attach(replica, link),
        }
    }

    fn detach(&self, replica: &ReplicaName) -> Result<()> {
        let alias = self.alias.detach(replica);
        match (self.vnet.detach(replica), alias) {
            (Err(fault), other) => Err(fault.and_cleanup(other)),
            (Ok(()), other) => other,
        }
    }

    fn attached(&self) -> Result<Vec<ReplicaName>> {
        let all: BTreeSet<ReplicaName> = self.alias.attached()?.into_iter().chain(self.vnet.attached()?).collect();
        Ok(all.into_iter().collect())
    }

    fn enforce(&self, policy: &Policy) -> Result<()> {
        let networks = self.state().networks.clone();
        self.filter(&networks, policy).load()
    }
}
