//! Two hundred functions that nobody calls.

use std::time::{Duration, Instant};

use serde_json::json;

use crate::process::{cpu, mebibytes, memory};
use crate::report::{columns, heading, median, row};
use crate::servers;
use crate::support::Daemon;

const FUNCTIONS: usize = 200;

pub fn run() {
    let daemon = Daemon::with().without_images().start();
    daemon.load(&servers::function_image().docker_save(servers::IMAGE));
    heading(&format!("idle: {FUNCTIONS} functions with a replica each, reference: the same daemon with none"));
    let none = measure(&daemon);
    let begun = Instant::now();
    for n in 0..FUNCTIONS {
        daemon.create(json!({"service": format!("bench{n}"), "image": servers::IMAGE})).expect(202);
    }
    let took = begun.elapsed().as_secs_f64() * 1e3 / FUNCTIONS as f64;
    // The daemon's allocator and the kernel settle.
    std::thread::sleep(Duration::from_secs(2));
    let all = measure(&daemon);
    assert_eq!(daemon.list("openfaas-fn").len(), FUNCTIONS);
    columns(&["daemon", "no function", &format!("{FUNCTIONS} functions")]);
    row(&[&"resident memory", &mebibytes(none.rss), &mebibytes(all.rss)]);
    row(&[&"proportional share (PSS)", &mebibytes(none.pss), &mebibytes(all.pss)]);
    row(&[&"list of functions, median", &format!("{:.2} ms", none.list), &format!("{:.2} ms", all.list)]);
    row(&[&"CPU while idle", &format!("{:.1} ms/s", none.cpu), &format!("{:.1} ms/s", all.cpu)]);
    row(&[&"open files", &none.files, &all.files]);
    let beside = all.pss.saturating_sub(none.pss) / FUNCTIONS as u64;
    println!("\nOne function costs the daemon {} KiB; deploying one took {took:.0} ms.", beside >> 10);
}

struct Idle {
    rss: u64,
    pss: u64,
    list: f64,
    cpu: f64,
    files: usize,
}

fn measure(daemon: &Daemon) -> Idle {
    let pid = daemon.pid();
    let list = |_| {
        let begun = Instant::now();
        daemon.http.get("/system/functions").expect(200);
        begun.elapsed().as_secs_f64() * 1e3
    };
    let list = median((0..50).map(list));
    let before = cpu(pid);
    std::thread::sleep(Duration::from_secs(5));
    let spent = cpu(pid).saturating_sub(before).as_secs_f64() * 1e3 / 5.0;
    let memory = |file, field| memory(pid, file, field).expect("the daemon runs");
    Idle {
        rss: memory("smaps_rollup", "Rss"),
        pss: memory("smaps_rollup", "Pss"),
        list,
        cpu: spent,
        files: daemon.open_files(),
    }
}
