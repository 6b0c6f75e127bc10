//! Linux: roots on overlayfs, replicas in namespaces behind a bridge, limits by cgroups.

mod cgroup;
mod hierarchy;
mod nat;
mod netlink;
pub mod network;
pub mod overlay;
mod probe;
pub mod sandbox;
mod trash;

pub use probe::{check, probe};

use crate::fault::Fault;

impl From<rustix::io::Errno> for Fault {
    fn from(errno: rustix::io::Errno) -> Self {
        std::io::Error::from(errno).into()
    }
}
