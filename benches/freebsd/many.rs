//! Two hundred replicas, one after the other: whether a step takes longer the more there are.

use std::collections::BTreeMap;
use std::time::Duration;

use faas_jails::network::Mode;

use crate::ground::{Ground, Surface};
use crate::report::{columns, heading, median, row};
use crate::start::STEPS;
use crate::steps;

const REPLICAS: usize = 200;
/// How many at the beginning and at the end are compared.
const EDGE: usize = 25;

pub fn run() {
    heading(&format!(
        "{REPLICAS} replicas one after the other: a step of the last {EDGE}, reference: of the first {EDGE}"
    ));
    columns(&[&["replicas"][..], &STEPS].concat());
    for (name, mode, surface) in [
        ("alias, read-only", Mode::Alias, Surface::ReadOnly),
        ("alias, writable", Mode::Alias, Surface::Writable),
        ("vnet, read-only", Mode::Vnet, Surface::ReadOnly),
    ] {
        let mut ground = Ground::make(mode);
        let (mut rounds, mut replicas) = (Vec::new(), Vec::new());
        for _ in 0..REPLICAS {
            steps::taken();
            let replica = ground.replica(surface);
            ground.start(&replica, &["sleep", "100000"]);
            rounds.push(steps::taken());
            replicas.push(replica);
        }
        for replica in &replicas {
            ground.remove(replica);
        }
        let mut cells = vec![name.to_owned()];
        cells.extend(STEPS.map(|step| growth(&rounds, step)));
        row(&cells.iter().map(|cell| cell as &dyn std::fmt::Display).collect::<Vec<_>>());
    }
}

/// How many times as long the step took at the end.
fn growth(rounds: &[BTreeMap<&'static str, Duration>], step: &str) -> String {
    let middle = |part: &[BTreeMap<&'static str, Duration>]| {
        median(part.iter().map(|round| round.get(step).copied().unwrap_or_default().as_secs_f64()))
    };
    let (first, last) = (middle(&rounds[..EDGE]), middle(&rounds[rounds.len() - EDGE..]));
    // A step that a replica of this kind has not.
    if first < 1e-5 { String::new() } else { format!("{:.2}", last / first) }
}
