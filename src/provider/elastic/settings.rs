//! `[elastic]` of the configuration.

use std::time::Duration;

use serde::Deserialize;

use crate::config::duration;

/// How many replicas there are when nobody says otherwise, and what starting and freezing them may take.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Settings {
    /// Whether functions without the label `com.openfaas.scale.zero` go to zero when idle.
    pub scale_zero: bool,
    /// How long a function is idle before it goes to zero, unless its label `com.openfaas.scale.zero-duration` says.
    #[serde(deserialize_with = "duration")]
    pub zero_duration: Duration,
    /// Most requests of one function that wait for a replica; further ones are refused.
    pub queue: usize,
    /// Most replicas that are being started at once, on the whole host.
    pub starts: usize,
    /// Most functions of which the next replica lies ready, complete but for its program: those at zero, and those
    /// that scale with load, whose turn came last. Each of them has an address, and its jail or cgroup.
    pub standby: usize,
    /// Most bytes of memory that frozen replicas occupy together; beyond it the one frozen longest is removed.
    pub frozen_bytes: u64,
    /// Bytes of memory that stay free: with less, frozen replicas are removed and starts wait.
    pub reserve_bytes: u64,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            scale_zero: false,
            zero_duration: Duration::from_secs(15 * 60),
            queue: 4096,
            starts: 2 * std::thread::available_parallelism().map_or(2, usize::from),
            standby: 16,
            frozen_bytes: 1 << 30,
            reserve_bytes: 64 << 20,
        }
    }
}
