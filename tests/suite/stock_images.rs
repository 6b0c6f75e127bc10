//! Images with the stock watchdogs, as templates build them.

use serde_json::{Value, json};

use crate::support::images::{CLASSIC, OF_WATCHDOG, classic_image, of_watchdog_image};
use crate::support::{Daemon, eventually};
use crate::{needs_root, needs_stock};

fn classic(spec: Value) -> Daemon {
    let daemon = Daemon::with().set("stop_wait = \"1s\"").without_images().start();
    daemon.load(&classic_image().expect("asked for before").docker_save(CLASSIC));
    let mut whole = json!({"service": "f", "image": CLASSIC});
    whole.as_object_mut().expect("an object").extend(spec.as_object().expect("an object").clone());
    daemon.deploy(whole);
    daemon
}

/// The certifier's main case: the process of the deployment, the verbs, the query, the variables.
#[test]
fn the_classic_watchdog_runs_the_process_of_the_deployment_for_every_verb() {
    needs_root!();
    needs_stock!("fwatchdog");
    let daemon = classic(json!({"envProcess": "env", "envVars": {"custom_env": "custom_value"}}));
    for verb in ["GET", "POST", "PUT", "PATCH", "DELETE"] {
        let told = daemon.invoke(verb, "f?testing=1").body("x").send().expect(200).text();
        for line in [format!("Http_Method={verb}"), "Http_Query=testing=1".into(), "custom_env=custom_value".into()] {
            assert!(told.contains(&line), "{line}: {told}");
        }
    }
}

#[test]
fn the_classic_watchdog_gets_the_body_and_its_lines_reach_the_log() {
    needs_root!();
    needs_stock!("fwatchdog");
    let daemon = classic(json!({"envProcess": "cat"}));
    assert_eq!(daemon.invoke("POST", "f").body("through cat").send().expect(200).text(), "through cat");
    // Chunked, as the gateway sends every body.
    assert_eq!(daemon.invoke("POST", "f").chunks(&[b"a", b"b"]).send().expect(200).text(), "ab");
    eventually("what the certifier looks for in the log", || {
        let log = daemon.http.get("/system/logs?name=f&follow=false").text();
        (log.contains("Forking fprocess") && log.contains("Wrote 11 Bytes")).then_some(())
    });
}

#[test]
fn without_a_process_in_the_deployment_the_images_own_counts() {
    needs_root!();
    needs_stock!("fwatchdog");
    let daemon = classic(json!({}));
    assert_eq!(daemon.invoke("POST", "f").body("image's cat").send().expect(200).text(), "image's cat");
}

#[test]
fn a_failing_process_is_the_watchdogs_500() {
    needs_root!();
    needs_stock!("fwatchdog");
    let daemon = classic(json!({"envProcess": "false"}));
    let answer = daemon.invoke("POST", "f").body("").send();
    assert_eq!(answer.status, 500);
    assert!(answer.header("x-openfaas-internal").is_none());
}

#[test]
fn the_classic_watchdog_works_on_a_read_only_root() {
    needs_root!();
    needs_stock!("fwatchdog");
    // It writes /tmp/.lock, which is why /tmp has to be writable.
    let daemon = classic(json!({"readOnlyRootFilesystem": true}));
    assert_eq!(daemon.invoke("POST", "f").body("x").send().expect(200).text(), "x");
}

#[test]
fn the_of_watchdog_streams_through_its_process() {
    needs_root!();
    needs_stock!("of-watchdog");
    let daemon = Daemon::with().set("stop_wait = \"1s\"").without_images().start();
    daemon.load(&of_watchdog_image().expect("asked for before").docker_save(OF_WATCHDOG));
    daemon.deploy(json!({"service": "f", "image": OF_WATCHDOG}));
    let answer = daemon.invoke("POST", "f").body("a line\n").send().expect(200);
    assert_eq!(answer.text(), "handled a line\n");
    assert!(answer.header("x-duration-seconds").is_some(), "{:?}", answer.headers);
}

/// 429 of a busy watchdog is the function's own answer.
#[test]
fn the_of_watchdogs_limit_on_requests_passes_through() {
    needs_root!();
    needs_stock!("of-watchdog");
    let daemon = Daemon::with().set("stop_wait = \"1s\"").without_images().start();
    daemon.load(&of_watchdog_image().expect("asked for before").docker_save(OF_WATCHDOG));
    let env = json!({"max_inflight": "1", "fprocess": "sleep 3"});
    daemon.deploy(json!({"service": "f", "image": OF_WATCHDOG, "envVars": env}));
    std::thread::scope(|scope| {
        let calls: Vec<_> = (0..3).map(|_| scope.spawn(|| daemon.invoke("POST", "f").body("").send().status)).collect();
        let statuses: Vec<u16> = calls.into_iter().map(|c| c.join().expect("a call")).collect();
        assert!(statuses.contains(&429) && statuses.contains(&200), "{statuses:?}");
    });
}
