//! A thousand functions at zero.

use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::{call, daemon, deploy, until_nothing_runs};
use crate::process::{cpu, memory};
use crate::report::{columns, heading, median, row};
use crate::support::Daemon;

const FUNCTIONS: usize = 1000;
const ROUNDS: usize = 20;

struct Measured {
    pss: u64,
    list: f64,
    ready: f64,
    cold: f64,
    cpu: f64,
}

pub fn run() {
    let mut daemon = daemon();
    deploy(&daemon, "cold", json!({}), json!({}));
    daemon.scale("cold", 0).expect(202);
    until_nothing_runs(&daemon);
    let one = measure(&mut daemon);
    multiply(&daemon);
    let all = measure(&mut daemon);
    assert_eq!(daemon.list("openfaas-fn").len(), FUNCTIONS);
    heading(&format!("many: {FUNCTIONS} functions at zero, reference: the same daemon with one"));
    columns(&["what", "one function", &format!("{FUNCTIONS} functions"), "ratio"]);
    let line = |name: &str, of: fn(&Measured) -> f64| {
        let (a, b) = (of(&one), of(&all));
        row(&[&name, &format!("{a:.2}"), &format!("{b:.2}"), &format!("{:.2}", b / a)]);
    };
    line("a call at zero, median ms", |m| m.cold);
    line("list of functions, median ms", |m| m.list);
    line("the daemon's own start until it listens, median ms", |m| m.ready);
    line("the daemon's memory (PSS), KiB", |m| (m.pss >> 10) as f64);
    line("processor time while idle, ms/s", |m| m.cpu);
    let each = all.pss.saturating_sub(one.pss) as f64 / (FUNCTIONS - 1) as f64 / 1024.0;
    println!("\nOne function at zero costs the daemon {each:.1} KiB.");
}

/// Writes the specification of the one function under many names; the daemon reads them when it starts.
fn multiply(daemon: &Daemon) {
    let directory = daemon.root.join("functions/openfaas-fn");
    let text = std::fs::read_to_string(directory.join("cold.json")).expect("reading the specification");
    let spec: Value = serde_json::from_str(&text).expect("JSON");
    for number in 1..FUNCTIONS {
        let name = format!("cold{number}");
        let mut other = spec.clone();
        other["spec"]["key"]["name"] = json!(name);
        std::fs::write(directory.join(format!("{name}.json")), other.to_string()).expect("writing a specification");
    }
}

fn measure(daemon: &mut Daemon) -> Measured {
    let mut ready = Vec::new();
    for _ in 0..5 {
        daemon.stop();
        let begun = Instant::now();
        daemon.launch();
        daemon.await_address();
        ready.push(begun.elapsed().as_secs_f64() * 1e3);
    }
    let list = |_| {
        let begun = Instant::now();
        daemon.http.get("/system/functions").expect(200);
        begun.elapsed().as_secs_f64() * 1e3
    };
    let list = median((0..ROUNDS).map(list));
    let cold = |_| {
        let took = call(daemon, "cold");
        daemon.scale("cold", 0).expect(202);
        until_nothing_runs(daemon);
        took
    };
    let cold = median((0..ROUNDS).map(cold));
    let before = cpu(daemon.pid());
    std::thread::sleep(Duration::from_secs(5));
    let cpu = cpu(daemon.pid()).saturating_sub(before).as_secs_f64() * 1e3 / 5.0;
    let pss = memory(daemon.pid(), "smaps_rollup", "Pss").expect("the daemon runs");
    Measured { pss, list, ready: median(ready), cold, cpu }
}
