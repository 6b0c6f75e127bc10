//! Counters and gauges for Prometheus. Stock names (faas-provider, `serve.go`) keep their names and labels; so do those
//! that OpenFaaS Pro gives to processor and memory, for which dashboards exist.
//!
//! What happens is counted as it happens; what *is*, [`state`] reads when somebody asks, so that there is no second set
//! of books.

use prometheus::{Encoder, HistogramOpts, HistogramVec, IntCounterVec, Opts, Registry, TextEncoder};

use crate::gateway::queue::Queue;
use crate::image::Store;
use crate::provider::Provider;

mod page;
mod state;
mod store_size;

/// Everything that is counted.
pub struct Metrics {
    registry: Registry,
    requests: IntCounterVec,
    durations: HistogramVec,
    store: store_size::Cached,
}

impl Default for Metrics {
    fn default() -> Self {
        let labels = ["code", "method", "path"];
        let requests = IntCounterVec::new(
            Opts::new("provider_http_requests_total", "The total number of HTTP requests to /system."),
            &labels,
        )
        .expect("a valid metric");
        let durations = HistogramVec::new(
            HistogramOpts::new(
                "provider_http_request_duration_seconds",
                "Seconds spent serving HTTP requests to /system.",
            ),
            &labels,
        )
        .expect("a valid metric");
        let registry = Registry::new();
        registry.register(Box::new(requests.clone())).expect("registered once");
        registry.register(Box::new(durations.clone())).expect("registered once");
        Self { registry, requests, durations, store: Default::default() }
    }
}

impl Metrics {
    /// Counts one request to /system. `path` must come from a small set: it is a label.
    pub fn count(&self, code: u16, method: &str, path: &str, seconds: f64) {
        let labels = [&*code.to_string(), method, path];
        self.requests.with_label_values(&labels).inc();
        self.durations.with_label_values(&labels).observe(seconds);
    }

    /// All metrics in Prometheus's text format.
    pub fn render(&self, provider: &Provider, images: &Store, queue: Option<&Queue>) -> Vec<u8> {
        let mut text = Vec::new();
        let mut families = [self.registry.gather(), provider.timing.collect(), provider.waits.collect()].concat();
        // The encoder refuses a family of which nothing has been seen yet.
        families.retain(|family| !family.get_metric().is_empty());
        TextEncoder::new().encode(&families, &mut text).expect("writing to memory");
        text.extend(state::describe(provider, self.store.size(images, &*provider.platform.storage), queue));
        text
    }
}
