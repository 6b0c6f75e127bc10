//! What has to be done inside a VNET jail before its program runs, made ready as plain buffers: the forked
//! child, which may not allocate, performs them between jail_attach(2) and becoming the replica's user.

use std::ffi::c_int;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnetwork::IpNetwork;

use super::ioctl::{self, AddressV4, AddressV6, Interface};
use crate::fault::Result;
use crate::network::ipam;

/// Bytes of `struct rt_msghdr` on a machine with 64-bit `long`: 32 of smaller numbers, then 15 longs.
const HEADER: usize = 32 + 15 * 8;

/// One call on a socket.
pub enum Step {
    /// ioctl(2) with an interface request.
    Interface(libc::c_ulong, Interface),
    /// ioctl(2) that adds an IPv4 address.
    V4(libc::c_ulong, AddressV4),
    /// ioctl(2) that adds an IPv6 address.
    V6(libc::c_ulong, AddressV6),
    /// A message for the routing socket (route(4)).
    Route(Vec<u8>),
}

/// Brings up loopback and `interface` with `addresses`, and points a default route at the gateway of each.
pub fn steps(interface: &str, addresses: &[IpNetwork]) -> Result<Vec<Step>> {
    let mut steps = vec![
        Step::V4(ioctl::SIOCAIFADDR, AddressV4::new("lo0", Ipv4Addr::LOCALHOST, 8)?),
        Step::V6(ioctl::SIOCAIFADDR_IN6, AddressV6::new("lo0", Ipv6Addr::LOCALHOST, 128)?),
        Step::Interface(ioctl::SIOCSIFFLAGS, Interface::up("lo0")?),
    ];
    for address in addresses {
        steps.push(match address.ip() {
            IpAddr::V4(v4) => Step::V4(ioctl::SIOCAIFADDR, AddressV4::new(interface, v4, address.prefix())?),
            IpAddr::V6(v6) => Step::V6(ioctl::SIOCAIFADDR_IN6, AddressV6::new(interface, v6, address.prefix())?),
        });
    }
    steps.push(Step::Interface(ioctl::SIOCSIFFLAGS, Interface::up(interface)?));
    steps.extend(addresses.iter().map(|address| Step::Route(default_route(ipam::gateway(*address)))));
    Ok(steps)
}

/// Performs one step; -1 and `errno` on failure, as system calls do. Async-signal-safe.
///
/// # Safety
/// Only in a forked child inside its jail, or a process that may change the network it is in.
pub unsafe fn perform(step: &Step) -> c_int {
    // SAFETY: each request's argument is of the type that the request takes, and none of these requests
    // writes to it or holds a pointer.
    unsafe {
        match step {
            Step::Interface(request, argument) => {
                on_socket(libc::AF_INET, *request, std::ptr::from_ref(argument).cast())
            }
            Step::V4(request, argument) => on_socket(libc::AF_INET, *request, std::ptr::from_ref(argument).cast()),
            Step::V6(request, argument) => on_socket(libc::AF_INET6, *request, std::ptr::from_ref(argument).cast()),
            Step::Route(message) => route(message),
        }
    }
}

unsafe fn on_socket(family: c_int, request: libc::c_ulong, argument: *const libc::c_void) -> c_int {
    // SAFETY: the caller vouches for request and argument; the descriptor is this function's own.
    unsafe {
        let socket = libc::socket(family, libc::SOCK_DGRAM, 0);
        if socket == -1 {
            return -1;
        }
        let result = libc::ioctl(socket, request, argument);
        close_keeping_errno(socket);
        result
    }
}

unsafe fn route(message: &[u8]) -> c_int {
    // SAFETY: as in `on_socket`.
    unsafe {
        let socket = libc::socket(libc::PF_ROUTE, libc::SOCK_RAW, 0);
        if socket == -1 {
            return -1;
        }
        let written = libc::write(socket, message.as_ptr().cast(), message.len());
        close_keeping_errno(socket);
        if written == -1 { -1 } else { 0 }
    }
}

unsafe fn close_keeping_errno(socket: c_int) {
    // SAFETY: the caller's own descriptor, and the address of this thread's errno.
    unsafe {
        let errno = *libc::__error();
        libc::close(socket);
        *libc::__error() = errno;
    }
}

/// `RTM_ADD` of a default route, as route(4) lays it out: header, destination, gateway, netmask.
fn default_route(gateway: IpAddr) -> Vec<u8> {
    let any = match gateway {
        IpAddr::V4(_) => IpAddr::V4(Ipv4Addr::UNSPECIFIED),
        IpAddr::V6(_) => IpAddr::V6(Ipv6Addr::UNSPECIFIED),
    };
    let body = [padded(any), padded(gateway), padded(any)].concat();
    let flags = libc::RTF_UP | libc::RTF_GATEWAY | libc::RTF_STATIC;
    let addresses = libc::RTA_DST | libc::RTA_GATEWAY | libc::RTA_NETMASK;
    // `struct rt_msghdr` of net/route.h: this start, then zeros (sender, errno, metrics).
    let mut header = [0u8; HEADER];
    header[..2].copy_from_slice(&((HEADER + body.len()) as u16).to_ne_bytes());
    header[2] = libc::RTM_VERSION as u8;
    header[3] = libc::RTM_ADD as u8;
    header[8..12].copy_from_slice(&flags.to_ne_bytes());
    header[12..16].copy_from_slice(&addresses.to_ne_bytes());
    [&header[..], &body].concat()
}

/// A socket address as route(4) wants it: filled up to a whole number of `long`s (SA_SIZE of net/route.h).
fn padded(address: IpAddr) -> Vec<u8> {
    let mut bytes = ioctl::socket_address(address);
    bytes.resize(bytes.len().next_multiple_of(8), 0);
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_default_route_is_a_header_and_three_whole_addresses() {
        assert_eq!(default_route("10.0.0.1".parse().unwrap()).len(), 152 + 3 * 16);
        let v6 = default_route("fd00::1".parse().unwrap());
        assert_eq!(v6.len(), 152 + 3 * 32);
        assert_eq!(v6[..4], [248, 0, 5, 1]);
        assert_eq!((v6[152], v6[152 + 32]), (28, 28));
    }
}
