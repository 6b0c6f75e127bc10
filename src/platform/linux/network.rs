//! [`BridgeNetwork`]: every replica in a network namespace of its own, joined to the host by a veth pair
//! on a bridge. All links are made by netlink, about a millisecond a replica; a namespace is held by
//! descriptors and processes only, so that its links vanish with its last process.
//!
//! ```text
//!  replica's namespace            host
//!  eth0 (address/prefix) <=veth=> fjXXXXXXXX --port, isolated--> bridge (first address of the subnet) --NAT--> outside
//! ```
//!
//! Ports are isolated (IFLA_BRPORT_ISOLATED): replicas reach the host and, with NAT, the outside, never each other.
//! A replica cannot take another's address: it would need CAP_NET_ADMIN or CAP_NET_RAW, which no replica has,
//! and the rules of [`super::nat`] drop what leaves the bridge with a foreign source. A replica in mode `none` has
//! the same link, and those rules drop whatever it begins.

use std::fs;
use std::net::IpAddr;
use std::os::fd::{AsRawFd, OwnedFd};
use std::sync::{Mutex, MutexGuard, PoisonError};

use ipnetwork::IpNetwork;

use super::nat::Rules;
use super::netlink::{Refusal, Request, Socket, number, text};
use crate::fault::{Context, Fault, Kind, Result};
use crate::function::{Realm, ReplicaName};
use crate::network::{Attachment, Link, Mode, Network, Policy, ipam};

// linux/if_link.h, not in libc.
const VETH_INFO_PEER: u16 = 1;
const IFLA_BRPORT_ISOLATED: u16 = 33;
const RTEXT_FILTER_SKIP_STATS: u32 = 1 << 3;
/// The replica's end, inside.
const INSIDE: &str = "eth0";
/// A new namespace's first link.
const LOOPBACK: u32 = 1;

/// Replicas behind one bridge. Uses the network namespace of the calling thread.
#[derive(Debug)]
pub struct BridgeNetwork {
    realm: Realm,
    bridge: String,
    nat: bool,
    networks: Mutex<Vec<IpNetwork>>,
}

impl BridgeNetwork {
    /// A network of `realm` on a bridge called `bridge` (at most 15 bytes), where the host has the first address of
    /// each network. With `nat`, replicas reach the outside under the host's address.
    pub fn new(realm: Realm, bridge: &str, nat: bool) -> Result<Self> {
        let fits = (1..=15).contains(&bridge.len())
            && bridge.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_');
        if !fits {
            return Err(Fault::invalid(format!(
                "bridge name ({}) is invalid: one to fifteen letters, digits, - or _",
                bridge.escape_debug()
            )));
        }
        Ok(Self { realm, bridge: bridge.to_owned(), nat, networks: Mutex::default() })
    }

    fn networks(&self) -> MutexGuard<'_, Vec<IpNetwork>> {
        self.networks.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn rules<'a>(&'a self, networks: &'a [IpNetwork], policy: &'a Policy) -> Rules<'a> {
        Rules { realm: &self.realm, bridge: &self.bridge, networks, nat: self.nat, policy }
    }

    /// What this daemon writes on its bridge, so as not to take a stranger's for its own.
    fn mark(&self) -> String {
        format!("faas-jails {}", self.realm)
    }

    /// The bridge's index, if it is there; `Busy` if somebody else's has its name.
    fn find_bridge(&self, host: &Socket) -> Result<Option<u32>> {
        let Some((index, alias)) = find(host, &self.bridge)? else { return Ok(None) };
        if alias.as_deref() == Some(&self.mark()) {
            return Ok(Some(index));
        }
        Err(Fault::new(
            Kind::Busy,
            format!(
                "network interface {} is there already and does not belong to realm {}; choose another bridge name, or remove it with: ip link delete {}",
                self.bridge, self.realm, self.bridge
            ),
        ))
    }

    fn make_bridge(&self, host: &Socket, networks: &[IpNetwork]) -> Result<u32, Fault> {
        let first = networks.first().ok_or_else(|| Fault::invalid("a bridge needs a network"))?;
        let create = Request::new(libc::RTM_NEWLINK, libc::NLM_F_CREATE | libc::NLM_F_EXCL)
            .link(0, false)
            .text(libc::IFLA_IFNAME, &self.bridge)
            .attribute(libc::IFLA_ADDRESS, &hardware_address(ipam::gateway(*first)))
            .nested(libc::IFLA_LINKINFO, |info| info.text(libc::IFLA_INFO_KIND, "bridge"));
        host.execute(create)?;
        let mark = Request::new(libc::RTM_NEWLINK, 0)
            .link(0, false)
            .text(libc::IFLA_IFNAME, &self.bridge)
            .text(libc::IFLA_IFALIAS, &self.mark());
        host.execute(mark)?;
        self.find_bridge(host)?.ok_or_else(|| Fault::not_found(format!("bridge {} vanished", self.bridge)))
    }

    /// The host's end: port of the bridge, isolated, up, with the replica's name on it.
    fn join_bridge(&self, host: &Socket, replica: &ReplicaName) -> Result<(), Refusal> {
        let join = Request::new(libc::RTM_NEWLINK, 0)
            .link(0, true)
            .text(libc::IFLA_IFNAME, &replica.interface())
            .text(libc::IFLA_IFALIAS, &replica.to_string())
            .nested(libc::IFLA_LINKINFO, |info| {
                info.text(libc::IFLA_INFO_SLAVE_KIND, "bridge")
                    .nested(libc::IFLA_INFO_SLAVE_DATA, |port| port.attribute(IFLA_BRPORT_ISOLATED, &[1]))
            });
        host.execute(join).map(drop)
    }

    fn make_pair(
        &self,
        host: &Socket,
        bridge: u32,
        replica: &ReplicaName,
        address: IpAddr,
        namespace: &OwnedFd,
    ) -> Result<(), Refusal> {
        let pair = Request::new(libc::RTM_NEWLINK, libc::NLM_F_CREATE | libc::NLM_F_EXCL)
            .link(0, false)
            .text(libc::IFLA_IFNAME, &replica.interface())
            .number(libc::IFLA_MASTER, bridge)
            .nested(libc::IFLA_LINKINFO, |info| {
                info.text(libc::IFLA_INFO_KIND, "veth").nested(libc::IFLA_INFO_DATA, |data| {
                    data.nested(VETH_INFO_PEER, |peer| {
                        peer.link(0, false)
                            .text(libc::IFLA_IFNAME, INSIDE)
                            .attribute(libc::IFLA_ADDRESS, &hardware_address(address))
                            .number(libc::IFLA_NET_NS_FD, namespace.as_raw_fd() as u32)
                    })
                })
            });
        host.execute(pair).map(drop)
    }

    /// Loopback, addresses and default routes, inside.
    fn configure_inside(&self, inside: &Socket, addresses: &[IpNetwork]) -> Result<()> {
        let (eth0, _) = find(inside, INSIDE)?.ok_or_else(|| Fault::not_found(format!("{INSIDE} vanished")))?;
        for index in [LOOPBACK, eth0] {
            inside.execute(Request::new(libc::RTM_NEWLINK, 0).link(index, true))?;
        }
        for address in addresses {
            add_address(inside, eth0, address.ip(), address.prefix())?;
            let gateway = ipam::gateway(*address);
            let route = Request::new(libc::RTM_NEWROUTE, libc::NLM_F_CREATE | libc::NLM_F_EXCL)
                // struct rtmsg: family, dst_len 0, src_len, tos, table, protocol, scope, type, flags.
                .bytes(&[family(gateway), 0, 0, 0, libc::RT_TABLE_MAIN, libc::RTPROT_BOOT, libc::RT_SCOPE_UNIVERSE])
                .bytes(&[libc::RTN_UNICAST, 0, 0, 0, 0])
                .attribute(libc::RTA_GATEWAY, &octets(gateway));
            inside.execute(route)?;
        }
        Ok(())
    }

    fn connect(&self, host: &Socket, replica: &ReplicaName, addresses: &[IpNetwork]) -> Result<OwnedFd> {
        let bridge = self
            .find_bridge(host)?
            .ok_or_else(|| Fault::not_found(format!("bridge {} is not there; it is made by setup", self.bridge)))?;
        let first = addresses.first().ok_or_else(|| Fault::invalid(format!("{replica} has no address")))?;
        let (namespace, inside) = new_namespace()?;
        self.make_pair(host, bridge, replica, first.ip(), &namespace)?;
        let configured = self
            .configure_inside(&inside, addresses)
            .and_then(|()| self.join_bridge(host, replica).map_err(Fault::from));
        match configured {
            Ok(()) => Ok(namespace),
            Err(fault) => Err(fault.and_cleanup(delete(host, &replica.interface()))),
        }
    }

    /// The host's addresses on the bridge: one of each network, and none of a network that is no more.
    fn address_bridge(&self, host: &Socket, index: u32, networks: &[IpNetwork]) -> Result<()> {
        for network in networks {
            add_address(host, index, ipam::gateway(*network), network.prefix())?;
        }
        let gone: Vec<IpNetwork> = self.networks().iter().filter(|old| !networks.contains(old)).copied().collect();
        for network in gone {
            let octets = octets(ipam::gateway(network));
            let request = Request::new(libc::RTM_DELADDR, 0)
                .bytes(&[family(network.ip()), network.prefix(), 0, libc::RT_SCOPE_UNIVERSE])
                .bytes(&index.to_ne_bytes())
                .attribute(libc::IFA_LOCAL, &octets);
            host.execute(request)?;
        }
        Ok(())
    }
}

impl Network for BridgeNetwork {
    fn setup(&self, networks: &[IpNetwork]) -> Result<()> {
        let doing = || format!("cannot set up the network on bridge {}", self.bridge);
        ipam::check(networks)?;
        let host = Socket::open().context(doing)?;
        let index = match self.find_bridge(&host)? {
            Some(index) => index,
            None => self.make_bridge(&host, networks).context(doing)?,
        };
        self.address_bridge(&host, index, networks).context(doing)?;
        host.execute(Request::new(libc::RTM_NEWLINK, 0).link(index, true)).map_err(Fault::from).context(doing)?;
        *self.networks() = networks.to_vec();
        Ok(())
    }

    fn teardown(&self) -> Result<()> {
        let host = Socket::open().context(|| "cannot open a netlink socket")?;
        let rules = self.rules(&[], &Policy::default()).remove();
        let bridge = match self.find_bridge(&host)? {
            Some(_) => delete(&host, &self.bridge),
            None => Ok(()),
        };
        match (rules, bridge) {
            (Err(fault), cleanup) => Err(fault.and_cleanup(cleanup)),
            (Ok(()), bridge) => bridge,
        }
    }

    fn attach(&self, replica: &ReplicaName, link: &Link) -> Result<Attachment> {
        match link.mode {
            Mode::Inherit => return Ok(Attachment::Inherit),
            Mode::None | Mode::Bridge => {}
            other => {
                return Err(Fault::new(
                    Kind::Unsupported,
                    format!("network {other} is FreeBSD's; on Linux it is bridge"),
                ));
            }
        }
        let known = self.networks().clone();
        if known.is_empty() {
            return Err(Fault::not_found(format!("bridge {} is not there; it is made by setup", self.bridge)));
        }
        for address in &link.addresses {
            if !known.iter().any(|network| ipam::is_host(*network, address.ip())) {
                let shown: Vec<String> = known.iter().map(IpNetwork::to_string).collect();
                return Err(Fault::invalid(format!(
                    "{replica} cannot have {} on network {}",
                    address.ip(),
                    shown.join(" or ")
                )));
            }
        }
        let host = Socket::open().context(|| "cannot open a netlink socket")?;
        let namespace = self
            .connect(&host, replica, &link.addresses)
            .context(|| format!("cannot connect {replica} to bridge {}", self.bridge))?;
        Ok(Attachment::Namespace(namespace))
    }

    fn detach(&self, replica: &ReplicaName) -> Result<()> {
        let host = Socket::open().context(|| "cannot open a netlink socket")?;
        delete(&host, &replica.interface()).context(|| format!("cannot disconnect {replica}"))
    }

    fn attached(&self) -> Result<Vec<ReplicaName>> {
        let host = Socket::open().context(|| "cannot open a netlink socket")?;
        let Some(bridge) = self.find_bridge(&host)? else { return Ok(Vec::new()) };
        let dump = Request::new(libc::RTM_GETLINK, libc::NLM_F_DUMP)
            .link(0, false)
            .number(libc::IFLA_EXT_MASK, RTEXT_FILTER_SKIP_STATS);
        let links = host.execute(dump).context(|| format!("cannot list the links of bridge {}", self.bridge))?;
        let ours = links.iter().filter(|link| link.link_attribute(libc::IFLA_MASTER).map(number) == Some(bridge));
        Ok(ours
            .filter_map(|link| text(link.link_attribute(libc::IFLA_IFALIAS)?).parse::<ReplicaName>().ok())
            .filter(|replica| *replica.realm() == self.realm)
            .collect())
    }

    fn enforce(&self, policy: &Policy) -> Result<()> {
        let networks = self.networks().clone();
        if self.nat || !policy.published.is_empty() {
            networks.iter().try_for_each(|network| forward(*network))?;
        }
        self.rules(&networks, policy).apply()
    }
}

/// Index and alias of a link.
fn find(socket: &Socket, name: &str) -> Result<Option<(u32, Option<String>)>, Refusal> {
    let request = Request::new(libc::RTM_GETLINK, 0)
        .link(0, false)
        .text(libc::IFLA_IFNAME, name)
        .number(libc::IFLA_EXT_MASK, RTEXT_FILTER_SKIP_STATS);
    match socket.execute(request) {
        Ok(answers) => {
            Ok(answers.first().map(|link| (link.link_index(), link.link_attribute(libc::IFLA_IFALIAS).map(text))))
        }
        Err(refusal) if refusal.errno == libc::ENODEV => Ok(None),
        Err(refusal) => Err(refusal),
    }
}

fn delete(socket: &Socket, name: &str) -> Result<()> {
    let request = Request::new(libc::RTM_DELLINK, 0).link(0, false).text(libc::IFLA_IFNAME, name);
    match socket.execute(request) {
        Ok(_) => Ok(()),
        Err(refusal) if refusal.errno == libc::ENODEV => Ok(()),
        Err(refusal) => Err(refusal).context(|| format!("cannot delete network interface {name}")),
    }
}

fn add_address(socket: &Socket, link: u32, address: IpAddr, prefix: u8) -> Result<(), Refusal> {
    // No duplicate address detection (IPv6): the pool hands each out once, and waiting takes a second.
    let octets = octets(address);
    let request = Request::new(libc::RTM_NEWADDR, libc::NLM_F_CREATE | libc::NLM_F_REPLACE)
        // struct ifaddrmsg: family, prefix, flags, scope, index.
        .bytes(&[family(address), prefix, libc::IFA_F_NODAD as u8, libc::RT_SCOPE_UNIVERSE])
        .bytes(&link.to_ne_bytes())
        .attribute(libc::IFA_LOCAL, &octets)
        .attribute(libc::IFA_ADDRESS, &octets);
    socket.execute(request).map(drop)
}

/// A locally administered hardware address made from an IP address, so that the host's neighbour table
/// stays right when another replica gets an address that was in use before.
fn hardware_address(address: IpAddr) -> [u8; 6] {
    let octets = octets(address);
    let mut hardware = [0x02, 0xfa, 0, 0, 0, 0];
    hardware[2..].copy_from_slice(&octets[octets.len() - 4..]);
    hardware
}

fn octets(address: IpAddr) -> Vec<u8> {
    match address {
        IpAddr::V4(v4) => v4.octets().to_vec(),
        IpAddr::V6(v6) => v6.octets().to_vec(),
    }
}

fn family(address: IpAddr) -> u8 {
    if address.is_ipv4() { libc::AF_INET as u8 } else { libc::AF_INET6 as u8 }
}

/// Lets this host's kernel route. It stays on at teardown: others may rely on it by then.
fn forward(subnet: IpNetwork) -> Result<()> {
    let file = match subnet {
        IpNetwork::V4(_) => "/proc/sys/net/ipv4/ip_forward",
        IpNetwork::V6(_) => "/proc/sys/net/ipv6/conf/all/forwarding",
    };
    if fs::read_to_string(file).is_ok_and(|now| now.trim() == "1") {
        return Ok(());
    }
    fs::write(file, "1").context(|| format!("cannot turn on IP forwarding in {file}"))
}

/// A new network namespace, and a netlink socket in it. Made in a thread that ends: the caller stays where it is.
fn new_namespace() -> Result<(OwnedFd, Socket)> {
    let make = || -> std::io::Result<(OwnedFd, Socket)> {
        // SAFETY: affects this thread only, which runs nothing but this closure.
        unsafe { rustix::thread::unshare_unsafe(rustix::thread::UnshareFlags::NEWNET) }?;
        let namespace = fs::File::open("/proc/thread-self/ns/net")?;
        // As container engines do: a program may listen on port 80 without being root. A daemon that is itself in a
        // container cannot write here; then it may not.
        if let Err(error) = fs::write("/proc/sys/net/ipv4/ip_unprivileged_port_start", "0") {
            tracing::debug!(%error, "ports below 1024 are for root only");
        }
        Ok((namespace.into(), Socket::open()?))
    };
    let thread = std::thread::Builder::new().name("netns".into()).spawn(make);
    let joined = thread.and_then(|t| t.join().unwrap_or_else(|_| Err(std::io::Error::other("the thread panicked"))));
    joined.context(|| "cannot make a network namespace")
}
