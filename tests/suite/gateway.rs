//! The standalone port: the gateway's API without a gateway.

use std::io::{Read, Write};
use std::time::{Duration, Instant};

use serde_json::json;

use crate::support::{Daemon, eventually, http::Client};
use crate::{needs_root, needs_stock};

fn with_function(name: &str) -> Daemon {
    let daemon = Daemon::start();
    daemon.deploy(json!({"service": name}));
    daemon
}

/// The value of the sample with this name and these labels, in the order they are written.
fn sample(text: &str, series: &str) -> Option<f64> {
    text.lines().find_map(|line| line.strip_prefix(series)?.strip_prefix(' ')?.parse().ok())
}

fn metrics(daemon: &Daemon) -> String {
    daemon.gateway.get("/metrics").expect(200).text()
}

#[test]
fn info_is_the_gateway_s_and_holds_the_provider_s() {
    needs_root!();
    let daemon = Daemon::with().without_images().start();
    let info = daemon.gateway.get("/system/info").expect(200).value();
    assert_eq!(info["provider"], daemon.http.get("/system/info").expect(200).value());
    for field in ["/version/release", "/version/sha", "/provider/provider", "/provider/orchestration", "/arch"] {
        let value = info.pointer(field).and_then(|v| v.as_str());
        assert!(value.is_some_and(|text| !text.is_empty()), "{field} of {info}");
    }
}

#[test]
fn system_is_the_provider_s_on_both_ports() {
    needs_root!();
    let daemon = with_function("f");
    for target in ["/system/functions", "/system/function/f", "/system/namespaces", "/system/secrets"] {
        let (here, there) = (daemon.gateway.get(target).expect(200), daemon.http.get(target).expect(200));
        assert_eq!(here.value(), there.value(), "{target}");
    }
    daemon.gateway.get("/healthz").expect(200);
    daemon.gateway.json("POST", "/system/scale-function/f", &json!({"replicas": 2})).expect(202);
    assert_eq!(daemon.available("f"), 2);
    daemon.gateway.json("DELETE", "/system/functions", &json!({"functionName": "f"})).expect(202);
    assert!(daemon.list("openfaas-fn").is_empty());
    // What only one of the two has.
    daemon.http.request("POST", "/system/alert").body("{}").send().expect(404);
    daemon.http.request("POST", "/async-function/f").send().expect(404);
    daemon.gateway.get("/system/telemetry").expect(404);
    assert_eq!(daemon.gateway.get("/").expect(307).header("location"), Some("/ui/"));
    daemon.gateway.get("/ui/").expect(200);
}

#[test]
fn a_call_is_the_function_s_answer_with_the_gateway_s_headers() {
    needs_root!();
    let daemon = with_function("f");
    let answer = daemon.gateway.request("POST", "/function/f.openfaas-fn/a%2Fb?q=1").body("body").send().expect(200);
    let echoed = answer.value();
    assert_eq!((&echoed["path"], &echoed["query"], &echoed["body"]), (&json!("/a%2Fb"), &json!("q=1"), &json!("body")));
    for header in ["x-call-id", "x-start-time", "x-duration-seconds"] {
        assert!(answer.header(header).is_some_and(|value| !value.is_empty()), "{header}: {:?}", answer.headers);
    }
    assert_eq!(echoed["headers"]["X-Call-Id"][0].as_str(), answer.header("x-call-id"));
    daemon.gateway.get("/function/nobody").expect_error(404, &["nobody"]);
    assert_eq!(daemon.gateway.get("/function//f").expect(301).header("location"), Some("/function/f"));
    assert_eq!(daemon.status("f")["invocationCount"], 1.0);
}

#[test]
fn calls_are_counted_under_the_stock_names() {
    needs_root!();
    let daemon = with_function("f");
    for _ in 0..3 {
        daemon.gateway.get("/function/f").expect(200);
    }
    daemon.gateway.get("/function/f/status?code=404").expect(404);
    daemon.gateway.get("/system/info").expect(200);
    let text = metrics(&daemon);
    for (series, value) in [
        (r#"gateway_function_invocation_started{function_name="f.openfaas-fn"}"#, 4.0),
        (r#"gateway_function_invocation_total{code="200",function_name="f.openfaas-fn"}"#, 3.0),
        (r#"gateway_function_invocation_total{code="404",function_name="f.openfaas-fn"}"#, 1.0),
        (r#"gateway_functions_seconds_count{code="200",function_name="f.openfaas-fn"}"#, 3.0),
        (r#"gateway_service_count{function_name="f.openfaas-fn"}"#, 1.0),
        (r#"http_requests_total{method="GET",path="/system/info",status="200"}"#, 1.0),
        (r#"http_request_duration_seconds_count{method="GET",path="/system/info",status="200"}"#, 1.0),
    ] {
        assert_eq!(sample(&text, series), Some(value), "{series} in\n{text}");
    }
    daemon.delete("f").expect(202);
    assert!(!metrics(&daemon).contains("f.openfaas-fn"), "nothing is kept of a function that is gone");
}

/// The time of a call ends with its answer's last byte.
#[test]
fn a_stream_is_counted_when_it_ends() {
    needs_root!();
    let daemon = with_function("f");
    let total = r#"gateway_function_invocation_total{code="200",function_name="f.openfaas-fn"}"#;
    let mut stream = daemon.gateway.request("GET", "/function/f/sse?n=2&gap=20000").open().expect("a stream");
    assert!(stream.body_line().expect("a line").is_some());
    assert_eq!(sample(&metrics(&daemon), total), None);
    drop(stream);
    eventually("the stream's end is counted", || sample(&metrics(&daemon), total));
}

#[test]
fn functions_are_open_and_system_asks_for_the_password() {
    needs_root!();
    let daemon = Daemon::with().credentials("admin:secret").start();
    daemon.deploy(json!({"service": "f"}));
    let stranger = Client::new(daemon.gateway.address);
    let mut wrong = stranger.clone();
    wrong.credentials = Some("admin:wrong".into());
    for (method, target) in [
        ("GET", "/system/functions"),
        ("POST", "/system/alert"),
        ("GET", "/system/info"),
        ("GET", "/system/namespaces"),
        ("GET", "/system/logs?name=f"),
    ] {
        for client in [&stranger, &wrong] {
            let answer = client.request(method, target).body("{}").send().expect(401);
            assert_eq!(answer.header("www-authenticate"), Some("Basic realm=\"Restricted\""), "{target}");
        }
        assert_ne!(daemon.gateway.request(method, target).body("{}").send().status, 401, "{target}");
    }
    stranger.get("/function/f").expect(200);
    stranger.request("POST", "/async-function/f").send().expect(202);
    for target in ["/healthz", "/metrics"] {
        stranger.get(target).expect(200);
    }
    // What the caller shows the function is not the provider's business.
    let echoed = daemon.gateway.get("/function/f/x").expect(200).value();
    assert!(echoed["headers"]["Authorization"][0].is_string());
}

#[test]
fn an_alert_scales_up_by_steps_and_its_end_scales_back() {
    needs_root!();
    let daemon = Daemon::start();
    let labels = json!({"com.openfaas.scale.max": "3", "com.openfaas.scale.factor": "34"});
    daemon.deploy(json!({"service": "f", "labels": labels}));
    let alert = |status: &str, name: &str| {
        let alerts =
            json!([{"status": status, "labels": {"alertname": "APIHighInvocationRate", "function_name": name}}]);
        daemon.gateway.json(
            "POST",
            "/system/alert",
            &json!({"status": status, "receiver": "scale-up", "alerts": alerts}),
        )
    };
    for (status, wanted) in [("firing", 3), ("firing", 3), ("resolved", 1), ("resolved", 1)] {
        alert(status, "f.openfaas-fn").expect(200);
        assert_eq!(daemon.status("f")["replicas"], wanted, "{status}");
    }
    alert("firing", "nobody.openfaas-fn").expect_error(500, &["nobody"]);
    daemon.gateway.request("POST", "/system/alert").body("no JSON").send().expect_error(400, &["Alertmanager"]);
}

#[test]
fn a_function_is_called_to_and_from_zero() {
    needs_root!();
    let daemon = with_function("f");
    for _ in 0..2 {
        daemon.gateway.json("POST", "/system/scale-function/f", &json!({"replicas": 0})).expect(202);
        eventually("no replica is left", || (daemon.available("f") == 0).then_some(()));
        std::thread::scope(|scope| {
            for _ in 0..10 {
                scope.spawn(|| daemon.gateway.get("/function/f").expect(200));
            }
        });
        assert_eq!(daemon.available("f"), 1, "ten calls make one start");
    }
}

#[test]
fn it_can_be_switched_off_and_says_when_its_port_is_taken() {
    needs_root!();
    let daemon = Daemon::with().gateway("enabled = false").without_images().start();
    assert!(!daemon.root.join("gateway.address").exists());
    let taken = daemon.http.address.to_string();
    let mut other = Daemon::with().gateway(&format!("listen = \"{taken}\"")).without_images().prepare();
    other.launch();
    assert!(!other.await_exit().success());
    for word in [&*taken, "[gateway]", "enabled = false"] {
        assert!(other.log().contains(word), "{word} is not in {}", other.log());
    }
}

#[test]
fn the_variable_upstream_timeout_bounds_a_call_over_this_port() {
    needs_root!();
    let daemon = Daemon::with().env("upstream_timeout", "1s").start();
    daemon.deploy(json!({"service": "slow"}));
    daemon.gateway.get("/function/slow/hang").expect_error(504, &["slow", "1s"]);
    daemon.call("slow/sleep?ms=1500").expect(200);
}

#[test]
fn requests_under_way_at_sigterm_are_answered() {
    needs_root!();
    let mut daemon = with_function("f");
    let gateway = daemon.gateway.clone();
    let call = std::thread::spawn(move || gateway.get("/function/f/sleep?ms=2000").expect(200));
    eventually("the call arrives", || {
        let text = metrics(&daemon);
        sample(&text, r#"gateway_function_invocation_started{function_name="f.openfaas-fn"}"#)
    });
    assert!(daemon.stop().success());
    call.join().expect("an answer");
    assert!(!daemon.root.join("gateway.address").exists());
}

#[test]
fn faas_cli_needs_no_gateway() {
    needs_root!();
    needs_stock!("faas-cli");
    let daemon = Daemon::with().credentials("admin:secret").start();
    let url = daemon.gateway_url();
    let run = |arguments: &[&str]| {
        let out = daemon.faas_cli_with_input(&[arguments, &["--gateway", &url]].concat(), b"input");
        let told = format!("{}{}", String::from_utf8_lossy(&out.stdout), String::from_utf8_lossy(&out.stderr));
        assert!(out.status.success(), "faas-cli {arguments:?}: {told}");
        told
    };
    run(&["login", "--username", "admin", "--password", "secret"]);
    let told = run(&["version", "--warn-update=false"]);
    assert!(told.contains("faas-jails"), "{told}");
    run(&["deploy", "--image", crate::support::images::PROBE, "--name", "f"]);
    run(&["ready", "f"]);
    assert!(run(&["invoke", "f"]).contains("\"body\":\"input\""));
    run(&["invoke", "--async", "f"]);
    eventually("the queued call is made", || (daemon.status("f")["invocationCount"] == 2.0).then_some(()));
    assert!(run(&["list"]).contains('f'));
    assert!(run(&["logs", "f", "--tail=false"]).contains("probe is listening"));
    run(&["remove", "f"]);
}

/// The second piece is made 20 s after the first: who has to wait for it has waited for the whole.
#[test]
fn events_and_lines_pass_as_they_come_and_websockets_both_ways() {
    needs_root!();
    let daemon = with_function("f");
    for (path, accept) in [("sse", "text/event-stream"), ("ndjson", "application/x-ndjson"), ("chunked", "*/*")] {
        let start = Instant::now();
        let target = format!("/function/f/{path}?n=2&gap=20000");
        let mut stream = daemon.gateway.request("GET", &target).header("Accept", accept).open().expect(path);
        assert!(stream.body_line().expect("a line").is_some_and(|line| line.contains('0')), "{path}");
        assert!(start.elapsed() < Duration::from_secs(19), "the first piece of {path} came with the last");
    }
    let mut exchange = daemon.gateway.raw();
    let upgrade = b"GET /function/f/ws HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
        Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n";
    exchange.write(upgrade).expect("writing the handshake");
    exchange.read_head(false).expect("its answer");
    assert_eq!((exchange.status, exchange.header("sec-websocket-accept")), (101, Some("s3pPLMBiTxaQ9kYGzzhZRbK+xOo=")));
    let mut socket = exchange.upgraded();
    // A frame whose mask is zeros holds its text as it is.
    socket.get_mut().write_all(b"\x81\x85\0\0\0\0hello").expect("sending a frame");
    let mut frame = [0; 7];
    socket.read_exact(&mut frame).expect("a frame");
    assert_eq!(&frame, b"\x81\x05hello");
}
