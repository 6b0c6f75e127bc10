//! Addresses and links of replicas: the network capability, as plain data. [`ipam`] is the pool, pure.

use std::net::IpAddr;
use std::os::fd::OwnedFd;

use ipnetwork::IpNetwork;

use crate::fault::Result;
use crate::function::ReplicaName;

pub mod ipam;

/// Gives replicas their own address. Implementations own every link, route and firewall entry they make.
pub trait Network: Send + Sync {
    /// Makes what all replicas share (bridge or alias interface, forwarding, NAT). Safe to repeat.
    fn setup(&self) -> Result<()>;

    /// Removes what [`Network::setup`] made. Already gone is success.
    fn teardown(&self) -> Result<()>;

    /// Connects a replica under `address`.
    fn attach(&self, replica: &ReplicaName, address: IpAddr) -> Result<Attachment>;

    /// Takes away whatever [`Network::attach`] made for this replica. Already gone is success.
    fn detach(&self, replica: &ReplicaName) -> Result<()>;

    /// Replicas that have a link on this host now, for sweeping.
    fn attached(&self) -> Result<Vec<ReplicaName>>;
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
        /// The address it gets, with its prefix.
        address: IpNetwork,
        /// The default route.
        gateway: IpAddr,
    },
}
