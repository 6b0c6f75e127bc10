//! The standalone port: the gateway's side of the OpenFaaS API, so that faas-cli needs no gateway in between.
//!
//! | route | answers |
//! |---|---|
//! | /system/… | as the provider; /system/info in the gateway's shape |
//! | /system/alert | scales as Alertmanager asks for |
//! | /function/… | the provider's own invoke path, counted |
//! | /async-function/… | 202, and the call is made later: [`queue`] |
//! | /metrics | the stock `gateway_*` names |
//! | /healthz | 200 |
//!
//! It is a second listener of the same process: a call passes through no second program and no second connection.

use std::net::SocketAddr;
use std::sync::Arc;

use crate::config::Config;
use crate::fault::Result;

pub mod alert;
pub mod asynchronous;
pub mod config;
pub mod metrics;
pub mod queue;
mod standalone;
pub mod sync;
mod tls;

use metrics::Metrics;
use queue::Queue;
pub use standalone::Standalone;

/// What the standalone port has beside the provider.
pub struct Gateway {
    /// Counters.
    pub metrics: Arc<Metrics>,
    /// Calls that are made later.
    pub queue: Arc<Queue>,
    /// Where the provider listens, as callbacks to functions of this host reach it.
    provider_address: SocketAddr,
}

impl Gateway {
    /// Opens the queue under the state directory. `provider` is where the provider listens.
    pub fn open(config: &Config, provider: SocketAddr) -> Result<Arc<Self>> {
        let mut provider_address = provider;
        if provider.ip().is_unspecified() {
            let loopback =
                if provider.is_ipv4() { [127, 0, 0, 1].into() } else { std::net::Ipv6Addr::LOCALHOST.into() };
            provider_address.set_ip(loopback);
        }
        let queue = Queue::open(&config.root.join("queue"), config.gateway.queue.clone())?;
        Ok(Arc::new(Self { metrics: Arc::new(Metrics::default()), queue: Arc::new(queue), provider_address }))
    }
}
