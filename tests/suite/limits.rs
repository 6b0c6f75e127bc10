//! Memory, processor and process limits, measured in the function.

use serde_json::json;

use crate::needs_root;
use crate::support::{Daemon, eventually, platform};

#[test]
fn a_function_beyond_its_memory_limit_is_killed_and_started_again() {
    needs_root!();
    let daemon = Daemon::start();
    daemon.deploy(json!({"service": "hungry", "limits": {"memory": "64Mi"}}));
    daemon.call("hungry/alloc?mb=16").expect(200);
    let before = daemon.identity("hungry")["started"].clone();
    let answer = daemon.invoke("GET", "hungry/alloc?mb=256").try_send();
    assert!(answer.as_ref().is_ok_and(|a| a.status == 502), "256 MB were had: {answer:?}");
    eventually("it is started again", || {
        let answer = daemon.call("hungry/id");
        (answer.status == 200 && answer.value()["started"] != before).then_some(())
    });
    let logs = daemon.http.get("/system/logs?name=hungry&tail=1000").text();
    assert!(logs.contains("memory"), "the log does not say why it ended: {logs}");
}

#[test]
fn without_a_limit_the_same_memory_is_there() {
    needs_root!();
    let daemon = Daemon::start();
    daemon.deploy(json!({"service": "hungry"}));
    daemon.call("hungry/alloc?mb=256").expect(200);
}

/// Compared with itself without a limit, on the same machine at the same time: a ratio, no duration.
#[test]
fn a_function_with_a_tenth_of_a_processor_does_far_less_than_one_without_limit() {
    needs_root!();
    let daemon = Daemon::start();
    daemon.deploy(json!({"service": "slow", "limits": {"cpu": "100m"}}));
    daemon.deploy(json!({"service": "free"}));
    let rounds = |name: &str| {
        let answer = daemon.call(&format!("{name}/spin?ms=1500")).expect(200);
        answer.value()["rounds"].as_f64().expect("a number")
    };
    // The best of a few, because whatever else runs here slows the free one.
    let ratio = (0..3).map(|_| rounds("slow") / rounds("free")).fold(f64::INFINITY, f64::min);
    assert!(ratio < 0.5, "with 100m it did {ratio:.2} of the work");
}

#[test]
fn a_fork_bomb_stops_at_the_limit_and_spares_the_neighbour() {
    needs_root!();
    let daemon = Daemon::with().table("[limits]\npids = 64").start();
    daemon.deploy(json!({"service": "bomb"}));
    daemon.deploy(json!({"service": "neighbour"}));
    let answer = daemon.invoke("GET", "bomb/spawn?n=500").try_send();
    if cfg!(target_os = "linux") {
        let started = answer.expect("an answer").value()["started"].as_u64().expect("a number");
        assert!(started < 64, "{started} processes were had");
    }
    // Elsewhere what is too much is killed, perhaps with what started it.
    let living = || daemon.traces().processes.len();
    eventually("no more processes than allowed", || (living() <= 65).then_some(()));
    daemon.call("neighbour").expect(200);
    daemon.delete("bomb").expect(202);
    eventually("all its processes are gone", || (daemon.traces().replica_names().len() == 1).then_some(()));
}

#[test]
fn usage_grows_with_what_the_function_uses() {
    needs_root!();
    let daemon = Daemon::start();
    daemon.deploy(json!({"service": "f"}));
    let memory = || {
        let status = daemon.http.get("/system/function/f?usage=1").expect(200).value();
        status["usage"]["totalMemoryBytes"].as_f64().expect("a number")
    };
    let before = memory();
    daemon.call("f/alloc?mb=100").expect(200);
    eventually("a hundred more megabytes are seen", || (memory() > before + 90e6).then_some(()));
    daemon.call("f/spin?ms=300").expect(200);
    let status = daemon.http.get("/system/function/f?usage=1").expect(200).value();
    assert!(status["usage"]["cpu"].as_f64().is_some_and(|c| c > 0.0), "{status}");
}

#[test]
fn a_function_runs_on_the_processors_that_it_names() {
    needs_root!();
    let daemon = Daemon::start();
    daemon.deploy(json!({"service": "all"}));
    daemon.deploy(json!({"service": "one", "annotations": {"com.faas-jails.cpuset": "0"}}));
    let cpus = |name: &str| daemon.identity(name)["cpus"].as_u64().expect("a number");
    assert_eq!(cpus("one"), 1);
    if std::thread::available_parallelism().is_ok_and(|n| n.get() > 1) {
        assert!(cpus("all") > 1, "the other one has more");
    }
    let beyond = json!({"service": "f", "annotations": {"com.faas-jails.cpuset": "1000"}});
    daemon.create(beyond).expect_error(400, &["com.faas-jails.cpuset", "no processor 1000"]);
}

#[test]
fn rates_of_input_and_output_reach_the_kernel() {
    needs_root!();
    let daemon = Daemon::start();
    let rates = json!({"com.faas-jails.readbps": "1Mi", "com.faas-jails.writeiops": "70"});
    daemon.deploy(json!({"service": "f", "annotations": rates}));
    let shown = platform::rates(&daemon.realm());
    assert!(shown.contains("1048576") && shown.contains("70"), "{shown}");
    daemon.call("f/echo").expect(200);
    let none = json!({"service": "g", "annotations": {"com.faas-jails.writebps": "0"}});
    daemon.create(none).expect_error(400, &["com.faas-jails.writebps", "more than nothing"]);
}
