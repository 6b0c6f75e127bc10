//! The address pool: which replica holds which address. Pure data, no system calls.

use std::collections::BTreeMap;
use std::net::IpAddr;

use ipnetwork::IpNetwork;

use crate::fault::{Fault, Kind, Result};
use crate::function::ReplicaName;

/// Addresses of one network, handed out one by one. The network's own address, its first host (the
/// gateway) and its broadcast address are never handed out. A returned address is the last to be reused,
/// so that a late packet for its former holder finds nobody for as long as possible.
#[derive(Debug)]
pub struct Pool {
    network: IpNetwork,
    holders: BTreeMap<IpAddr, ReplicaName>,
    next: u128,
}

impl Pool {
    /// A pool over `network`, which must leave room for at least one replica.
    pub fn new(network: IpNetwork) -> Result<Self> {
        let pool = Self { network, holders: BTreeMap::new(), next: 0 };
        if pool.capacity() == 0 {
            return Err(Fault::invalid(format!(
                "network {network} has no room for replicas; a /29 is the smallest useful one"
            )));
        }
        Ok(pool)
    }

    /// The whole network.
    pub fn network(&self) -> IpNetwork {
        self.network
    }

    /// The host's own address in it: the first one.
    pub fn gateway(&self) -> IpAddr {
        self.at(1)
    }

    /// How many replicas can hold an address.
    pub fn capacity(&self) -> u128 {
        let bits = if self.network.is_ipv4() { 32 } else { 128 } - u32::from(self.network.prefix());
        // Not counted: network, gateway, broadcast (IPv6 has no broadcast; its last address is left out all the same).
        1u128.checked_shl(bits).unwrap_or(u128::MAX).saturating_sub(3)
    }

    /// An address for `replica`.
    pub fn take(&mut self, replica: &ReplicaName) -> Result<IpAddr> {
        let capacity = self.capacity();
        if self.holders.len() as u128 >= capacity {
            return Err(Fault::new(
                Kind::Exhausted,
                format!(
                    "network {} has no free address: {capacity} are in use; scale something down or configure a larger network",
                    self.network
                ),
            ));
        }
        loop {
            let address = self.at(2 + self.next % capacity);
            self.next = (self.next + 1) % capacity;
            if let std::collections::btree_map::Entry::Vacant(e) = self.holders.entry(address) {
                e.insert(replica.clone());
                return Ok(address);
            }
        }
    }

    /// Records that `replica` holds `address` already: a replica found running at start.
    pub fn reserve(&mut self, address: IpAddr, replica: &ReplicaName) -> Result<()> {
        if !self.network.contains(address) {
            return Err(Fault::invalid(format!(
                "{replica} has address {address}, which is not in network {}",
                self.network
            )));
        }
        match self.holders.get(&address) {
            Some(other) if other != replica => {
                Err(Fault::new(Kind::Busy, format!("{replica} has address {address}, which {other} holds")))
            }
            _ => {
                self.holders.insert(address, replica.clone());
                Ok(())
            }
        }
    }

    /// Gives back whatever `replica` holds.
    pub fn give_back(&mut self, replica: &ReplicaName) {
        self.holders.retain(|_, holder| holder != replica);
    }

    /// Who holds what.
    pub fn holders(&self) -> &BTreeMap<IpAddr, ReplicaName> {
        &self.holders
    }

    fn at(&self, offset: u128) -> IpAddr {
        match self.network.network() {
            IpAddr::V4(base) => IpAddr::V4((u32::from(base) + offset as u32).into()),
            IpAddr::V6(base) => IpAddr::V6((u128::from(base) + offset).into()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::function::{FunctionKey, Realm};
    use proptest::prelude::*;

    fn replica() -> ReplicaName {
        let default = "openfaas-fn".parse().unwrap();
        ReplicaName::new(&Realm::default(), &FunctionKey::parse("f", &default).unwrap())
    }

    #[test]
    fn neither_network_nor_gateway_nor_broadcast_is_handed_out() {
        let mut pool = Pool::new("10.9.8.0/29".parse().unwrap()).unwrap();
        let mut taken: Vec<String> = (0..5).map(|_| pool.take(&replica()).unwrap().to_string()).collect();
        taken.sort();
        assert_eq!(taken, ["10.9.8.2", "10.9.8.3", "10.9.8.4", "10.9.8.5", "10.9.8.6"]);
        assert_eq!(pool.take(&replica()).unwrap_err().kind(), Kind::Exhausted);
    }

    #[test]
    fn a_returned_address_is_reused_last() {
        let mut pool = Pool::new("10.9.8.0/29".parse().unwrap()).unwrap();
        let first = replica();
        let address = pool.take(&first).unwrap();
        pool.give_back(&first);
        let others: Vec<IpAddr> = (0..4).map(|_| pool.take(&replica()).unwrap()).collect();
        assert!(!others.contains(&address));
        assert_eq!(pool.take(&replica()).unwrap(), address);
    }

    #[test]
    fn a_network_beyond_one_byte_works_and_a_tiny_one_is_refused() {
        let pool = Pool::new("10.62.0.0/16".parse().unwrap()).unwrap();
        assert_eq!(pool.capacity(), 65533);
        assert_eq!(pool.at(300).to_string(), "10.62.1.44");
        assert!(Pool::new("10.0.0.0/31".parse().unwrap()).is_err());
        assert!(Pool::new("fd00::/64".parse().unwrap()).is_ok());
    }

    proptest! {
        #[test]
        fn no_two_replicas_hold_one_address(steps in proptest::collection::vec(any::<bool>(), 1..200)) {
            let mut pool = Pool::new("10.9.8.0/26".parse().unwrap()).unwrap();
            let mut held: Vec<(ReplicaName, IpAddr)> = Vec::new();
            for take in steps {
                if take && (held.len() as u128) < pool.capacity() {
                    let name = replica();
                    let address = pool.take(&name).unwrap();
                    prop_assert!(held.iter().all(|(_, other)| *other != address));
                    held.push((name, address));
                } else if let Some((name, _)) = held.pop() {
                    pool.give_back(&name);
                }
                prop_assert_eq!(pool.holders().len(), held.len());
            }
        }
    }
}
