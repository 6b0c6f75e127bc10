//! Idle functions: to zero, or frozen in place; never under a request.

use std::time::Duration;

use serde_json::{Value, json};

use crate::needs_root;
use crate::support::{Daemon, eventually};

fn zero_after(seconds: u64) -> Value {
    json!({"com.openfaas.scale.zero": "true", "com.openfaas.scale.zero-duration": format!("{seconds}s")})
}

fn state(daemon: &Daemon) -> Vec<String> {
    let all = daemon.http.get("/system/replicas").expect(200).value();
    all.as_array().expect("an array").iter().map(|r| r["state"].as_str().expect("a state").to_owned()).collect()
}

fn nothing_runs(daemon: &Daemon) {
    eventually("nothing runs", || daemon.traces().replica_names().is_empty().then_some(()));
}

fn is_frozen(daemon: &Daemon) {
    eventually("it is frozen", || (state(daemon) == ["frozen"]).then_some(()));
}

#[test]
fn an_idle_function_goes_to_zero_and_list_and_describe_say_so() {
    needs_root!();
    let daemon = Daemon::start();
    daemon.deploy(json!({"service": "idle", "labels": zero_after(2)}));
    daemon.deploy(json!({"service": "stays"}));
    for _ in 0..2 {
        daemon.call("idle/").expect(200);
        assert_eq!(daemon.status("idle")["replicas"], 1);
        eventually("zero", || (daemon.status("idle")["replicas"] == 0).then_some(()));
        assert_eq!(daemon.available("idle"), 0);
        let list = daemon.http.get("/system/functions").expect(200).value();
        let listed = list.as_array().expect("an array").iter().find(|f| f["name"] == "idle").expect("it is listed");
        assert_eq!((&listed["replicas"], listed["availableReplicas"].as_u64()), (&json!(0), Some(0)));
        eventually("only the other runs", || (daemon.traces().replica_names().len() == 1).then_some(()));
    }
    assert_eq!(daemon.available("stays"), 1);
    assert!(daemon.log().contains("why=idle"), "the decision is in the log: {}", daemon.log());
}

#[test]
fn a_stream_or_a_request_that_is_never_answered_keeps_it_until_it_ends() {
    needs_root!();
    let daemon = Daemon::start();
    daemon.deploy(json!({"service": "idle", "labels": zero_after(1)}));
    let stream = daemon.invoke("GET", "idle/sse?n=1000&gap=4000").open().expect("a stream");
    std::thread::sleep(Duration::from_secs(3));
    assert_eq!(daemon.available("idle"), 1, "it went under an open stream");
    drop(stream);
    nothing_runs(&daemon);
    let mut exchange = daemon.http.raw();
    exchange.write(b"GET /function/idle/hang HTTP/1.1\r\nHost: x\r\n\r\n").expect("writing");
    eventually("it is started", || (daemon.available("idle") == 1).then_some(()));
    std::thread::sleep(Duration::from_secs(3));
    assert_eq!(daemon.available("idle"), 1, "it went under a request");
    drop(exchange);
    nothing_runs(&daemon);
    daemon.call("idle/").expect(200);
}

#[test]
fn the_configuration_s_default_holds_where_no_label_says_otherwise() {
    needs_root!();
    let daemon = Daemon::with().table("[elastic]\nscale_zero = true\nzero_duration = \"1s\"").start();
    daemon.create(json!({"service": "idle"})).expect(202);
    daemon.create(json!({"service": "awake", "labels": {"com.openfaas.scale.zero": "false"}})).expect(202);
    eventually("zero", || (daemon.status("idle")["replicas"] == 0).then_some(()));
    std::thread::sleep(Duration::from_secs(2));
    assert_eq!(daemon.available("awake"), 1);
    daemon
        .create(json!({"service": "bad", "labels": {"com.openfaas.scale.zero": "maybe"}}))
        .expect_error(400, &["com.openfaas.scale.zero", "maybe"]);
}

/// It ignores SIGTERM: it goes all the same, and comes back.
#[test]
fn a_function_that_ignores_sigterm_goes_to_zero_too() {
    needs_root!();
    let daemon = Daemon::with().set("stop_wait = \"500ms\"").start();
    daemon.create(json!({"service": "deaf", "labels": zero_after(1), "envVars": {"IGNORE_TERM": "1"}})).expect(202);
    nothing_runs(&daemon);
    daemon.call("deaf/").expect(200);
    nothing_runs(&daemon);
}

/// A daemon that starts again leaves at zero what may be there, also after a death without warning.
#[test]
fn at_zero_it_stays_there_over_a_restart() {
    needs_root!();
    let mut daemon = Daemon::start();
    daemon.create(json!({"service": "idle", "labels": zero_after(1)})).expect(202);
    nothing_runs(&daemon);
    daemon.kill9();
    daemon.start_again();
    assert_eq!(daemon.status("idle")["replicas"], 0);
    nothing_runs(&daemon);
    daemon.call("idle/").expect(200);
}

#[test]
fn a_frozen_replica_goes_on_when_it_is_called() {
    needs_root!();
    let daemon = Daemon::start();
    daemon.deploy(json!({"service": "cool", "annotations": {"com.faas-jails.freeze": "1s"}}));
    let started = daemon.identity("cool")["started"].clone();
    for _ in 0..2 {
        is_frozen(&daemon);
        assert_eq!(daemon.available("cool"), 1, "it is there for whoever asks");
        let body = vec![b'x'; 100_000];
        let answer = daemon.invoke("POST", "cool/echo").body(body.clone()).send().expect(200);
        assert!(answer.body == body);
        assert_eq!(state(&daemon), ["ready"]);
        assert_eq!(daemon.identity("cool")["started"], started, "it was started anew");
    }
    is_frozen(&daemon);
    let statuses: Vec<u16> = std::thread::scope(|scope| {
        let calls: Vec<_> = (0..30).map(|_| scope.spawn(|| daemon.call("cool/").status)).collect();
        calls.into_iter().map(|call| call.join().expect("a call")).collect()
    });
    assert!(statuses.iter().all(|status| *status == 200), "{statuses:?}");
    is_frozen(&daemon);
    daemon.update(json!({"service": "cool", "annotations": {"com.faas-jails.freeze": "1s"}})).expect(202);
    eventually("the old one is gone", || (daemon.traces().replica_names().len() == 1).then_some(()));
    is_frozen(&daemon);
    daemon.delete("cool").expect(202);
    nothing_runs(&daemon);
}

#[test]
fn killed_while_functions_are_frozen_the_next_daemon_serves_them() {
    needs_root!();
    let mut daemon = Daemon::start();
    daemon.deploy(json!({"service": "cool", "annotations": {"com.faas-jails.freeze": "1s"}}));
    let started = daemon.identity("cool")["started"].clone();
    is_frozen(&daemon);
    daemon.kill9();
    daemon.start_again();
    let identity = eventually("an answer", || {
        let answer = daemon.call("cool/id");
        (answer.status == 200).then(|| answer.value())
    });
    assert_eq!(identity["started"], started, "it was adopted");
    // One whose function is gone meanwhile is swept, frozen as it is; the purge at the end finds nothing.
    is_frozen(&daemon);
    daemon.kill9();
    std::fs::remove_file(daemon.root.join("functions/openfaas-fn/cool.json")).expect("removing the specification");
    daemon.start_again();
    nothing_runs(&daemon);
}

#[test]
fn frozen_ones_beyond_the_limit_on_memory_are_removed() {
    needs_root!();
    let daemon = Daemon::with().table("[elastic]\nfrozen_bytes = 30000000").start();
    let annotations = json!({"com.faas-jails.freeze": "1s"});
    daemon.deploy(json!({"service": "big", "annotations": annotations}));
    daemon.call("big/alloc?mb=64").expect(200);
    eventually("it goes", || (daemon.status("big")["replicas"] == 0).then_some(()));
    nothing_runs(&daemon);
    daemon.call("big/").expect(200);
    is_frozen(&daemon);
    assert!(daemon.log().contains("why=memory"), "{}", daemon.log());
}
