//! A network stack per replica: one end of an epair(4) in the jail's VNET, the other a private port of the
//! realm's bridge(4), which carries the host's address.
//!
//! The host's end bears the replica's name as its description, so that links can be told apart after a crash.
//! The jail cannot speak for another: its port is private, and only its link address is known behind it.
//! (A VNET gives root in the jail raw sockets whatever `allow.*` says, so a function there is not root.)

use std::net::IpAddr;

use ipnetwork::IpNetwork;
use sha2::{Digest, Sha256};

use super::alias::belongs;
use super::control::{self, Control};
use super::{GROUP, Settings};
use crate::fault::{Context, Fault, Kind, Result};
use crate::function::ReplicaName;
use crate::network::{Attachment, Link, Mode, ipam};
use crate::platform::freebsd::sysctl;

/// A realm's bridge and its ports.
pub struct Vnet {
    settings: Settings,
    bridge: String,
}

impl Vnet {
    /// Nothing is made before [`Vnet::setup`].
    pub fn new(settings: Settings) -> Self {
        let bridge = format!("{}br", settings.realm);
        Self { settings, bridge }
    }

    fn make_bridge(&self, control: &Control) -> Result<()> {
        let made = control.create("bridge").context(|| "cannot make a bridge")?;
        let finish = || {
            control.rename(&made, &self.bridge)?;
            control.describe(&self.bridge, &self.settings.description())?;
            control.join(&self.bridge, GROUP)?;
            control.up(&self.bridge)
        };
        finish().context(|| format!("cannot set up bridge {}", self.bridge)).map_err(|fault| {
            let undo = control.destroy(&made).and_then(|()| control.destroy(&self.bridge));
            fault.and_cleanup(undo)
        })
    }

    fn make_link(&self, control: &Control, replica: &ReplicaName) -> Result<()> {
        let made = control.create("epair").context(|| "cannot make an epair")?;
        // epair(4): created as epairNa, the other end is epairNb.
        let other = format!("{}b", made.trim_end_matches('a'));
        let (outer, inner) = ends(replica);
        let finish = || {
            control.rename(&made, &outer)?;
            control.rename(&other, &inner)?;
            control.describe(&outer, &replica.to_string())?;
            control.join(&outer, GROUP)?;
            let mac = mac(replica);
            control.set_mac(&inner, mac)?;
            control.add_private_port(&self.bridge, &outer, mac)?;
            control.up(&outer)
        };
        finish().map_err(|fault| {
            let undo = control.destroy(&made).and_then(|()| control.destroy(&outer));
            fault.and_cleanup(undo)
        })
    }

    /// The bridge's name.
    pub fn bridge(&self) -> &str {
        &self.bridge
    }

    /// Whether the bridge is there, whoever made it.
    pub fn is_there(&self) -> Result<bool> {
        Ok(control::names().context(|| "cannot list interfaces")?.contains(&self.bridge))
    }

    /// The bridge, with the host's address of each network.
    pub fn setup(&self, networks: &[IpNetwork]) -> Result<()> {
        if !sysctl::exists("security.jail.param.vnet") {
            let message = "this kernel has no VNET; use another network mode, or a kernel with options VIMAGE";
            return Err(Fault::new(Kind::Unsupported, message));
        }
        warn_of_cloning();
        let control = Control::open().context(|| "cannot open a socket")?;
        if self.is_there()? {
            belongs(&control, &self.bridge, &self.settings)?;
        } else {
            self.make_bridge(&control)?;
        }
        let gateways: Vec<_> = networks.iter().map(|network| ipam::gateway(*network)).collect();
        for (network, gateway) in networks.iter().zip(&gateways) {
            control
                .add_address(&self.bridge, *gateway, network.prefix())
                .context(|| format!("cannot put {gateway} on {}", self.bridge))?;
            if self.settings.egress.is_some() {
                let name = if gateway.is_ipv4() { "net.inet.ip.forwarding" } else { "net.inet6.ip6.forwarding" };
                sysctl::set(name, 1).context(|| format!("cannot set {name}"))?;
            }
        }
        let there = control::addresses(&self.bridge).context(|| "cannot list addresses")?;
        let local = |address: &IpAddr| matches!(address, IpAddr::V6(v6) if v6.is_unicast_link_local());
        for address in there.into_iter().filter(|address| !local(address) && !gateways.contains(address)) {
            control.remove_address(&self.bridge, address)?;
        }
        Ok(())
    }

    /// Takes it away, with every link.
    pub fn teardown(&self) -> Result<()> {
        let control = Control::open().context(|| "cannot open a socket")?;
        if self.is_there()? {
            belongs(&control, &self.bridge, &self.settings)?;
        }
        for replica in self.attached()? {
            self.detach(&replica)?;
        }
        control.destroy(&self.bridge).context(|| format!("cannot destroy bridge {}", self.bridge))
    }

    /// Makes a replica's link.
    pub fn attach(&self, replica: &ReplicaName, link: &Link) -> Result<Attachment> {
        let control = Control::open().context(|| "cannot open a socket")?;
        self.make_link(&control, replica).context(|| format!("cannot connect {replica} to bridge {}", self.bridge))?;
        Ok(Attachment::Vnet {
            interface: ends(replica).1,
            addresses: link.addresses.clone(),
            closed: link.mode == Mode::None,
        })
    }

    /// Takes it away.
    pub fn detach(&self, replica: &ReplicaName) -> Result<()> {
        let control = Control::open().context(|| "cannot open a socket")?;
        let (outer, _) = ends(replica);
        control.destroy(&outer).context(|| format!("cannot destroy interface {outer} of {replica}"))
    }

    /// Replicas that have a link.
    pub fn attached(&self) -> Result<Vec<ReplicaName>> {
        let control = Control::open().context(|| "cannot open a socket")?;
        let mut found = Vec::new();
        for name in control::names().context(|| "cannot list interfaces")? {
            let Some(description) = control.description(&name)? else { continue };
            let replica = description.parse::<ReplicaName>().ok();
            found.extend(replica.filter(|replica| replica.realm() == &self.settings.realm && ends(replica).0 == name));
        }
        Ok(found)
    }
}

/// Looking for `/dev/tun` or `/dev/tap` makes an interface, in a VNET jail too, and though its /dev hides the
/// device. Whether the host needs that is the administrator's to know.
fn warn_of_cloning() {
    for name in ["net.link.tun.devfs_cloning", "net.link.tap.devfs_cloning"] {
        if sysctl::integer(name) == Some(1) {
            tracing::warn!(
                "replicas with their own stack can make interfaces; unless you need it, run: sysctl {name}=0"
            );
        }
    }
}

/// Names of the host's and the jail's end of a replica's link.
fn ends(replica: &ReplicaName) -> (String, String) {
    let outer = replica.interface();
    let inner = format!("{outer}j");
    (outer, inner)
}

/// The jail end's link address: made from the replica's name, because the kernel's own choice has been seen
/// to repeat; unicast and locally administered (IEEE 802, bits 0 and 1 of the first byte).
fn mac(replica: &ReplicaName) -> [u8; 6] {
    let digest = Sha256::digest(replica.to_string());
    [0x02, digest[0], digest[1], digest[2], digest[3], digest[4]]
}
