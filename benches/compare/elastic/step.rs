//! A step of load, from 1 to 500 requests a second, on a function that scales by capacity.

use std::sync::Mutex;
use std::time::{Duration, Instant};

use serde_json::json;

use super::{daemon, deploy, loads, picture, quantile};
use crate::report::{columns, heading, row};
use crate::support::Daemon;

/// Seconds at one request a second, at five hundred, and at one again.
const PHASES: [(u64, u64); 3] = [(5, 1), (25, 500), (15, 1)];
/// What a request takes in the function.
const WORK: Duration = Duration::from_millis(20);
/// As many as can be waiting when the step comes.
const CLIENTS: usize = 400;

/// One answer: when its request was due, and how long it took from then on, in seconds.
type Answer = (f64, f64);

pub fn run() {
    let daemon = daemon();
    let labels =
        [("type", "capacity"), ("target", "2"), ("target-proportion", "1"), ("max", "12"), ("down.window", "5s")];
    let labels: serde_json::Value =
        labels.iter().map(|(name, value)| (format!("com.openfaas.scale.{name}"), json!(value))).collect();
    deploy(&daemon, "step", labels, json!({"com.faas-jails.max-inflight": "4"}));
    let seconds: u64 = PHASES.iter().map(|(seconds, _)| seconds).sum();
    let (answers, replicas) = load(&daemon, seconds);
    let lost = due().count() - answers.len();
    let late: Vec<Option<f64>> = (0..seconds).map(|second| p99(&answers, second)).collect();
    let up = PHASES[0].0 as usize;
    let down = up + PHASES[1].0 as usize;
    // The step's own end, when all has settled.
    let settled: Vec<f64> =
        answers.iter().filter(|(at, _)| (down as f64 - 8.0..down as f64).contains(at)).map(|a| a.1).collect();
    let warm = quantile(&settled, 0.99);
    let back =
        (up..down).rfind(|second| late[*second].is_some_and(|p99| p99 > 2.0 * warm)).map_or(0, |last| last + 1 - up);
    let most = replicas.iter().max().copied().unwrap_or(0);
    heading("step: 1 to 500 requests/s on a function that scales by capacity (20 ms a request, 4 at once a replica)");
    columns(&[
        "requests",
        "lost",
        "warm p99 ms",
        "worst second's p99 ms",
        "seconds until p99 is back within twice",
        "most replicas",
    ]);
    let worst = late.iter().flatten().copied().fold(0.0, f64::max);
    let [warm, worst] = [warm, worst].map(|seconds| format!("{:.0}", seconds * 1e3));
    row(&[&answers.len(), &lost, &warm, &worst, &back, &most]);
    let svg = picture::draw(&replicas, &late, up as u64);
    let path = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/elastic-step.svg");
    std::fs::write(&path, svg).expect("writing the picture");
    println!("\nThe picture is docs/elastic-step.svg.");
}

/// When each request is due, in seconds from the start.
fn due() -> impl Iterator<Item = f64> {
    let starts = PHASES.iter().scan(0, |start, (seconds, _)| Some(std::mem::replace(start, *start + seconds)));
    starts
        .zip(PHASES)
        .flat_map(|(start, (seconds, rate))| (0..seconds * rate).map(move |n| start as f64 + n as f64 / rate as f64))
}

/// Sends every request when it is due, whatever became of those before, and looks at the replicas each second.
fn load(daemon: &Daemon, seconds: u64) -> (Vec<Answer>, Vec<u64>) {
    let schedule = Mutex::new(due());
    let answers = Mutex::new(Vec::new());
    let begun = Instant::now();
    let wait_until = |at: f64| std::thread::sleep(Duration::from_secs_f64(at).saturating_sub(begun.elapsed()));
    let target = format!("step?ms={}", WORK.as_millis());
    let replicas = std::thread::scope(|scope| {
        for _ in 0..CLIENTS {
            let client = || loop {
                let Some(at) = schedule.lock().expect("the schedule").next() else { return };
                wait_until(at);
                if daemon.invoke("GET", &target).try_send().is_ok_and(|answer| answer.status == 200) {
                    answers.lock().expect("the answers").push((at, begun.elapsed().as_secs_f64() - at));
                }
            };
            std::thread::Builder::new().stack_size(256 << 10).spawn_scoped(scope, client).expect("starting a client");
        }
        let look = |second: u64| {
            wait_until(second as f64 + 0.5);
            loads(daemon)[0]["ready"].as_u64().expect("a number")
        };
        (0..seconds).map(look).collect()
    });
    (answers.into_inner().expect("the answers"), replicas)
}

fn p99(answers: &[Answer], second: u64) -> Option<f64> {
    let here: Vec<f64> = answers.iter().filter(|(at, _)| *at as u64 == second).map(|(_, took)| *took).collect();
    (!here.is_empty()).then(|| quantile(&here, 0.99))
}
