//! What Prometheus sees of Sky Island's API.

use prometheus::{Histogram, HistogramOpts, IntCounterVec, Opts};

use crate::metrics::Metrics;

/// Counters of this API.
#[derive(Debug)]
pub struct Counters {
    answers: IntCounterVec,
    programs: IntCounterVec,
    /// Seconds that runs took, with making their sandbox and taking it away.
    pub runs: Histogram,
}

impl Counters {
    /// Makes them part of `metrics`.
    pub fn new(metrics: &Metrics) -> Self {
        let vector = |name: &str, help: &str, label: &str| {
            IntCounterVec::new(Opts::new(name, help), &[label]).expect("a valid metric")
        };
        let runs = HistogramOpts::new("faas_jails_island_run_seconds", "Seconds that runs took, sandbox included.");
        let counters = Self {
            answers: vector("faas_jails_island_calls_total", "Calls that were answered.", "code"),
            programs: vector("faas_jails_island_programs_total", "Programs that calls needed.", "from"),
            runs: Histogram::with_opts(runs.buckets(vec![0.005, 0.01, 0.02, 0.05, 0.1, 0.5, 1.0, 5.0]))
                .expect("a valid metric"),
        };
        metrics.add(Box::new(counters.answers.clone()));
        metrics.add(Box::new(counters.programs.clone()));
        metrics.add(Box::new(counters.runs.clone()));
        counters
    }

    /// Counts an answer.
    pub fn answered(&self, code: u16) {
        self.answers.with_label_values(&[&*code.to_string()]).inc();
    }

    /// Counts a program: from the `cache`, or from a `build`.
    pub fn program(&self, from: &str) {
        self.programs.with_label_values(&[from]).inc();
    }
}
