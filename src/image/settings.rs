//! How the image store behaves: plain data, from the configuration.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::time::Duration;

use super::target::Target;
use super::unpack::UnpackLimits;

/// When to ask the registry.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum PullPolicy {
    /// At every deploy, whether the tag still means the same; only what differs is fetched.
    Always,
    /// Only if the image is not here.
    #[default]
    IfNotPresent,
}

/// Everything the store can be told.
#[derive(Debug, Clone)]
pub struct Settings {
    /// What this host runs.
    pub target: Target,
    /// Caps on each layer.
    pub limits: UnpackLimits,
    /// Where images come from.
    pub registries: Registries,
    /// Layers fetched and unpacked at once, per image.
    pub parallel: usize,
}

impl Settings {
    /// The defaults, for a host that runs `target`.
    pub fn new(target: Target) -> Self {
        Self { target, limits: UnpackLimits::default(), registries: Registries::default(), parallel: 4 }
    }
}

/// How registries are reached. A registry is named as in a reference: `host[:port]`, `docker.io`.
#[derive(Debug, Clone)]
pub struct Registries {
    /// Registries spoken to over plain HTTP. Those on loopback addresses are, without being listed.
    pub insecure: BTreeSet<String>,
    /// For a registry, hosts asked before it, in this order.
    pub mirrors: BTreeMap<String, Vec<String>>,
    /// A Docker `config.json` with credentials under `auths`.
    pub docker_config: Option<PathBuf>,
    /// A PEM file with the certificates to trust; the system's when absent.
    pub certificates: Option<PathBuf>,
    /// How often a request is tried before giving up, and how often a blob may stall without a new byte.
    pub attempts: u32,
    /// Wait before the second attempt; each further one waits twice as long, at most 30 s.
    pub backoff: Duration,
    /// Wait for a connection, and for each piece of an answer.
    pub timeout: Duration,
}

impl Default for Registries {
    fn default() -> Self {
        Self {
            insecure: BTreeSet::new(),
            mirrors: BTreeMap::new(),
            docker_config: None,
            certificates: None,
            attempts: 5,
            backoff: Duration::from_millis(300),
            timeout: Duration::from_secs(30),
        }
    }
}
