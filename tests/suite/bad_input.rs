//! What is refused, with which status, and in words that name the thing.

use serde_json::{Value, json};

use crate::needs_root;
use crate::support::{Daemon, images};

#[test]
fn bodies_that_are_no_json_are_400() {
    needs_root!();
    let daemon = Daemon::with().without_images().start();
    for (method, target) in [
        ("POST", "/system/functions"),
        ("PUT", "/system/functions"),
        ("DELETE", "/system/functions"),
        ("POST", "/system/secrets"),
        ("PUT", "/system/secrets"),
        ("DELETE", "/system/secrets"),
        ("POST", "/system/namespace/"),
    ] {
        for body in ["", "{", "[]", "\"text\"", "nul", "{\"service\": 7}", "\u{0}", "{\"service\":\"a\"}{"] {
            let answer = daemon.http.request(method, target).body(body).send();
            assert_eq!(answer.status, 400, "{method} {target} with {body:?}: {}", answer.text());
            assert!(!answer.text().trim().is_empty(), "{method} {target} with {body:?} says nothing");
        }
    }
}

#[test]
fn a_missing_service_or_image_is_400_and_named() {
    needs_root!();
    let daemon = Daemon::with().without_images().start();
    let create = |spec: Value| daemon.http.json("POST", "/system/functions", &spec);
    create(json!({"image": images::PROBE})).expect_error(400, &["service"]);
    create(json!({"service": "", "image": images::PROBE})).expect_error(400, &["service"]);
    create(json!({"service": "noimage"})).expect_error(400, &["image"]);
    create(json!({"service": "noimage", "image": ""})).expect_error(400, &["image"]);
    assert!(daemon.list("openfaas-fn").is_empty());
}

#[test]
fn a_name_that_is_no_dns_label_is_400() {
    needs_root!();
    let daemon = Daemon::start();
    let long = "a".repeat(64);
    for name in
        ["Upper", "under_score", "dot.ted", "-lead", "trail-", "sp ace", "../etc", "a/b", "ü", "a\n", "a\u{0}", &long]
    {
        daemon.create(json!({"service": name})).expect_error(400, &["invalid"]);
    }
    assert!(daemon.list("openfaas-fn").is_empty());
    let longest = "b".repeat(63);
    daemon.deploy(json!({"service": longest}));
    daemon.call(&format!("{longest}/")).expect(200);
}

#[test]
fn bad_quantities_are_400_and_named() {
    needs_root!();
    let daemon = Daemon::start();
    for (kind, text) in
        [("memory", "lots"), ("memory", "-5Mi"), ("cpu", "half"), ("cpu", "-1"), ("memory", "1 Mi"), ("cpu", "0x1")]
    {
        daemon.create(json!({"service": "q", "limits": {kind: text}})).expect_error(400, &[text]);
        daemon.create(json!({"service": "q", "requests": {kind: text}})).expect_error(400, &[text]);
    }
    assert!(daemon.list("openfaas-fn").is_empty());
}

/// A factor outside 1..100 makes the stock gateway answer 404 to every invocation.
#[test]
fn a_scale_factor_that_the_gateway_chokes_on_is_400() {
    needs_root!();
    let daemon = Daemon::start();
    for factor in ["0", "101", "-1", "ten", ""] {
        let labels = json!({"com.openfaas.scale.factor": factor});
        daemon.create(json!({"service": "f", "labels": labels})).expect_error(400, &["com.openfaas.scale.factor"]);
    }
    for factor in ["1", "100"] {
        let name = format!("f{factor}");
        daemon.create(json!({"service": name, "labels": {"com.openfaas.scale.factor": factor}})).expect(202);
    }
}

#[test]
fn a_namespace_that_does_not_exist_is_400_everywhere() {
    needs_root!();
    let daemon = Daemon::start();
    daemon.create(json!({"service": "x", "namespace": "nowhere"})).expect_error(400, &["nowhere"]);
    daemon.update(json!({"service": "x", "namespace": "nowhere"})).expect_error(400, &["nowhere"]);
    daemon.http.get("/system/functions?namespace=nowhere").expect_error(400, &["nowhere"]);
    daemon.http.get("/system/function/x?namespace=nowhere").expect_error(400, &["nowhere"]);
    daemon
        .http
        .json("POST", "/system/secrets", &json!({"name": "s", "value": "v", "namespace": "nowhere"}))
        .expect(400);
}

#[test]
fn a_missing_secret_is_400_and_named() {
    needs_root!();
    let daemon = Daemon::start();
    daemon.create(json!({"service": "x", "secrets": ["api-key"]})).expect_error(400, &["api-key"]);
    daemon.deploy(json!({"service": "y"}));
    daemon.update(json!({"service": "y", "secrets": ["api-key"]})).expect_error(400, &["api-key"]);
    daemon.call("y/").expect(200);
}

#[test]
fn replicas_that_are_no_natural_number_are_400() {
    needs_root!();
    let daemon = Daemon::start();
    daemon.deploy(json!({"service": "s"}));
    for body in [
        "{\"replicas\":-1}",
        "{\"replicas\":1.5}",
        "{\"replicas\":\"2\"}",
        "{\"replicas\":99999999999999999999}",
        "{",
        "",
    ] {
        let answer = daemon.http.request("POST", "/system/scale-function/s").body(body).send();
        assert_eq!(answer.status, 400, "{body}: {}", answer.text());
    }
    assert_eq!(daemon.status("s")["replicas"], 1);
}

#[test]
fn a_number_of_replicas_beyond_the_subnet_is_refused_in_words() {
    needs_root!();
    let daemon = Daemon::start();
    daemon.deploy(json!({"service": "s"}));
    let answer = daemon.scale("s", 18_446_744_073_709_551_615);
    assert!(
        (400..=599).contains(&answer.status) && !answer.text().trim().is_empty(),
        "{} {}",
        answer.status,
        answer.text()
    );
    daemon.call("s/").expect(200);
}

#[test]
fn an_image_that_is_not_there_fails_the_deploy_in_one_sentence_and_leaves_nothing() {
    needs_root!();
    let daemon = Daemon::start();
    for image in ["127.0.0.1:1/nobody/nothing:1", "not a reference", "UPPER/case", "example.test/x@sha256:123", "a:b:c"]
    {
        daemon.create(json!({"service": "broken", "image": image})).expect_error(400, &[image]);
    }
    assert!(daemon.list("openfaas-fn").is_empty());
    assert!(daemon.traces().replica_names().is_empty());
}

#[test]
fn a_broken_update_leaves_the_running_function_as_it_was() {
    needs_root!();
    let daemon = Daemon::start();
    daemon.deploy(json!({"service": "steady", "envVars": {"v": "1"}}));
    let before = daemon.status("steady");
    for spec in [
        json!({"service": "steady", "image": "127.0.0.1:1/nobody/nothing:1"}),
        json!({"service": "steady", "limits": {"memory": "lots"}}),
        json!({"service": "steady", "secrets": ["none"]}),
    ] {
        let answer = daemon.update(spec.clone());
        assert!((400..=599).contains(&answer.status), "{spec}: {}", answer.status);
    }
    assert_eq!(daemon.status("steady"), before);
    assert_eq!(daemon.call("steady/env").expect(200).value()["v"], "1");
}

#[test]
fn environment_names_that_no_process_can_have_are_400() {
    needs_root!();
    let daemon = Daemon::start();
    for (name, value) in [("", "x"), ("a=b", "x"), ("nul\u{0}", "x"), ("value", "nul\u{0}")] {
        let answer = daemon.create(json!({"service": "e", "envVars": {name: value}}));
        assert_eq!(answer.status, 400, "{name:?}={value:?}: {}", answer.text());
    }
}

/// What is said over a connection need not be HTTP.
#[test]
fn requests_that_are_no_http_do_not_disturb_the_daemon() {
    needs_root!();
    let daemon = Daemon::with().without_images().start();
    for bytes in [
        &b"\x16\x03\x01\x02\x00\x01\x00"[..],
        b"GET\r\n\r\n",
        b"GET / HTTP/9.9\r\n\r\n",
        b"\0\0\0\0\r\n\r\n",
        b"GET / HTTP/1.1\r\nBad Header\r\n\r\n",
    ] {
        let mut connection = daemon.http.raw();
        let _ = connection.write(bytes);
        let _ = connection.finish_writing();
        let _ = connection.read_head(false);
    }
    // Two lengths that differ are how requests are smuggled (RFC 9112, section 6.3).
    let mut connection = daemon.http.raw();
    connection
        .write(b"POST /system/functions HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\nContent-Length: 20\r\n\r\n{}")
        .expect("writing");
    connection.read_head(false).expect("an answer");
    assert_eq!(connection.status, 400);
    daemon.http.get("/healthz").expect(200);
}

/// Specs put together from good and bad pieces: each is taken or refused in words, none breaks the daemon.
#[test]
fn no_combination_of_fields_is_an_internal_error() {
    needs_root!();
    let daemon = Daemon::with().without_images().start();
    let pieces: [(&str, &[Value]); 7] = [
        ("service", &[json!("f"), json!(""), json!(7), json!(null), json!("a/../b"), json!("\u{202e}")]),
        ("image", &[json!("127.0.0.1:1/x:1"), json!(""), json!([]), json!("@"), json!("a@sha256:"), json!(":1")]),
        ("envVars", &[json!({}), json!({"a": 1}), json!([]), json!({"": ""}), json!({"A": null})]),
        ("labels", &[json!({"a": "b"}), json!({"a": {}}), json!("x"), json!({"\u{0}": "\n"})]),
        ("limits", &[json!({"memory": "1Mi"}), json!({"cpu": 1}), json!([]), json!({"memory": "1e400"})]),
        ("secrets", &[json!([]), json!(["x"]), json!("x"), json!([null]), json!(["../../etc/passwd"])]),
        ("namespace", &[json!(""), json!("openfaas-fn"), json!(".."), json!({})]),
    ];
    for round in 0_usize..120 {
        let mut spec = serde_json::Map::new();
        for (position, (key, values)) in pieces.iter().enumerate() {
            // Another mixture each round, the same in every run.
            let choice = round.wrapping_mul(2_654_435_761).wrapping_add(position * 40_503) >> 7;
            if choice % (values.len() + 1) < values.len() {
                spec.insert((*key).to_owned(), values[choice % (values.len() + 1)].clone());
            }
        }
        let spec = Value::Object(spec);
        for method in ["POST", "PUT"] {
            let answer = daemon.http.json(method, "/system/functions", &spec);
            assert!([400, 404].contains(&answer.status), "{method} {spec}: {} {}", answer.status, answer.text());
        }
    }
    daemon.http.get("/healthz").expect(200);
}
