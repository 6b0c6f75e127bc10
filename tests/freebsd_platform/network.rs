//! Networks: addresses that work, that are nobody else's, and that are gone afterwards.

use std::io::{Read, Write};
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream};
use std::time::Duration;

use faas_jails::fault::Kind;
use faas_jails::network::{Attachment, Link, Mode, Network, ipam};
use faas_jails::platform::freebsd::network::control::{self, Control};
use faas_jails::platform::freebsd::network::{Settings, connect};
use faas_jails::sandbox::{Plan, Sandbox, User};
use faas_jails::storage::Root;

use ipnetwork::IpNetwork;

use crate::support::{Host, until};

fn subnet_of(host: &Host) -> IpNetwork {
    subnet_like(host, |number| format!("10.213.{number}.0/24"))
}

/// A network of the realm's own, so that two runs on one host do not meet.
fn subnet_like(host: &Host, network: impl Fn(u8) -> String) -> IpNetwork {
    let number: u8 = host.realm.as_str()[1..].parse::<u16>().unwrap().to_be_bytes()[1];
    network(number).parse().unwrap()
}

fn settings(host: &Host) -> Settings {
    Settings { realm: host.realm.clone(), egress: None, nat: false }
}

fn address(network: IpNetwork, last: u8) -> IpAddr {
    match network.network() {
        IpAddr::V4(v4) => IpAddr::V4((u32::from(v4) + u32::from(last)).into()),
        IpAddr::V6(v6) => IpAddr::V6((u128::from(v6) + u128::from(last)).into()),
    }
}

/// A link with an address of each network.
fn link(mode: Mode, networks: &[IpNetwork], last: u8) -> Link {
    let full = |network: &IpNetwork| IpNetwork::new(address(*network, last), network.prefix()).unwrap();
    Link { mode, addresses: networks.iter().map(full).collect() }
}

/// A plan that serves one line on port 8080, again and again.
fn server(host: &Host, network: &dyn Network, link: &Link, word: &str) -> Plan {
    let serve = |at: &IpNetwork| format!("(while :; do echo {word} | nc -N -l {} 8080; done) & ", at.ip());
    let script: String = link.addresses.iter().map(serve).collect();
    let mut plan = host.plan(&format!("{script} echo up; wait"));
    plan.network = network.attach(&plan.replica, link).unwrap();
    plan
}

fn ask(at: IpAddr) -> Option<String> {
    let mut stream = TcpStream::connect_timeout(&SocketAddr::new(at, 8080), Duration::from_secs(2)).ok()?;
    stream.set_read_timeout(Some(Duration::from_secs(5))).ok()?;
    let mut text = String::new();
    stream.read_to_string(&mut text).ok()?;
    Some(text)
}

fn answers(at: IpAddr, word: &str) {
    assert!(until(|| ask(at).is_some_and(|text| text.trim() == word)), "{at} does not answer {word}");
}

fn start(host: &Host, plan: &Plan) {
    host.sandbox().start(plan).unwrap_or_else(|fault| panic!("{fault}"));
}

/// What holds in both modes that give addresses.
fn serves(mode: Mode, networks: &[&dyn Fn(u8) -> String]) {
    let Some(host) = Host::new() else { return };
    let networks: Vec<IpNetwork> = networks.iter().map(|network| subnet_like(&host, network)).collect();
    let network = connect(mode, settings(&host));
    network.setup(&networks).unwrap_or_else(|fault| panic!("{fault}"));
    network.setup(&networks).unwrap_or_else(|fault| panic!("again: {fault}"));
    let plans: Vec<Plan> = [(2, "two"), (3, "three")]
        .map(|(last, word)| server(&host, &*network, &link(mode, &networks, last), word))
        .into();
    plans.iter().for_each(|plan| start(&host, plan));
    for subnet in &networks {
        answers(address(*subnet, 2), "two");
        answers(address(*subnet, 3), "three");
    }
    let mut attached = network.attached().unwrap();
    attached.sort();
    let mut expected: Vec<_> = plans.iter().map(|plan| plan.replica.clone()).collect();
    expected.sort();
    assert_eq!(attached, expected);
    // Another daemon finds the same, and a setup does not disturb.
    let heir = connect(mode, settings(&host));
    heir.setup(&networks).unwrap();
    let mut attached = heir.attached().unwrap();
    attached.sort();
    assert_eq!(attached, expected);
    answers(address(networks[0], 2), "two");
    for plan in &plans {
        host.remove(&plan.replica).unwrap();
        heir.detach(&plan.replica).unwrap();
        heir.detach(&plan.replica).unwrap();
    }
    assert_eq!(heir.attached().unwrap(), []);
    assert_eq!(ask(address(networks[0], 2)), None);
    heir.teardown().unwrap();
    heir.teardown().unwrap();
}

fn four(number: u8) -> String {
    format!("10.213.{number}.0/24")
}

fn six(number: u8) -> String {
    format!("fd00:213:{number}::/64")
}

#[test]
fn replicas_on_aliases_serve_and_leave_nothing() {
    serves(Mode::Alias, &[&four]);
}

#[test]
fn replicas_on_aliases_of_both_families_serve_and_leave_nothing() {
    serves(Mode::Alias, &[&six, &four]);
}

#[test]
fn replicas_with_their_own_stack_serve_and_leave_nothing() {
    serves(Mode::Vnet, &[&four]);
}

#[test]
fn replicas_with_their_own_stack_of_both_families_serve_and_leave_nothing() {
    serves(Mode::Vnet, &[&six, &four]);
}

#[test]
fn replicas_of_every_mode_serve_side_by_side_and_added_networks_come_and_go() {
    let Some(host) = Host::new() else { return };
    let (first, second) = (subnet_of(&host), subnet_like(&host, |number| format!("10.212.{number}.0/24")));
    let network = connect(Mode::Alias, settings(&host));
    network.setup(&[first]).unwrap();
    assert!(!control::names().unwrap().contains(&format!("{}br", host.realm)), "nobody needed a bridge yet");
    let alias = server(&host, &*network, &link(Mode::Alias, &[first], 2), "alias");
    let vnet = server(&host, &*network, &link(Mode::Vnet, &[first], 3), "vnet");
    for plan in [&alias, &vnet] {
        start(&host, plan);
    }
    answers(address(first, 2), "alias");
    answers(address(first, 3), "vnet");
    network.setup(&[first, second]).unwrap();
    let added = server(&host, &*network, &link(Mode::Vnet, &[second], 2), "added");
    start(&host, &added);
    answers(address(second, 2), "added");
    answers(address(first, 3), "vnet");
    for plan in [&alias, &vnet, &added] {
        host.remove(&plan.replica).unwrap();
        network.detach(&plan.replica).unwrap();
    }
    network.setup(&[first]).unwrap();
    for interface in [format!("{}lo", host.realm), format!("{}br", host.realm)] {
        let left = control::addresses(&interface).unwrap();
        assert!(!left.contains(&address(second, 1)) && left.contains(&address(first, 1)), "{interface}: {left:?}");
    }
    network.teardown().unwrap();
}

#[test]
fn a_replica_that_inherits_uses_the_hosts_network() {
    let Some(host) = Host::new() else { return };
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    let network = connect(Mode::Inherit, settings(&host));
    network.setup(&[subnet_of(&host)]).unwrap();
    let mut plan = host.plan(&format!("echo x | nc -N 127.0.0.1 {port}"));
    plan.network = network.attach(&plan.replica, &Link { mode: Mode::Inherit, addresses: Vec::new() }).unwrap();
    start(&host, &plan);
    assert!(listener.accept().is_ok());
    host.exit(host.sandbox(), &plan.replica);
    host.remove(&plan.replica).unwrap();
    network.detach(&plan.replica).unwrap();
    network.teardown().unwrap();
}

#[test]
fn root_is_not_closed_in_a_stack_of_its_own() {
    let Some(host) = Host::new() else { return };
    let network = connect(Mode::Alias, settings(&host));
    network.setup(&[subnet_of(&host)]).unwrap();
    let mut plan = host.plan("echo ran");
    plan.user = User::default();
    plan.network = network.attach(&plan.replica, &link(Mode::None, &[subnet_of(&host)], 2)).unwrap();
    let fault = host.sandbox().start(&plan).unwrap_err();
    assert!(fault.to_string().contains("another USER"), "{fault}");
    host.remove(&plan.replica).unwrap();
    network.detach(&plan.replica).unwrap();
    network.teardown().unwrap();
}

#[test]
fn an_address_that_no_jail_has_is_swept() {
    let Some(host) = Host::new() else { return };
    let subnet = subnet_of(&host);
    let network = connect(Mode::Alias, settings(&host));
    network.setup(&[subnet]).unwrap();
    let interface = format!("{}lo", host.realm);
    network.attach(&host.replica(), &link(Mode::Alias, &[subnet], 9)).unwrap();
    assert!(control::addresses(&interface).unwrap().contains(&address(subnet, 9)));
    // The daemon that attached it died before it made the jail.
    let heir = connect(Mode::Alias, settings(&host));
    heir.setup(&[subnet]).unwrap();
    let left = control::addresses(&interface).unwrap();
    assert!(!left.contains(&address(subnet, 9)) && left.contains(&address(subnet, 1)), "{left:?}");
    heir.teardown().unwrap();
}

#[test]
fn a_jail_on_an_alias_uses_its_own_address_only() {
    let Some(host) = Host::new() else { return };
    let subnet = subnet_of(&host);
    let network = connect(Mode::Alias, settings(&host));
    network.setup(&[subnet]).unwrap();
    let (own, other) = (address(subnet, 2), address(subnet, 1));
    let listener = TcpListener::bind((other, 0)).unwrap();
    let port = listener.local_addr().unwrap().port();
    let script =
        format!("nc -w 1 -l {other} 8081 </dev/null && echo bound; echo x | nc -N {other} {port}; ifconfig | cat");
    let mut plan = host.plan(&script);
    plan.network = network.attach(&plan.replica, &link(Mode::Alias, &[subnet], 2)).unwrap();
    start(&host, &plan);
    let (_, from) = listener.accept().unwrap();
    assert_eq!(from.ip(), own);
    host.exit(host.sandbox(), &plan.replica);
    let output = host.output(&plan.replica);
    assert!(!output.contains("bound") && output.contains(&own.to_string()), "{output}");
    assert!(!output.contains(&format!("inet {other} ")), "{output}");
    host.remove(&plan.replica).unwrap();
    network.detach(&plan.replica).unwrap();
    network.teardown().unwrap();
}

#[test]
fn without_a_network_there_is_none() {
    let Some(host) = Host::new() else { return };
    let mut plan = host.plan("nc -w 1 127.0.0.1 22 </dev/null; echo $?; nc -w 1 -l 127.0.0.1 8080 </dev/null; echo $?");
    plan.user = User::default();
    let (output, _) = host.run(&plan);
    let codes: Vec<&str> = output.lines().filter(|line| line.parse::<i32>().is_ok()).collect();
    assert!(codes.len() == 2 && codes.iter().all(|code| *code != "0"), "{output}");
}

#[test]
fn replicas_with_their_own_stack_cannot_reach_each_other() {
    let Some(host) = Host::new() else { return };
    let subnet = subnet_of(&host);
    let network = connect(Mode::Vnet, settings(&host));
    network.setup(&[subnet]).unwrap();
    let gateway = ipam::gateway(subnet);
    let neighbour = server(&host, &*network, &link(Mode::Vnet, &[subnet], 2), "two");
    start(&host, &neighbour);
    answers(address(subnet, 2), "two");
    let listener = TcpListener::bind((gateway, 0)).unwrap();
    let port = listener.local_addr().unwrap().port();
    let serving = std::thread::spawn(move || listener.accept().unwrap().0.write_all(b"gateway\n").unwrap());
    let script = format!(
        "nc -w 5 {gateway} {port} </dev/null; nc -w 3 {} 8080 </dev/null && echo neighbour; netstat -rn; ifconfig",
        address(subnet, 2)
    );
    let mut plan = host.plan(&script);
    plan.network = network.attach(&plan.replica, &link(Mode::Vnet, &[subnet], 3)).unwrap();
    let (output, _) = host.run(&plan);
    serving.join().unwrap();
    assert!(output.contains("gateway\n"), "{output}");
    assert!(!output.contains("neighbour") && !output.contains("two"), "{output}");
    assert!(output.contains("127.0.0.1"), "{output}");
    network.detach(&plan.replica).unwrap();
    host.remove(&neighbour.replica).unwrap();
    network.detach(&neighbour.replica).unwrap();
    network.teardown().unwrap();
}

#[test]
fn twenty_stacks_come_and_go() {
    let Some(host) = Host::new() else { return };
    let subnet = subnet_of(&host);
    let network = connect(Mode::Vnet, settings(&host));
    network.setup(&[subnet]).unwrap();
    let tree = host.tree();
    for last in 2..22 {
        let mut plan = host.plan_on(Root::Directory(tree.clone()), "exit 0");
        plan.network = network.attach(&plan.replica, &link(Mode::Vnet, &[subnet], last)).unwrap();
        host.run(&plan);
        network.detach(&plan.replica).unwrap();
    }
    network.teardown().unwrap();
}

#[test]
fn an_interface_of_somebody_elses_is_left_alone() {
    let Some(host) = Host::new() else { return };
    let control = Control::open().unwrap();
    let made = control.create("lo").unwrap();
    let name = format!("{}lo", host.realm);
    control.rename(&made, &name).unwrap();
    let fault = connect(Mode::Alias, settings(&host)).setup(&[subnet_of(&host)]).unwrap_err();
    control.destroy(&name).unwrap();
    assert_eq!(fault.kind(), Kind::Busy);
    assert!(fault.to_string().contains("belongs to somebody else"), "{fault}");
}

#[test]
fn a_vnet_link_is_undone_when_its_start_fails() {
    let Some(host) = Host::new() else { return };
    let subnet = subnet_of(&host);
    let network = connect(Mode::Vnet, settings(&host));
    network.setup(&[subnet]).unwrap();
    let mut plan = host.plan("");
    plan.argv = vec!["no-such-program".into()];
    plan.network = network.attach(&plan.replica, &link(Mode::Vnet, &[subnet], 2)).unwrap();
    assert!(matches!(plan.network, Attachment::Vnet { .. }));
    assert!(host.sandbox().start(&plan).is_err());
    host.remove(&plan.replica).unwrap();
    network.detach(&plan.replica).unwrap();
    network.teardown().unwrap();
}
