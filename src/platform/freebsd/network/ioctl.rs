//! Interface requests: numbers and structures of sys/sockio.h, net/if.h, netinet/in_var.h,
//! netinet6/in6_var.h, net/if_bridgevar.h and net/route.h, and the calls that carry them.

use std::ffi::c_ulong;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};

use super::super::sys::{check, ioctl, iow, iowr};
use crate::fault::{Fault, Result};

/// Room for an interface's name with its NUL: IFNAMSIZ.
pub const NAME_ROOM: usize = 16;

/// Adds or changes an IPv4 address.
pub const SIOCAIFADDR: c_ulong = iow::<AddressV4>(b'i', 43);
/// Adds or changes an IPv6 address.
pub const SIOCAIFADDR_IN6: c_ulong = iow::<AddressV6>(b'i', 27);
/// Sets an interface's flags.
pub const SIOCSIFFLAGS: c_ulong = iow::<Interface>(b'i', 16);
const SIOCGIFFLAGS: c_ulong = iowr::<Interface>(b'i', 17);
const SIOCDIFADDR: c_ulong = iow::<Interface>(b'i', 25);
const SIOCDIFADDR_IN6: c_ulong = iow::<InterfaceV6>(b'i', 25);
const SIOCSIFNAME: c_ulong = iow::<Interface>(b'i', 40);
const SIOCSIFDESCR: c_ulong = iow::<Interface>(b'i', 41);
const SIOCGIFDESCR: c_ulong = iowr::<Interface>(b'i', 42);
const SIOCSIFLLADDR: c_ulong = iow::<Interface>(b'i', 60);
const SIOCSIFVNET: c_ulong = iowr::<Interface>(b'i', 90);
const SIOCIFDESTROY: c_ulong = iow::<Interface>(b'i', 121);
const SIOCSDRVSPEC: c_ulong = iow::<Driver>(b'i', 123);
const SIOCIFCREATE2: c_ulong = iowr::<Interface>(b'i', 124);
const SIOCAIFGROUP: c_ulong = iow::<Group>(b'i', 135);

/// Longest description that [`Control::description`] reads; net.ifdescr_maxlen is 1024.
const DESCRIPTION_ROOM: usize = 1024;

/// `struct ifreq`: a name and 16 bytes whose meaning depends on the request.
#[repr(C, align(8))]
#[derive(Clone, Copy)]
pub struct Interface {
    name: [u8; NAME_ROOM],
    value: [u8; 16],
}

impl Interface {
    /// A request about the interface `name`.
    pub fn named(name: &str) -> Result<Self> {
        Ok(Self { name: array(name)?, value: [0; 16] })
    }

    /// Flags that bring `name` up: IFF_UP alone, which suits an interface that is new.
    pub fn up(name: &str) -> Result<Self> {
        Ok(Self::named(name)?.with(&(libc::IFF_UP as u16).to_ne_bytes()))
    }

    fn with(mut self, value: &[u8]) -> Self {
        self.value[..value.len()].copy_from_slice(value);
        self
    }

    /// `ifr_data`: a pointer. `ifr_buffer`: a length and a pointer.
    fn buffer(self, length: usize, pointer: *mut u8) -> Self {
        self.with(&[length.to_ne_bytes(), (pointer as usize).to_ne_bytes()].concat())
    }

    fn length(&self) -> usize {
        usize::from_ne_bytes(self.value[..8].try_into().unwrap_or_default())
    }
}

/// `struct in_aliasreq`.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct AddressV4 {
    name: [u8; NAME_ROOM],
    address: [u8; 16],
    broadcast: [u8; 16],
    mask: [u8; 16],
    vhid: i32,
}

impl AddressV4 {
    /// `address` with `prefix` on the interface `name`.
    pub fn new(name: &str, address: Ipv4Addr, prefix: u8) -> Result<Self> {
        let mask = Ipv4Addr::from(u32::MAX.checked_shl(32 - u32::from(prefix)).unwrap_or(0));
        Ok(Self { name: array(name)?, address: v4(address), broadcast: [0; 16], mask: v4(mask), vhid: 0 })
    }
}

/// `struct in6_aliasreq`.
#[repr(C, align(8))]
#[derive(Clone, Copy)]
pub struct AddressV6 {
    name: [u8; NAME_ROOM],
    address: [u8; 28],
    destination: [u8; 28],
    mask: [u8; 28],
    flags: i32,
    expires: [i64; 2],
    lifetime: [u32; 2],
    vhid: i32,
}

impl AddressV6 {
    /// `address` with `prefix` on the interface `name`, for ever and without duplicate address detection:
    /// nobody else can be on these links, and a program must not find its address tentative.
    pub fn new(name: &str, address: Ipv6Addr, prefix: u8) -> Result<Self> {
        /// IN6_IFF_NODAD of netinet6/in6_var.h.
        const NO_DETECTION: i32 = 0x20;
        let mask = Ipv6Addr::from(u128::MAX.checked_shl(128 - u32::from(prefix)).unwrap_or(0));
        Ok(Self {
            name: array(name)?,
            address: v6(address),
            destination: [0; 28],
            mask: v6(mask),
            flags: NO_DETECTION,
            expires: [0; 2],
            // ND6_INFINITE_LIFETIME.
            lifetime: [u32::MAX; 2],
            vhid: 0,
        })
    }
}

/// `struct in6_ifreq`: its union is as large as its largest member, `struct icmp6_ifstat` of 34 numbers.
#[repr(C, align(8))]
struct InterfaceV6 {
    name: [u8; NAME_ROOM],
    address: [u8; 28],
    rest: [u8; 272 - 28],
}

/// `struct ifdrv`.
#[repr(C)]
struct Driver {
    name: [u8; NAME_ROOM],
    command: c_ulong,
    length: usize,
    data: *mut libc::c_void,
}

/// `struct ifgroupreq`.
#[repr(C, align(8))]
struct Group {
    name: [u8; NAME_ROOM],
    length: u32,
    /// The union that follows holds a pointer, too.
    padding: u32,
    group: [u8; NAME_ROOM],
}

/// `struct ifbreq`: a member of a bridge.
#[repr(C)]
#[derive(Default)]
pub(super) struct Member {
    name: [u8; NAME_ROOM],
    flags: u32,
    stp_flags: u32,
    path_cost: u32,
    stp: [u8; 5],
    addresses: u32,
    most_addresses: u32,
    exceeded: u32,
    padding: [u8; 32],
}

/// `struct ifbareq`: an address behind a member.
#[repr(C)]
#[derive(Default)]
pub(super) struct Station {
    member: [u8; NAME_ROOM],
    expires: c_ulong,
    flags: u8,
    address: [u8; 6],
    vlan: u16,
}

/// A socket that carries interface requests.
pub struct Control {
    v4: OwnedFd,
    v6: Option<OwnedFd>,
}

impl Control {
    /// Opens it.
    pub fn open() -> io::Result<Self> {
        // A kernel without IPv6 has no such sockets.
        Ok(Self { v4: datagram(libc::AF_INET)?, v6: datagram(libc::AF_INET6).ok() })
    }

    fn run<T>(&self, request: c_ulong, argument: &mut T) -> io::Result<()> {
        // SAFETY: private; every caller below passes the type that its request takes, and buffers that live
        // until the call returns.
        unsafe { ioctl(self.v4.as_raw_fd(), request, argument) }
    }

    fn run6<T>(&self, request: c_ulong, argument: &mut T) -> io::Result<()> {
        let v6 = self.v6.as_ref().ok_or_else(|| io::Error::from_raw_os_error(libc::EAFNOSUPPORT))?;
        // SAFETY: as in `run`.
        unsafe { ioctl(v6.as_raw_fd(), request, argument) }
    }

    /// Makes an interface of `kind` (`lo`, `bridge`, `epair`) and gives its name.
    pub fn create(&self, kind: &str) -> Result<String> {
        let mut request = Interface::named(kind)?;
        self.run(SIOCIFCREATE2, &mut request)?;
        let end = request.name.iter().position(|b| *b == 0).unwrap_or(NAME_ROOM);
        Ok(String::from_utf8_lossy(&request.name[..end]).into_owned())
    }

    /// Destroys an interface (with an epair, both ends). Already gone is success.
    pub fn destroy(&self, name: &str) -> Result<()> {
        gone_is_fine(self.run(SIOCIFDESTROY, &mut Interface::named(name)?))
    }

    /// Renames an interface.
    pub fn rename(&self, name: &str, new: &str) -> Result<()> {
        let mut new_name = array(new)?;
        Ok(self.run(SIOCSIFNAME, &mut Interface::named(name)?.buffer_pointer(new_name.as_mut_ptr()))?)
    }

    /// Sets the description, which is where a link's replica is written down.
    pub fn describe(&self, name: &str, text: &str) -> Result<()> {
        let mut text = [text.as_bytes(), b"\0"].concat();
        let mut request = Interface::named(name)?.buffer(text.len(), text.as_mut_ptr());
        Ok(self.run(SIOCSIFDESCR, &mut request)?)
    }

    /// The description, if the interface is there and has one.
    pub fn description(&self, name: &str) -> Result<Option<String>> {
        let mut text = [0u8; DESCRIPTION_ROOM];
        let mut request = Interface::named(name)?.buffer(text.len(), text.as_mut_ptr());
        match self.run(SIOCGIFDESCR, &mut request) {
            Ok(()) => {
                let text = &text[..request.length().min(DESCRIPTION_ROOM)];
                let end = text.iter().position(|b| *b == 0).unwrap_or(text.len());
                Ok(Some(String::from_utf8_lossy(&text[..end]).into_owned()))
            }
            // ENOMSG: it has none. ENXIO: it is not there.
            Err(e) if matches!(e.raw_os_error(), Some(libc::ENOMSG | libc::ENXIO)) => Ok(None),
            Err(e) => Err(e.into()),
        }
    }

    /// Puts an interface into a group, so that ifconfig(8) and pf(4) can name all of them at once.
    pub fn join(&self, name: &str, group: &str) -> Result<()> {
        let mut request = Group { name: array(name)?, length: 0, padding: 0, group: array(group)? };
        match self.run(SIOCAIFGROUP, &mut request) {
            Err(e) if e.raw_os_error() == Some(libc::EEXIST) => Ok(()),
            other => Ok(other?),
        }
    }

    /// Brings an interface up, its other flags as they are.
    pub fn up(&self, name: &str) -> Result<()> {
        let mut request = Interface::named(name)?;
        self.run(SIOCGIFFLAGS, &mut request)?;
        // ifr_flags and ifr_flagshigh: the lower 16 bits come first.
        request.value[0] |= libc::IFF_UP as u8;
        Ok(self.run(SIOCSIFFLAGS, &mut request)?)
    }

    /// Gives an interface a link address.
    pub fn set_mac(&self, name: &str, mac: [u8; 6]) -> Result<()> {
        // A `struct sockaddr` with the address as its data and the address's length as its own.
        let value = [&[6, libc::AF_LINK as u8][..], &mac].concat();
        Ok(self.run(SIOCSIFLLADDR, &mut Interface::named(name)?.with(&value))?)
    }

    /// Moves an interface into the VNET of jail `jid`.
    pub fn give(&self, name: &str, jid: i32) -> Result<()> {
        Ok(self.run(SIOCSIFVNET, &mut Interface::named(name)?.with(&jid.to_ne_bytes()))?)
    }

    /// Puts `address` on an interface. There already is success.
    pub fn add_address(&self, name: &str, address: IpAddr, prefix: u8) -> Result<()> {
        let result = match address {
            IpAddr::V4(v4) => self.run(SIOCAIFADDR, &mut AddressV4::new(name, v4, prefix)?),
            IpAddr::V6(v6) => self.run6(SIOCAIFADDR_IN6, &mut AddressV6::new(name, v6, prefix)?),
        };
        match result {
            Err(e) if e.raw_os_error() == Some(libc::EEXIST) => Ok(()),
            other => Ok(other?),
        }
    }

    /// Takes `address` off an interface. Already gone is success, and so is a missing interface.
    pub fn remove_address(&self, name: &str, address: IpAddr) -> Result<()> {
        gone_is_fine(match address {
            IpAddr::V4(address) => self.run(SIOCDIFADDR, &mut Interface::named(name)?.with(&v4(address))),
            IpAddr::V6(address) => {
                let mut request = InterfaceV6 { name: array(name)?, address: v6(address), rest: [0; 244] };
                self.run6(SIOCDIFADDR_IN6, &mut request)
            }
        })
    }

    /// Makes `member` a port of `bridge` that talks to the host only, under the one link address `mac`.
    ///
    /// PRIVATE: nothing passes to another private port. STICKY and the static entry: nobody else can claim
    /// the address. Without LEARNING and DISCOVER nothing is learnt from it nor flooded to it.
    pub fn add_private_port(&self, bridge: &str, member: &str, mac: [u8; 6]) -> Result<()> {
        const ADD: c_ulong = 0;
        const SET_FLAGS: c_ulong = 3;
        const SET_ADDRESS: c_ulong = 8;
        const STICKY: u32 = 0x0010;
        const PRIVATE: u32 = 0x0800;
        const STATIC: u8 = 0x01;
        let name = array(member)?;
        match self.driver(bridge, ADD, &mut Member { name, ..Member::default() }) {
            Err(e) if e.raw_os_error() == Some(libc::EEXIST) => {}
            other => other?,
        }
        self.driver(bridge, SET_FLAGS, &mut Member { name, flags: STICKY | PRIVATE, ..Member::default() })?;
        let mut station = Station { member: name, flags: STATIC, address: mac, ..Station::default() };
        Ok(self.driver(bridge, SET_ADDRESS, &mut station)?)
    }

    fn driver<T>(&self, bridge: &str, command: c_ulong, data: &mut T) -> io::Result<()> {
        let name = array(bridge).map_err(|_| io::Error::from_raw_os_error(libc::EINVAL))?;
        let data = std::ptr::from_mut(data).cast();
        self.run(SIOCSDRVSPEC, &mut Driver { name, command, length: size_of::<T>(), data })
    }
}

impl Interface {
    fn buffer_pointer(self, pointer: *mut u8) -> Self {
        self.with(&(pointer as usize).to_ne_bytes())
    }
}

/// Interfaces of the host's own network stack.
pub fn names() -> io::Result<Vec<String>> {
    // SAFETY: if_nameindex(3) gives an array that ends with index 0, freed below and used in between only.
    unsafe {
        let list = libc::if_nameindex();
        if list.is_null() {
            return Err(io::Error::last_os_error());
        }
        let mut names = Vec::new();
        let mut entry = list;
        while (*entry).if_index != 0 {
            names.push(std::ffi::CStr::from_ptr((*entry).if_name).to_string_lossy().into_owned());
            entry = entry.add(1);
        }
        libc::if_freenameindex(list);
        Ok(names)
    }
}

/// Addresses on the interface `name`; none when it is not there.
pub fn addresses(name: &str) -> io::Result<Vec<IpAddr>> {
    let mut list = std::ptr::null_mut();
    // SAFETY: getifaddrs(3) gives a linked list, freed below and used in between only; an address of a family
    // has that family's structure.
    unsafe {
        check(libc::getifaddrs(&mut list))?;
        let mut found = Vec::new();
        let mut entry = list;
        while let Some(item) = entry.as_ref() {
            if std::ffi::CStr::from_ptr(item.ifa_name).to_bytes() == name.as_bytes() && !item.ifa_addr.is_null() {
                match i32::from((*item.ifa_addr).sa_family) {
                    libc::AF_INET => {
                        let address = (*item.ifa_addr.cast::<libc::sockaddr_in>()).sin_addr.s_addr;
                        found.push(Ipv4Addr::from(address.to_ne_bytes()).into());
                    }
                    libc::AF_INET6 => {
                        found.push(
                            Ipv6Addr::from((*item.ifa_addr.cast::<libc::sockaddr_in6>()).sin6_addr.s6_addr).into(),
                        );
                    }
                    _ => {}
                }
            }
            entry = item.ifa_next;
        }
        libc::freeifaddrs(list);
        Ok(found)
    }
}

/// `struct sockaddr_in` or `struct sockaddr_in6`, as bytes.
pub fn socket_address(address: IpAddr) -> Vec<u8> {
    match address {
        IpAddr::V4(address) => v4(address).to_vec(),
        IpAddr::V6(address) => v6(address).to_vec(),
    }
}

fn v4(address: Ipv4Addr) -> [u8; 16] {
    let mut bytes = [0; 16];
    bytes[0] = 16;
    bytes[1] = libc::AF_INET as u8;
    bytes[4..8].copy_from_slice(&address.octets());
    bytes
}

fn v6(address: Ipv6Addr) -> [u8; 28] {
    let mut bytes = [0; 28];
    bytes[0] = 28;
    bytes[1] = libc::AF_INET6 as u8;
    bytes[8..24].copy_from_slice(&address.octets());
    bytes
}

fn array(name: &str) -> Result<[u8; NAME_ROOM]> {
    let mut bytes = [0; NAME_ROOM];
    if name.is_empty() || name.len() >= NAME_ROOM || name.contains('\0') {
        return Err(Fault::invalid(format!("{name:?} cannot name an interface: it needs 1 to 15 bytes")));
    }
    bytes[..name.len()].copy_from_slice(name.as_bytes());
    Ok(bytes)
}

fn datagram(family: i32) -> io::Result<OwnedFd> {
    // SAFETY: takes numbers only, and the new descriptor has no other owner.
    unsafe {
        let fd = check(libc::socket(family, libc::SOCK_DGRAM | libc::SOCK_CLOEXEC, 0))?;
        Ok(OwnedFd::from_raw_fd(fd))
    }
}

fn gone_is_fine(result: io::Result<()>) -> Result<()> {
    match result {
        Err(e) if matches!(e.raw_os_error(), Some(libc::ENXIO | libc::EADDRNOTAVAIL | libc::ENOENT)) => Ok(()),
        other => Ok(other?),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Sizes from a C compiler on the headers of FreeBSD, amd64 and arm64.
    #[test]
    fn structures_have_the_sizes_of_the_headers() {
        assert_eq!(size_of::<Interface>(), 32);
        assert_eq!(size_of::<AddressV4>(), 68);
        assert_eq!(size_of::<AddressV6>(), 136);
        assert_eq!(size_of::<InterfaceV6>(), 288);
        assert_eq!(size_of::<Driver>(), 40);
        assert_eq!(size_of::<Group>(), 40);
        assert_eq!(size_of::<Member>(), 80);
        assert_eq!(size_of::<Station>(), 40);
    }

    #[test]
    fn prefixes_become_masks() {
        let mask = |prefix| AddressV4::new("x", Ipv4Addr::LOCALHOST, prefix).unwrap().mask[4..8].to_vec();
        assert_eq!(mask(32), [255, 255, 255, 255]);
        assert_eq!(mask(20), [255, 255, 240, 0]);
        assert_eq!(mask(0), [0, 0, 0, 0]);
    }
}
