//! One start, by step.

use std::collections::BTreeMap;
use std::time::Duration;

use faas_jails::network::Mode;

use crate::ground::{Ground, Surface, bare};
use crate::report::{columns, heading, median, row};
use crate::steps;

const ROUNDS: usize = 21;
/// The steps of a start, in their order.
pub const STEPS: [&str; 7] = ["clone", "network", "mounts", "rctl", "jail_set", "link", "fork-exec"];
/// All of it but the clone, with what is between the steps.
const WHOLE: &str = "whole";
const REMOVAL: [&str; 3] = ["remove jail and mounts", "remove network", "destroy clone"];

type Rounds = Vec<BTreeMap<&'static str, Duration>>;

/// What is measured: a replica from nothing, or one of which all but the program lay ready.
const KINDS: [(&str, Surface, bool); 4] = [
    ("read-only", Surface::ReadOnly, false),
    ("writable", Surface::Writable, false),
    ("read-only, ready", Surface::ReadOnly, true),
    ("writable, ready", Surface::Writable, true),
];

pub fn run() {
    let mut bares = Vec::new();
    let mut tables: Vec<(String, Rounds)> = Vec::new();
    for (mode, network) in [(Mode::Alias, "alias"), (Mode::Vnet, "vnet")] {
        let mut ground = Ground::make(mode);
        let mut rounds = KINDS.map(|_| Rounds::new());
        for _ in 0..ROUNDS {
            bares.push(bare().as_secs_f64());
            for ((_, surface, ready), rounds) in KINDS.into_iter().zip(&mut rounds) {
                steps::taken();
                let replica = ground.replica(surface);
                if ready {
                    let plan = ground.prepare(&replica, &["true"]);
                    steps::taken();
                    steps::step(WHOLE, || ground.launch(&plan));
                } else {
                    steps::step(WHOLE, || ground.start(&replica, &["true"]));
                }
                ground.await_exit(&replica);
                ground.remove(&replica);
                rounds.push(steps::taken());
            }
        }
        tables.extend(KINDS.iter().zip(rounds).map(|((kind, ..), rounds)| (format!("{network}, {kind}"), rounds)));
    }
    let bare = median(bares);
    starts(&tables, bare);
    removals(&tables, bare);
}

/// Seconds of a step, in the middle.
fn middle(rounds: &Rounds, step: &str) -> f64 {
    median(rounds.iter().map(|round| round.get(step).copied().unwrap_or_default().as_secs_f64()))
}

fn starts(tables: &[(String, Rounds)], bare: f64) {
    heading("start: each step of a replica's start, reference: fork, exec and end of the same program without a jail");
    let last = ["all but clone and fork-exec, of fork-exec", "of the reference"];
    columns(&[&["replica"][..], &STEPS, &last].concat());
    for (name, rounds) in tables {
        let times = STEPS.map(|step| middle(rounds, step));
        let exec = times[STEPS.len() - 1];
        let rest = middle(rounds, WHOLE) - exec;
        let mut cells = vec![name.clone()];
        cells.extend(times.map(|time| format!("{:.3}", time / bare)));
        cells.extend([format!("{:.2}", rest / exec), format!("{:.2}", rest / bare)]);
        print(&cells);
    }
}

fn removals(tables: &[(String, Rounds)], bare: f64) {
    heading("removal, off the path of requests, same reference");
    columns(&[&["replica"][..], &REMOVAL].concat());
    for (name, rounds) in tables {
        let mut cells = vec![name.clone()];
        cells.extend(REMOVAL.map(|step| format!("{:.3}", middle(rounds, step) / bare)));
        print(&cells);
    }
}

fn print(cells: &[String]) {
    row(&cells.iter().map(|cell| cell as &dyn std::fmt::Display).collect::<Vec<_>>());
}
