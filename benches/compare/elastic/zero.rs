//! One function: from zero, and after having been frozen.

use serde_json::json;

use super::{call, daemon, deploy, quantile, until_all, until_nothing_runs};
use crate::report::{columns, heading, least, median, row};
use crate::servers::free_address;
use crate::start::until_answer;
use crate::support::Daemon;

const ROUNDS: usize = 30;
const FUNCTIONS: usize = 20;

pub fn from_zero() {
    let daemon = daemon();
    deploy(&daemon, "cold", json!({}), json!({}));
    let [mut bare, mut cold, mut warm]: [Vec<f64>; 3] = Default::default();
    for _ in 0..ROUNDS {
        daemon.scale("cold", 0).expect(202);
        until_nothing_runs(&daemon);
        bare.push(until_answer(free_address()));
        cold.push(call(&daemon, "cold"));
        warm.push(call(&daemon, "cold"));
    }
    heading(
        "from zero: a call to a function at zero, reference: fork and exec of the same program, to its first answer",
    );
    columns(&["first answer", "least ms", "median ms", "p90 ms", "of bare, median", "of bare, least"]);
    let reference = (median(bare.iter().copied()), least(bare.iter().copied()));
    for (name, times) in [("bare process", bare), ("call at zero", cold), ("the next call", warm)] {
        let (middle, best) = (median(times.iter().copied()), least(times.iter().copied()));
        let shown = [best, middle, quantile(&times, 0.9), middle / reference.0, best / reference.1];
        let [best, middle, late, ratio, best_ratio] = shown.map(|value| format!("{value:.2}"));
        row(&[&name, &best, &middle, &late, &ratio, &best_ratio]);
    }
    steps(&daemon);
}

/// What the daemon says of the steps of starts that a request waited for.
fn steps(daemon: &Daemon) {
    println!("\nThe same calls step by step, as the daemon's metrics tell it:\n");
    columns(&["step", "mean ms"]);
    let text = daemon.http.get("/metrics").expect(200).text();
    let sums = text
        .lines()
        .filter_map(|line| line.strip_prefix("faas_jails_cold_start_seconds_sum{cause=\"request\",step=\""));
    for (step, sum) in sums.filter_map(|rest| rest.split_once("\"} ")) {
        row(&[&step, &format!("{:.2}", sum.parse::<f64>().expect("a number") * 1e3 / ROUNDS as f64)]);
    }
}

pub fn frozen() {
    let daemon = daemon();
    let names: Vec<String> = (0..FUNCTIONS).map(|n| format!("cool{n}")).collect();
    for name in &names {
        deploy(&daemon, name, json!({}), json!({"com.faas-jails.freeze": "1s"}));
    }
    let [mut woken, mut warm]: [Vec<f64>; 2] = Default::default();
    for _ in 0..3 {
        until_all(&daemon, "all are frozen", |function| function["frozen"] == 1);
        for name in &names {
            woken.push(call(&daemon, name));
            warm.push(call(&daemon, name));
        }
    }
    heading("frozen: a call that wakes a frozen replica, reference: the same replica's next call");
    columns(&["call", "least ms", "median ms", "p90 ms", "more than warm, median ms"]);
    let reference = median(warm.iter().copied());
    for (name, times) in [("warm", warm), ("frozen", woken)] {
        let middle = median(times.iter().copied());
        let shown = [least(times.iter().copied()), middle, quantile(&times, 0.9), middle - reference];
        let [best, middle, late, more] = shown.map(|value| format!("{value:.2}"));
        row(&[&name, &best, &middle, &late, &more]);
    }
}
