//! What the stock gateway counts, with its names and labels (faas, `gateway/metrics`), and the `http_*` names that
//! OpenFaaS's dashboards know.

use std::sync::Arc;
use std::time::Instant;

use actix_web::http::StatusCode;
use prometheus::{
    Encoder, HistogramOpts, HistogramVec, IntCounterVec, IntGaugeVec, Opts, Registry, TextEncoder, core::Collector,
};

use crate::provider::{Catalog, Function};

/// Calls and requests that came over the gateway's port.
pub struct Metrics {
    registry: Registry,
    started: IntCounterVec,
    invocations: IntCounterVec,
    seconds: HistogramVec,
    replicas: IntGaugeVec,
    requests: IntCounterVec,
    durations: HistogramVec,
}

impl Default for Metrics {
    fn default() -> Self {
        let registry = Registry::new();
        let (function, outcome) = (["function_name"], ["function_name", "code"]);
        let request = ["method", "path", "status"];
        Self {
            started: counter(
                &registry,
                "gateway_function_invocation_started",
                "The total number of function HTTP requests started.",
                &function,
            ),
            invocations: counter(&registry, "gateway_function_invocation_total", "Function metrics", &outcome),
            seconds: histogram(&registry, "gateway_functions_seconds", "Function time taken", &outcome),
            replicas: {
                let options = Opts::new("gateway_service_count", "Current count of replicas for function");
                registered(&registry, IntGaugeVec::new(options, &function).expect("a valid metric"))
            },
            requests: counter(&registry, "http_requests_total", "HTTP requests to /system of this port.", &request),
            durations: histogram(
                &registry,
                "http_request_duration_seconds",
                "Seconds spent serving HTTP requests to /system of this port.",
                &request,
            ),
            registry,
        }
    }
}

fn registered<C: Collector + Clone + 'static>(registry: &Registry, metric: C) -> C {
    registry.register(Box::new(metric.clone())).expect("registered once");
    metric
}

fn counter(registry: &Registry, name: &str, help: &str, labels: &[&str]) -> IntCounterVec {
    registered(registry, IntCounterVec::new(Opts::new(name, help), labels).expect("a valid metric"))
}

fn histogram(registry: &Registry, name: &str, help: &str, labels: &[&str]) -> HistogramVec {
    registered(registry, HistogramVec::new(HistogramOpts::new(name, help), labels).expect("a valid metric"))
}

impl Metrics {
    /// Counts a call as begun; what it returns counts its end, when it is dropped.
    pub fn begin(self: &Arc<Self>, function: Arc<Function>) -> Call {
        self.started.with_label_values(&[function.full_name()]).inc();
        // What the stock gateway notes of a client that has gone.
        Call { metrics: Arc::clone(self), function, began: Instant::now(), code: StatusCode::BAD_GATEWAY }
    }

    /// Counts one request to /system. `path` must come from a small set: it is a label.
    pub fn count(&self, code: &str, method: &str, path: &str, seconds: f64) {
        self.requests.with_label_values(&[method, path, code]).inc();
        self.durations.with_label_values(&[method, path, code]).observe(seconds);
    }

    /// All of it in Prometheus's text format. Of functions that are gone, nothing is kept.
    pub fn render(&self, catalog: &Catalog) -> Vec<u8> {
        self.forget(catalog);
        for function in catalog.all() {
            let wanted = i64::from(function.wanted());
            self.replicas.with_label_values(&[function.full_name()]).set(wanted);
        }
        let mut text = Vec::new();
        TextEncoder::new().encode(&self.registry.gather(), &mut text).expect("writing to memory");
        text
    }

    fn forget(&self, catalog: &Catalog) {
        for family in self.registry.gather() {
            for metric in family.get_metric() {
                let label = |name: &str| metric.get_label().iter().find(|l| l.name() == name).map(|l| l.value());
                let Some(name) = label("function_name").filter(|name| catalog.named(name).is_none()) else { continue };
                // That a metric is not there is what is wanted.
                match label("code") {
                    Some(code) => {
                        let _ = self.invocations.remove_label_values(&[name, code]);
                        let _ = self.seconds.remove_label_values(&[name, code]);
                    }
                    None => {
                        let _ = self.started.remove_label_values(&[name]);
                        let _ = self.replicas.remove_label_values(&[name]);
                    }
                }
            }
        }
    }
}

/// A call under way.
pub struct Call {
    metrics: Arc<Metrics>,
    function: Arc<Function>,
    began: Instant,
    code: StatusCode,
}

impl Call {
    /// Notes with which status it ends.
    pub fn ended(&mut self, status: u16) {
        self.code = StatusCode::from_u16(status).unwrap_or(StatusCode::BAD_GATEWAY);
    }
}

impl Drop for Call {
    fn drop(&mut self) {
        let labels = [self.function.full_name(), self.code.as_str()];
        self.metrics.invocations.with_label_values(&labels).inc();
        self.metrics.seconds.with_label_values(&labels).observe(self.began.elapsed().as_secs_f64());
    }
}
