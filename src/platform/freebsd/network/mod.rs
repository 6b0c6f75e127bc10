//! How a replica's jail reaches the network.
//!
//! | mode | what a jail gets | for |
//! |---|---|---|
//! | [`Mode::None`] | no address at all | builders without dependencies, tests |
//! | [`Mode::Alias`] | one address on a loopback interface of the realm, shared stack | the default: costs nothing |
//! | [`Mode::Vnet`] | its own stack, an epair, a private bridge port | functions that must not reach each other |
//! | [`Mode::Inherit`] | the host's addresses | trusted functions |
//!
//! In the alias mode the stack is the host's: a jail may bind its own address only (the kernel rewrites
//! INADDR_ANY and 127.0.0.1 to it), but it can connect to other replicas' addresses, and it sees the host's
//! interface names. Nothing on the path of a start or a stop runs a command; pf(4) is loaded once.

use std::net::IpAddr;

use ipnetwork::IpNetwork;

use crate::fault::Result;
use crate::function::{Realm, ReplicaName};
use crate::network::{Attachment, Network};

mod alias;
pub mod control;
pub mod inside;
pub mod ioctl;
mod pf;
mod vnet;

pub use alias::Alias;
pub use pf::{ANCHOR_LINES, Filter, missing_anchors};
pub use vnet::Vnet;

/// The group that all interfaces of this program are in, for ifconfig(8) and pf.conf(5).
pub const GROUP: &str = "faasjails";

/// How replicas are connected.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    /// No network.
    None,
    /// The host's network.
    Inherit,
    /// An address on a loopback interface.
    Alias,
    /// A network stack of their own.
    Vnet,
}

/// What a network is made from.
#[derive(Debug, Clone)]
pub struct Settings {
    /// Whose replicas.
    pub realm: Realm,
    /// The addresses that are handed out. Its first host is the host's own.
    pub network: IpNetwork,
    /// The interface that leads outside; replicas reach the world through NAT on it. `None`: they don't.
    pub egress: Option<String>,
}

impl Settings {
    /// The host's own address in the network.
    fn gateway(&self) -> Result<IpAddr> {
        Ok(crate::network::ipam::Pool::new(self.network)?.gateway())
    }

    /// What the description of the realm's own interface says.
    fn description(&self) -> String {
        format!("faas-jails realm {}", self.realm)
    }
}

/// The network of this mode.
pub fn connect(mode: Mode, settings: Settings) -> Box<dyn Network> {
    match mode {
        Mode::None => Box::new(Plain::None),
        Mode::Inherit => Box::new(Plain::Inherit),
        Mode::Alias => Box::new(Alias::new(settings)),
        Mode::Vnet => Box::new(Vnet::new(settings)),
    }
}

/// The modes that make nothing.
enum Plain {
    None,
    Inherit,
}

impl Network for Plain {
    fn setup(&self) -> Result<()> {
        Ok(())
    }

    fn teardown(&self) -> Result<()> {
        Ok(())
    }

    fn attach(&self, _: &ReplicaName, _: IpAddr) -> Result<Attachment> {
        Ok(match self {
            Plain::None => Attachment::None,
            Plain::Inherit => Attachment::Inherit,
        })
    }

    fn detach(&self, _: &ReplicaName) -> Result<()> {
        Ok(())
    }

    fn attached(&self) -> Result<Vec<ReplicaName>> {
        Ok(Vec::new())
    }
}
