//! How long starts take, step by step, and how replicas end: what only the provider sees happen.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use prometheus::core::Collector;
use prometheus::proto::MetricFamily;
use prometheus::{HistogramOpts, HistogramVec};

use crate::sandbox::Exit;

/// From less than the quickest start to as long as a request waits.
const BUCKETS: [f64; 16] =
    [0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0];

/// Histograms of starts.
pub struct Timing {
    starts: HistogramVec,
}

impl Default for Timing {
    fn default() -> Self {
        let options = HistogramOpts::new(
            "faas_jails_cold_start_seconds",
            "Seconds that a replica took to start, by step, and in total until it took requests. \
             Cause is request if one waited for it, ahead if not.",
        );
        let starts = HistogramVec::new(options.buckets(BUCKETS.to_vec()), &["step", "cause"]);
        Self { starts: starts.expect("a valid metric") }
    }
}

impl Timing {
    /// Begins a start.
    pub(super) fn start(&self, cause: Cause) -> Start {
        let now = Instant::now();
        Start { starts: self.starts.clone(), cause, begun: now, last: now }
    }

    /// What was seen so far. A family without a sample cannot be written, and is left out.
    pub fn collect(&self) -> Vec<MetricFamily> {
        self.starts.collect().into_iter().filter(|family| !family.get_metric().is_empty()).collect()
    }
}

/// Why a replica is started.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Cause {
    /// A request waits for it.
    Request,
    /// A deploy, an update, a scale call or a restart.
    Ahead,
}

/// A start that is under way.
#[derive(Debug)]
pub(super) struct Start {
    starts: HistogramVec,
    cause: Cause,
    begun: Instant,
    last: Instant,
}

impl Start {
    /// Another step is done.
    pub fn done(&mut self, step: &str) {
        let now = Instant::now();
        self.observe(step, now - self.last);
        self.last = now;
    }

    /// The last step is done: the replica takes requests.
    pub fn ready(mut self) {
        self.done("ready");
        self.observe("total", self.begun.elapsed());
    }

    fn observe(&self, step: &str, took: std::time::Duration) {
        let cause = match self.cause {
            Cause::Request => "request",
            Cause::Ahead => "ahead",
        };
        self.starts.with_label_values(&[step, cause]).observe(took.as_secs_f64());
    }
}

/// How many of a function's replicas ended unasked, by reason. Each of them is replaced.
#[derive(Debug, Default)]
pub struct Restarts([AtomicU64; REASONS.len()]);

const REASONS: [&str; 4] = ["exit", "signal", "memory", "unknown"];

impl Restarts {
    pub(super) fn count(&self, exit: Exit) {
        let reason = match exit {
            Exit::Code(_) => 0,
            Exit::Signal(_) => 1,
            Exit::OutOfMemory => 2,
            Exit::Unknown => 3,
        };
        self.0[reason].fetch_add(1, Ordering::Relaxed);
    }

    /// Every reason with its number.
    pub fn by_reason(&self) -> impl Iterator<Item = (&'static str, u64)> {
        REASONS.into_iter().zip(self.0.iter().map(|count| count.load(Ordering::Relaxed)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn steps_are_counted_by_name_and_cause() {
        let timing = Timing::default();
        assert!(timing.collect().is_empty(), "before the first start");
        let mut start = timing.start(Cause::Request);
        start.done("root");
        start.ready();
        timing.start(Cause::Ahead).ready();
        let families = timing.collect();
        let counts: Vec<(String, u64)> = families[0]
            .get_metric()
            .iter()
            .map(|metric| {
                let labels: Vec<&str> = metric.get_label().iter().map(|label| label.value()).collect();
                (labels.join(" "), metric.get_histogram().get_sample_count())
            })
            .collect();
        for expected in ["request root", "request ready", "request total", "ahead ready", "ahead total"] {
            assert!(counts.contains(&(expected.to_owned(), 1)), "{expected}: {counts:?}");
        }
        assert_eq!(counts.len(), 5);
    }

    #[test]
    fn ends_are_counted_by_reason() {
        let restarts = Restarts::default();
        for exit in [Exit::Code(1), Exit::Code(0), Exit::Signal(9), Exit::OutOfMemory, Exit::Unknown] {
            restarts.count(exit);
        }
        let counts: Vec<_> = restarts.by_reason().collect();
        assert_eq!(counts, [("exit", 2), ("signal", 1), ("memory", 1), ("unknown", 1)]);
    }
}
