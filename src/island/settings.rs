//! `[island]` of the configuration.

use std::net::SocketAddr;
use std::time::Duration;

use serde::Deserialize;

/// Settings of Sky Island's API.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Settings {
    /// Where it listens; without, it is off. Sky Island's own port is 3280.
    pub listen: Option<SocketAddr>,
    /// The header that carries the token.
    pub token_header: String,
    /// Whether running a function needs the token too; unset: where `listen` is not a loopback address.
    pub run_token: Option<bool>,
    /// How long a function may run.
    #[serde(deserialize_with = "crate::config::duration")]
    pub exec_timeout: Duration,
    /// How long a branch or tag is taken for the commit that it was last seen at.
    #[serde(deserialize_with = "crate::config::duration")]
    pub cache_default_expiration: Duration,
    /// How long a program that nobody calls is kept.
    #[serde(deserialize_with = "crate::config::duration")]
    pub cache_purge_after: Duration,
    /// Most bytes that a function may print, and most of its standard error that is kept.
    pub output: u64,
    /// Bytes of memory of one run, its /tmp included.
    pub memory: u64,
    /// Thousandths of a processor of one run.
    pub cpu_millis: u64,
    /// Processes and threads of one run.
    pub pids: u64,
    /// Runs and builds at once; further callers wait.
    pub parallel: usize,
    /// Callers that are served or wait; further ones are turned away.
    pub queue: usize,
    /// Where StatsD metrics go, by UDP.
    pub statsd: Option<SocketAddr>,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            listen: None,
            token_header: "X-Sky-Island-Token".into(),
            run_token: None,
            exec_timeout: Duration::from_secs(5),
            cache_default_expiration: Duration::from_secs(8 * 3600),
            cache_purge_after: Duration::from_secs(24 * 3600),
            output: 1 << 20,
            memory: 256 << 20,
            cpu_millis: 1000,
            pids: 64,
            parallel: 16,
            queue: 256,
            statsd: None,
        }
    }
}

impl Settings {
    /// Whether running a function needs the token.
    pub fn run_needs_token(&self) -> bool {
        self.run_token.unwrap_or_else(|| self.listen.is_some_and(|listen| !listen.ip().is_loopback()))
    }
}
