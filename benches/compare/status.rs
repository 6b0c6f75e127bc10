//! GET /system/function/{name}: the stock gateway asks it before every invocation.

use std::time::Duration;

use serde_json::json;

use crate::load::{Load, Outcome};
use crate::report::{columns, heading, median, row};
use crate::servers::{self, Server, free_address};
use crate::support::Daemon;

const ROUNDS: usize = 3;
const TARGET: &str = "/system/function/bench?namespace=openfaas-fn";

pub fn run() {
    let daemon = Daemon::with().without_images().start();
    daemon.load(&servers::function_image().docker_save(servers::IMAGE));
    daemon.deploy(json!({"service": "bench", "image": servers::IMAGE}));
    let body = daemon.http.get(TARGET).expect(200).text();
    let nginx = Server::nginx(free_address(), &body, daemon.scratch());
    heading("status of one function, reference: nginx answering with the same bytes from its configuration");
    columns(&["connection", "server", "requests/s", "p50 µs", "CPU µs/request", "of nginx"]);
    for (name, close) in [("kept", false), ("new each", true)] {
        let load = Load { connections: 4, time: Duration::from_secs(2), body: None, close };
        let (mut ours, mut theirs): (Vec<Outcome>, Vec<Outcome>) = Default::default();
        for _ in 0..ROUNDS {
            let url = format!("{}{TARGET}", daemon.url());
            ours.push(load.on(&url, &[daemon.pid()], daemon.scratch()));
            let url = format!("http://{}/fixed", nginx.address);
            theirs.push(load.on(&url, &[nginx.process.pid()], daemon.scratch()));
        }
        let middle = |outcomes: &[Outcome], of: fn(&Outcome) -> f64| median(outcomes.iter().map(of));
        for (server, outcomes) in [("nginx", &theirs), ("faas-jails", &ours)] {
            let ratio = middle(outcomes, |o| o.cpu) / middle(&theirs, |o| o.cpu);
            let (rate, p50) = (middle(outcomes, |o| o.rate).round(), middle(outcomes, |o| o.p50).round());
            let cpu = format!("{:.1}", middle(outcomes, |o| o.cpu));
            row(&[&name, &server, &rate, &p50, &cpu, &format!("{ratio:.2}")]);
        }
    }
}
