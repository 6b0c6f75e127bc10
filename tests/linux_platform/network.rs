//! Replicas with addresses: a bridge in a network namespace that the test made, and a second one as the outside world.

use std::io::{Read, Write};
use std::net::{IpAddr, TcpListener, TcpStream};
use std::process::Command;
use std::time::Duration;

use faas_jails::fault::{Kind, Result};
use faas_jails::network::{Attachment, Link, Mode, Network, Policy, Port, Published};
use faas_jails::platform::linux::network::BridgeNetwork;
use faas_jails::sandbox::{Plan, Sandbox};

use ipnetwork::IpNetwork;

use crate::support::{World, root, until};

/// Runs a test in a thread with a network namespace of its own, as if that were the host's.
fn on_a_host_of_its_own(test: impl FnOnce() + Send + 'static) {
    if !root() {
        return;
    }
    let thread = std::thread::spawn(|| {
        // SAFETY: affects this thread only.
        unsafe { rustix::thread::unshare_unsafe(rustix::thread::UnshareFlags::NEWNET) }.unwrap();
        ip("link set lo up");
        test();
    });
    if let Err(panic) = thread.join() {
        std::panic::resume_unwind(panic);
    }
}

/// Runs ip(8) in this thread's namespace and returns what it says.
fn ip(arguments: &str) -> String {
    let output = Command::new("ip").args(arguments.split(' ')).output().expect("iproute2 is installed");
    assert!(output.status.success(), "ip {arguments}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

fn links() -> Vec<String> {
    let name = |line: &str| line.split(": ").nth(1).unwrap().split('@').next().unwrap().to_owned();
    ip("-o link").lines().map(name).collect()
}

fn nft(arguments: &str) -> String {
    let output = Command::new("nft").args(arguments.split(' ')).output().expect("these tests need nftables");
    String::from_utf8(output.stdout).unwrap()
}

fn rules() -> String {
    nft("list ruleset")
}

const SUBNET: &str = "10.77.0.0/24";

fn bridge(world: &World, nat: bool) -> BridgeNetwork {
    BridgeNetwork::new(world.realm.clone(), &format!("{}br", world.realm), nat).unwrap()
}

/// Brings a network up as a daemon does when it starts.
fn up(network: &BridgeNetwork, networks: &[&str]) -> Result<()> {
    let networks: Vec<IpNetwork> = networks.iter().map(|text| text.parse().unwrap()).collect();
    network.setup(&networks)?;
    network.enforce(&Policy::default())
}

/// A link with these addresses, each with its prefix.
fn link(mode: Mode, addresses: &str) -> Link {
    Link { mode, addresses: addresses.split(' ').map(|text| text.parse().unwrap()).collect() }
}

fn connected(world: &World, network: &BridgeNetwork, address: &str, argv: &[&str]) -> Plan {
    let mut plan = world.plan(argv);
    plan.network = network.attach(&plan.replica, &link(Mode::Bridge, address)).unwrap();
    world.sandbox.start(&plan).unwrap();
    // The caller's descriptor goes; the replica's processes keep the namespace.
    plan.network = Attachment::None;
    plan
}

fn end(world: &World, network: &BridgeNetwork, plan: &Plan) {
    world.remove(&plan.replica);
    network.detach(&plan.replica).unwrap();
    network.detach(&plan.replica).unwrap();
}

/// Whether a replica's web server answers.
fn answers(address: &str) -> bool {
    let ask = || -> std::io::Result<String> {
        let to = (address.parse::<IpAddr>().unwrap(), 80).into();
        let mut stream = TcpStream::connect_timeout(&to, Duration::from_secs(1))?;
        stream.set_read_timeout(Some(Duration::from_secs(5)))?;
        stream.write_all(b"GET /index.html HTTP/1.0\r\n\r\n")?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer)?;
        Ok(answer)
    };
    ask().is_ok_and(|answer| answer.ends_with("hello\n"))
}

const SERVER: &str = "echo hello > /tmp/index.html; exec httpd -f -p 80 -h /tmp";

#[test]
fn setup_and_teardown_can_be_repeated_and_leave_nothing() {
    on_a_host_of_its_own(|| {
        let world = World::new();
        let network = bridge(&world, true);
        for _ in 0..2 {
            up(&network, &[SUBNET]).unwrap();
            up(&network, &[SUBNET]).unwrap();
            assert!(ip("-4 -o address").contains("inet 10.77.0.1/24"));
            assert_eq!(rules().matches("masquerade").count(), 1, "{}", rules());
            network.teardown().unwrap();
            network.teardown().unwrap();
            assert_eq!(links(), ["lo"]);
            assert_eq!(rules(), "");
        }
    });
}

#[test]
fn iptables_serves_where_there_is_no_nft() {
    on_a_host_of_its_own(|| {
        let world = World::new();
        let network = bridge(&world, true);
        let bin = world.dir.path().join("bin");
        std::fs::create_dir(&bin).unwrap();
        std::os::unix::fs::symlink("/usr/sbin/iptables", bin.join("iptables")).unwrap();
        let listed = |program: &str, path: &str, verb: &str| {
            let mut child = Command::new(std::env::current_exe().unwrap());
            let args = ["--exact", "network::a_child_with_another_path", "--nocapture"];
            let output =
                child.args(args).env("PATH", path).env(CHILD, format!("{} {verb}", world.realm)).output().unwrap();
            assert!(output.status.success(), "{program}: {}", String::from_utf8_lossy(&output.stderr));
            String::from_utf8(output.stdout).unwrap()
        };
        let path = bin.to_str().unwrap();
        listed("iptables", path, "setup");
        listed("iptables", path, "setup");
        let rules = || {
            let output = Command::new("iptables-save").output().unwrap();
            let text = String::from_utf8(output.stdout).unwrap();
            text.lines().filter(|line| line.starts_with("-A")).map(str::to_owned).collect::<Vec<_>>()
        };
        assert_eq!(rules().len(), 6, "{:?}", rules());
        assert_eq!(rules().iter().filter(|rule| rule.contains("MASQUERADE")).count(), 1);
        listed("iptables", path, "teardown");
        assert_eq!(rules(), Vec::<String>::new());
        let nothing = world.dir.path().join("nothing");
        let said = listed("nothing", nothing.to_str().unwrap(), "setup");
        assert!(said.contains("install the package nftables"), "{said}");
        network.teardown().unwrap();
        assert_eq!(links(), ["lo"]);
    });
}

const CHILD: &str = "FAAS_JAILS_TEST_NETWORK";

/// Not a test of its own: another process, because the PATH belongs to a whole process.
#[test]
fn a_child_with_another_path() {
    let Ok(wanted) = std::env::var(CHILD) else { return };
    let (realm, verb) = wanted.split_once(' ').unwrap();
    let network = BridgeNetwork::new(realm.parse().unwrap(), &format!("{realm}br"), true).unwrap();
    let result = if verb == "setup" { up(&network, &[SUBNET]) } else { network.teardown() };
    println!("{result:?}");
}

#[test]
fn a_strangers_bridge_is_left_alone() {
    on_a_host_of_its_own(|| {
        let world = World::new();
        let network = bridge(&world, false);
        ip(&format!("link add {}br type bridge", world.realm));
        for fault in [up(&network, &[SUBNET]).unwrap_err(), network.teardown().unwrap_err()] {
            assert!(fault.to_string().contains("does not belong to realm"), "{fault}");
        }
        assert_eq!(links().len(), 2);
        ip(&format!("link delete {}br", world.realm));
    });
}

#[test]
fn the_host_reaches_replicas_and_they_reach_the_host_but_not_its_loopback() {
    on_a_host_of_its_own(|| {
        let world = World::new();
        let network = bridge(&world, true);
        up(&network, &[SUBNET]).unwrap();
        let listener = TcpListener::bind("0.0.0.0:8081").unwrap();
        let hidden = TcpListener::bind("127.0.0.1:8082").unwrap();
        let script = format!(
            "ip -o -4 address; ip route
             nc -w 1 10.77.0.1 8082 </dev/null && echo reached loopback
             echo knock | nc -w 2 10.77.0.1 8081 && echo reached the host; echo done; {SERVER}"
        );
        let plan = connected(&world, &network, "10.77.0.3/24", &["sh", "-c", &script]);
        let (mut knocking, peer) = listener.accept().unwrap();
        assert_eq!(peer.ip(), "10.77.0.3".parse::<IpAddr>().unwrap());
        let mut knock = [0; 6];
        knocking.read_exact(&mut knock).unwrap();
        drop(knocking);
        world.wait_for(&plan.replica, "done");
        until("the server answers", || answers("10.77.0.3"));
        let output = world.output(&plan.replica);
        assert!(output.contains("10.77.0.3/24") && output.contains("default via 10.77.0.1"), "{output}");
        assert!(output.contains("reached the host") && !output.contains("reached loopback"), "{output}");
        drop(hidden);
        end(&world, &network, &plan);
        network.teardown().unwrap();
        assert_eq!(links(), ["lo"]);
    });
}

#[test]
fn replicas_do_not_reach_each_other() {
    on_a_host_of_its_own(|| {
        let world = World::new();
        // Without rules: ports that do not talk to each other are enough.
        let network = bridge(&world, false);
        up(&network, &[SUBNET]).unwrap();
        let server = connected(&world, &network, "10.77.0.2/24", &["sh", "-c", SERVER]);
        until("the server answers", || answers("10.77.0.2"));
        let ask = "printf 'GET /index.html HTTP/1.0\r\n\r\n' | nc -w 2 10.77.0.2 80 2>/dev/null | tail -n 1 | grep hello || echo silence";
        let script = format!("{ask}; sleep 1000");
        let client = connected(&world, &network, "10.77.0.3/24", &["sh", "-c", &script]);
        until("the client has tried", || !world.output(&client.replica).is_empty());
        assert_eq!(world.output(&client.replica), "silence\n");

        let mut attached = network.attached().unwrap();
        attached.sort();
        let mut expected = vec![server.replica.clone(), client.replica.clone()];
        expected.sort();
        assert_eq!(attached, expected);

        end(&world, &network, &client);

        // And it was that which kept them apart.
        let mut plan = world.plan(&["sh", "-c", ask]);
        plan.network = network.attach(&plan.replica, &link(Mode::Bridge, "10.77.0.4/24")).unwrap();
        for replica in [&server.replica, &plan.replica] {
            ip(&format!("link set {} type bridge_slave isolated off", replica.interface()));
        }
        assert_eq!(world.run(plan).1, "hello\n");

        end(&world, &network, &server);
        network.teardown().unwrap();
        until("all links are gone", || links() == ["lo"]);
    });
}

#[test]
fn links_vanish_with_the_last_process() {
    on_a_host_of_its_own(|| {
        let world = World::new();
        let network = bridge(&world, false);
        up(&network, &[SUBNET]).unwrap();
        let before = links();
        let plan = connected(&world, &network, "10.77.0.2/24", &["sleep", "1000"]);
        assert_eq!(links().len(), before.len() + 1);
        world.remove(&plan.replica);
        until("the link has gone by itself", || links() == before);
        network.detach(&plan.replica).unwrap();
        network.teardown().unwrap();
    });
}

#[test]
fn what_cannot_be_attached_is_refused_and_leaves_nothing() {
    on_a_host_of_its_own(|| {
        let world = World::new();
        let network = bridge(&world, false);
        let replica = world.replica();
        let attach = |address: &str| network.attach(&replica, &link(Mode::Bridge, address)).unwrap_err();
        assert_eq!(attach("10.77.0.2/24").kind(), Kind::NotFound, "no bridge yet");
        up(&network, &[SUBNET]).unwrap();
        let before = links();
        assert_eq!(attach("10.78.0.2/24").kind(), Kind::Invalid);
        assert_eq!(attach("10.77.0.1/24").kind(), Kind::Invalid);
        let held = network.attach(&replica, &link(Mode::Bridge, "10.77.0.2/24")).unwrap();
        assert_eq!(attach("10.77.0.3/24").kind(), Kind::Busy);
        drop(held);
        network.detach(&replica).unwrap();
        assert_eq!(links(), before);
        network.teardown().unwrap();
        assert!(BridgeNetwork::new(world.realm.clone(), "much-too-long-a-name", false).is_err());
        assert!(BridgeNetwork::new(world.realm.clone(), "br;x", false).is_err());
    });
}

#[test]
fn replicas_reach_the_outside_under_the_hosts_address_and_it_does_not_reach_them() {
    on_a_host_of_its_own(|| to_the_outside("ACCEPT"));
}

#[test]
fn replicas_reach_the_outside_where_docker_or_ufw_drop_what_they_do_not_know() {
    on_a_host_of_its_own(|| to_the_outside("DROP"));
}

fn iptables(arguments: &str) -> String {
    let output = Command::new("iptables").args(arguments.split(' ')).output().expect("these tests need iptables");
    assert!(output.status.success(), "iptables {arguments}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

/// The outside is a third namespace behind a veth pair.
fn to_the_outside(policy: &str) {
    iptables(&format!("-P FORWARD {policy}"));
    let world = World::new();
    let network = bridge(&world, true);
    up(&network, &[SUBNET]).unwrap();
    let outside = Outside::new();
    let plan = connected(
        &world,
        &network,
        "10.77.0.2/24",
        &["sh", "-c", &format!("echo hello | nc -w 5 192.0.2.2 9000; echo done; {SERVER}")],
    );
    assert_eq!(outside.guest(), "192.0.2.1".parse::<IpAddr>().unwrap());
    world.wait_for(&plan.replica, "done");
    until("the server answers the host", || answers("10.77.0.2"));
    assert!(!outside.reaches("10.77.0.2"), "nobody outside reaches a replica, not even with a route");
    // And it was the rules that kept it from there, or the others'.
    nft(&format!("delete table inet faas_jails_{}", world.realm));
    assert_eq!(outside.reaches("10.77.0.2"), policy == "ACCEPT");
    end(&world, &network, &plan);
    outside.close();
    network.teardown().unwrap();
    until("all links are gone", || links() == ["lo"]);
    assert_eq!(iptables("-S FORWARD"), format!("-P FORWARD {policy}\n"));
}

#[test]
fn a_network_of_the_sixth_version_works_as_well() {
    on_a_host_of_its_own(|| {
        let world = World::new();
        let network = bridge(&world, true);
        up(&network, &["fd77:1::/64"]).unwrap();
        let plan = connected(&world, &network, "fd77:1::2/64", &["sh", "-c", SERVER]);
        until("the server answers", || answers("fd77:1::2"));
        end(&world, &network, &plan);
        network.teardown().unwrap();
        assert_eq!(links(), ["lo"]);
    });
}

#[test]
fn a_replica_has_an_address_of_each_family_and_added_networks_come_and_go() {
    on_a_host_of_its_own(|| {
        let world = World::new();
        let network = bridge(&world, true);
        up(&network, &[SUBNET, "fd77:1::/64"]).unwrap();
        let plan = connected(&world, &network, "10.77.0.2/24 fd77:1::2/64", &["sh", "-c", SERVER]);
        until("it answers on both", || answers("10.77.0.2") && answers("fd77:1::2"));
        up(&network, &[SUBNET, "fd77:1::/64", "10.78.0.0/24"]).unwrap();
        let other = connected(&world, &network, "10.78.0.2/24", &["sh", "-c", SERVER]);
        until("the added network works", || answers("10.78.0.2"));
        assert!(answers("10.77.0.2"), "the first one still does");
        end(&world, &network, &other);
        up(&network, &[SUBNET]).unwrap();
        let left = ip("-o address");
        assert!(!left.contains("10.78.0.1") && !left.contains("fd77:1::1") && left.contains("10.77.0.1/24"), "{left}");
        end(&world, &network, &plan);
        network.teardown().unwrap();
        assert_eq!(links(), ["lo"]);
    });
}

#[test]
fn a_closed_replica_answers_and_begins_nothing() {
    on_a_host_of_its_own(|| {
        let world = World::new();
        // Without address translation: these rules do not depend on it.
        let network = bridge(&world, false);
        up(&network, &[SUBNET]).unwrap();
        let listener = TcpListener::bind("0.0.0.0:8081").unwrap();
        listener.set_nonblocking(true).unwrap();
        let policy = Policy { closed: ["10.77.0.2".parse().unwrap()].into(), ..Policy::default() };
        network.enforce(&policy).unwrap();
        let knock = "(echo knock | nc -w 2 10.77.0.1 8081) & sleep 3; echo tried";
        let closed = connected(&world, &network, "10.77.0.2/24", &["sh", "-c", &format!("{knock}; {SERVER}")]);
        let open = connected(&world, &network, "10.77.0.3/24", &["sh", "-c", &format!("{knock}; {SERVER}")]);
        for plan in [&closed, &open] {
            world.wait_for(&plan.replica, "tried");
        }
        until("both answer", || answers("10.77.0.2") && answers("10.77.0.3"));
        assert_eq!(listener.accept().unwrap().1.ip(), "10.77.0.3".parse::<IpAddr>().unwrap());
        assert!(listener.accept().is_err(), "the closed one came through");
        end(&world, &network, &closed);
        end(&world, &network, &open);
        network.enforce(&Policy::default()).unwrap();
        assert_eq!(rules(), "");
        network.teardown().unwrap();
        assert_eq!(links(), ["lo"]);
    });
}

#[test]
fn a_published_port_leads_to_the_replicas_in_turn_and_nowhere_when_it_is_gone() {
    for policy in ["ACCEPT", "DROP"] {
        on_a_host_of_its_own(move || published(policy));
    }
}

fn published(policy: &str) {
    iptables(&format!("-P FORWARD {policy}"));
    let world = World::new();
    let network = bridge(&world, true);
    up(&network, &[SUBNET]).unwrap();
    let outside = Outside::new();
    let plans =
        ["10.77.0.2/24", "10.77.0.3/24"].map(|address| connected(&world, &network, address, &["sh", "-c", SERVER]));
    until("both answer", || answers("10.77.0.2") && answers("10.77.0.3"));
    let to = |targets: &[&str]| Policy {
        published: vec![Published {
            port: "80:80/tcp".parse::<Port>().unwrap(),
            targets: targets.iter().map(|text| text.parse().unwrap()).collect(),
        }],
        ..Policy::default()
    };
    assert!(!outside.reaches("192.0.2.1"), "nothing is published yet");
    network.enforce(&to(&["10.77.0.2", "10.77.0.3"])).unwrap();
    assert!((0..4).all(|_| outside.reaches("192.0.2.1")));
    assert!(answers("192.0.2.1"), "from the host itself, under its address");
    // They take turns: with one of them gone, every other call fails.
    end(&world, &network, &plans[0]);
    let reached = (0..4).filter(|_| outside.reaches("192.0.2.1")).count();
    assert_eq!(reached, 2);
    network.enforce(&to(&["10.77.0.3"])).unwrap();
    assert!((0..3).all(|_| outside.reaches("192.0.2.1")));
    network.enforce(&Policy::default()).unwrap();
    assert!(!outside.reaches("192.0.2.1"), "it is gone");
    end(&world, &network, &plans[1]);
    outside.close();
    network.teardown().unwrap();
    until("all links are gone", || links() == ["lo"]);
    assert_eq!(iptables("-S FORWARD"), format!("-P FORWARD {policy}\n"));
}

/// A namespace with 192.0.2.2, linked to this thread's with 192.0.2.1, that serves requests to be done there.
struct Outside {
    requests: std::sync::mpsc::Sender<Option<String>>,
    answers: std::sync::mpsc::Receiver<String>,
    thread: std::thread::JoinHandle<()>,
}

impl Outside {
    fn new() -> Self {
        let (requests, inbox) = std::sync::mpsc::channel::<Option<String>>();
        let (outbox, received) = std::sync::mpsc::channel();
        let thread = std::thread::spawn(move || {
            // SAFETY: affects this thread only.
            unsafe { rustix::thread::unshare_unsafe(rustix::thread::UnshareFlags::NEWNET) }.unwrap();
            outbox.send(format!("/proc/{}/task/{}/ns/net", std::process::id(), gettid())).unwrap();
            inbox.recv().unwrap();
            ip("link set out1 up");
            ip("address add 192.0.2.2/24 dev out1");
            ip("route add 10.77.0.0/24 via 192.0.2.1");
            let listener = TcpListener::bind("192.0.2.2:9000").unwrap();
            outbox.send("ready".into()).unwrap();
            while let Ok(Some(request)) = inbox.recv() {
                let answer = if request.is_empty() {
                    let (mut stream, peer) = listener.accept().unwrap();
                    stream.write_all(b"welcome\n").unwrap();
                    peer.ip().to_string()
                } else {
                    answers(&request).to_string()
                };
                outbox.send(answer).unwrap();
            }
        });
        let namespace = received.recv().unwrap();
        ip("link add out0 type veth peer name out1");
        let netns = std::fs::File::open(namespace).unwrap();
        let fd = format!("/proc/{}/fd/{}", std::process::id(), std::os::fd::AsRawFd::as_raw_fd(&netns));
        ip(&format!("link set out1 netns {fd}"));
        ip("address add 192.0.2.1/24 dev out0");
        ip("link set out0 up");
        requests.send(None).unwrap();
        assert_eq!(received.recv().unwrap(), "ready");
        Self { requests, answers: received, thread }
    }

    fn ask(&self, request: &str) -> String {
        self.requests.send(Some(request.to_owned())).unwrap();
        self.answers.recv_timeout(Duration::from_secs(20)).unwrap()
    }

    /// Who connects next.
    fn guest(&self) -> IpAddr {
        self.ask("").parse().unwrap()
    }

    fn reaches(&self, address: &str) -> bool {
        self.ask(address) == "true"
    }

    fn close(self) {
        drop(self.requests);
        self.thread.join().unwrap();
    }
}

fn gettid() -> i32 {
    rustix::thread::gettid().as_raw_nonzero().get()
}
