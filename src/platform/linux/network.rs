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
//! and the rules of [`super::nat`] drop what leaves the bridge with a foreign source.

use std::fs;
use std::net::IpAddr;
use std::os::fd::{AsRawFd, OwnedFd};

use ipnetwork::IpNetwork;

use super::nat::Rules;
use super::netlink::{Refusal, Request, Socket, number, text};
use crate::fault::{Context, Fault, Kind, Result};
use crate::function::{Realm, ReplicaName};
use crate::network::ipam::Pool;
use crate::network::{Attachment, Network};

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
    subnet: IpNetwork,
    gateway: IpAddr,
    nat: bool,
}

impl BridgeNetwork {
    /// A network of `realm` on a bridge called `bridge` (at most 15 bytes), with the host at the subnet's first
    /// address. With `nat`, replicas reach the outside under the host's address.
    pub fn new(realm: Realm, bridge: &str, subnet: IpNetwork, nat: bool) -> Result<Self> {
        let fits = (1..=15).contains(&bridge.len())
            && bridge.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_');
        if !fits {
            return Err(Fault::invalid(format!(
                "bridge name ({}) is invalid: one to fifteen letters, digits, - or _",
                bridge.escape_debug()
            )));
        }
        let subnet = IpNetwork::new(subnet.network(), subnet.prefix()).map_err(|e| Fault::invalid(e.to_string()))?;
        let gateway = Pool::new(subnet)?.gateway();
        Ok(Self { realm, bridge: bridge.to_owned(), subnet, gateway, nat })
    }

    fn rules(&self) -> Rules<'_> {
        Rules { realm: &self.realm, bridge: &self.bridge, subnet: self.subnet }
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

    fn make_bridge(&self, host: &Socket) -> Result<u32, Fault> {
        let create = Request::new(libc::RTM_NEWLINK, libc::NLM_F_CREATE | libc::NLM_F_EXCL)
            .link(0, false)
            .text(libc::IFLA_IFNAME, &self.bridge)
            .attribute(libc::IFLA_ADDRESS, &hardware_address(self.gateway))
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

    /// Loopback, address and default route, inside.
    fn configure_inside(&self, inside: &Socket, address: IpAddr) -> Result<()> {
        let (eth0, _) = find(inside, INSIDE)?.ok_or_else(|| Fault::not_found(format!("{INSIDE} vanished")))?;
        for index in [LOOPBACK, eth0] {
            inside.execute(Request::new(libc::RTM_NEWLINK, 0).link(index, true))?;
        }
        add_address(inside, eth0, address, self.subnet.prefix())?;
        let gateway = octets(self.gateway);
        let route = Request::new(libc::RTM_NEWROUTE, libc::NLM_F_CREATE | libc::NLM_F_EXCL)
            // struct rtmsg: family, dst_len 0, src_len, tos, table, protocol, scope, type, flags.
            .bytes(&[family(self.gateway), 0, 0, 0, libc::RT_TABLE_MAIN, libc::RTPROT_BOOT, libc::RT_SCOPE_UNIVERSE])
            .bytes(&[libc::RTN_UNICAST, 0, 0, 0, 0])
            .attribute(libc::RTA_GATEWAY, &gateway);
        inside.execute(route)?;
        Ok(())
    }

    fn connect(&self, host: &Socket, replica: &ReplicaName, address: IpAddr) -> Result<OwnedFd> {
        let bridge = self
            .find_bridge(host)?
            .ok_or_else(|| Fault::not_found(format!("bridge {} is not there; it is made by setup", self.bridge)))?;
        let (namespace, inside) = new_namespace()?;
        self.make_pair(host, bridge, replica, address, &namespace)?;
        let configured =
            self.configure_inside(&inside, address).and_then(|()| self.join_bridge(host, replica).map_err(Fault::from));
        match configured {
            Ok(()) => Ok(namespace),
            Err(fault) => Err(fault.and_cleanup(delete(host, &replica.interface()))),
        }
    }
}

impl Network for BridgeNetwork {
    fn setup(&self) -> Result<()> {
        let doing = || format!("cannot set up the network on bridge {}", self.bridge);
        let host = Socket::open().context(doing)?;
        let index = match self.find_bridge(&host)? {
            Some(index) => index,
            None => self.make_bridge(&host).context(doing)?,
        };
        let result = add_address(&host, index, self.gateway, self.subnet.prefix())
            .and_then(|()| host.execute(Request::new(libc::RTM_NEWLINK, 0).link(index, true)).map(drop))
            .map_err(Fault::from)
            .and_then(|()| if self.nat { forward(self.subnet).and_then(|()| self.rules().add()) } else { Ok(()) });
        result.context(doing)
    }

    fn teardown(&self) -> Result<()> {
        let host = Socket::open().context(|| "cannot open a netlink socket")?;
        let rules = if self.nat { self.rules().remove() } else { Ok(()) };
        let bridge = match self.find_bridge(&host)? {
            Some(_) => delete(&host, &self.bridge),
            None => Ok(()),
        };
        match (rules, bridge) {
            (Err(fault), cleanup) => Err(fault.and_cleanup(cleanup)),
            (Ok(()), bridge) => bridge,
        }
    }

    fn attach(&self, replica: &ReplicaName, address: IpAddr) -> Result<Attachment> {
        if !self.subnet.contains(address) || address == self.gateway {
            return Err(Fault::invalid(format!("{replica} cannot have {address} on network {}", self.subnet)));
        }
        let host = Socket::open().context(|| "cannot open a netlink socket")?;
        let namespace = self
            .connect(&host, replica, address)
            .context(|| format!("cannot connect {replica} to bridge {} as {address}", self.bridge))?;
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
