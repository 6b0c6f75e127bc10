//! The settings of the standalone port: `[gateway]` and `[gateway.queue]`.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use serde::Deserialize;

use crate::config::{duration, parse_duration};
use crate::fault::{Context, Fault, Result};

/// The port that serves the gateway's API.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Settings {
    /// Whether there is one. Off where the stock gateway runs on the same host.
    pub enabled: bool,
    /// Where it listens. Port 0 takes a free one; `<root>/gateway.address` then says which.
    pub listen: SocketAddr,
    /// Longest time a function may take to answer a call over this port; absent: `read_timeout`.
    #[serde(deserialize_with = "some_duration")]
    pub upstream_timeout: Option<Duration>,
    /// PEM files: the port's certificate with its chain, and its key. With them it speaks TLS. SIGHUP reads them again.
    pub tls_certificate: Option<PathBuf>,
    /// See `tls_certificate`.
    pub tls_key: Option<PathBuf>,
    /// Calls that are answered before they are made.
    pub queue: Queue,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            enabled: true,
            listen: SocketAddr::from(([127, 0, 0, 1], 8080)),
            upstream_timeout: None,
            tls_certificate: None,
            tls_key: None,
            queue: Queue::default(),
        }
    }
}

/// Bounds of the queue behind /async-function. Defaults are those of OpenFaaS's queue-worker where it has them.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Queue {
    /// Most calls that wait or are being delivered, all functions together.
    pub calls: usize,
    /// Most bytes of them on disk.
    pub bytes: u64,
    /// Most bytes of one call's body.
    pub body: usize,
    /// Most bytes of an answer that is sent on to a callback.
    pub answer: usize,
    /// Deliveries to one function at the same time.
    pub max_inflight: usize,
    /// Longest time that one delivery may take.
    #[serde(deserialize_with = "duration")]
    pub ack_wait: Duration,
    /// How often a call is tried before it is given up.
    pub attempts: u32,
    /// Pause after the first attempt; it doubles with each further one.
    #[serde(deserialize_with = "duration")]
    pub min_wait: Duration,
    /// Longest pause between two attempts.
    #[serde(deserialize_with = "duration")]
    pub max_wait: Duration,
}

impl Default for Queue {
    fn default() -> Self {
        Self {
            calls: 10_000,
            bytes: 1 << 30,
            body: 1 << 20,
            answer: 16 << 20,
            max_inflight: 4,
            ack_wait: Duration::from_secs(300),
            attempts: 10,
            min_wait: Duration::from_secs(1),
            max_wait: Duration::from_secs(120),
        }
    }
}

impl Settings {
    /// Lays the environment over it: `upstream_timeout` of the stock gateway, `max_inflight` and `ack_wait` of its
    /// queue-worker.
    pub fn lay_over(&mut self, env: impl Fn(&str) -> Option<String>) -> Result<()> {
        if let Some(value) = env("upstream_timeout") {
            self.upstream_timeout = Some(parse_duration(&value).context(|| "upstream_timeout")?);
        }
        if let Some(value) = env("ack_wait") {
            self.queue.ack_wait = parse_duration(&value).context(|| "ack_wait")?;
        }
        if let Some(value) = env("max_inflight") {
            let bad = |_| Fault::invalid(format!("max_inflight={value} is no whole number"));
            self.queue.max_inflight = value.parse().map_err(bad)?;
        }
        for (name, number) in [("max_inflight", self.queue.max_inflight), ("attempts", self.queue.attempts as usize)] {
            if number == 0 {
                return Err(Fault::invalid(format!("gateway.queue.{name} = 0 would never deliver a call; 1 or more")));
            }
        }
        if self.tls_certificate.is_some() != self.tls_key.is_some() {
            return Err(Fault::invalid("gateway.tls_certificate and gateway.tls_key are needed together"));
        }
        Ok(())
    }
}

fn some_duration<'de, D: serde::Deserializer<'de>>(deserializer: D) -> std::result::Result<Option<Duration>, D::Error> {
    duration(deserializer).map(Some)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_stock_variables_lie_over_the_file() {
        let mut settings = Settings::default();
        let env = |name: &str| {
            [("upstream_timeout", "65s"), ("max_inflight", "1"), ("ack_wait", "5m5s")]
                .iter()
                .find_map(|(n, v)| (*n == name).then(|| v.to_string()))
        };
        settings.lay_over(env).unwrap();
        assert_eq!(settings.upstream_timeout, Some(Duration::from_secs(65)));
        assert_eq!((settings.queue.max_inflight, settings.queue.ack_wait), (1, Duration::from_secs(305)));
    }

    #[test]
    fn a_queue_that_could_deliver_nothing_is_refused() {
        let mut settings = Settings::default();
        let fault = settings.lay_over(|name| (name == "max_inflight").then(|| "0".into())).unwrap_err();
        assert!(fault.to_string().contains("max_inflight"), "{fault}");
        settings.queue.max_inflight = 1;
        assert!(settings.lay_over(|name| (name == "max_inflight").then(|| "many".into())).is_err());
    }
}
