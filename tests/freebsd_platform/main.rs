//! The FreeBSD platform on a real kernel: needs root and a host on which jails may be made.
//!
//! Programs in the jails are the host's own, copied with the libraries they need. Tests run one at a time,
//! each in a realm of its own, and each ends with a count of what it left behind: nothing.
#![cfg(target_os = "freebsd")]

mod exits;
mod filter;
mod isolation;
mod limits;
mod linux;
mod network;
mod removal;
mod roots;
mod start;
mod support;
