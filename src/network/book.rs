//! What people decided about addresses: networks added to the configured ones, addresses kept back. One file,
//! `<root>/addresses.json`, which `faas-jails address` writes and the daemon looks at before it hands out an address.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::net::IpAddr;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use ipnetwork::IpNetwork;
use serde::{Deserialize, Serialize};

use super::ipam;
use crate::config;
use crate::fault::{Context, Fault, Kind, Result};
use crate::files;

/// The decisions.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Book {
    /// Networks beside those of the configuration.
    #[serde(default)]
    pub networks: Vec<IpNetwork>,
    /// Addresses that no replica gets, and what for.
    #[serde(default)]
    pub reserved: BTreeMap<IpAddr, String>,
}

/// Tells one state of the file from another: a change replaces the file.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Stamp(u64, i64, i64);

impl Book {
    fn path(root: &Path) -> PathBuf {
        root.join("addresses.json")
    }

    /// What is decided for the daemon of this directory.
    pub fn load(root: &Path) -> Result<Self> {
        Ok(files::read_json(&Self::path(root))?.unwrap_or_default())
    }

    /// One system call, so that it can be asked before every start.
    pub fn stamp(root: &Path) -> Stamp {
        fs::metadata(Self::path(root)).map_or(Stamp::default(), |m| Stamp(m.ino(), m.mtime(), m.mtime_nsec()))
    }

    /// Changes the decisions, one process at a time. Nothing is written when `change` fails.
    pub fn edit<T>(root: &Path, change: impl FnOnce(&mut Self) -> Result<T>) -> Result<T> {
        fs::create_dir_all(root).context(|| format!("cannot make {}", root.display()))?;
        let path = root.join("addresses.lock");
        let lock = File::create(&path).context(|| format!("cannot open {}", path.display()))?;
        lock.lock().context(|| format!("cannot lock {}", path.display()))?;
        let mut book = Self::load(root)?;
        let done = change(&mut book)?;
        files::replace_json(&Self::path(root), &book)?;
        Ok(done)
    }

    /// All networks: those of the configuration first.
    pub fn all_networks(&self, configured: &config::Network) -> Vec<IpNetwork> {
        configured.networks().into_iter().chain(self.networks.iter().copied()).collect()
    }

    /// Adds a network, which must overlap with no other.
    pub fn add(&mut self, network: IpNetwork, configured: &config::Network) -> Result<()> {
        let network = ipam::whole(network)?;
        let mut all = self.all_networks(configured);
        all.push(network);
        ipam::check(&all)?;
        self.networks.push(network);
        Ok(())
    }

    /// Keeps an address back.
    pub fn reserve(&mut self, address: IpAddr, what_for: &str, configured: &config::Network) -> Result<()> {
        let networks = self.all_networks(configured);
        let Some(network) = networks.iter().find(|network| network.contains(address)) else {
            return Err(Fault::invalid(format!(
                "{address} is in no network of the pool; see: faas-jails address list"
            )));
        };
        if !ipam::is_host(*network, address) {
            return Err(Fault::invalid(format!("{address} is never handed out: network {network} needs it itself")));
        }
        if let Some(other) = self.reserved.get(&address) {
            return Err(Fault::new(Kind::Busy, format!("{address} is reserved already: {other}")));
        }
        self.reserved.insert(address, what_for.to_owned());
        Ok(())
    }

    /// Takes a reservation back.
    pub fn release_address(&mut self, address: IpAddr) -> Result<()> {
        match self.reserved.remove(&address) {
            Some(_) => Ok(()),
            None => Err(Fault::not_found(format!("{address} is not reserved"))),
        }
    }

    /// Takes an added network away, with the reservations in it.
    pub fn release_network(&mut self, network: IpNetwork, configured: &config::Network) -> Result<()> {
        let network = ipam::whole(network)?;
        if configured.networks().contains(&network) {
            return Err(Fault::invalid(format!("network {network} is of the configuration; change it there")));
        }
        let before = self.networks.len();
        self.networks.retain(|other| *other != network);
        if self.networks.len() == before {
            return Err(Fault::not_found(format!("network {network} was not added")));
        }
        self.reserved.retain(|address, _| !network.contains(*address));
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn configured() -> config::Network {
        config::Network { subnet: "10.9.8.0/24".parse().unwrap(), ..config::Network::default() }
    }

    #[test]
    fn decisions_last_and_each_change_shows() {
        let dir = tempfile::tempdir().unwrap();
        let before = Book::stamp(dir.path());
        Book::edit(dir.path(), |book| book.add("10.9.9.7/24".parse().unwrap(), &configured())).unwrap();
        let first = Book::stamp(dir.path());
        Book::edit(dir.path(), |book| book.reserve("10.9.9.5".parse().unwrap(), "a printer", &configured())).unwrap();
        assert!(before != first && first != Book::stamp(dir.path()));
        let book = Book::load(dir.path()).unwrap();
        assert_eq!(book.networks, ["10.9.9.0/24".parse().unwrap()], "the network, not an address in it");
        assert_eq!(book.reserved.values().collect::<Vec<_>>(), ["a printer"]);
        let fault = Book::edit(dir.path(), |book| book.add("10.9.0.0/16".parse().unwrap(), &configured())).unwrap_err();
        assert!(fault.to_string().contains("overlap"), "{fault}");
        assert_eq!(Book::load(dir.path()).unwrap(), book, "a refused change leaves the file");
        Book::edit(dir.path(), |book| book.release_network("10.9.9.0/24".parse().unwrap(), &configured())).unwrap();
        assert_eq!(Book::load(dir.path()).unwrap(), Book::default());
    }

    #[test]
    fn what_cannot_be_is_refused_with_the_reason() {
        let mut book = Book::default();
        let mut refused =
            |address: &str| book.reserve(address.parse().unwrap(), "x", &configured()).unwrap_err().to_string();
        assert!(refused("192.0.2.1").contains("in no network"));
        assert!(refused("10.9.8.1").contains("needs it itself"), "the host's own");
        assert!(refused("10.9.8.255").contains("needs it itself"));
        book.reserve("10.9.8.7".parse().unwrap(), "x", &configured()).unwrap();
        let twice = book.reserve("10.9.8.7".parse().unwrap(), "y", &configured()).unwrap_err();
        assert_eq!(twice.kind(), Kind::Busy);
        assert_eq!(book.release_address("10.9.8.8".parse().unwrap()).unwrap_err().kind(), Kind::NotFound);
        let own = book.release_network("10.9.8.0/24".parse().unwrap(), &configured()).unwrap_err();
        assert!(own.to_string().contains("of the configuration"), "{own}");
    }
}
