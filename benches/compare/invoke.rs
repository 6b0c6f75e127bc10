//! The invoke path beside other proxies, all in front of the same replica.

use std::net::SocketAddr;
use std::time::Duration;

use serde_json::json;

use crate::load::{Load, Outcome};
use crate::report::{self, columns, heading, median, row};
use crate::servers::{self, Server};
use crate::support::gateway::Stage;
use crate::support::http::Client;
use crate::support::{Daemon, parts};

const ROUNDS: usize = 3;

/// Every way to the function: what it is called, where it is, whose processor time counts.
struct Way {
    name: &'static str,
    url: String,
    pids: Vec<u32>,
}

pub fn run() {
    let daemon = Daemon::with().without_images().start();
    daemon.load(&servers::function_image().docker_save(servers::IMAGE));
    daemon.deploy(json!({"service": "bench", "image": servers::IMAGE}));
    let replica = replica(&daemon);
    let haproxy = Server::haproxy(replica, daemon.scratch());
    let nginx = Server::nginx(replica, "", daemon.scratch());
    let stock = Server::stock(replica);
    let chain = Chain::start(replica);
    let way = |name, address: SocketAddr, path: &str, pid| Way {
        name,
        url: format!("http://{address}{path}"),
        pids: vec![pid],
    };
    let mut ways = vec![
        // Nobody's time: the reference that every rate is divided by.
        way("direct", replica, "/", std::process::id()),
        way("faas-jails", daemon.http.address, "/function/bench", daemon.pid()),
        way("faas-jails, standalone port", daemon.gateway.address, "/function/bench", daemon.pid()),
        way("haproxy", haproxy.address, "/", haproxy.process.pid()),
        way("nginx", nginx.address, "/", nginx.process.pid()),
    ];
    ways.extend(stock.as_ref().map(|s| way("stock proxy", s.address, "/function/bench", s.process.pid())));
    ways.extend(chain.as_ref().map(|chain| Way {
        name: "stock gateway, stock proxy",
        url: format!("http://{}/function/bench", chain.gateway),
        pids: vec![chain.stage.pid(), chain.proxy.process.pid()],
    }));
    for way in &ways {
        let (_, rest) = way.url.split_once("//").expect("a URL");
        let (address, path) = rest.split_at(rest.find('/').expect("a path"));
        let answer = Client::new(address.parse().expect("an address")).get(path).expect(200);
        assert_eq!(answer.text(), "0 bytes\n", "{} reaches the function", way.name);
    }
    heading("invoke: requests through a proxy to one function, reference: the function called directly");
    columns(&["request", "connections", "way", "requests/s", "of direct", "p50 µs", "p99 µs", "proxy CPU µs/request"]);
    let get = [1, 16, 64].map(|connections| ("GET", None, connections));
    let post = [("POST 1 KiB", Some(1 << 10), 16), ("POST 64 KiB", Some(64 << 10), 16)];
    for (request, body, connections) in get.into_iter().chain(post) {
        let load = Load { connections, time: Duration::from_secs(2), body, close: false };
        compare(request, &ways, load, &daemon);
    }
}

/// The stock gateway in front of the stock proxy. The gateway's port is fixed, so it runs in a sandbox of its own, and
/// its clients pay for one more virtual link than those of the others.
struct Chain {
    gateway: SocketAddr,
    proxy: Server,
    stage: Stage,
}

impl Chain {
    /// None, loudly, where one of the two programs is not there.
    fn start(upstream: SocketAddr) -> Option<Self> {
        let Some(program) = parts::stock("openfaas-gateway") else {
            println!("(without the stock gateway: see tools/stock.sh)\n");
            return None;
        };
        let stage = Stage::make();
        let listen = SocketAddr::new(stage.host().parse().expect("an address"), servers::free_address().port());
        let proxy = Server::stock_at(listen, upstream)?;
        let gateway = stage.start(&program, listen, &[]);
        Some(Self { gateway, proxy, stage })
    }
}

/// Where the only replica listens.
fn replica(daemon: &Daemon) -> SocketAddr {
    let replicas = daemon.http.get("/system/replicas").expect(200).value();
    let address = replicas[0]["address"].as_str().and_then(|text| text.parse().ok());
    address.unwrap_or_else(|| panic!("no address in {replicas}"))
}

fn compare(request: &str, ways: &[Way], load: Load, daemon: &Daemon) {
    let mut outcomes: Vec<Vec<Outcome>> = ways.iter().map(|_| Vec::new()).collect();
    for _ in 0..ROUNDS {
        for (way, outcomes) in ways.iter().zip(&mut outcomes) {
            outcomes.push(load.on(&way.url, &way.pids, daemon.scratch()));
        }
    }
    let middle = |outcomes: &[Outcome], of: fn(&Outcome) -> f64| median(outcomes.iter().map(of));
    for (way, own) in ways.iter().zip(&outcomes) {
        // Round by round, so that what disturbs a round disturbs both.
        let ratio = report::median(own.iter().zip(&outcomes[0]).map(|(own, direct)| own.rate / direct.rate));
        let cpu = match way.name {
            "direct" => "".to_owned(),
            _ => format!("{:.1}", middle(own, |o| o.cpu)),
        };
        let rate = middle(own, |o| o.rate).round();
        let (p50, p99) = (middle(own, |o| o.p50).round(), middle(own, |o| o.p99).round());
        row(&[&request, &load.connections, &way.name, &rate, &format!("{ratio:.2}"), &p50, &p99, &cpu]);
    }
}
