//! From zero, frozen, in storms, by the thousand, and under a step of load.

mod many;
mod picture;
mod step;
mod storm;
mod zero;

use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::servers;
use crate::support::{Daemon, eventually_within};

/// One function, from zero and frozen: also on FreeBSD, see tools/freebsd-bench.sh.
pub fn wake() {
    zero::from_zero();
    zero::frozen();
    storm::waiting();
}

/// Hundreds of functions, and load.
pub fn run() {
    storm::random();
    many::run();
    step::run();
}

/// A daemon that has the benchmarks' function.
fn daemon() -> Daemon {
    let daemon = Daemon::with().without_images().start();
    daemon.load(&servers::function_image().docker_save(servers::IMAGE));
    daemon
}

/// Deploys the benchmarks' function under this name.
fn deploy(daemon: &Daemon, name: &str, labels: Value, annotations: Value) {
    let spec = json!({"service": name, "image": servers::IMAGE, "labels": labels, "annotations": annotations});
    daemon.create(spec).expect(202);
}

/// Milliseconds that a call takes to its whole answer, which is one packet.
fn call(daemon: &Daemon, path: &str) -> f64 {
    let begun = Instant::now();
    daemon.call(path).expect(200);
    begun.elapsed().as_secs_f64() * 1e3
}

/// What GET /system/elastic says of each function.
fn loads(daemon: &Daemon) -> Vec<Value> {
    daemon.http.get("/system/elastic").expect(200).value().as_array().expect("an array").clone()
}

/// Waits until this is so of every function.
fn until_all(daemon: &Daemon, what: &str, is_so: impl Fn(&Value) -> bool) {
    eventually_within(Duration::from_secs(120), what, || loads(daemon).iter().all(&is_so).then_some(()));
}

/// Waits until no replica runs.
fn until_nothing_runs(daemon: &Daemon) {
    eventually_within(Duration::from_secs(120), "nothing runs", || {
        daemon.traces().replica_names().is_empty().then_some(())
    });
}

/// The value below which this part of them lies.
fn quantile(values: &[f64], part: f64) -> f64 {
    let mut values = values.to_vec();
    values.sort_by(f64::total_cmp);
    values[((values.len() as f64 * part) as usize).min(values.len() - 1)]
}
