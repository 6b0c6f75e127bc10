//! Interface requests: numbers and structures of sys/sockio.h, net/if.h, netinet/in_var.h,
//! netinet6/in6_var.h and net/if_bridgevar.h.

use std::ffi::c_ulong;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use super::super::sys::{iow, iowr};
use crate::fault::{Fault, Result};

/// Room for an interface's name with its NUL: IFNAMSIZ.
pub const NAME_ROOM: usize = 16;

/// Adds or changes an IPv4 address.
pub const SIOCAIFADDR: c_ulong = iow::<AddressV4>(b'i', 43);
/// Adds or changes an IPv6 address.
pub const SIOCAIFADDR_IN6: c_ulong = iow::<AddressV6>(b'i', 27);
/// Sets an interface's flags.
pub const SIOCSIFFLAGS: c_ulong = iow::<Interface>(b'i', 16);
pub(super) const SIOCGIFFLAGS: c_ulong = iowr::<Interface>(b'i', 17);
pub(super) const SIOCDIFADDR: c_ulong = iow::<Interface>(b'i', 25);
pub(super) const SIOCDIFADDR_IN6: c_ulong = iow::<InterfaceV6>(b'i', 25);
pub(super) const SIOCSIFNAME: c_ulong = iow::<Interface>(b'i', 40);
pub(super) const SIOCSIFDESCR: c_ulong = iow::<Interface>(b'i', 41);
pub(super) const SIOCGIFDESCR: c_ulong = iowr::<Interface>(b'i', 42);
pub(super) const SIOCSIFLLADDR: c_ulong = iow::<Interface>(b'i', 60);
pub(super) const SIOCSIFVNET: c_ulong = iowr::<Interface>(b'i', 90);
pub(super) const SIOCIFDESTROY: c_ulong = iow::<Interface>(b'i', 121);
pub(super) const SIOCSDRVSPEC: c_ulong = iow::<Driver<'_, Member>>(b'i', 123);
pub(super) const SIOCIFCREATE2: c_ulong = iowr::<Interface>(b'i', 124);
pub(super) const SIOCAIFGROUP: c_ulong = iow::<Group>(b'i', 135);

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

    /// The name, which the kernel has chosen.
    pub(super) fn name(&self) -> String {
        let end = self.name.iter().position(|b| *b == 0).unwrap_or(NAME_ROOM);
        String::from_utf8_lossy(&self.name[..end]).into_owned()
    }

    /// `ifr_data`.
    pub(super) fn pointer(self, pointer: *mut u8) -> Self {
        self.with(&(pointer as usize).to_ne_bytes())
    }

    /// `ifr_buffer`: a length and a pointer.
    pub(super) fn buffer(self, length: usize, pointer: *mut u8) -> Self {
        self.with(&[length.to_ne_bytes(), (pointer as usize).to_ne_bytes()].concat())
    }

    /// The length in `ifr_buffer`.
    pub(super) fn length(&self) -> usize {
        usize::from_ne_bytes(self.value[..8].try_into().unwrap_or_default())
    }

    /// `ifr_jid` and others.
    pub(super) fn number(self, number: i32) -> Self {
        self.with(&number.to_ne_bytes())
    }

    /// `ifr_addr` as an IPv4 address.
    pub(super) fn address(self, address: Ipv4Addr) -> Self {
        self.with(&v4(address))
    }

    /// `ifr_addr` as a link address: a `struct sockaddr` whose length is the address's own.
    pub(super) fn mac(self, mac: [u8; 6]) -> Self {
        self.with(&[&[6, libc::AF_LINK as u8][..], &mac].concat())
    }

    /// `ifr_flags` with IFF_UP, the other flags as they are.
    pub(super) fn turned_up(mut self) -> Self {
        // ifr_flags and ifr_flagshigh: the lower 16 bits come first.
        self.value[0] |= libc::IFF_UP as u8;
        self
    }

    fn with(mut self, value: &[u8]) -> Self {
        self.value[..value.len()].copy_from_slice(value);
        self
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
pub(super) struct InterfaceV6 {
    name: [u8; NAME_ROOM],
    address: [u8; 28],
    rest: [u8; 272 - 28],
}

impl InterfaceV6 {
    /// `address` on the interface `name`.
    pub(super) fn new(name: &str, address: Ipv6Addr) -> Result<Self> {
        Ok(Self { name: array(name)?, address: v6(address), rest: [0; 272 - 28] })
    }
}

/// `struct ifdrv`.
#[repr(C)]
pub(super) struct Driver<'a, T> {
    name: [u8; NAME_ROOM],
    command: c_ulong,
    length: usize,
    data: &'a mut T,
}

impl<'a, T> Driver<'a, T> {
    /// `command` of the driver of the interface `name`, with `data`.
    pub(super) fn new(name: &str, command: c_ulong, data: &'a mut T) -> Result<Self> {
        Ok(Self { name: array(name)?, command, length: size_of::<T>(), data })
    }
}

/// `struct ifgroupreq`.
#[repr(C, align(8))]
pub(super) struct Group {
    name: [u8; NAME_ROOM],
    length: u32,
    /// The union that follows holds a pointer, too.
    padding: u32,
    group: [u8; NAME_ROOM],
}

impl Group {
    /// The interface `name` in `group`.
    pub(super) fn new(name: &str, group: &str) -> Result<Self> {
        Ok(Self { name: array(name)?, length: 0, padding: 0, group: array(group)? })
    }
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

impl Member {
    /// The interface `name` as a member with these flags.
    pub(super) fn new(name: &str, flags: u32) -> Result<Self> {
        Ok(Self { name: array(name)?, flags, ..Self::default() })
    }
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

impl Station {
    /// `address` behind `member`, for good.
    pub(super) fn fixed(member: &str, address: [u8; 6]) -> Result<Self> {
        /// IFBAF_STATIC.
        const STATIC: u8 = 0x01;
        Ok(Self { member: array(member)?, flags: STATIC, address, ..Self::default() })
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

/// An interface's name in its fixed room.
pub(super) fn array(name: &str) -> Result<[u8; NAME_ROOM]> {
    let mut bytes = [0; NAME_ROOM];
    if name.is_empty() || name.len() >= NAME_ROOM || name.contains('\0') {
        return Err(Fault::invalid(format!("{name:?} cannot name an interface: it needs 1 to 15 bytes")));
    }
    bytes[..name.len()].copy_from_slice(name.as_bytes());
    Ok(bytes)
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
        assert_eq!(size_of::<Driver<'_, Member>>(), 40);
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
