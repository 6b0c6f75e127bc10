//! The way out through pf: a second network stack plays the world.
//!
//! Loads the host's main pf rules and enables pf, so it runs only where that is allowed:
//! FAAS_JAILS_TEST_PF=1.

use std::fs::File;
use std::process::{Child, Command, Stdio};

use faas_jails::network::Network;
use faas_jails::platform::freebsd::jail;
use faas_jails::platform::freebsd::network::control::Control;
use faas_jails::platform::freebsd::network::{Mode, Settings, connect};
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
    let anchors = "nat-anchor \"faas-jails/*\"\nanchor \"faas-jails/*\"\n";
    std::fs::write(&file, format!("{}pass all\n", if calls { anchors } else { "" })).unwrap();
    run(&["pfctl", "-qf", file.to_str().unwrap()]);
    // Fails when it is enabled already.
    drop(Command::new("pfctl").arg("-qe").output().unwrap());
}

fn leads_out(mode: Mode, port: u16) {
    let Some(host) = allowed() else { return };
    main_rules(&host, true);
    let world = World::new(&host);
    let settings = Settings {
        realm: host.realm.clone(),
        network: "10.214.0.0/24".parse().unwrap(),
        egress: Some(world.link.clone()),
    };
    let network = connect(mode, settings);
    network.setup().unwrap_or_else(|fault| panic!("{fault}"));
    let log = File::create(host.path("world.log")).unwrap();
    let mut server = world.listen(port, &log);
    let script =
        format!("echo hello | nc -N -w 10 {WORLD} {port} && echo out; while :; do nc -l 8080 </dev/null; done");
    let mut plan = host.plan(&script);
    plan.network = network.attach(&plan.replica, "10.214.0.2".parse().unwrap()).unwrap();
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
    let settings = Settings { realm: host.realm.clone(), network: "10.214.2.0/24".parse().unwrap(), egress };
    let network = connect(Mode::Vnet, settings);
    network.setup().unwrap();
    let heard = std::net::UdpSocket::bind("10.214.2.1:0").unwrap();
    heard.set_read_timeout(Some(std::time::Duration::from_secs(3))).unwrap();
    let port = heard.local_addr().unwrap().port();
    let mut plan = host.plan("");
    let link = format!("{}j", plan.replica.interface());
    plan.argv[2] = format!(
        "echo own | nc -uw1 10.214.2.1 {port}; ifconfig {link} inet 198.51.100.7/32 alias && echo aliased; \
         echo foreign | nc -uw1 -s 198.51.100.7 10.214.2.1 {port}; echo sent"
    );
    plan.user = faas_jails::sandbox::User::default();
    plan.network = network.attach(&plan.replica, "10.214.2.2".parse().unwrap()).unwrap();
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
    let network = connect(
        Mode::Alias,
        Settings {
            realm: host.realm.clone(),
            network: "10.214.1.0/24".parse().unwrap(),
            egress: Some("lo0".to_owned()),
        },
    );
    let fault = network.setup().unwrap_err();
    network.teardown().unwrap();
    assert!(fault.to_string().contains("add the line nat-anchor \"faas-jails/*\""), "{fault}");
    let (output, exit) = host.run(&host.plan("echo still"));
    assert_eq!((output.as_str(), exit), ("still\n", Exit::Code(0)));
}
