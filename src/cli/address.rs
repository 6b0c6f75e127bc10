//! `faas-jails address …`: the address pool as data. A daemon that runs sees a change before its next start of a
//! replica.

use std::collections::BTreeMap;
use std::net::IpAddr;

use ipnetwork::IpNetwork;
use serde::Serialize;

use crate::config::Config;
use crate::fault::{Fault, Kind, Result};
use crate::function::ReplicaName;
use crate::network::book::Book;
use crate::network::ipam;
use crate::provider;

#[derive(Debug, clap::Subcommand)]
pub enum Verb {
    /// Add a network to the pool; its first address becomes the host's
    Add {
        /// Such as 10.63.0.0/24 or fd00:63::/64
        network: IpNetwork,
    },
    /// Keep an address back: no replica gets it from now on
    Reserve {
        /// An address of the pool
        address: IpAddr,
        /// What it is kept for
        #[arg(long = "for", value_name = "TEXT", default_value = "")]
        what_for: String,
    },
    /// Take back a reservation, or a network that was added
    Release {
        /// The address, or the network
        what: String,
    },
    /// List networks, and who holds which address
    List {
        /// As one JSON object
        #[arg(long)]
        json: bool,
    },
}

pub fn run(config: &Config, verb: Verb) -> Result<()> {
    match verb {
        Verb::Add { network } => {
            Book::edit(&config.root, |book| book.add(network, &config.network))?;
            println!("added {}", ipam::whole(network)?);
        }
        Verb::Reserve { address, what_for } => {
            Book::edit(&config.root, |book| book.reserve(address, &what_for, &config.network))?;
            match provider::held(&config.root)?.get(&address) {
                Some(holder) => println!("reserved {address}; {holder} has it until that replica ends"),
                None => println!("reserved {address}"),
            }
        }
        Verb::Release { what } => {
            release(config, &what)?;
            println!("released {what}");
        }
        Verb::List { json } => list(config, json)?,
    }
    Ok(())
}

fn release(config: &Config, what: &str) -> Result<()> {
    let held = provider::held(&config.root)?;
    if let Ok(address) = what.parse::<IpAddr>() {
        let released = Book::edit(&config.root, |book| book.release_address(address));
        return released.map_err(|fault| match held.get(&address) {
            Some(holder) => Fault::new(
                Kind::Busy,
                format!(
                    "{address} is held by {holder}; it is free once function {} is scaled down or deleted",
                    holder.function()
                ),
            ),
            None => fault,
        });
    }
    let network: IpNetwork =
        what.parse().map_err(|_| Fault::invalid(format!("({}) is no address and no network", what.escape_debug())))?;
    if let Some((address, holder)) = held.iter().find(|(address, _)| network.contains(**address)) {
        let message = format!("network {network} is in use: {holder} has {address}");
        return Err(Fault::new(Kind::Busy, message));
    }
    Book::edit(&config.root, |book| book.release_network(network, &config.network))
}

#[derive(Serialize)]
struct Listing {
    networks: Vec<NetworkLine>,
    addresses: Vec<AddressLine>,
}

#[derive(Serialize)]
struct NetworkLine {
    network: IpNetwork,
    gateway: IpAddr,
    /// Addresses that can be handed out; text, because those of IPv6 are more than JSON's numbers.
    room: String,
    held: usize,
    reserved: usize,
    from: &'static str,
}

#[derive(Serialize)]
struct AddressLine {
    address: IpAddr,
    state: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    function: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    replica: Option<String>,
    #[serde(rename = "for", skip_serializing_if = "Option::is_none")]
    what_for: Option<String>,
}

fn list(config: &Config, json: bool) -> Result<()> {
    let listing = listing(config, &Book::load(&config.root)?, &provider::held(&config.root)?);
    if json {
        let text = serde_json::to_string_pretty(&listing).map_err(|e| Fault::new(Kind::System, e.to_string()))?;
        println!("{text}");
        return Ok(());
    }
    println!("{:<24} {:>12} {:>6} {:>9}  FROM", "NETWORK", "ROOM", "HELD", "RESERVED");
    for line in &listing.networks {
        let network = line.network.to_string();
        println!("{network:<24} {:>12} {:>6} {:>9}  {}", line.room, line.held, line.reserved, line.from);
    }
    println!("\n{:<24} {:<9} FOR", "ADDRESS", "STATE");
    for line in listing.addresses {
        let what_for = line.replica.or(line.what_for).unwrap_or_default();
        println!("{:<24} {:<9} {what_for}", line.address.to_string(), line.state);
    }
    Ok(())
}

fn listing(config: &Config, book: &Book, held: &BTreeMap<IpAddr, ReplicaName>) -> Listing {
    let configured = config.network.networks();
    let networks = book.all_networks(&config.network);
    let line = |network: &IpNetwork| NetworkLine {
        network: *network,
        gateway: ipam::gateway(*network),
        room: ipam::room(*network).to_string(),
        held: held.keys().filter(|address| network.contains(**address)).count(),
        reserved: book.reserved.keys().filter(|address| network.contains(**address)).count(),
        from: if configured.contains(network) { "configuration" } else { "address add" },
    };
    let mut addresses: Vec<AddressLine> = Vec::new();
    let mut add = |address: IpAddr, state, replica: Option<&ReplicaName>, what_for: Option<&String>| {
        addresses.push(AddressLine {
            address,
            state,
            function: replica.map(|replica| replica.function().to_string()),
            replica: replica.map(ReplicaName::to_string),
            what_for: what_for.filter(|text| !text.is_empty()).cloned(),
        });
    };
    networks.iter().for_each(|network| add(ipam::gateway(*network), "host", None, None));
    held.iter().for_each(|(address, replica)| add(*address, "held", Some(replica), book.reserved.get(address)));
    let free = book.reserved.iter().filter(|(address, _)| !held.contains_key(address));
    free.for_each(|(address, what_for)| add(*address, "reserved", None, Some(what_for)));
    addresses.sort_by_key(|line| line.address);
    Listing { networks: networks.iter().map(line).collect(), addresses }
}
