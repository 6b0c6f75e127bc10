//! Interfaces: made, named, addressed, moved and destroyed by ioctl(2), as ifconfig(8) does.

use std::ffi::c_ulong;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};

use super::super::sys::{check, ioctl};
use super::ioctl::{
    AddressV4, AddressV6, Driver, Group, Interface, InterfaceV6, Member, SIOCAIFADDR, SIOCAIFADDR_IN6, SIOCAIFGROUP,
    SIOCDIFADDR, SIOCDIFADDR_IN6, SIOCGIFDESCR, SIOCGIFFLAGS, SIOCIFCREATE2, SIOCIFDESTROY, SIOCSDRVSPEC, SIOCSIFDESCR,
    SIOCSIFFLAGS, SIOCSIFLLADDR, SIOCSIFNAME, SIOCSIFVNET, Station, array,
};
use crate::fault::Result;

/// Longest description that [`Control::description`] reads; net.ifdescr_maxlen is 1024.
const DESCRIPTION_ROOM: usize = 1024;

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
        Ok(request.name())
    }

    /// Destroys an interface (with an epair, both ends). Already gone is success.
    pub fn destroy(&self, name: &str) -> Result<()> {
        gone_is_fine(self.run(SIOCIFDESTROY, &mut Interface::named(name)?))
    }

    /// Renames an interface.
    pub fn rename(&self, name: &str, new: &str) -> Result<()> {
        let mut new_name = array(new)?;
        Ok(self.run(SIOCSIFNAME, &mut Interface::named(name)?.pointer(new_name.as_mut_ptr()))?)
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
        let mut request = Group::new(name, group)?;
        match self.run(SIOCAIFGROUP, &mut request) {
            Err(e) if e.raw_os_error() == Some(libc::EEXIST) => Ok(()),
            other => Ok(other?),
        }
    }

    /// Brings an interface up, its other flags as they are.
    pub fn up(&self, name: &str) -> Result<()> {
        let mut request = Interface::named(name)?;
        self.run(SIOCGIFFLAGS, &mut request)?;
        Ok(self.run(SIOCSIFFLAGS, &mut request.turned_up())?)
    }

    /// Gives an interface a link address.
    pub fn set_mac(&self, name: &str, mac: [u8; 6]) -> Result<()> {
        Ok(self.run(SIOCSIFLLADDR, &mut Interface::named(name)?.mac(mac))?)
    }

    /// Moves an interface into the VNET of jail `jid`.
    pub fn give(&self, name: &str, jid: i32) -> Result<()> {
        Ok(self.run(SIOCSIFVNET, &mut Interface::named(name)?.number(jid))?)
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
            IpAddr::V4(v4) => self.run(SIOCDIFADDR, &mut Interface::named(name)?.address(v4)),
            IpAddr::V6(v6) => self.run6(SIOCDIFADDR_IN6, &mut InterfaceV6::new(name, v6)?),
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
        match self.driver(Driver::new(bridge, ADD, &mut Member::new(member, 0)?)?) {
            Err(e) if e.raw_os_error() == Some(libc::EEXIST) => {}
            other => other?,
        }
        self.driver(Driver::new(bridge, SET_FLAGS, &mut Member::new(member, STICKY | PRIVATE)?)?)?;
        Ok(self.driver(Driver::new(bridge, SET_ADDRESS, &mut Station::fixed(member, mac)?)?)?)
    }

    fn driver<T>(&self, mut request: Driver<'_, T>) -> io::Result<()> {
        self.run(SIOCSDRVSPEC, &mut request)
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
