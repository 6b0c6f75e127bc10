//! The address pool: which replica holds which address. Pure data, no system calls.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr};

use ipnetwork::IpNetwork;

use crate::fault::{Fault, Kind, Result};
use crate::function::ReplicaName;

/// Addresses of some networks, handed out one by one; with networks of both families, a replica gets one of each.
/// A network's own address, its first host (the gateway) and its broadcast address are never handed out. A returned
/// address is the last to be reused, so that a late packet for its former holder finds nobody for as long as possible.
#[derive(Debug)]
pub struct Pool {
    networks: Vec<Span>,
    holders: BTreeMap<IpAddr, ReplicaName>,
    reserved: BTreeSet<IpAddr>,
}

#[derive(Debug, Clone, Copy)]
struct Span {
    network: IpNetwork,
    next: u128,
}

impl Pool {
    /// A pool over `networks`: at least one, none of them overlapping, each with room for a replica.
    pub fn new(networks: &[IpNetwork]) -> Result<Self> {
        let mut pool = Self { networks: Vec::new(), holders: BTreeMap::new(), reserved: BTreeSet::new() };
        pool.change(networks, BTreeSet::new())?;
        Ok(pool)
    }

    /// Other networks, and other addresses that nobody gets. What replicas hold, they keep.
    pub fn change(&mut self, networks: &[IpNetwork], reserved: BTreeSet<IpAddr>) -> Result<()> {
        check(networks)?;
        let next = |network: &IpNetwork| self.networks.iter().find(|s| s.network == *network).map_or(0, |s| s.next);
        self.networks = networks.iter().map(|network| Span { network: *network, next: next(network) }).collect();
        self.reserved = reserved;
        Ok(())
    }

    /// The whole networks, in the order of use.
    pub fn networks(&self) -> Vec<IpNetwork> {
        self.networks.iter().map(|span| span.network).collect()
    }

    /// The network that an address is in.
    pub fn network_of(&self, address: IpAddr) -> Option<IpNetwork> {
        self.networks.iter().map(|span| span.network).find(|network| network.contains(address))
    }

    /// How many replicas can hold addresses at once.
    pub fn capacity(&self) -> u128 {
        let of_family = |v4: bool| {
            let spans = || self.networks.iter().filter(move |span| span.network.is_ipv4() == v4);
            let kept = self.reserved.iter().filter(|address| spans().any(|span| span.network.contains(**address)));
            let room = spans().map(|span| room(span.network)).fold(0u128, u128::saturating_add);
            spans().next().map(|_| room.saturating_sub(kept.count() as u128))
        };
        [of_family(true), of_family(false)].into_iter().flatten().min().unwrap_or(0)
    }

    /// Whether half of the addresses are held.
    pub fn is_half_full(&self) -> bool {
        2 * self.holders.len() as u128 >= self.capacity()
    }

    /// Addresses for `replica`, one of each family that has a network, with the length of its network's prefix.
    pub fn take(&mut self, replica: &ReplicaName) -> Result<Vec<IpNetwork>> {
        let mut taken = Vec::new();
        for v4 in [true, false] {
            let mut family: Vec<usize> = (0..self.networks.len()).collect();
            family.retain(|at| self.networks[*at].network.is_ipv4() == v4);
            if family.is_empty() {
                continue;
            }
            let Some(address) = family.iter().find_map(|at| self.take_from(*at, replica)) else {
                self.give_back(replica);
                return Err(self.exhausted(v4));
            };
            taken.push(address);
        }
        // The network that is named first is where replicas are called.
        if self.networks.first().is_some_and(|span| !span.network.is_ipv4()) {
            taken.reverse();
        }
        Ok(taken)
    }

    fn take_from(&mut self, at: usize, replica: &ReplicaName) -> Option<IpNetwork> {
        let Span { network, next } = self.networks[at];
        let room = room(network);
        let used = self.holders.keys().chain(&self.reserved).filter(|address| network.contains(**address)).count();
        // No more looks than addresses that could be in the way.
        for step in 0..room.min(used as u128 + 1) {
            let number = (next + step) % room;
            let address = nth(network, 2 + number);
            if self.holders.contains_key(&address) || self.reserved.contains(&address) {
                continue;
            }
            self.networks[at].next = (number + 1) % room;
            self.holders.insert(address, replica.clone());
            return IpNetwork::new(address, network.prefix()).ok();
        }
        None
    }

    fn exhausted(&self, v4: bool) -> Fault {
        let family: Vec<_> = self.networks().into_iter().filter(|network| network.is_ipv4() == v4).collect();
        let shown: Vec<String> = family.iter().map(IpNetwork::to_string).collect();
        let used = self.holders.keys().filter(|address| family.iter().any(|n| n.contains(**address))).count();
        Fault::new(
            Kind::Exhausted,
            format!(
                "network {} has no free address: {used} are in use and {} reserved; scale something down, or add a \
                 network with: faas-jails address add NETWORK",
                shown.join(" and "),
                self.reserved.iter().filter(|address| address.is_ipv4() == v4).count()
            ),
        )
    }

    /// Records that `replica` holds `address` already: a replica found running at start.
    pub fn hold(&mut self, address: IpAddr, replica: &ReplicaName) -> Result<()> {
        if self.network_of(address).is_none() {
            let shown: Vec<String> = self.networks().iter().map(IpNetwork::to_string).collect();
            return Err(Fault::invalid(format!(
                "{replica} has address {address}, which is not in network {}",
                shown.join(" or ")
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

    /// Every IPv4 address that is handed out, network by network.
    pub fn all_v4(&self) -> impl Iterator<Item = Ipv4Addr> + '_ {
        let networks = self.networks.iter().map(|span| span.network).filter(IpNetwork::is_ipv4);
        let all = networks.flat_map(|network| (0..room(network)).map(move |number| nth(network, 2 + number)));
        all.filter(|address| !self.reserved.contains(address)).filter_map(|address| match address {
            IpAddr::V4(address) => Some(address),
            IpAddr::V6(_) => None,
        })
    }

    /// Whether this address is one that is handed out.
    pub fn hands_out(&self, address: IpAddr) -> bool {
        self.network_of(address).is_some_and(|network| is_host(network, address)) && !self.reserved.contains(&address)
    }
}

/// The host's own address in a network: the first one.
pub fn gateway(network: IpNetwork) -> IpAddr {
    nth(network, 1)
}

/// How many addresses of a network are handed out.
pub fn room(network: IpNetwork) -> u128 {
    let bits = if network.is_ipv4() { 32 } else { 128 } - u32::from(network.prefix());
    // Not counted: network, gateway, broadcast (IPv6 has no broadcast; its last address is left out all the same).
    1u128.checked_shl(bits).unwrap_or(u128::MAX).saturating_sub(3)
}

/// Whether `address` is one of those that are handed out.
pub fn is_host(network: IpNetwork, address: IpAddr) -> bool {
    let own = [network.network(), gateway(network), network.broadcast()];
    network.contains(address) && !own.contains(&address)
}

/// The network that an address with a prefix is in.
pub fn whole(network: IpNetwork) -> Result<IpNetwork> {
    IpNetwork::new(network.network(), network.prefix()).map_err(|e| Fault::invalid(e.to_string()))
}

/// Says whether a pool can be made of these.
pub fn check(networks: &[IpNetwork]) -> Result<()> {
    if networks.is_empty() {
        return Err(Fault::invalid("there is no network to take addresses from"));
    }
    for (index, network) in networks.iter().enumerate() {
        if room(*network) == 0 {
            return Err(Fault::invalid(format!(
                "network {network} has no room for replicas; a /29 is the smallest useful one"
            )));
        }
        let overlaps = |other: &&IpNetwork| other.contains(network.network()) || network.contains(other.network());
        if let Some(other) = networks[..index].iter().find(overlaps) {
            return Err(Fault::invalid(format!("networks {other} and {network} overlap")));
        }
    }
    Ok(())
}

fn nth(network: IpNetwork, offset: u128) -> IpAddr {
    match network.network() {
        IpAddr::V4(base) => IpAddr::V4((u32::from(base) + offset as u32).into()),
        IpAddr::V6(base) => IpAddr::V6((u128::from(base) + offset).into()),
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

    fn pool(networks: &[&str]) -> Pool {
        let networks: Vec<IpNetwork> = networks.iter().map(|n| n.parse().unwrap()).collect();
        Pool::new(&networks).unwrap()
    }

    fn take(pool: &mut Pool) -> String {
        let taken: Vec<String> = pool.take(&replica()).unwrap().iter().map(|a| a.ip().to_string()).collect();
        taken.join(" ")
    }

    #[test]
    fn neither_network_nor_gateway_nor_broadcast_is_handed_out() {
        let mut pool = pool(&["10.9.8.0/29"]);
        let mut taken: Vec<String> = (0..5).map(|_| take(&mut pool)).collect();
        taken.sort();
        assert_eq!(pool.all_v4().map(|address| address.to_string()).collect::<Vec<_>>(), taken);
        assert!(pool.all_v4().all(|address| pool.hands_out(address.into())));
        for outside in ["10.9.8.0", "10.9.8.1", "10.9.8.7", "10.9.8.8", "fd00::3"] {
            assert!(!pool.hands_out(outside.parse().unwrap()), "{outside}");
        }
        assert_eq!(taken, ["10.9.8.2", "10.9.8.3", "10.9.8.4", "10.9.8.5", "10.9.8.6"]);
        let fault = pool.take(&replica()).unwrap_err();
        assert_eq!(fault.kind(), Kind::Exhausted);
        assert!(fault.to_string().contains("faas-jails address add"), "{fault}");
    }

    #[test]
    fn a_returned_address_is_reused_last() {
        let mut pool = pool(&["10.9.8.0/29"]);
        let first = replica();
        let address = pool.take(&first).unwrap();
        pool.give_back(&first);
        let others: Vec<_> = (0..4).map(|_| pool.take(&replica()).unwrap()).collect();
        assert!(!others.contains(&address));
        assert_eq!(pool.take(&replica()).unwrap(), address);
    }

    #[test]
    fn a_network_beyond_one_byte_works_and_a_tiny_one_is_refused() {
        let network: IpNetwork = "10.62.0.0/16".parse().unwrap();
        assert_eq!(room(network), 65533);
        assert_eq!(nth(network, 300).to_string(), "10.62.1.44");
        assert!(Pool::new(&["10.0.0.0/31".parse().unwrap()]).is_err());
        assert!(Pool::new(&["fd00::/64".parse().unwrap()]).is_ok());
        assert!(Pool::new(&[]).is_err());
    }

    #[test]
    fn with_both_families_a_replica_has_one_address_of_each() {
        let mut both = pool(&["10.9.8.0/29", "fd00::/64"]);
        assert_eq!(take(&mut both), "10.9.8.2 fd00::2");
        assert_eq!(both.capacity(), 5, "the smaller family decides");
        let mut six_first = pool(&["fd00::/64", "10.9.8.0/29"]);
        assert_eq!(take(&mut six_first), "fd00::2 10.9.8.2", "the network that is named first comes first");
        for _ in 0..4 {
            take(&mut six_first);
        }
        let held = six_first.holders().len();
        assert!(six_first.take(&replica()).is_err());
        assert_eq!(six_first.holders().len(), held, "half of a pair was kept");
    }

    #[test]
    fn an_added_network_is_used_when_the_first_is_full_and_what_is_reserved_is_not_handed_out() {
        let mut pool = pool(&["10.9.8.0/29", "10.9.9.0/29"]);
        let reserved = ["10.9.8.3".parse().unwrap(), "10.9.8.5".parse().unwrap()];
        pool.change(&pool.networks(), reserved.into()).unwrap();
        assert_eq!(pool.capacity(), 8);
        let taken: Vec<String> = (0..8).map(|_| take(&mut pool)).collect();
        assert_eq!(taken[..4], ["10.9.8.2", "10.9.8.4", "10.9.8.6", "10.9.9.2"]);
        assert!(pool.take(&replica()).is_err());
        pool.change(&pool.networks(), BTreeSet::new()).unwrap();
        assert_eq!(take(&mut pool), "10.9.8.3");
    }

    #[test]
    fn networks_that_overlap_are_refused() {
        let networks = |texts: [&str; 2]| texts.map(|text| text.parse::<IpNetwork>().unwrap());
        assert!(check(&networks(["10.0.0.0/8", "10.9.0.0/16"])).is_err());
        assert!(check(&networks(["10.9.0.0/16", "10.0.0.0/8"])).is_err());
        assert!(check(&networks(["10.8.0.0/16", "10.9.0.0/16"])).is_ok());
    }

    proptest! {
        #[test]
        fn no_two_replicas_hold_one_address(steps in proptest::collection::vec(any::<bool>(), 1..200)) {
            let mut pool = pool(&["10.9.8.0/26"]);
            let mut held: Vec<(ReplicaName, IpNetwork)> = Vec::new();
            for take in steps {
                if take && (held.len() as u128) < pool.capacity() {
                    let name = replica();
                    let address = pool.take(&name).unwrap()[0];
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
