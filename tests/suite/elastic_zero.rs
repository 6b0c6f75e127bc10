//! From zero: one start, a bounded line, failures at once; what bad functions and faults leave behind.

use std::time::{Duration, Instant};

use serde_json::json;

use crate::needs_root;
use crate::support::daemon::Options;
use crate::support::{Daemon, eventually};

fn at_zero(options: Options, spec: serde_json::Value) -> Daemon {
    let daemon = options.start();
    let name = spec["service"].as_str().expect("a name").to_owned();
    daemon.create(spec).expect(202);
    daemon.scale(&name, 0).expect(202);
    eventually("nothing runs", || daemon.traces().replica_names().is_empty().then_some(()));
    daemon
}

/// What lies ready is what the next call gets; it is swept after the daemon's death, and goes with its function.
#[test]
fn the_next_replica_lies_ready() {
    needs_root!();
    let mut daemon = at_zero(Daemon::with(), json!({"service": "cold"}));
    let lies_ready = |daemon: &Daemon| {
        eventually("one lies ready, and nothing else is there", || {
            let page = daemon.http.get("/metrics").expect(200).text();
            let directories = daemon.traces().replicas;
            (page.contains("\nfaas_jails_replicas_standby 1\n") && directories.len() == 1).then_some(directories)
        })
    };
    let first = lies_ready(&daemon);
    daemon.call("cold/").expect(200);
    assert_eq!(daemon.traces().replica_names(), first);
    daemon.scale("cold", 0).expect(202);
    let second = lies_ready(&daemon);
    assert_ne!(first, second);
    daemon.kill9();
    daemon.start_again();
    assert_ne!(lies_ready(&daemon), second);
    daemon.call("cold/").expect(200);
    daemon.scale("cold", 0).expect(202);
    lies_ready(&daemon);
    daemon.delete("cold").expect(202);
    eventually("nothing of it is left", || daemon.traces().replicas.is_empty().then_some(()));
}

#[test]
fn two_hundred_waiting_calls_cause_one_start_and_are_all_answered() {
    needs_root!();
    let daemon = at_zero(Daemon::with(), json!({"service": "cold"}));
    std::thread::scope(|scope| {
        let calls: Vec<_> = (0..200).map(|_| scope.spawn(|| daemon.identity("cold")["started"].to_string())).collect();
        let mut seen: Vec<String> = calls.into_iter().map(|call| call.join().expect("a call")).collect();
        seen.dedup();
        assert_eq!(seen.len(), 1, "{seen:?}");
    });
    assert_eq!(daemon.traces().replica_names().len(), 1);
}

/// What the stock gateway does with scale_from_zero: it scales to one, and so do direct calls at the same time.
#[test]
fn a_scale_call_and_calls_at_the_same_time_cause_one_start() {
    needs_root!();
    let daemon = at_zero(Daemon::with(), json!({"service": "cold"}));
    std::thread::scope(|scope| {
        let scales: Vec<_> = (0..10).map(|_| scope.spawn(|| daemon.scale("cold", 1).status)).collect();
        let calls: Vec<_> = (0..20).map(|_| scope.spawn(|| daemon.identity("cold")["started"].clone())).collect();
        assert!(scales.into_iter().all(|scale| scale.join().expect("a scale call") == 202));
        let mut seen: Vec<_> = calls.into_iter().map(|call| call.join().expect("a call").to_string()).collect();
        seen.dedup();
        assert_eq!(seen.len(), 1, "{seen:?}");
    });
}

#[test]
fn a_function_that_starts_too_slowly_is_503_with_retry_after_and_served_later() {
    needs_root!();
    let options = Daemon::with().set("ready_wait = \"1s\"").set("deploy_wait = \"1s\"");
    let daemon = at_zero(options, json!({"service": "slow", "envVars": {"START_DELAY_MS": "4000"}}));
    let answer = daemon.call("slow/").expect_error(503, &["slow"]);
    assert!(answer.header("retry-after").is_some_and(|s| s.parse::<u64>().is_ok_and(|s| s > 0)));
    // The start goes on, and it is still the only one.
    daemon.await_ready("slow", 1);
    daemon.call("slow/").expect(200);
    assert_eq!(daemon.traces().replica_names().len(), 1);
}

#[test]
fn a_function_that_exits_at_once_is_answered_with_the_reason_and_without_waiting() {
    needs_root!();
    let daemon = Daemon::start();
    daemon.deploy(json!({"service": "broken"}));
    daemon.scale("broken", 0).expect(202);
    // A deploy of the broken version would be refused: the image is made to fail where it is at zero.
    let env = json!({"EXIT_AT_START": "7"});
    daemon.update(json!({"service": "broken", "envVars": env})).expect(202);
    let begun = Instant::now();
    for _ in 0..20 {
        let answer = daemon.call("broken/");
        answer.expect_error(503, &["broken", "exited with status 7", "exiting at start with 7"]);
    }
    assert!(begun.elapsed() < Duration::from_secs(20), "somebody waited: {:?}", begun.elapsed());
    // And it heals.
    daemon.update(json!({"service": "broken"})).expect(202);
    daemon.call("broken/").expect(200);
    eventually("one replica", || (daemon.traces().replica_names().len() == 1).then_some(()));
}

#[test]
fn scaling_to_a_million_is_refused_and_changes_nothing() {
    needs_root!();
    let daemon = Daemon::start();
    daemon.deploy(json!({"service": "f"}));
    daemon.scale("f", 1_000_000).expect_error(400, &["1000000", "addresses"]);
    assert_eq!(daemon.status("f")["replicas"], 1);
    daemon.call("f/").expect(200);
}

/// Killed while a start is under way and while another function drains: nothing is left, and both serve.
#[test]
fn after_the_daemon_s_death_in_the_middle_the_next_call_is_served() {
    needs_root!();
    let mut daemon = at_zero(Daemon::with(), json!({"service": "starting", "envVars": {"START_DELAY_MS": "5000"}}));
    daemon.deploy(json!({"service": "draining"}));
    let stream = daemon.invoke("GET", "draining/sse?n=1000&gap=20").open().expect("a stream");
    let waiting = daemon.invoke("GET", "starting/");
    std::thread::scope(|scope| {
        let call = scope.spawn(|| waiting.try_send());
        eventually("a start", || daemon.log().contains("why=called").then_some(()));
        daemon.scale("draining", 0).expect(202);
        daemon.signal(libc::SIGKILL);
        assert!(call.join().expect("the call").is_err());
    });
    drop(stream);
    daemon.kill9();
    daemon.start_again();
    daemon.call("starting/").expect(200);
    daemon.call("draining/").expect(200);
    eventually("one replica each", || (daemon.traces().replica_names().len() == 2).then_some(()));
}

#[test]
fn max_inflight_makes_requests_wait_and_the_line_is_bounded() {
    needs_root!();
    let daemon = Daemon::with().table("[elastic]\nqueue = 3").start();
    daemon.deploy(json!({"service": "one", "annotations": {"com.faas-jails.max-inflight": "1"}}));
    let begun = Instant::now();
    std::thread::scope(|scope| {
        let calls: Vec<_> = (0..4).map(|_| scope.spawn(|| daemon.call("one/sleep?ms=300").status)).collect();
        assert!(calls.into_iter().all(|call| call.join().expect("a call") == 200));
    });
    assert!(begun.elapsed() >= Duration::from_millis(1200), "some ran side by side");
    std::thread::scope(|scope| {
        let calls: Vec<_> = (0..12).map(|_| scope.spawn(|| daemon.call("one/sleep?ms=300"))).collect();
        let answers: Vec<_> = calls.into_iter().map(|call| call.join().expect("a call")).collect();
        let (served, refused): (Vec<_>, Vec<_>) = answers.into_iter().partition(|a| a.status == 200);
        assert!(served.len() >= 4 && !refused.is_empty(), "{} served, {} refused", served.len(), refused.len());
        for answer in refused {
            assert_eq!(answer.status, 429, "{}", answer.text());
            assert!(answer.header("retry-after").is_some());
        }
    });
    daemon
        .create(json!({"service": "bad", "annotations": {"com.faas-jails.max-inflight": "0"}}))
        .expect_error(400, &["com.faas-jails.max-inflight"]);
}

/// Its listener is away for a while: calls wait for the other replica or for it, and none fails.
#[test]
fn a_replica_that_refuses_connections_is_taken_out_and_the_request_tried_elsewhere() {
    needs_root!();
    let daemon = Daemon::start();
    daemon.deploy(json!({"service": "pair", "labels": {"com.openfaas.scale.min": "2"}}));
    daemon.await_ready("pair", 2);
    daemon.call("pair/deaf?ms=3000").expect(200);
    // By then it has closed what was kept open to it.
    std::thread::sleep(Duration::from_millis(500));
    for _ in 0..50 {
        daemon.invoke("POST", "pair/echo").body(vec![b'x'; 10_000]).send().expect(200);
    }
    eventually("both take requests again", || {
        let seen: std::collections::BTreeSet<_> =
            (0..8).map(|_| daemon.identity("pair")["addresses"].to_string()).collect();
        (seen.len() == 2).then_some(())
    });
    // Alone, it is waited for.
    daemon.scale("pair", 1).expect(202);
    daemon.call("pair/deaf?ms=2000").expect(200);
    std::thread::sleep(Duration::from_millis(500));
    daemon.invoke("POST", "pair/echo").body(vec![b'x'; 10_000]).send().expect(200);
}
