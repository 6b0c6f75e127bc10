//! /metrics, in Prometheus's text format, with the stock names.

use serde_json::json;

use crate::needs_root;
use crate::support::{Daemon, eventually};

/// The value of the first sample whose name and labels hold all these words.
fn sample(text: &str, words: &[&str]) -> Option<f64> {
    let line = text.lines().find(|l| !l.starts_with('#') && words.iter().all(|w| l.contains(w)))?;
    line.rsplit(' ').next()?.parse().ok()
}

#[test]
fn requests_to_system_are_counted_by_code_method_and_path() {
    needs_root!();
    let daemon = Daemon::start();
    daemon.deploy(json!({"service": "f"}));
    for _ in 0..3 {
        daemon.http.get("/system/info").expect(200);
    }
    daemon.http.get("/system/function/nobody").expect(404);
    let answer = daemon.http.get("/metrics").expect(200);
    assert!(answer.header("content-type").is_some_and(|t| t.starts_with("text/plain")));
    let text = answer.text();
    let counter = "provider_http_requests_total{";
    assert_eq!(sample(&text, &[counter, "code=\"200\"", "method=\"GET\"", "path=\"/system/info\""]), Some(3.0));
    // Names of functions are no labels: there could be any number of them.
    assert_eq!(sample(&text, &[counter, "code=\"404\"", "path=\"/system/function\""]), Some(1.0));
    assert!(!text.contains("/system/function/"), "{text}");
    let histogram = "provider_http_request_duration_seconds_count{";
    assert_eq!(sample(&text, &[histogram, "path=\"/system/info\""]), Some(3.0));
    assert!(sample(&text, &["provider_http_request_duration_seconds_bucket{", "le=\"+Inf\""]).is_some());
}

#[test]
fn calls_and_replicas_of_each_function_are_told() {
    needs_root!();
    let daemon = Daemon::start();
    daemon.deploy(json!({"service": "f"}));
    for _ in 0..5 {
        daemon.call("f").expect(200);
    }
    let text = daemon.http.get("/metrics").expect(200).text();
    let label = "function_name=\"f.openfaas-fn\"";
    assert_eq!(sample(&text, &["faas_jails_function_invocations_total", label]), Some(5.0));
    assert_eq!(sample(&text, &["faas_jails_function_replicas_ready", label]), Some(1.0));
    assert_eq!(sample(&text, &["faas_jails_function_replicas_wanted", label]), Some(1.0));
    assert_eq!(daemon.status("f")["invocationCount"], 5.0);
    daemon.delete("f").expect(202);
    assert!(!daemon.http.get("/metrics").expect(200).text().contains(label));
}

/// Every family is declared before its samples and only once, as the text format demands.
#[test]
fn families_are_declared_once_and_before_their_samples() {
    needs_root!();
    let daemon = Daemon::start();
    daemon.deploy(json!({"service": "f"}));
    daemon.http.get("/system/info").expect(200);
    let text = daemon.http.get("/metrics").expect(200).text();
    let mut declared = std::collections::BTreeSet::new();
    for line in text.lines() {
        if let Some(rest) = line.strip_prefix("# TYPE ") {
            let name = rest.split(' ').next().expect("a name");
            assert!(declared.insert(name.to_owned()), "{name} is declared twice");
        } else if !line.starts_with('#') && !line.is_empty() {
            let name = line.split(['{', ' ']).next().expect("a name");
            let family = ["_bucket", "_sum", "_count"].iter().find_map(|s| name.strip_suffix(s)).unwrap_or(name);
            assert!(declared.contains(name) || declared.contains(family), "{line} comes before its declaration");
        }
    }
    assert!(!declared.is_empty());
}

#[test]
fn a_daemon_that_has_started_nothing_yet_tells_its_metrics() {
    needs_root!();
    let daemon = Daemon::with().without_images().start();
    assert_eq!(sample(&daemon.http.get("/metrics").expect(200).text(), &["faas_jails_images "]), Some(0.0));
}

#[test]
fn starts_are_told_by_step_and_cause_and_ends_by_reason() {
    needs_root!();
    let daemon = Daemon::start();
    daemon.deploy(json!({"service": "f"}));
    let text = || daemon.http.get("/metrics").expect(200).text();
    let count = "faas_jails_cold_start_seconds_count{";
    for step in ["prepare", "root", "network", "sandbox", "ready", "total"] {
        let words = [count, "cause=\"ahead\"", &format!("step=\"{step}\"")];
        assert_eq!(sample(&text(), &words), Some(1.0), "{step}");
    }
    daemon.scale("f", 0).expect(202);
    eventually("it is at zero", || (daemon.available("f") == 0).then_some(()));
    daemon.call("f").expect(200);
    assert_eq!(sample(&text(), &[count, "cause=\"request\"", "step=\"total\""]), Some(1.0));

    let restarts = |reason: &str| {
        let words = ["faas_jails_function_restarts_total{", "f.openfaas-fn", &format!("reason=\"{reason}\"")];
        sample(&text(), &words)
    };
    assert_eq!((restarts("exit"), restarts("signal")), (Some(0.0), Some(0.0)));
    let _ = daemon.invoke("GET", "f/exit?code=3").try_send();
    eventually("the end is counted", || (restarts("exit") == Some(1.0)).then_some(()));
}

#[test]
fn what_replicas_use_and_what_the_host_holds_is_told() {
    needs_root!();
    let daemon = Daemon::start();
    daemon.deploy(json!({"service": "f", "labels": {"com.openfaas.scale.min": "2"}}));
    daemon.await_ready("f", 2);
    daemon.call("f/spin?ms=50").expect(200);
    let text = daemon.http.get("/metrics").expect(200).text();
    let label = "function_name=\"f.openfaas-fn\",namespace=\"openfaas-fn\",replica=\"";
    for metric in ["pod_cpu_usage_seconds_total", "pod_memory_working_set_bytes", "faas_jails_replica_pids"] {
        let values: Vec<f64> = text
            .lines()
            .filter(|l| l.starts_with(&format!("{metric}{{")) && l.contains(label))
            .filter_map(|l| l.rsplit(' ').next()?.parse().ok())
            .collect();
        assert_eq!(values.len(), 2, "{metric}: {text}");
        assert!(metric.starts_with("pod_cpu") || values.iter().all(|v| *v > 0.0), "{metric}: {values:?}");
    }
    assert_eq!(sample(&text, &["faas_jails_images "]), Some(1.0));
    assert_eq!(sample(&text, &["faas_jails_image_layers "]), Some(2.0));
    assert!(sample(&text, &["faas_jails_image_store_bytes "]) > Some(100_000.0));
    assert_eq!(sample(&text, &["faas_jails_addresses_used "]), Some(2.0));
    assert!(sample(&text, &["faas_jails_build_info{", "version=\""]) == Some(1.0));
}
