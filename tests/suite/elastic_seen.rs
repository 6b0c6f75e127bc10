//! What elasticity shows of itself: metrics, and `faas-jails top`.

use serde_json::{Value, json};

use crate::needs_root;
use crate::support::{Daemon, eventually};

fn top(daemon: &Daemon, arguments: &[&str]) -> String {
    let output = daemon.run(&[&["top", "--once"], arguments].concat());
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).expect("text")
}

#[test]
fn top_shows_functions_their_replicas_and_what_they_have_to_do() {
    needs_root!();
    let daemon = Daemon::start();
    daemon.deploy(json!({"service": "cold"}));
    daemon.scale("cold", 0).expect(202);
    daemon.call("cold/").expect(200);
    daemon.deploy(json!({"service": "cool", "annotations": {"com.faas-jails.freeze": "1s"}}));
    eventually("it is frozen", || {
        let all: Value = serde_json::from_str(&top(&daemon, &["cool", "--json"])).expect("JSON");
        (all[0]["frozen"] == 1 && all[0]["ready"] == 0 && all[0]["wanted"] == 1).then_some(())
    });
    std::thread::scope(|scope| {
        let watched = scope.spawn(|| top(&daemon, &["cold", "--json", "--interval", "2"]));
        std::thread::sleep(std::time::Duration::from_millis(500));
        for _ in 0..20 {
            daemon.call("cold/sleep?ms=30").expect(200);
        }
        let all: Value = serde_json::from_str(&watched.join().expect("top")).expect("JSON");
        let one = &all[0];
        assert_eq!((&one["name"], &one["ready"], &one["coldStarts"]), (&json!("cold"), &json!(1), &json!(1)), "{all}");
        let rate = one["requestsPerSecond"].as_f64().expect("a rate");
        assert!(rate > 1.0 && rate <= 15.0, "{all}");
        assert!(one["p50Ms"].as_f64().is_some_and(|ms| ms >= 30.0), "{all}");
        assert!(one["p99Ms"].as_f64() >= one["p50Ms"].as_f64(), "{all}");
    });
    let text = top(&daemon, &[]);
    let lines: Vec<&str> = text.lines().collect();
    assert!(lines[0].starts_with("FUNCTION") && lines.len() == 3, "{text}");
    assert!(lines[1..].iter().any(|line| line.starts_with("cold.openfaas-fn") && line.contains("1/1")), "{text}");
    assert!(daemon.run(&["top", "--once", "nobody.nowhere"]).status.code() != Some(0));
}

#[test]
fn metrics_tell_of_waits_cold_starts_frozen_replicas_and_decisions() {
    needs_root!();
    let daemon = Daemon::start();
    // Nothing has waited or been started yet.
    daemon.http.get("/metrics").expect(200);
    let labels = json!({"com.openfaas.scale.zero": "true", "com.openfaas.scale.zero-duration": "1s"});
    daemon.deploy(json!({"service": "idle", "labels": labels}));
    eventually("zero", || (daemon.status("idle")["replicas"] == 0).then_some(()));
    daemon.call("idle/").expect(200);
    daemon.deploy(json!({"service": "cool", "annotations": {"com.faas-jails.freeze": "1s"}}));
    let text = eventually("it is frozen", || {
        let text = daemon.http.get("/metrics").expect(200).text();
        text.contains("faas_jails_function_replicas_frozen{function_name=\"cool.openfaas-fn\"} 1").then_some(text)
    });
    let idle = "{function_name=\"idle.openfaas-fn\"";
    for line in [
        format!("faas_jails_function_cold_starts_total{idle}}} 1"),
        format!("faas_jails_function_decisions_total{idle},reason=\"called\"}} 1"),
        format!("faas_jails_function_requests_waiting{idle}}} 0"),
        "faas_jails_wait_seconds_count{outcome=\"served\"} 1".to_owned(),
        "faas_jails_cold_start_seconds_count{cause=\"request\",step=\"total\"} 1".to_owned(),
    ] {
        assert!(text.contains(&line), "{line} is not in {text}");
    }
    let bytes = text.lines().find_map(|line| line.strip_prefix("faas_jails_frozen_bytes ")).expect("the bytes");
    assert!(bytes.parse::<f64>().expect("a number") > 0.0);
}
