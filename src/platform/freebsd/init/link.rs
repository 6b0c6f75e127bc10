//! The realm's own interface.

use ipnetwork::IpNetwork;

use super::super::network::{self, Settings, control};
use crate::config::Config;
use crate::fault::{Context, Result};
use crate::network::Network;
use crate::setup::{Item, State};

/// The loopback interface or bridge that replicas are on. The daemon makes it too, after a restart of the host.
pub struct Link {
    network: Box<dyn Network>,
    needed: bool,
    realm: String,
    networks: Vec<IpNetwork>,
}

impl Link {
    /// As the configuration says. Rules for the packet filter are another step's.
    pub fn new(config: &Config) -> Self {
        let settings = Settings { realm: config.realm.clone(), egress: None, nat: false };
        let networks = config.network.networks();
        let needed = config.network.mode.has_addresses();
        Self {
            needed,
            network: network::connect(config.network.mode, settings),
            realm: config.realm.to_string(),
            networks,
        }
    }

    fn interfaces(&self) -> Result<Vec<String>> {
        let all = control::names().context(|| "cannot list interfaces")?;
        Ok(all.into_iter().filter(|name| name.starts_with(&self.realm)).collect())
    }
}

impl Item for Link {
    fn name(&self) -> &'static str {
        "network"
    }

    fn look(&self) -> Result<State> {
        if !self.needed {
            return Ok(State::Unneeded("replicas share the host's network".into()));
        }
        let there = self.interfaces()?;
        let shown: Vec<String> = self.networks.iter().map(IpNetwork::to_string).collect();
        Ok(match there.is_empty() {
            true => State::missing(
                format!("no interface of realm {}", self.realm),
                "run: faas-jails init; faas-jails serve makes it too",
            ),
            false => State::Ready(format!("{} for {}", there.join(" "), shown.join(" and "))),
        })
    }

    fn make(&self) -> Result<bool> {
        self.network.setup(&self.networks).map(|()| true)
    }

    fn unmake(&self) -> Result<Option<String>> {
        let there = self.interfaces()?;
        self.network.teardown()?;
        Ok((!there.is_empty()).then(|| there.join(" ")))
    }
}
