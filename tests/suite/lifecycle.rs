//! Replicas over time: activation, updates under load, crashes, the daemon's own death, and what is left.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use serde_json::json;

use crate::needs_root;
use crate::support::{Daemon, eventually, eventually_within};

fn scaled_to_zero(name: &str) -> Daemon {
    let daemon = Daemon::start();
    daemon.deploy(json!({"service": name}));
    daemon.scale(name, 0).expect(202);
    eventually("nothing runs", || daemon.traces().replica_names().is_empty().then_some(()));
    daemon
}

#[test]
fn a_call_to_a_function_at_zero_starts_it_and_is_answered() {
    needs_root!();
    let daemon = scaled_to_zero("idle");
    assert_eq!(daemon.call("idle/x").expect(200).value()["path"], "/x");
    assert_eq!(daemon.status("idle")["availableReplicas"], 1);
}

#[test]
fn twenty_cold_calls_at_once_cause_one_start_and_are_all_answered() {
    needs_root!();
    let daemon = scaled_to_zero("idle");
    let seen: BTreeSet<String> = std::thread::scope(|scope| {
        let calls: Vec<_> = (0..20).map(|_| scope.spawn(|| daemon.identity("idle")["started"].to_string())).collect();
        calls.into_iter().map(|c| c.join().expect("a call")).collect()
    });
    assert_eq!(seen.len(), 1, "{seen:?}");
    assert_eq!(daemon.traces().replica_names().len(), 1);
}

/// The body of the request that wakes a function is not lost while it waits.
#[test]
fn a_cold_call_keeps_its_body() {
    needs_root!();
    let daemon = scaled_to_zero("idle");
    let body = vec![b'z'; 1_000_000];
    let answer = daemon.invoke("POST", "idle/echo").body(body.clone()).send().expect(200);
    assert!(answer.body == body, "{} bytes came back", answer.body.len());
}

/// Deletes while a cold call waits end that call; they do not hang it.
#[test]
fn a_function_deleted_while_a_cold_call_waits_answers_that_call() {
    needs_root!();
    let daemon = Daemon::with().set("deploy_wait = \"1s\"").start();
    daemon.create(json!({"service": "slow", "envVars": {"START_DELAY_MS": "20000"}})).expect(202);
    std::thread::scope(|scope| {
        let call = scope.spawn(|| daemon.call("slow/"));
        std::thread::sleep(Duration::from_millis(300));
        daemon.delete("slow").expect(202);
        let answer = call.join().expect("the call");
        assert!([404, 503].contains(&answer.status), "{} {}", answer.status, answer.text());
    });
}

#[test]
fn a_replica_gets_requests_only_once_it_accepts_connections() {
    needs_root!();
    let daemon = Daemon::start();
    let spec = json!({"service": "late", "envVars": {"START_DELAY_MS": "1500"}});
    std::thread::scope(|scope| {
        let create = scope.spawn(|| daemon.create(spec));
        create.join().expect("the deploy").expect(202);
    });
    for _ in 0..5 {
        daemon.call("late").expect(200);
    }
}

#[test]
fn readiness_is_asked_by_http_where_the_annotation_says_so() {
    needs_root!();
    let daemon = Daemon::start();
    let annotations = json!({"com.openfaas.ready.http.path": "/_/ready"});
    let env = json!({"READY_DELAY_MS": "2000"});
    daemon.create(json!({"service": "late", "annotations": annotations, "envVars": env})).expect(202);
    daemon.await_ready("late", 1);
    let age = daemon.call("late/_/ready").status;
    assert_eq!(age, 200, "the replica counted as ready before it said so");
}

/// Ten updates while clients call: no call fails, and in the end only the newest runs.
#[test]
fn updates_under_load_fail_no_request() {
    needs_root!();
    let daemon = Daemon::start();
    daemon.deploy(json!({"service": "live", "envVars": {"v": "0"}}));
    let (done, calls) = (AtomicBool::new(false), AtomicUsize::new(0));
    std::thread::scope(|scope| {
        let clients: Vec<_> = (0..4)
            .map(|i| {
                let (daemon, done, calls) = (&daemon, &done, &calls);
                scope.spawn(move || {
                    while !done.load(Ordering::Relaxed) {
                        let answer = match i {
                            0 => daemon.invoke("POST", "live/echo").body(vec![b'x'; 100_000]).try_send(),
                            1 => daemon.invoke("GET", "live/sleep?ms=50").try_send(),
                            _ => daemon.invoke("GET", "live/env").try_send(),
                        };
                        let answer = answer.unwrap_or_else(|e| panic!("a call failed: {e}"));
                        assert_eq!(answer.status, 200, "{}", answer.text());
                        calls.fetch_add(1, Ordering::Relaxed);
                    }
                })
            })
            .collect();
        for version in 1..=10 {
            let env = json!({"v": version.to_string()});
            let updated = daemon.update(json!({"service": "live", "envVars": env}));
            if updated.status != 202 || clients.iter().any(|c| c.is_finished()) {
                done.store(true, Ordering::Relaxed);
                panic!("update {version}: {} {}", updated.status, updated.text());
            }
        }
        done.store(true, Ordering::Relaxed);
    });
    assert!(calls.load(Ordering::Relaxed) > 50, "too few calls to mean anything");
    assert_eq!(daemon.call("live/env").expect(200).value()["v"], "10");
    eventually("the old replicas are gone", || (daemon.traces().replica_names().len() == 1).then_some(()));
}

#[test]
fn scaling_down_lets_calls_under_way_end() {
    needs_root!();
    let daemon = Daemon::start();
    daemon.deploy(json!({"service": "busy"}));
    std::thread::scope(|scope| {
        let call = scope.spawn(|| daemon.call("busy/sleep?ms=3000"));
        std::thread::sleep(Duration::from_millis(500));
        daemon.scale("busy", 0).expect(202);
        call.join().expect("the call").expect(200);
    });
}

#[test]
fn deleting_lets_calls_under_way_end_and_does_not_wait_for_them() {
    needs_root!();
    let daemon = Daemon::start();
    daemon.deploy(json!({"service": "busy"}));
    std::thread::scope(|scope| {
        let call = scope.spawn(|| daemon.call("busy/sleep?ms=4000"));
        std::thread::sleep(Duration::from_millis(500));
        daemon.delete("busy").expect(202);
        assert!(!call.is_finished(), "the deletion waited for the call");
        call.join().expect("the call").expect(200);
    });
    eventually("nothing is left", || daemon.traces().no_replica().then_some(()));
}

#[test]
fn a_replica_that_ignores_sigterm_is_killed_in_the_end() {
    needs_root!();
    let daemon = Daemon::with().set("stop_wait = \"1s\"").start();
    daemon.deploy(json!({"service": "deaf", "envVars": {"IGNORE_TERM": "1"}}));
    daemon.delete("deaf").expect(202);
    eventually("it is gone", || {
        let traces = daemon.traces();
        (traces.processes.is_empty() && traces.no_replica()).then_some(())
    });
}

#[test]
fn a_replica_that_ends_is_started_again() {
    needs_root!();
    let daemon = Daemon::start();
    daemon.deploy(json!({"service": "crash"}));
    let before = daemon.identity("crash")["started"].clone();
    for code in [0, 1, 137] {
        let _ = daemon.invoke("GET", &format!("crash/exit?code={code}")).try_send();
        eventually("another replica answers", || {
            let answer = daemon.call("crash/id");
            (answer.status == 200 && answer.value()["started"] != before).then_some(())
        });
    }
    assert_eq!(daemon.status("crash")["replicas"], 1);
    assert_eq!(daemon.traces().replica_names().len(), 1);
}

#[test]
fn an_image_that_ends_at_once_fails_the_deploy_with_its_exit_and_leaves_nothing() {
    needs_root!();
    let daemon = Daemon::start();
    let answer = daemon.create(json!({"service": "doa", "envVars": {"EXIT_AT_START": "3"}}));
    assert!((400..=599).contains(&answer.status), "{}", answer.status);
    assert!(answer.text().contains("doa") && answer.text().contains('3'), "{}", answer.text());
    assert!(daemon.list("openfaas-fn").is_empty());
    let traces = daemon.traces();
    assert!(traces.no_replica() && traces.mounts.is_empty(), "{traces}");
    // The name is free.
    daemon.deploy(json!({"service": "doa"}));
}

/// A replica that ends again and again is started less and less often.
#[test]
fn a_crash_loop_is_slowed_down() {
    needs_root!();
    let daemon = Daemon::start();
    daemon.deploy(json!({"service": "loop"}));
    let starts = || daemon.http.get("/system/logs?name=loop&tail=100000").text().matches("probe is listening").count();
    let begin = Instant::now();
    // Whoever calls /exit as soon as it answers causes a loop.
    eventually_within(Duration::from_secs(120), "it is started four times again", || {
        let _ = daemon.invoke("GET", "loop/exit").open();
        (starts() >= 5).then_some(())
    });
    // The waits in between are 100, 200, 400 and 800 ms; how long a start takes comes on top.
    assert!(begin.elapsed() >= Duration::from_millis(1500), "after {:?}", begin.elapsed());
    eventually_within(Duration::from_secs(60), "it comes back in the end", || {
        (daemon.call("loop").status == 200).then_some(())
    });
}

#[test]
fn functions_outlive_a_daemon_that_is_killed_and_are_adopted() {
    needs_root!();
    let mut daemon = Daemon::start();
    daemon.deploy(json!({"service": "a", "labels": {"com.openfaas.scale.min": "2"}}));
    daemon.deploy(json!({"service": "b"}));
    daemon.await_ready("a", 2);
    let (names, before) = (daemon.traces().replica_names(), daemon.identity("b")["started"].clone());
    daemon.kill9();
    assert_eq!(daemon.traces().replica_names(), names, "replicas died with the daemon");
    daemon.start_again();
    daemon.await_ready("a", 2);
    daemon.await_ready("b", 1);
    assert_eq!(daemon.identity("b")["started"], before, "the replica was restarted instead of adopted");
    assert_eq!(daemon.traces().replica_names(), names);
    // An adopted replica is watched, updated and removed like any other.
    let _ = daemon.invoke("GET", "b/exit").try_send();
    eventually("b is started again", || {
        let answer = daemon.call("b/id");
        (answer.status == 200 && answer.value()["started"] != before).then_some(())
    });
    daemon.update(json!({"service": "a"})).expect(202);
    daemon.delete("a").expect(202);
    daemon.delete("b").expect(202);
    eventually("nothing is left", || daemon.traces().no_replica().then_some(()));
}

#[test]
fn a_stopped_daemon_leaves_functions_running_unless_it_is_told_otherwise() {
    needs_root!();
    let mut daemon = Daemon::start();
    daemon.deploy(json!({"service": "f"}));
    assert!(daemon.stop().success());
    assert_eq!(daemon.traces().replica_names().len(), 1);
    daemon.start_again();
    daemon.await_ready("f", 1);

    let mut daemon = Daemon::with().argument("--stop-functions").start();
    daemon.deploy(json!({"service": "f"}));
    assert!(daemon.stop().success());
    assert!(daemon.traces().is_empty(), "{}", daemon.traces());
    daemon.start_again();
    daemon.await_ready("f", 1);
}

#[test]
fn a_call_under_way_ends_before_a_stopped_daemon_does() {
    needs_root!();
    let mut daemon = Daemon::start();
    daemon.deploy(json!({"service": "f"}));
    let http = daemon.http.clone();
    let call = std::thread::spawn(move || http.get("/function/f/sleep?ms=2000"));
    std::thread::sleep(Duration::from_millis(500));
    assert!(daemon.stop().success());
    call.join().expect("the call").expect(200);
}

#[test]
fn replicas_that_ended_while_no_daemon_ran_are_started_by_the_next() {
    needs_root!();
    let mut daemon = Daemon::start();
    daemon.deploy(json!({"service": "f"}));
    daemon.kill9();
    for process in daemon.traces().processes {
        let pid: i32 = process.split(' ').next().and_then(|p| p.parse().ok()).expect("a process id");
        // SAFETY: the process is in a cgroup of this test's realm.
        unsafe { libc::kill(pid, libc::SIGKILL) };
    }
    eventually("the replica is dead", || daemon.traces().processes.is_empty().then_some(()));
    daemon.start_again();
    daemon.await_ready("f", 1);
    daemon.call("f").expect(200);
    assert_eq!(daemon.traces().replica_names().len(), 1);
}

/// As after a reboot: the kernel has nothing, the disk has everything.
#[test]
fn deployed_functions_start_with_the_daemon_when_nothing_of_them_runs() {
    needs_root!();
    let mut daemon = Daemon::start();
    daemon.deploy(json!({"service": "f", "envVars": {"a": "b"}}));
    daemon.scale("f", 2).expect(202);
    daemon.kill9();
    assert!(daemon.run(&["purge"]).status.success());
    assert!(daemon.traces().is_empty(), "{}", daemon.traces());
    daemon.start_again();
    daemon.await_ready("f", 2);
    assert_eq!(daemon.call("f/env").expect(200).value()["a"], "b");
}

/// The daemon is killed at moments spread over a deploy; the next one is always left with a consistent
/// whole: each function is deployed and serves, or is unknown, and nothing else is there.
#[test]
fn killed_at_any_moment_of_a_deploy_the_next_daemon_cleans_up() {
    needs_root!();
    let mut daemon = Daemon::start();
    for (round, delay) in [0, 1, 3, 6, 10, 15, 25, 40, 70, 120].into_iter().enumerate() {
        let (http, name) = (daemon.http.clone(), format!("f{round}"));
        let spec = json!({"service": name, "image": crate::support::images::PROBE});
        let create =
            std::thread::spawn(move || http.request("POST", "/system/functions").body(spec.to_string()).try_send());
        std::thread::sleep(Duration::from_millis(delay));
        daemon.kill9();
        let answered = create.join().expect("the deploy");
        daemon.start_again();
        let there = daemon.list("openfaas-fn");
        if answered.is_ok_and(|a| a.status == 202) {
            assert!(there.contains(&name), "a deploy that was answered 202 is lost");
        }
        for function in &there {
            daemon.await_ready(function, 1);
        }
        eventually(&format!("exactly {} replicas after a kill at {delay} ms", there.len()), || {
            let traces = daemon.traces();
            (traces.replica_names().len() == there.len() && traces.replicas.len() == there.len()).then_some(())
        });
        for function in &there {
            daemon.delete(function).expect(202);
        }
        eventually("nothing is left", || daemon.traces().no_replica().then_some(()));
    }
}

/// The same for updates and deletions.
#[test]
fn killed_at_any_moment_of_an_update_or_a_deletion_the_next_daemon_cleans_up() {
    needs_root!();
    let mut daemon = Daemon::start();
    for (round, delay) in [0, 2, 5, 10, 20, 40, 80].into_iter().enumerate() {
        if !daemon.list("openfaas-fn").contains(&"f".to_owned()) {
            daemon.deploy(json!({"service": "f", "envVars": {"v": "old"}}));
        }
        let http = daemon.http.clone();
        let (method, body) = match round % 2 {
            0 => ("PUT", json!({"service": "f", "image": crate::support::images::PROBE, "envVars": {"v": "new"}})),
            _ => ("DELETE", json!({"functionName": "f"})),
        };
        let change =
            std::thread::spawn(move || http.request(method, "/system/functions").body(body.to_string()).try_send());
        std::thread::sleep(Duration::from_millis(delay));
        daemon.kill9();
        let answered = change.join().expect("the change").is_ok_and(|a| a.status == 202);
        daemon.start_again();
        let there = daemon.list("openfaas-fn");
        assert!(method == "PUT" || !answered || there.is_empty(), "a deleted function came back");
        for function in &there {
            daemon.await_ready(function, 1);
            if answered {
                assert_eq!(daemon.call("f/env").expect(200).value()["v"], "new", "an answered update is lost");
            }
        }
        eventually(&format!("{} replicas after a kill at {delay} ms of {method}", there.len()), || {
            let traces = daemon.traces();
            (traces.replica_names().len() == there.len() && traces.replicas.len() == there.len()).then_some(())
        });
    }
}

/// Everything that a function brings is counted before, and counted again when it has gone.
#[test]
fn deploying_calling_and_deleting_leaves_nothing_not_even_open_files() {
    needs_root!();
    let daemon = Daemon::start();
    let cycle = |round: usize| {
        let name = format!("f{round}");
        daemon.deploy(json!({"service": name}));
        daemon.call(&name).expect(200);
        daemon.scale(&name, 3).expect(202);
        daemon.update(json!({"service": name, "envVars": {"v": "2"}})).expect(202);
        daemon.delete(&name).expect(202);
        eventually("no replica is left", || daemon.traces().no_replica().then_some(()));
    };
    // Worker threads, log and connection pools are there after the first.
    cycle(0);
    let (before, files) = (daemon.traces(), daemon.open_files());
    for round in 1..=5 {
        cycle(round);
    }
    eventually("no more than before is there", || {
        let now = daemon.traces();
        (now == before && daemon.open_files() <= files).then_some(())
    });
}

/// A replica that fails to start leaves nothing either.
#[test]
fn failed_deploys_leave_nothing() {
    needs_root!();
    let daemon = Daemon::start();
    daemon.create(json!({"service": "f", "envVars": {"EXIT_AT_START": "1"}}));
    let (before, files) = (daemon.traces(), daemon.open_files());
    for _ in 0..5 {
        let answer = daemon.create(json!({"service": "f", "envVars": {"EXIT_AT_START": "1"}}));
        assert!(answer.status >= 400, "{}", answer.status);
    }
    assert!(before.no_replica(), "{before}");
    eventually("no more than before is there", || {
        (daemon.traces() == before && daemon.open_files() <= files).then_some(())
    });
}

#[test]
fn many_functions_can_be_deployed_at_once() {
    needs_root!();
    let daemon = Daemon::start();
    std::thread::scope(|scope| {
        for i in 0..12 {
            let daemon = &daemon;
            scope.spawn(move || daemon.deploy(json!({"service": format!("f{i}")})));
        }
    });
    assert_eq!(daemon.list("openfaas-fn").len(), 12);
    let mut addresses = BTreeSet::new();
    for i in 0..12 {
        addresses.insert(daemon.identity(&format!("f{i}"))["addresses"].to_string());
    }
    assert_eq!(addresses.len(), 12, "two replicas share an address");
}

/// Many hands on one function: whatever the order, it ends as one whole.
#[test]
fn concurrent_changes_of_one_function_leave_one_consistent_function_or_none() {
    needs_root!();
    let daemon = Daemon::start();
    std::thread::scope(|scope| {
        for i in 0..4 {
            let daemon = &daemon;
            scope.spawn(move || {
                for round in 0..3 {
                    match (i + round) % 4 {
                        0 => drop(daemon.create(json!({"service": "f"}))),
                        1 => drop(daemon.update(json!({"service": "f", "envVars": {"i": i.to_string()}}))),
                        2 => drop(daemon.scale("f", 2)),
                        _ => drop(daemon.delete("f")),
                    }
                }
            });
        }
    });
    let wanted = match daemon.list("openfaas-fn").len() {
        0 => 0,
        _ => daemon.status("f")["replicas"].as_u64().unwrap_or(0) as usize,
    };
    eventually(&format!("{wanted} replicas"), || (daemon.traces().replica_names().len() == wanted).then_some(()));
}

#[test]
fn killed_while_an_image_is_being_loaded_the_next_daemon_loads_it() {
    needs_root!();
    let mut daemon = Daemon::with().without_images().start();
    let archive = crate::support::images::probe_archive(crate::support::images::PROBE);
    for delay in [0, 10, 30, 60, 100] {
        let (http, body) = (daemon.http.clone(), archive.clone());
        let load = std::thread::spawn(move || http.request("POST", "/system/images/load").body(body).try_send());
        std::thread::sleep(Duration::from_millis(delay));
        daemon.kill9();
        let _ = load.join().expect("the load");
        daemon.start_again();
    }
    daemon.load(&archive);
    daemon.deploy(json!({"service": "f"}));
    daemon.call("f").expect(200);
    let staging = std::fs::read_dir(daemon.root.join("staging")).map_or(0, Iterator::count);
    assert_eq!(staging, 0, "half unpacked layers are left");
}

/// A call that never ends holds up neither the update nor, in the end, the old replica's removal.
#[test]
fn an_update_does_not_wait_for_a_call_that_hangs() {
    needs_root!();
    // Longer than an update may take; FreeBSD is often an emulated machine.
    let seconds = if cfg!(target_os = "freebsd") { 25 } else { 3 };
    let daemon = Daemon::with().set(&format!("read_timeout = \"{seconds}s\"")).start();
    daemon.deploy(json!({"service": "f", "envVars": {"v": "1"}}));
    std::thread::scope(|scope| {
        let call = scope.spawn(|| daemon.call("f/hang"));
        std::thread::sleep(Duration::from_millis(300));
        daemon.update(json!({"service": "f", "envVars": {"v": "2"}})).expect(202);
        assert!(!call.is_finished(), "the update waited for the call");
        assert_eq!(daemon.call("f/env").expect(200).value()["v"], "2");
        call.join().expect("the call").expect(504);
    });
    eventually("the old replica is gone", || (daemon.traces().replica_names().len() == 1).then_some(()));
}
