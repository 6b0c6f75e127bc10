//! How a function is connected, by annotation; its addresses as data; ports of the host that lead to it.

use serde_json::{Value, json};

use crate::support::{Daemon, eventually, platform};
use crate::{linux_only, needs_root};

const NETWORK: &str = "com.faas-jails.network";
const PUBLISH: &str = "com.faas-jails.publish";

fn annotated(name: &str, annotations: Value) -> Value {
    json!({"service": name, "annotations": annotations})
}

/// The list of the address pool.
fn pool(daemon: &Daemon) -> Value {
    let output = daemon.run(&["address", "list", "--json"]);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    serde_json::from_slice(&output.stdout).expect("JSON")
}

/// Addresses in this state.
fn in_state(daemon: &Daemon, state: &str) -> Vec<String> {
    let list = pool(daemon);
    let all = list["addresses"].as_array().expect("addresses").iter();
    all.filter(|line| line["state"] == state).map(|line| line["address"].as_str().expect("text").to_owned()).collect()
}

fn address(daemon: &Daemon, arguments: &[&str]) -> (Option<i32>, String) {
    let output = daemon.run(&[&["address"], arguments].concat());
    let said = [output.stdout, output.stderr].concat();
    (output.status.code(), String::from_utf8_lossy(&said).into_owned())
}

/// Takes connections on the host's address among the replicas, and says from whom they came.
fn door(daemon: &Daemon) -> (std::net::TcpListener, String) {
    let listener = std::net::TcpListener::bind((daemon.host(), 0)).expect("listening");
    listener.set_nonblocking(true).expect("setting non-blocking");
    let at = listener.local_addr().expect("an address").to_string();
    (listener, at)
}

#[test]
fn a_function_without_a_network_is_called_and_reaches_nobody() {
    needs_root!();
    if !platform::filters_packets() {
        eprintln!("SKIPPED: needs pf with this program's anchors");
        return;
    }
    let mut daemon = Daemon::start();
    daemon.deploy(annotated("closed", json!({NETWORK: "none"})));
    daemon.deploy(json!({"service": "open"}));
    let (listener, at) = door(&daemon);
    let knocks = |daemon: &Daemon, name: &str| daemon.call(&format!("{name}/dial?addr={at}")).status;
    assert_eq!(knocks(&daemon, "open"), 200);
    listener.accept().expect("the open one came");
    assert_eq!(knocks(&daemon, "closed"), 500);
    assert!(listener.accept().is_err(), "the closed one came through");
    daemon.call("closed/echo").expect(200);
    // The next daemon holds to it.
    daemon.kill9();
    daemon.start_again();
    daemon.await_ready("closed", 1);
    assert_eq!(knocks(&daemon, "closed"), 500);
    assert_eq!(knocks(&daemon, "open"), 200);
}

#[test]
fn a_function_that_inherits_shares_the_hosts_network_and_is_served_on_a_port_of_its_own() {
    needs_root!();
    let daemon = Daemon::with().network("modes = [\"inherit\"]").start();
    daemon.deploy(annotated("f", json!({NETWORK: "inherit"})));
    daemon.scale("f", 2).expect(202);
    daemon.await_ready("f", 2);
    // The provider itself listens on the host's loopback.
    assert_eq!(daemon.call(&format!("f/dial?addr={}", daemon.http.address)).status, 200);
    assert_eq!(in_state(&daemon, "held"), [""; 0], "no address of the pool is used");
}

#[test]
fn what_a_function_may_not_have_is_refused_with_a_sentence() {
    needs_root!();
    let daemon = Daemon::start();
    for (annotations, words) in [
        (json!({NETWORK: "inherit"}), ["inherit is not allowed", "modes in [network]"]),
        (json!({NETWORK: "magic"}), ["magic", "none, bridge, alias, vnet, inherit"]),
        (json!({PUBLISH: "80"}), ["port (80) is invalid", "8443:8080/tcp"]),
        (json!({PUBLISH: "80:1,80:2"}), ["80/tcp", "twice"]),
        (json!({PUBLISH: "80:80", NETWORK: "none"}), [PUBLISH, "publishes nothing"]),
    ] {
        let answer = daemon.create(annotated("f", annotations));
        answer.expect_error(400, &words);
    }
    let foreign = if cfg!(target_os = "linux") { "vnet" } else { "bridge" };
    daemon.create(annotated("f", json!({NETWORK: foreign}))).expect_error(400, &["is not allowed here"]);
    assert_eq!(daemon.list("openfaas-fn"), [""; 0]);
}

#[test]
fn a_function_has_an_address_of_each_family() {
    needs_root!();
    let daemon = Daemon::with().network("subnet6 = \"fd00:{realm6}::/64\"").start();
    daemon.deploy(json!({"service": "f"}));
    let addresses = daemon.call("f/net").expect(200).value();
    let all: Vec<&str> = addresses.as_array().expect("addresses").iter().filter_map(Value::as_str).collect();
    assert!(all.iter().any(|a| a.starts_with("10.")) && all.iter().any(|a| a.starts_with("fd00:")), "{all:?}");
    let held = in_state(&daemon, "held");
    assert_eq!(held.len(), 2, "{held:?}");
    assert!(held.iter().all(|a| all.iter().any(|own| own.starts_with(a.as_str()))), "{held:?} {all:?}");
}

#[test]
fn the_address_pool_tells_who_holds_what_and_is_changed_while_the_daemon_runs() {
    needs_root!();
    let daemon = Daemon::start();
    let prefix = daemon.host().trim_end_matches('1').to_owned();
    // The next address is known: the first that is free. Kept back, it is not handed out.
    let (code, said) = address(&daemon, &["reserve", &format!("{prefix}2"), "--for", "a printer"]);
    assert_eq!((code, said.contains("reserved")), (Some(0), true), "{said}");
    daemon.deploy(json!({"service": "f"}));
    assert_eq!(in_state(&daemon, "held"), [format!("{prefix}3")]);
    let list = pool(&daemon);
    let lines = list["addresses"].as_array().expect("addresses");
    let line = |end: &str| lines.iter().find(|line| line["address"] == format!("{prefix}{end}")).expect("a line");
    assert_eq!((&line("1")["state"], &line("2")["for"]), (&json!("host"), &json!("a printer")));
    assert_eq!(line("3")["function"], "f.openfaas-fn");
    assert_eq!((&list["networks"][0]["held"], &list["networks"][0]["from"]), (&json!(1), &json!("configuration")));
    // For people too.
    let (_, text) = address(&daemon, &["list"]);
    assert!(text.contains("a printer") && text.contains("f_") && text.contains("configuration"), "{text}");
    // What somebody has is not released by hand, and nonsense is refused; exit codes are those of sysexits(3).
    for (arguments, code, word) in [
        (vec!["release".to_owned(), format!("{prefix}3")], 75, "held by"),
        (vec!["release".to_owned(), format!("{prefix}9")], 66, "not reserved"),
        (vec!["release".to_owned(), "x".to_owned()], 64, "no address"),
        (vec!["reserve".to_owned(), "192.0.2.1".to_owned()], 64, "in no network"),
        (vec!["reserve".to_owned(), format!("{prefix}2")], 75, "a printer"),
        (vec!["add".to_owned(), daemon.subnet()], 64, "overlap"),
    ] {
        let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
        let (status, said) = address(&daemon, &words);
        assert_eq!(status, Some(code), "{words:?}: {said}");
        assert!(said.contains(word), "{words:?}: {said}");
    }
    let (code, said) = address(&daemon, &["release", &format!("{prefix}2")]);
    assert_eq!(code, Some(0), "{said}");
    assert_eq!(in_state(&daemon, "reserved"), [""; 0]);
}

#[test]
fn an_added_network_is_used_when_the_first_is_full() {
    needs_root!();
    let daemon = Daemon::with().small_subnet().start();
    daemon.deploy(json!({"service": "f"}));
    daemon.scale("f", 5).expect(202);
    daemon.await_ready("f", 5);
    daemon.scale("f", 6).expect_error(400, &["address add"]);
    let second = daemon.subnet().replace(".0/29", ".64/28");
    let (code, said) = address(&daemon, &["add", &second]);
    assert_eq!(code, Some(0), "{said}");
    daemon.scale("f", 6).expect(202);
    daemon.await_ready("f", 6);
    let held = in_state(&daemon, "held");
    assert_eq!(held.iter().filter(|a| a.ends_with(".66")).count(), 1, "{held:?}");
    let (code, said) = address(&daemon, &["release", &second]);
    assert_eq!((code, said.contains("in use")), (Some(75), true), "{said}");
    daemon.scale("f", 0).expect(202);
    eventually("nobody has an address", || in_state(&daemon, "held").is_empty().then_some(()));
    let (code, said) = address(&daemon, &["release", &second]);
    assert_eq!(code, Some(0), "{said}");
}

/// A port of the host that nobody has, most likely.
fn free_port() -> u16 {
    let listener = std::net::TcpListener::bind("0.0.0.0:0").expect("binding");
    listener.local_addr().expect("an address").port()
}

/// Asks the port for the host name of the function behind it, through the host's address among the replicas.
fn behind(daemon: &Daemon, port: u16) -> Option<String> {
    let client = crate::support::http::Client {
        address: format!("{}:{port}", daemon.host()).parse().expect("an address"),
        credentials: None,
    };
    let answer = client.request("GET", "/hostname").try_send().ok()?;
    (answer.status == 200).then(|| answer.text())
}

#[test]
fn a_published_port_leads_to_the_function_over_restarts_and_is_gone_with_it() {
    needs_root!();
    linux_only!("rdr on the way in from outside is shown by tests/freebsd_platform/filter.rs");
    let mut daemon = Daemon::start();
    let port = free_port();
    daemon.deploy(annotated("f", json!({PUBLISH: format!("{port}:8080/tcp")})));
    let leads = |daemon: &Daemon| eventually("the port leads to it", || behind(daemon, port));
    assert_eq!(leads(&daemon), "f");
    // New replicas take over, and no daemon is needed to be reached.
    daemon.update(annotated("f", json!({PUBLISH: format!("{port}:8080/tcp")}))).expect(202);
    assert_eq!(leads(&daemon), "f");
    daemon.kill9();
    assert_eq!(leads(&daemon), "f");
    daemon.start_again();
    assert_eq!(behind(&daemon, port).as_deref(), Some("f"), "a restart interrupts nothing");
    daemon.await_ready("f", 1);
    // Nobody else gets it, nor one that a program of the host has.
    let other = annotated("g", json!({PUBLISH: format!("{port}:8080")}));
    daemon.create(other.clone()).expect_error(409, &[&port.to_string(), "published by function f.openfaas-fn"]);
    let own = daemon.http.address.port();
    daemon.create(annotated("g", json!({PUBLISH: format!("{own}:8080")}))).expect_error(409, &["listens on port"]);
    assert_eq!(daemon.list("openfaas-fn"), ["f"]);
    daemon.delete("f").expect(202);
    assert_eq!(behind(&daemon, port), None);
    daemon.deploy(other);
    eventually("the port leads to the other", || behind(&daemon, port).filter(|name| name == "g"));
    daemon.update(json!({"service": "g"})).expect(202);
    assert_eq!(behind(&daemon, port), None, "published no more");
}
