//! /system/secrets: values go in, and come out in the function only.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};

use crate::needs_root;
use crate::support::{Daemon, Response, eventually};

fn secret(daemon: &Daemon, method: &str, body: Value) -> Response {
    daemon.http.json(method, "/system/secrets", &body)
}

#[test]
fn a_secret_is_created_listed_updated_and_deleted_and_never_shown() {
    needs_root!();
    let daemon = Daemon::with().without_images().start();
    assert_eq!(daemon.http.get("/system/secrets").expect(200).value(), json!([]));
    secret(&daemon, "POST", json!({"name": "key", "value": "hush"})).expect(202);
    let listed = daemon.http.get("/system/secrets").expect(200);
    assert_eq!(listed.value(), json!([{"name": "key", "namespace": "openfaas-fn"}]));
    assert_eq!(listed.header("content-type"), Some("application/json"));
    secret(&daemon, "PUT", json!({"name": "key", "value": "hush2"})).expect(202);
    secret(&daemon, "DELETE", json!({"name": "key"})).expect(202);
    assert_eq!(daemon.http.get("/system/secrets?namespace=openfaas-fn").expect(200).value(), json!([]));
    assert!(!daemon.log().contains("hush"), "a value reached the log");
}

/// `faas-cli secret create --replace` relies on 409, then sends PUT.
#[test]
fn a_second_create_is_409_and_changing_a_missing_one_404() {
    needs_root!();
    let daemon = Daemon::with().without_images().start();
    secret(&daemon, "POST", json!({"name": "key", "value": "a"})).expect(202);
    secret(&daemon, "POST", json!({"name": "key", "value": "b"})).expect_error(409, &["key"]);
    secret(&daemon, "PUT", json!({"name": "other", "value": "b"})).expect_error(404, &["other"]);
    secret(&daemon, "DELETE", json!({"name": "other"})).expect_error(404, &["other"]);
}

#[test]
fn names_that_could_leave_the_store_are_400() {
    needs_root!();
    let daemon = Daemon::with().without_images().start();
    for name in ["", "..", "../x", "a/b", "/etc/passwd", "UPPER", "nul\u{0}", ".hidden", &"a".repeat(254)] {
        for method in ["POST", "PUT", "DELETE"] {
            secret(&daemon, method, json!({"name": name, "value": "v"})).expect(400);
        }
    }
    assert_eq!(daemon.http.get("/system/secrets").expect(200).value(), json!([]));
}

#[test]
fn a_function_reads_its_secrets_and_no_others_as_its_own_user() {
    needs_root!();
    let daemon = Daemon::start();
    for name in ["mine", "tls.crt", "foreign"] {
        secret(&daemon, "POST", json!({"name": name, "value": format!("value of {name}\n")})).expect(202);
    }
    daemon.deploy(json!({"service": "reader", "secrets": ["mine", "tls.crt"]}));
    assert_eq!(daemon.identity("reader")["uid"], 1000);
    // No trimming: the line end is the user's.
    for name in ["mine", "tls.crt"] {
        let read = daemon.call(&format!("reader/files?path=/var/openfaas/secrets/{name}")).expect(200);
        assert_eq!(read.text(), format!("value of {name}\n"));
    }
    let names = daemon.call("reader/list?path=/var/openfaas/secrets").expect(200).value();
    assert_eq!(names, json!(["mine", "tls.crt"]));
    let write = daemon.invoke("POST", "reader/write?path=/var/openfaas/secrets/mine").body("x").send();
    assert_eq!(write.status, 500, "a secret could be overwritten");
    assert_eq!(daemon.status("reader")["secrets"], json!(["mine", "tls.crt"]));
}

#[test]
fn without_secrets_the_secrets_directory_is_absent_or_empty() {
    needs_root!();
    let daemon = Daemon::start();
    daemon.deploy(json!({"service": "none"}));
    // Layers on ZFS have the directory already, as a read-only replica cannot get it later.
    let answer = daemon.call("none/list?path=/var/openfaas/secrets");
    let absent = answer.status == 500 && answer.text().contains("no such file");
    assert!(absent || (answer.status == 200 && answer.value() == json!([])), "{} {}", answer.status, answer.text());
}

/// faas-cli sends `rawValue` for files, along with `value`.
#[test]
fn binary_values_arrive_unchanged_and_raw_wins_over_text() {
    needs_root!();
    let daemon = Daemon::start();
    let bytes: Vec<u8> = (0..=255).collect();
    let body = json!({"name": "blob", "value": "not this", "rawValue": STANDARD.encode(&bytes)});
    secret(&daemon, "POST", body).expect(202);
    daemon.deploy(json!({"service": "reader", "secrets": ["blob"]}));
    let read = daemon.call("reader/files?path=/var/openfaas/secrets/blob").expect(200);
    assert!(read.body == bytes, "{:?}", read.body);
}

#[test]
fn a_new_value_is_seen_after_the_next_deploy() {
    needs_root!();
    let daemon = Daemon::start();
    secret(&daemon, "POST", json!({"name": "key", "value": "old"})).expect(202);
    daemon.deploy(json!({"service": "reader", "secrets": ["key"]}));
    secret(&daemon, "PUT", json!({"name": "key", "value": "new"})).expect(202);
    daemon.update(json!({"service": "reader", "secrets": ["key"], "annotations": {"turn": "2"}})).expect(202);
    eventually("the new value", || {
        (daemon.call("reader/files?path=/var/openfaas/secrets/key").text() == "new").then_some(())
    });
}

#[test]
fn namespaces_keep_their_secrets_apart() {
    needs_root!();
    let daemon = Daemon::with().without_images().start();
    daemon.http.json("POST", "/system/namespace/", &json!({"name": "dev", "labels": {"openfaas": "1"}})).expect(201);
    secret(&daemon, "POST", json!({"name": "key", "value": "a"})).expect(202);
    secret(&daemon, "POST", json!({"name": "key", "value": "b", "namespace": "dev"})).expect(202);
    // The user interface names the namespace in the query.
    daemon.http.json("DELETE", "/system/secrets?namespace=dev", &json!({"name": "key"})).expect(202);
    let left = daemon.http.get("/system/secrets").expect(200).value();
    assert_eq!(left, json!([{"name": "key", "namespace": "openfaas-fn"}]));
    assert_eq!(daemon.http.get("/system/secrets?namespace=dev").expect(200).value(), json!([]));
}

#[test]
fn secrets_on_disk_are_readable_by_root_only_and_survive_a_restart() {
    needs_root!();
    let mut daemon = Daemon::with().without_images().start();
    secret(&daemon, "POST", json!({"name": "key", "value": "v"})).expect(202);
    use std::os::unix::fs::PermissionsExt;
    let file = daemon.root.join("secrets/openfaas-fn/key");
    let mode = std::fs::metadata(&file).expect("the secret's file").permissions().mode();
    assert_eq!(mode & 0o077, 0, "{mode:o}");
    daemon.kill9();
    daemon.start_again();
    assert_eq!(daemon.http.get("/system/secrets").expect(200).value().as_array().map(Vec::len), Some(1));
}
