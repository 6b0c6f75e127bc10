//! The realm's own interface.

use super::super::network::{self, Mode, Settings, control};
use crate::config::{Config, NetworkMode};
use crate::fault::{Context, Result};
use crate::network::Network;
use crate::setup::{Item, State};

/// The loopback interface or bridge that replicas are on. The daemon makes it too, after a restart of the host.
pub struct Link {
    network: Box<dyn Network>,
    realm: String,
    subnet: String,
}

impl Link {
    /// As the configuration says. Rules for the packet filter are another step's.
    pub fn new(config: &Config) -> Self {
        let mode = match config.network.mode {
            NetworkMode::Vnet => Mode::Vnet,
            NetworkMode::Alias | NetworkMode::Bridge => Mode::Alias,
        };
        let settings = Settings { realm: config.realm.clone(), network: config.network.subnet, egress: None };
        Self {
            network: network::connect(mode, settings),
            realm: config.realm.to_string(),
            subnet: config.network.subnet.to_string(),
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
        let there = self.interfaces()?;
        Ok(match there.is_empty() {
            true => State::missing(
                format!("no interface of realm {}", self.realm),
                "run: faas-jails init; faas-jails serve makes it too",
            ),
            false => State::Ready(format!("{} for {}", there.join(" "), self.subnet)),
        })
    }

    fn make(&self) -> Result<bool> {
        self.network.setup().map(|()| true)
    }

    fn unmake(&self) -> Result<Option<String>> {
        let there = self.interfaces()?;
        self.network.teardown()?;
        Ok((!there.is_empty()).then(|| there.join(" ")))
    }
}
