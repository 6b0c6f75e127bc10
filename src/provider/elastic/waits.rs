//! How long requests wait for a replica, and what comes of it.

use std::time::Duration;

use prometheus::core::Collector;
use prometheus::proto::MetricFamily;
use prometheus::{HistogramOpts, HistogramVec};

/// From a wake-up of a frozen replica to as long as a request waits.
const BUCKETS: [f64; 15] = [0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0];

/// Requests that found no free replica.
pub struct Waits(HistogramVec);

impl Default for Waits {
    fn default() -> Self {
        let options = HistogramOpts::new(
            "faas_jails_wait_seconds",
            "Seconds that requests waited for a replica, by what came of it: served, refused, deleted.",
        );
        Self(HistogramVec::new(options.buckets(BUCKETS.to_vec()), &["outcome"]).expect("a valid metric"))
    }
}

impl Waits {
    pub(in crate::provider) fn ended(&self, outcome: &str, took: Duration) {
        self.0.with_label_values(&[outcome]).observe(took.as_secs_f64());
    }

    /// What was seen so far.
    pub fn collect(&self) -> Vec<MetricFamily> {
        self.0.collect()
    }
}
