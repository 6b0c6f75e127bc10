//! Many at once: requests on one cold function, and calls at random to functions that come and go.

use std::sync::Barrier;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use rand::Rng;
use serde_json::json;

use super::{call, daemon, deploy, loads, quantile, until_all, until_nothing_runs};
use crate::report::{columns, heading, row};
use crate::support::Daemon;

const FUNCTIONS: usize = 200;
const CLIENTS: usize = 4;
/// Requests that wait at once. Each has a thread of the client, of which FreeBSD allows a process 1,500.
const AT_ONCE: [usize; 3] = [20, 200, if cfg!(target_os = "freebsd") { 1000 } else { 2000 }];
const TIME: Duration = Duration::from_secs(30);

pub fn waiting() {
    let daemon = daemon();
    deploy(&daemon, "cold", json!({}), json!({}));
    heading("waiting: so many requests at once on one function at zero");
    columns(&["requests", "starts", "answered", "first ms", "median ms", "last ms"]);
    for requests in AT_ONCE {
        daemon.scale("cold", 0).expect(202);
        until_nothing_runs(&daemon);
        let before = cold_starts(&daemon);
        let times = at_once(&daemon, requests);
        let [first, middle, last] = [0.0, 0.5, 1.0].map(|part| format!("{:.1}", quantile(&times, part)));
        row(&[&requests, &(cold_starts(&daemon) - before), &times.len(), &first, &middle, &last]);
    }
}

fn cold_starts(daemon: &Daemon) -> u64 {
    loads(daemon).iter().map(|function| function["coldStarts"].as_u64().expect("a number")).sum()
}

/// Milliseconds from the moment on which all are let go.
fn at_once(daemon: &Daemon, requests: usize) -> Vec<f64> {
    let barrier = Barrier::new(requests + 1);
    let answered = AtomicUsize::new(0);
    std::thread::scope(|scope| {
        let client = || {
            barrier.wait();
            let begun = Instant::now();
            daemon.call("cold").expect(200);
            answered.fetch_add(1, Ordering::Relaxed);
            begun.elapsed().as_secs_f64() * 1e3
        };
        let spawn = || std::thread::Builder::new().stack_size(256 << 10).spawn_scoped(scope, client);
        let clients: Vec<_> = (0..requests).map(|_| spawn().expect("starting a client")).collect();
        barrier.wait();
        clients.into_iter().map(|client| client.join().expect("a client")).collect()
    })
}

pub fn random() {
    let daemon = daemon();
    let labels = json!({"com.openfaas.scale.zero": "true", "com.openfaas.scale.zero-duration": "1s"});
    for number in 0..FUNCTIONS {
        deploy(&daemon, &format!("f{number}"), labels.clone(), json!({}));
    }
    until_all(&daemon, "all are at zero", |function| function["wanted"] == 0);
    let before = cold_starts(&daemon);
    let [mut cold, mut warm]: [Vec<f64>; 2] = Default::default();
    std::thread::scope(|scope| {
        let clients: Vec<_> = (0..CLIENTS)
            .map(|client| {
                scope.spawn({
                    let daemon = &daemon;
                    move || wander(daemon, client)
                })
            })
            .collect();
        for client in clients {
            let (fresh, known) = client.join().expect("a client");
            cold.extend(fresh);
            warm.extend(known);
        }
    });
    let starts = cold_starts(&daemon) - before;
    heading(&format!("random: {CLIENTS} clients call {FUNCTIONS} functions, which go to zero after a second"));
    columns(&["calls", "number", "median ms", "p99 ms"]);
    for (name, times) in
        [("to a function that was idle for 3 s or more: from zero", cold), ("right after another: warm", warm)]
    {
        let [middle, late] = [0.5, 0.99].map(|part| format!("{:.2}", quantile(&times, part)));
        row(&[&name, &times.len(), &middle, &late]);
    }
    println!("\n{starts} starts from zero in {}s; no call failed.", TIME.as_secs());
}

/// Calls a function that nobody has called for a while, then once more; each client has functions of its own.
fn wander(daemon: &Daemon, client: usize) -> (Vec<f64>, Vec<f64>) {
    let mut last = [const { None::<Instant> }; FUNCTIONS / CLIENTS];
    let [mut cold, mut warm]: [Vec<f64>; 2] = Default::default();
    let begun = Instant::now();
    while begun.elapsed() < TIME {
        let pick = rand::rng().random_range(0..last.len());
        let name = format!("f{}", pick * CLIENTS + client);
        let rested = last[pick].is_none_or(|last| last.elapsed() > Duration::from_secs(3));
        let took = call(daemon, &name);
        if rested {
            cold.push(took);
            warm.push(call(daemon, &name));
        }
        last[pick] = Some(Instant::now());
        std::thread::sleep(Duration::from_millis(rand::rng().random_range(1..40)));
    }
    (cold, warm)
}
