//! The way out through pf: a second network stack plays the world.
//!
//! Loads the host's main pf rules and enables pf, so it runs only where that is allowed:
//! FAAS_JAILS_TEST_PF=1.

use std::fs::File;
use std::process::{Child, Command, Stdio};

use faas_jails::fault::Result;
use faas_jails::network::{Link, Mode, Network, Policy, Port, Published};
use faas_jails::platform::freebsd::jail;
use faas_jails::platform::freebsd::network::control::Control;
use faas_jails::platform::freebsd::network::{Settings, connect};
use faas_jails::sandbox::{Exit, Sandbox};

use crate::support::{Host, until};

/// The world's address, and the host's on the way there (RFC 5737).
const WORLD: &str = "192.0.2.2";
const HERE: &str = "192.0.2.1";

/// A jail with its own stack and a link to the host.
struct World {
    name: String,
    link: String,
    jid: i32,
}

impl World {
    fn new(host: &Host) -> Self {
        let control = Control::open().unwrap();
        let name = format!("{}world", host.realm);
        let mut params = jail::Params::default();
        params.text("name", &name).unwrap().text("path", "/").unwrap().flag("persist").unwrap();
        params.int("vnet", libc::JAIL_SYS_NEW).unwrap();
        let jid = jail::create(params).unwrap();
        let made = control.create("epair").unwrap();
        let other = format!("{}b", made.trim_end_matches('a'));
        let link = format!("{}out", host.realm);
        control.rename(&made, &link).unwrap();
        control.give(&other, jid).unwrap();
        control.add_address(&link, HERE.parse().unwrap(), 30).unwrap();
        control.up(&link).unwrap();
        let world = Self { name, link, jid };
        run(&["ifconfig", "-j", &world.name, &other, "inet", &format!("{WORLD}/30"), "up"]);
        world
    }

    /// Listens once, and writes who came.
    fn listen(&self, port: u16, log: &File) -> Child {
        let port = port.to_string();
        let child = Command::new("jexec")
            .args([&self.name, "nc", "-nvl", WORLD, &port])
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log.try_clone().unwrap())
            .spawn()
            .unwrap();
        let listening = || {
            let output = Command::new("jexec").args([&self.name, "netstat", "-an"]).output().unwrap();
            String::from_utf8_lossy(&output.stdout).contains(&format!("{WORLD}.{port}"))
        };
        assert!(until(listening));
        child
    }
}

impl Drop for World {
    fn drop(&mut self) {
        jail::remove(self.jid).unwrap();
        Control::open().unwrap().destroy(&self.link).unwrap();
    }
}

fn run(command: &[&str]) -> String {
    let output = Command::new(command[0]).args(&command[1..]).output().unwrap();
    assert!(output.status.success(), "{command:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

fn allowed() -> Option<Host> {
    let host = Host::new()?;
    if std::env::var_os("FAAS_JAILS_TEST_PF").is_none() {
        eprintln!("SKIPPED: replaces the host's pf rules; set FAAS_JAILS_TEST_PF=1 where that is allowed");
        return None;
    }
    Some(host)
}

/// Loads the main rules; `calls` is whether they call this program's anchors.
fn main_rules(host: &Host, calls: bool) {
    let file = host.path("pf.conf");
    let anchors = "nat-anchor \"faas-jails/*\"\nrdr-anchor \"faas-jails/*\"\nanchor \"faas-jails/*\"\n";
    std::fs::write(&file, format!("{}pass all\n", if calls { anchors } else { "" })).unwrap();
    run(&["pfctl", "-qf", file.to_str().unwrap()]);
    // Fails when it is enabled already.
    drop(Command::new("pfctl").arg("-qe").output().unwrap());
}

/// Brings a network up as a daemon does when it starts.
fn up(network: &dyn Network, subnet: &str) -> Result<()> {
    network.setup(&[subnet.parse().unwrap()])?;
    network.enforce(&Policy::default())
}

fn link(mode: Mode, address: &str) -> Link {
    Link { mode, addresses: vec![address.parse().unwrap()] }
}

fn leads_out(mode: Mode, port: u16) {
    let Some(host) = allowed() else { return };
    main_rules(&host, true);
    let world = World::new(&host);
    let settings = Settings { realm: host.realm.clone(), egress: Some(world.link.clone()), nat: true };
    let network = connect(mode, settings);
    up(&*network, "10.214.0.0/24").unwrap_or_else(|fault| panic!("{fault}"));
    let log = File::create(host.path("world.log")).unwrap();
    let mut server = world.listen(port, &log);
    let script =
        format!("echo hello | nc -N -w 10 {WORLD} {port} && echo out; while :; do nc -l 8080 </dev/null; done");
    let mut plan = host.plan(&script);
    plan.network = network.attach(&plan.replica, &link(mode, "10.214.0.2/24")).unwrap();
    host.sandbox().start(&plan).unwrap_or_else(|fault| panic!("{fault}"));
    host.wait_for(&plan.replica, "out");
    assert!(server.wait().unwrap().success());
    let came = std::fs::read_to_string(host.path("world.log")).unwrap();
    assert!(came.contains(&format!("from {HERE} ")), "{came}");
    // From outside nobody gets in, though the world knows the way.
    run(&["route", "-j", &world.name, "add", "10.214.0.0/24", HERE]);
    let inward = Command::new("jexec").args([&world.name, "nc", "-zw", "2", "10.214.0.2", "8080"]).status().unwrap();
    assert!(!inward.success());
    assert!(std::net::TcpStream::connect("10.214.0.2:8080").is_ok(), "it does listen");
    remove(&host, &*network, &plan);
    assert_eq!(run(&["pfctl", "-qa", &format!("faas-jails/{}", host.realm), "-s", "rules"]), "");
}

fn remove(host: &Host, network: &dyn Network, plan: &faas_jails::sandbox::Plan) {
    host.remove(&plan.replica).unwrap();
    network.detach(&plan.replica).unwrap();
    network.teardown().unwrap();
}

#[test]
fn replicas_on_aliases_get_out_and_nobody_gets_in() {
    leads_out(Mode::Alias, 9001);
}

#[test]
fn replicas_with_their_own_stack_get_out_and_nobody_gets_in() {
    leads_out(Mode::Vnet, 9002);
}

/// Whether a datagram of root's in a VNET jail arrives that claims to come from elsewhere.
fn foreign_address_arrives(host: &Host, egress: Option<String>) -> bool {
    let network = connect(Mode::Vnet, Settings { realm: host.realm.clone(), egress, nat: true });
    up(&*network, "10.214.2.0/24").unwrap();
    let heard = std::net::UdpSocket::bind("10.214.2.1:0").unwrap();
    heard.set_read_timeout(Some(std::time::Duration::from_secs(3))).unwrap();
    let port = heard.local_addr().unwrap().port();
    let mut plan = host.plan("");
    let inner = format!("{}j", plan.replica.interface());
    plan.argv[2] = format!(
        "echo own | nc -uw1 10.214.2.1 {port}; ifconfig {inner} inet 198.51.100.7/32 alias && echo aliased; \
         echo foreign | nc -uw1 -s 198.51.100.7 10.214.2.1 {port}; echo sent"
    );
    plan.user = faas_jails::sandbox::User::default();
    plan.network = network.attach(&plan.replica, &link(Mode::Vnet, "10.214.2.2/24")).unwrap();
    let (output, _) = host.run(&plan);
    assert!(output.contains("aliased") && output.contains("sent"), "{output}");
    let mut bytes = [0; 64];
    let (length, from) = heard.recv_from(&mut bytes).unwrap();
    assert_eq!((&bytes[..length], from.ip()), (&b"own\n"[..], "10.214.2.2".parse().unwrap()));
    let second = heard.recv_from(&mut bytes);
    network.detach(&plan.replica).unwrap();
    network.teardown().unwrap();
    second.is_ok_and(|(_, from)| from.ip() == "198.51.100.7".parse::<std::net::IpAddr>().unwrap())
}

#[test]
fn root_in_a_stack_of_its_own_cannot_speak_under_a_foreign_address() {
    let Some(host) = allowed() else { return };
    main_rules(&host, true);
    assert!(foreign_address_arrives(&host, None), "without the rule it does");
    assert!(!foreign_address_arrives(&host, Some("lo0".to_owned())));
}

#[test]
fn rules_that_nobody_calls_are_refused_with_the_lines_to_add() {
    let Some(host) = allowed() else { return };
    main_rules(&host, false);
    let settings = Settings { realm: host.realm.clone(), egress: Some("lo0".to_owned()), nat: true };
    let network = connect(Mode::Alias, settings);
    let fault = up(&*network, "10.214.1.0/24").unwrap_err();
    network.teardown().unwrap();
    assert!(fault.to_string().contains("add the line nat-anchor \"faas-jails/*\""), "{fault}");
    let (output, exit) = host.run(&host.plan("echo still"));
    assert_eq!((output.as_str(), exit), ("still\n", Exit::Code(0)));
}

/// Whether the world reaches this port of the host's.
fn world_reaches(world: &World, port: u16) -> bool {
    let port = port.to_string();
    let asked = Command::new("jexec").args([&world.name, "nc", "-zw", "3", HERE, &port]).output().unwrap();
    asked.status.success()
}

fn publishes(mode: Mode) {
    let Some(host) = allowed() else { return };
    main_rules(&host, true);
    let world = World::new(&host);
    let settings = Settings { realm: host.realm.clone(), egress: Some(world.link.clone()), nat: true };
    let network = connect(mode, settings.clone());
    up(&*network, "10.214.0.0/24").unwrap();
    let mut plan = host.plan("echo up; while :; do nc -l 8080 </dev/null; done");
    plan.network = network.attach(&plan.replica, &link(mode, "10.214.0.2/24")).unwrap();
    host.sandbox().start(&plan).unwrap_or_else(|fault| panic!("{fault}"));
    assert!(until(|| std::net::TcpStream::connect("10.214.0.2:8080").is_ok()));
    assert!(!world_reaches(&world, 8443), "nothing is published yet");
    let port: Port = "8443:8080/tcp".parse().unwrap();
    let policy = Policy {
        published: vec![Published { port, targets: vec!["10.214.0.2".parse().unwrap()] }],
        ..Policy::default()
    };
    network.enforce(&policy).unwrap_or_else(|fault| panic!("{fault}"));
    assert!(until(|| world_reaches(&world, 8443)));
    // Another daemon's start with the same policy leaves it so.
    let heir = connect(mode, settings);
    heir.setup(&["10.214.0.0/24".parse().unwrap()]).unwrap();
    assert!(until(|| world_reaches(&world, 8443)));
    heir.enforce(&Policy::default()).unwrap();
    assert!(!world_reaches(&world, 8443), "it is gone");
    remove(&host, &*heir, &plan);
    assert_eq!(run(&["pfctl", "-qa", &format!("faas-jails/{}", host.realm), "-s", "nat"]), "");
}

#[test]
fn a_published_port_leads_to_an_alias_until_it_is_gone() {
    publishes(Mode::Alias);
}

#[test]
fn a_published_port_leads_to_a_stack_of_its_own_until_it_is_gone() {
    publishes(Mode::Vnet);
}

#[test]
fn a_closed_replica_answers_and_begins_nothing() {
    let Some(host) = allowed() else { return };
    main_rules(&host, true);
    let network = connect(Mode::Alias, Settings { realm: host.realm.clone(), egress: None, nat: false });
    up(&*network, "10.214.3.0/24").unwrap();
    let listener = std::net::TcpListener::bind("0.0.0.0:0").unwrap();
    listener.set_nonblocking(true).unwrap();
    let port = listener.local_addr().unwrap().port();
    let policy = Policy { closed: ["10.214.3.2".parse().unwrap()].into(), ..Policy::default() };
    network.enforce(&policy).unwrap_or_else(|fault| panic!("{fault}"));
    let script = format!("echo x | nc -N -w 3 10.214.3.1 {port}; echo tried; while :; do nc -l 8080 </dev/null; done");
    let mut plans = Vec::new();
    for (mode, address) in [(Mode::None, "10.214.3.2/24"), (Mode::Vnet, "10.214.3.3/24")] {
        let mut plan = host.plan(&script);
        plan.network = network.attach(&plan.replica, &link(mode, address)).unwrap();
        host.sandbox().start(&plan).unwrap_or_else(|fault| panic!("{fault}"));
        host.wait_for(&plan.replica, "tried");
        plans.push(plan);
    }
    for address in ["10.214.3.2:8080", "10.214.3.3:8080"] {
        assert!(until(|| std::net::TcpStream::connect(address).is_ok()), "{address}");
    }
    assert_eq!(listener.accept().unwrap().1.ip(), "10.214.3.3".parse::<std::net::IpAddr>().unwrap());
    assert!(listener.accept().is_err(), "the closed one came through");
    host.remove(&plans[1].replica).unwrap();
    network.detach(&plans[1].replica).unwrap();
    remove(&host, &*network, &plans[0]);
}

#[test]
fn a_pf_that_is_off_is_told_with_the_command_that_starts_it() {
    let Some(host) = allowed() else { return };
    main_rules(&host, true);
    run(&["pfctl", "-qd"]);
    let settings = Settings { realm: host.realm.clone(), egress: Some("lo0".to_owned()), nat: true };
    let network = connect(Mode::Alias, settings);
    let fault = up(&*network, "10.214.1.0/24").unwrap_err();
    run(&["pfctl", "-qe"]);
    network.teardown().unwrap();
    assert!(fault.to_string().contains("service pf start"), "{fault}");
}
