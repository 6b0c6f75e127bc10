//! /system/secrets: values go in, and come out in the function only.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};

use super::provider::{Provider, Stated};
use crate::needs_provider;
use crate::support::{Response, eventually};

fn secret(provider: &Provider, method: &str, body: Value) -> Response {
    provider.http.json(method, "/system/secrets", &body)
}

#[test]
fn a_secret_is_created_listed_updated_and_deleted_and_never_shown() {
    needs_provider!();
    let provider = Provider::start();
    assert_eq!(provider.http.get("/system/secrets").expect(200).value(), json!([]));
    secret(&provider, "POST", json!({"name": "key", "value": "hush"})).accepted();
    let listed = provider.http.get("/system/secrets").expect(200);
    assert_eq!(listed.value(), json!([{"name": "key", "namespace": "openfaas-fn"}]));
    assert_eq!(listed.header("content-type"), Some("application/json"));
    secret(&provider, "PUT", json!({"name": "key", "value": "hush2"})).accepted();
    secret(&provider, "DELETE", json!({"name": "key"})).accepted();
    assert_eq!(provider.http.get("/system/secrets?namespace=openfaas-fn").expect(200).value(), json!([]));
    assert!(!provider.log().contains("hush"), "a value reached the log");
}

/// `faas-cli secret create --replace` relies on 409, then sends PUT.
#[test]
fn a_second_create_is_409_and_changing_a_missing_one_404() {
    needs_provider!();
    let provider = Provider::start();
    secret(&provider, "POST", json!({"name": "key", "value": "a"})).accepted();
    secret(&provider, "POST", json!({"name": "key", "value": "b"})).refused(409, &[200], &["key"]);
    secret(&provider, "PUT", json!({"name": "other", "value": "b"})).refused(404, &[200], &["other"]);
    secret(&provider, "DELETE", json!({"name": "other"})).refused(404, &[404, 500], &["other"]);
}

#[test]
fn names_that_could_leave_the_store_are_400() {
    needs_provider!();
    let provider = Provider::start();
    for name in ["", "..", "../x", "a/b", "/etc/passwd", "UPPER", "nul\u{0}", ".hidden", &"a".repeat(254)] {
        for method in ["POST", "PUT", "DELETE"] {
            secret(&provider, method, json!({"name": name, "value": "v"})).refused(400, &[400, 404, 422, 500], &[]);
        }
    }
    assert_eq!(provider.http.get("/system/secrets").expect(200).value(), json!([]));
}

#[test]
fn a_function_reads_its_secrets_and_no_others_as_its_own_user() {
    needs_provider!();
    let provider = Provider::start();
    for name in ["mine", "tls.crt", "foreign"] {
        secret(&provider, "POST", json!({"name": name, "value": format!("value of {name}\n")})).accepted();
    }
    provider.deploy(json!({"service": "reader", "secrets": ["mine", "tls.crt"]}));
    assert_eq!(provider.identity("reader")["uid"], 1000);
    // No trimming: the line end is the user's.
    for name in ["mine", "tls.crt"] {
        let read = provider.call(&format!("reader/files?path=/var/openfaas/secrets/{name}")).expect(200);
        assert_eq!(read.text(), format!("value of {name}\n"));
    }
    let names = provider.call("reader/list?path=/var/openfaas/secrets").expect(200).value();
    assert_eq!(names, json!(["mine", "tls.crt"]));
    let write = provider.invoke("POST", "reader/write?path=/var/openfaas/secrets/mine").body("x").send();
    assert_eq!(write.status, 500, "a secret could be overwritten");
    assert_eq!(provider.status("reader")["secrets"], json!(["mine", "tls.crt"]));
}

#[test]
fn without_secrets_the_secrets_directory_is_absent_or_empty() {
    needs_provider!();
    let provider = Provider::start();
    provider.deploy(json!({"service": "none"}));
    // Layers on ZFS have the directory already, as a read-only replica cannot get it later.
    let answer = provider.call("none/list?path=/var/openfaas/secrets");
    let absent = answer.status == 500 && answer.text().contains("no such file");
    assert!(absent || (answer.status == 200 && answer.value() == json!([])), "{} {}", answer.status, answer.text());
}

/// faas-cli sends `rawValue` for files, along with `value`.
#[test]
fn binary_values_arrive_unchanged_and_raw_wins_over_text() {
    needs_provider!();
    let provider = Provider::start();
    let bytes: Vec<u8> = (0..=255).collect();
    let body = json!({"name": "blob", "value": "not this", "rawValue": STANDARD.encode(&bytes)});
    secret(&provider, "POST", body).accepted();
    provider.deploy(json!({"service": "reader", "secrets": ["blob"]}));
    let read = provider.call("reader/files?path=/var/openfaas/secrets/blob").expect(200);
    assert!(read.body == bytes, "{:?}", read.body);
}

#[test]
fn a_new_value_is_seen_after_the_next_deploy() {
    needs_provider!();
    let provider = Provider::start();
    secret(&provider, "POST", json!({"name": "key", "value": "old"})).accepted();
    provider.deploy(json!({"service": "reader", "secrets": ["key"]}));
    secret(&provider, "PUT", json!({"name": "key", "value": "new"})).accepted();
    provider.update(json!({"service": "reader", "secrets": ["key"], "annotations": {"turn": "2"}})).accepted();
    eventually("the new value", || {
        (provider.call("reader/files?path=/var/openfaas/secrets/key").text() == "new").then_some(())
    });
}

#[test]
fn namespaces_keep_their_secrets_apart() {
    needs_provider!();
    let provider = Provider::start();
    provider.http.json("POST", "/system/namespace/", &json!({"name": "dev", "labels": {"openfaas": "1"}})).expect(201);
    secret(&provider, "POST", json!({"name": "key", "value": "a"})).accepted();
    secret(&provider, "POST", json!({"name": "key", "value": "b", "namespace": "dev"})).accepted();
    // The user interface names the namespace in the query.
    provider.http.json("DELETE", "/system/secrets?namespace=dev", &json!({"name": "key"})).accepted();
    let left = provider.http.get("/system/secrets").expect(200).value();
    assert_eq!(left, json!([{"name": "key", "namespace": "openfaas-fn"}]));
    assert_eq!(provider.http.get("/system/secrets?namespace=dev").expect(200).value(), json!([]));
}
