//! How long a replica takes to its first answer, beside the same program started without any sandbox.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use serde_json::json;

use crate::report::{columns, heading, least, median, row};
use crate::servers::{self, Server, free_address};
use crate::support::{Daemon, eventually};

const ROUNDS: usize = 20;

pub fn run() {
    let daemon = Daemon::with().without_images().start();
    daemon.load(&servers::function_image().docker_save(servers::IMAGE));
    let [mut bare, mut deploy, mut call, mut scale]: [Vec<f64>; 4] = Default::default();
    for round in 0..ROUNDS {
        bare.push(until_answer(free_address()));
        let name = format!("bench{round}");
        deploy.push(timed(|| {
            daemon.create(json!({"service": name, "image": servers::IMAGE})).expect(202);
            daemon.call(&name).expect(200);
        }));
        to_zero(&daemon, &name);
        call.push(timed(|| {
            daemon.call(&name).expect(200);
        }));
        to_zero(&daemon, &name);
        scale.push(timed(|| {
            daemon.scale(&name, 1).expect(202);
            daemon.call(&name).expect(200);
        }));
        daemon.delete(&name).expect(202);
        settle(&daemon);
    }
    heading("start: to the first answer of a new replica, reference: fork and exec of the same program");
    columns(&["start", "least ms", "median ms", "more than bare, ms"]);
    let reference = median(bare.iter().copied());
    for (name, times) in [
        ("bare process", bare),
        ("deploy, then call", deploy),
        ("call a function at zero", call),
        ("scale from zero, then call", scale),
    ] {
        let middle = median(times.iter().copied());
        let more = middle - reference;
        row(&[&name, &format!("{:.1}", least(times)), &format!("{middle:.1}"), &format!("{more:.1}")]);
    }
}

fn timed(act: impl FnOnce()) -> f64 {
    let begun = Instant::now();
    act();
    begun.elapsed().as_secs_f64() * 1e3
}

/// Milliseconds from before the process is there to its first answer.
pub fn until_answer(address: SocketAddr) -> f64 {
    let begun = Instant::now();
    let process = Server::bare(address);
    while !answers(address) {
        assert!(begun.elapsed() < Duration::from_secs(10), "the function does not start");
        std::thread::sleep(Duration::from_micros(200));
    }
    let took = begun.elapsed().as_secs_f64() * 1e3;
    drop(process);
    took
}

fn answers(address: SocketAddr) -> bool {
    let Ok(mut stream) = TcpStream::connect(address) else { return false };
    let mut line = [0; 12];
    let asked = stream.write_all(b"GET / HTTP/1.1\r\nHost: bench\r\nConnection: close\r\n\r\n");
    asked.and_then(|()| stream.read_exact(&mut line)).is_ok() && line.ends_with(b"200")
}

fn to_zero(daemon: &Daemon, name: &str) {
    daemon.scale(name, 0).expect(202);
    settle(daemon);
}

/// Waits until nothing is being removed any more.
fn settle(daemon: &Daemon) {
    eventually("the last replica is gone", || daemon.traces().replica_names().is_empty().then_some(()));
}
