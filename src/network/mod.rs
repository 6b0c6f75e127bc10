//! Addresses and links of replicas: the network capability, as plain data.
//!
//! [`ipam`] is the pool of addresses, pure; [`book`] what people decided about it, in a file; [`publish`] reads the
//! annotation by which a function has ports of the host.

use std::collections::BTreeSet;
use std::fmt;
use std::net::IpAddr;
use std::os::fd::OwnedFd;
use std::str::FromStr;

use ipnetwork::IpNetwork;
use serde::{Deserialize, Serialize};

use crate::fault::{Fault, Result};
use crate::function::ReplicaName;

pub mod book;
pub mod ipam;
pub mod publish;

pub use publish::{Port, Protocol};

/// Gives replicas their own address. Implementations own every link, route and firewall entry they make.
pub trait Network: Send + Sync {
    /// Makes what all replicas share (bridge or alias interface, forwarding, NAT) for addresses of these networks.
    /// Safe to repeat, also with other networks than before.
    fn setup(&self, networks: &[IpNetwork]) -> Result<()>;

    /// Removes what [`Network::setup`] and [`Network::enforce`] made. Already gone is success.
    fn teardown(&self) -> Result<()>;

    /// Connects a replica.
    fn attach(&self, replica: &ReplicaName, link: &Link) -> Result<Attachment>;

    /// Takes away whatever [`Network::attach`] made for this replica. Already gone is success.
    fn detach(&self, replica: &ReplicaName) -> Result<()>;

    /// Replicas that have a link on this host now, for sweeping.
    fn attached(&self) -> Result<Vec<ReplicaName>>;

    /// Puts exactly this policy in force, in one step, in place of the one before.
    fn enforce(&self, policy: &Policy) -> Result<()>;
}

/// How replicas are connected.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Mode {
    /// Called by the provider, and reaching nobody: what a replica begins itself is dropped.
    None,
    /// Linux: an own network namespace on a bridge of this program.
    Bridge,
    /// FreeBSD: an address of the pool on an interface of this program, shared stack.
    Alias,
    /// FreeBSD: an own network stack, connected by an epair to a bridge of this program.
    Vnet,
    /// The host's own network, its addresses and ports; nothing separates it from the host's programs there.
    Inherit,
}

impl Mode {
    /// Every mode of every system.
    pub const ALL: [Self; 5] = [Self::None, Self::Bridge, Self::Alias, Self::Vnet, Self::Inherit];

    /// As it is written in annotations and in the configuration.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::Bridge => "bridge",
            Self::Alias => "alias",
            Self::Vnet => "vnet",
            Self::Inherit => "inherit",
        }
    }

    /// Whether replicas have addresses of the pool.
    pub fn has_addresses(self) -> bool {
        self != Self::Inherit
    }
}

impl fmt::Display for Mode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl FromStr for Mode {
    type Err = Fault;
    fn from_str(text: &str) -> Result<Self> {
        Self::ALL.into_iter().find(|mode| mode.as_str() == text).ok_or_else(|| {
            let known = Self::ALL.map(Self::as_str).join(", ");
            Fault::invalid(format!("network ({}) is invalid: one of {known}", text.escape_debug()))
        })
    }
}

/// What a replica's link is to be.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Link {
    /// How it is connected.
    pub mode: Mode,
    /// Its addresses, at most one of each family, each with the length of its network's prefix. The first is where
    /// it is called.
    pub addresses: Vec<IpNetwork>,
}

/// What the packet filter is to do beyond the rules that every replica has.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Policy {
    /// Ports of the host that lead to replicas.
    pub published: Vec<Published>,
    /// Addresses of replicas that may begin nothing.
    pub closed: BTreeSet<IpAddr>,
}

impl Policy {
    /// Whether it asks for nothing.
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }
}

/// A port of the host that leads to replicas.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Published {
    /// Which port, and to which.
    pub port: Port,
    /// Addresses of the replicas, which take turns. None: the port is closed.
    pub targets: Vec<IpAddr>,
}

/// What a sandbox needs to know of its replica's network.
#[derive(Debug)]
pub enum Attachment {
    /// No network at all.
    None,
    /// The host's own network stack.
    Inherit,
    /// Linux: a network namespace, fully set up, that the sandbox enters.
    Namespace(OwnedFd),
    /// FreeBSD: addresses on a host interface that the jail may use (`ip4.addr`, `ip6.addr`).
    Alias(Vec<IpAddr>),
    /// FreeBSD: the jail's end of an epair, moved into its VNET and configured there once the jail exists.
    Vnet {
        /// The interface's name on the host before it moves.
        interface: String,
        /// The addresses it gets, each with its prefix; a default route leads to [`ipam::gateway`] of each.
        addresses: Vec<IpNetwork>,
        /// Whether it may begin nothing: then it must not be root's, who could take another address.
        closed: bool,
    },
}
