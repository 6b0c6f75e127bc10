//! The daemon is killed in the middle of starts and removals, at moments spread over all their steps. Whatever was
//! half made then, the next daemon serves or sweeps, and when the functions are deleted everything is counted as
//! before: processes, jails or cgroups, interfaces, addresses, rules, datasets, mounts, directories, open files.

use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::needs_root;
use crate::support::leaks::Traces;
use crate::support::{Daemon, eventually, images, platform};

/// Kills in each test.
const KILLS: u32 = 16;

/// A function with something for every step: a secret, limits, two replicas.
fn spec(read_only: bool) -> Value {
    json!({
        "service": "f",
        "image": images::PROBE,
        "secrets": ["key"],
        "limits": {"memory": "256Mi", "cpu": "1"},
        "labels": {"com.openfaas.scale.min": "2"},
        "readOnlyRootFilesystem": read_only,
    })
}

fn with_secret() -> Daemon {
    let daemon = Daemon::start();
    daemon.http.json("POST", "/system/secrets", &json!({"name": "key", "value": "x"})).expect(202);
    daemon
}

/// What there is with no function; a first round has made what is made once, and says how long a start takes.
fn baseline(daemon: &Daemon) -> (Traces, usize, Duration) {
    let begun = Instant::now();
    daemon.deploy(spec(false));
    daemon.await_ready("f", 2);
    let took = begun.elapsed();
    daemon.delete("f").expect(202);
    eventually("nothing of the first function is left", || daemon.traces().no_replica().then_some(()));
    (daemon.traces(), daemon.open_files(), took)
}

/// Kills the daemon while `act` is under way, `delay` after it began; gives the kinds of things that were there then.
fn killed_during(daemon: &mut Daemon, delay: Duration, method: &'static str, body: &Value, before: &Traces) -> String {
    let (http, body) = (daemon.http.clone(), body.to_string());
    let act = std::thread::spawn(move || http.request(method, "/system/functions").body(body).try_send());
    std::thread::sleep(delay);
    daemon.kill9();
    let _ = act.join().expect("the request");
    let left = kinds(&daemon.traces(), before);
    daemon.start_again();
    left
}

/// Waits for this daemon to have made one whole of what it found, deletes that, and counts.
fn count_again(daemon: &Daemon, before: &Traces, files: usize, when: &str) {
    for function in daemon.list("openfaas-fn") {
        daemon.await_ready(&function, 2);
        assert_eq!(daemon.identity(&function)["uid"], 1000);
        daemon.delete(&function).expect(202);
    }
    let begun = Instant::now();
    let mut now = daemon.traces();
    while now != *before && begun.elapsed() < Duration::from_secs(120) {
        std::thread::sleep(Duration::from_millis(100));
        now = daemon.traces();
    }
    assert!(now == *before, "{when} there was {before}\nafterwards {now}");
    eventually(&format!("no more files are open than before, {when}"), || (daemon.open_files() <= files).then_some(()));
}

/// Which kinds of things a killed daemon has left.
fn kinds(left: &Traces, before: &Traces) -> String {
    let more = |of: fn(&Traces) -> usize| of(left) > of(before);
    let kinds = [
        ("directory", more(|t| t.replicas.len())),
        ("dataset", more(|t| t.datasets.len())),
        ("link", more(|t| t.interfaces.len() + t.addresses.len() + t.namespaces.len())),
        ("mount", more(|t| t.mounts.len())),
        ("rule", more(|t| t.rules.len())),
        ("sandbox", more(|t| t.groups.len())),
        ("process", more(|t| t.processes.len())),
    ];
    let there: Vec<&str> = kinds.into_iter().filter(|(_, there)| *there).map(|(kind, _)| kind).collect();
    if there.is_empty() { "nothing".to_owned() } else { there.join(", ") }
}

fn killed_at_every_step_of_a_start(read_only: bool) {
    let mut daemon = with_secret();
    let (before, files, took) = baseline(&daemon);
    for round in 0..KILLS {
        let delay = took * (2 * round + 1) / (2 * KILLS);
        let left = killed_during(&mut daemon, delay, "POST", &spec(read_only), &before);
        eprintln!("killed after {round}/{KILLS} of a start with: {left}");
        count_again(&daemon, &before, files, &format!("after a kill with {left}"));
    }
    eventually("no jail is dying any more", || (platform::dying(&daemon.realm()) == 0).then_some(()));
}

#[test]
fn killed_at_every_step_of_a_start_on_a_writable_root_nothing_is_left() {
    needs_root!();
    killed_at_every_step_of_a_start(false);
}

#[test]
fn killed_at_every_step_of_a_start_on_a_read_only_root_nothing_is_left() {
    needs_root!();
    killed_at_every_step_of_a_start(true);
}

#[test]
fn killed_at_every_step_of_a_removal_nothing_is_left() {
    needs_root!();
    let mut daemon = with_secret();
    let (before, files, _) = baseline(&daemon);
    daemon.deploy(spec(false));
    daemon.await_ready("f", 2);
    let begun = Instant::now();
    daemon.delete("f").expect(202);
    eventually("it is gone", || (daemon.traces() == before).then_some(()));
    let took = begun.elapsed();
    for round in 0..KILLS {
        daemon.deploy(spec(round % 2 == 0));
        daemon.await_ready("f", 2);
        let delay = took * (2 * round + 1) / (2 * KILLS);
        let left = killed_during(&mut daemon, delay, "DELETE", &json!({"functionName": "f"}), &before);
        eprintln!("killed after {round}/{KILLS} of a removal with: {left}");
        count_again(&daemon, &before, files, &format!("after a kill with {left}"));
    }
}
