//! The only place that knows which operating system this is. Equal names behind each choice.

use std::io;
use std::os::fd::RawFd;
use std::sync::Arc;

use crate::config::{Config, StorageKind};
use crate::network::Network;
use crate::sandbox::Sandbox;
use crate::storage::Storage;

#[cfg(test)]
pub mod fake;
#[cfg(target_os = "freebsd")]
pub mod freebsd;
#[cfg(target_os = "linux")]
pub mod linux;
pub mod xattr;
pub mod zfs;

#[cfg(target_os = "freebsd")]
use freebsd as os;
#[cfg(target_os = "linux")]
use linux as os;

pub use os::{image_target, memory_available, open, open_zfs, punch_hole, seal};

pub use os::init::{LOADERS, items};

/// The three capabilities of this host.
#[derive(Clone)]
pub struct Platform {
    /// Layers and roots.
    pub storage: Arc<dyn Storage>,
    /// Addresses and links.
    pub network: Arc<dyn Network>,
    /// Isolation.
    pub sandbox: Arc<dyn Sandbox>,
}

/// Facts about this host, name and value, for people; the last says whether this configuration can work on it.
pub fn probe(config: &Config) -> Vec<(String, String)> {
    let mut facts = os::probe();
    if config.storage == StorageKind::Zfs {
        facts.push(("zfs engine".into(), zfs::describe()));
    }
    let ready = os::check(&config.root).map_or_else(|fault| fault.to_string(), |()| "yes".into());
    facts.push(("ready".into(), ready));
    facts
}

/// The first byte at or after `offset` that is not in a hole (lseek(2), SEEK_DATA).
pub fn seek_data(fd: RawFd, offset: u64) -> io::Result<u64> {
    // SAFETY: plain integers.
    let at = unsafe { libc::lseek(fd, offset as libc::off_t, libc::SEEK_DATA) };
    u64::try_from(at).map_err(|_| io::Error::last_os_error())
}
