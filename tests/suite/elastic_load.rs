//! More replicas with load, fewer without, and no request lost on the way.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use serde_json::{Value, json};

use crate::needs_root;
use crate::support::{Daemon, eventually};

fn labels(pairs: &[(&str, &str)]) -> Value {
    pairs.iter().map(|(name, value)| (format!("com.openfaas.scale.{name}"), json!(value))).collect()
}

/// Runs calls from so many clients while `work` goes on; gives how many were made. Each must be 200.
fn under_load(daemon: &Daemon, clients: usize, path: &str, work: impl FnOnce()) -> usize {
    let (done, calls) = (AtomicBool::new(false), AtomicUsize::new(0));
    std::thread::scope(|scope| {
        for _ in 0..clients {
            scope.spawn(|| {
                while !done.load(Ordering::Relaxed) {
                    let answer = daemon.invoke("GET", path).try_send();
                    let answer = answer.unwrap_or_else(|e| panic!("a call failed: {e}"));
                    assert_eq!(answer.status, 200, "{}", answer.text());
                    calls.fetch_add(1, Ordering::Relaxed);
                }
            });
        }
        let ended = End(&done);
        work();
        drop(ended);
    });
    calls.into_inner()
}

/// Ends the clients, also when the work fails.
struct End<'a>(&'a AtomicBool);

impl Drop for End<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

#[test]
fn capacity_brings_replicas_and_its_end_takes_them_away() {
    needs_root!();
    let daemon = Daemon::start();
    let wide = labels(&[
        ("type", "capacity"),
        ("target", "2"),
        ("target-proportion", "1"),
        ("max", "4"),
        ("down.window", "2s"),
    ]);
    daemon.deploy(json!({"service": "wide", "labels": wide}));
    let calls = under_load(&daemon, 8, "wide/sleep?ms=100", || daemon.await_ready("wide", 4));
    assert!(calls >= 8, "{calls}");
    // A little load goes on while the others are taken away.
    under_load(&daemon, 1, "wide/sleep?ms=50", || {
        daemon.await_ready("wide", 1);
        eventually("the others are gone", || (daemon.traces().replica_names().len() == 1).then_some(()));
    });
    let log = daemon.log();
    assert!(log.contains("why=more load") && log.contains("why=less load"), "{log}");
}

/// A replica that is taken away ends what it has begun, however long that takes.
#[test]
fn a_stream_on_a_replica_that_is_taken_away_goes_on_to_its_end() {
    needs_root!();
    let daemon = Daemon::with().set("read_timeout = \"3s\"").start();
    let labels = labels(&[("type", "capacity"), ("target", "4"), ("max", "2"), ("down.window", "1s")]);
    daemon.deploy(json!({"service": "f", "labels": labels}));
    daemon.scale("f", 2).expect(202);
    daemon.await_ready("f", 2);
    // One event a second, on both: longer than the time that requests have.
    let streams: Vec<_> = std::thread::scope(|scope| {
        let open = || daemon.invoke("GET", "f/ndjson?n=9&gap=1000").send();
        let calls = [scope.spawn(open), scope.spawn(open)];
        eventually("one is taken away", || (daemon.status("f")["replicas"] == 1).then_some(()));
        calls.into_iter().map(|call| call.join().expect("a stream")).collect()
    });
    for stream in streams {
        assert_eq!((stream.status, stream.text().lines().count()), (200, 9), "{}", stream.text());
    }
}

#[test]
fn requests_a_second_bring_replicas() {
    needs_root!();
    let daemon = Daemon::start();
    let labels = labels(&[("type", "rps"), ("target", "10"), ("max", "3"), ("down.window", "1s")]);
    daemon.deploy(json!({"service": "f", "labels": labels}));
    under_load(&daemon, 4, "f/sleep?ms=20", || daemon.await_ready("f", 3));
    daemon.await_ready("f", 1);
}

#[test]
fn processor_time_brings_replicas() {
    needs_root!();
    let daemon = Daemon::start();
    let labels = labels(&[("type", "cpu"), ("target", "100"), ("max", "2"), ("down.window", "1s")]);
    daemon.deploy(json!({"service": "f", "labels": labels}));
    under_load(&daemon, 2, "f/spin?ms=300", || daemon.await_ready("f", 2));
    daemon.await_ready("f", 1);
}

#[test]
fn equal_bounds_and_missing_labels_change_nothing() {
    needs_root!();
    let daemon = Daemon::start();
    let equal = labels(&[("type", "capacity"), ("target", "1"), ("min", "1"), ("max", "1")]);
    daemon.deploy(json!({"service": "equal", "labels": equal}));
    daemon.deploy(json!({"service": "bare"}));
    for name in ["equal", "bare"] {
        under_load(&daemon, 8, &format!("{name}/sleep?ms=20"), || {
            std::thread::sleep(std::time::Duration::from_secs(3));
        });
        assert_eq!(daemon.available(name), 1, "{name}");
    }
}

#[test]
fn labels_out_of_range_are_400_and_name_themselves() {
    needs_root!();
    let daemon = Daemon::start();
    for (name, value) in [
        ("max", "0"),
        ("type", "custom"),
        ("target", "-1"),
        ("target-proportion", "2"),
        ("down.window", "soon"),
        ("zero", "yes"),
        ("zero-duration", "0s"),
    ] {
        let answer = daemon.create(json!({"service": "f", "labels": labels(&[(name, value)])}));
        answer.expect_error(400, &[&format!("com.openfaas.scale.{name}"), value]);
    }
    let crossed = labels(&[("min", "5"), ("max", "2")]);
    daemon.create(json!({"service": "f", "labels": crossed})).expect_error(400, &["com.openfaas.scale.max"]);
    assert!(daemon.list("openfaas-fn").is_empty());
}

/// Killed in the middle of scaling: the next daemon takes what runs, and goes on from there.
#[test]
fn what_load_has_brought_survives_the_daemon() {
    needs_root!();
    let mut daemon = Daemon::start();
    let labels = labels(&[("type", "capacity"), ("target", "1"), ("max", "3"), ("down.window", "3s")]);
    daemon.deploy(json!({"service": "f", "labels": labels}));
    under_load(&daemon, 6, "f/sleep?ms=50", || daemon.await_ready("f", 3));
    let before = daemon.traces().replica_names();
    daemon.kill9();
    daemon.start_again();
    daemon.call("f/").expect(200);
    assert!(daemon.traces().replica_names().is_subset(&before), "nothing was started anew");
    daemon.await_ready("f", 1);
    eventually("the others are gone", || (daemon.traces().replica_names().len() == 1).then_some(()));
}
