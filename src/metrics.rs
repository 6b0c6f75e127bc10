//! Counters and gauges for Prometheus. Stock names (faas-provider, `serve.go`) keep their names and labels.

use prometheus::{Encoder, HistogramOpts, HistogramVec, IntCounterVec, Opts, Registry, TextEncoder};

use crate::provider::Provider;

/// Everything that is counted.
pub struct Metrics {
    registry: Registry,
    requests: IntCounterVec,
    durations: HistogramVec,
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
        Self { registry, requests, durations }
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
    pub fn render(&self, provider: &Provider) -> Vec<u8> {
        let mut text = Vec::new();
        TextEncoder::new().encode(&self.registry.gather(), &mut text).expect("writing to memory");
        text.extend(functions(provider).into_bytes());
        text
    }
}

/// What the catalog knows is read when asked for, so that it needs no second set of books.
fn functions(provider: &Provider) -> String {
    use std::fmt::Write;
    use std::sync::atomic::Ordering;
    let all = provider.catalog.all();
    let mut text = String::new();
    let mut family = |name: &str, kind: &str, help: &str, value: &dyn Fn(&crate::provider::Function) -> f64| {
        let _ = write!(text, "# HELP {name} {help}\n# TYPE {name} {kind}\n");
        for function in &all {
            let _ = writeln!(text, "{name}{{function_name=\"{}\"}} {}", function.key, value(function));
        }
    };
    family("faas_jails_function_invocations_total", "counter", "Requests sent to the function.", &|f| {
        f.invocations.load(Ordering::Relaxed) as f64
    });
    family("faas_jails_function_replicas_wanted", "gauge", "Replicas that the function should have.", &|f| {
        f64::from(f.wanted())
    });
    family("faas_jails_function_replicas_ready", "gauge", "Replicas that take requests.", &|f| f.available() as f64);
    let (used, room) = {
        let pool = provider.addresses();
        (pool.holders().len(), pool.capacity())
    };
    for (name, help, value) in [
        ("faas_jails_addresses_used", "Addresses of the pool that replicas hold.", used as f64),
        ("faas_jails_addresses", "Addresses in the pool.", room as f64),
        ("faas_jails_replicas_retiring", "Replicas being drained and removed.", provider.retiring() as f64),
    ] {
        let _ = write!(text, "# HELP {name} {help}\n# TYPE {name} gauge\n{name} {value}\n");
    }
    text
}
