//! /system/namespaces and /system/namespace/{name}.

use serde_json::{Value, json};

use super::provider::{Provider, Stated};
use crate::needs_provider;
use crate::support::Response;

fn create(provider: &Provider, name: &str) -> Response {
    provider.http.json("POST", "/system/namespace/", &json!({"name": name, "labels": {"openfaas": "1", "team": "a"}}))
}

#[test]
fn the_default_namespace_is_listed_exactly_once() {
    needs_provider!();
    let provider = Provider::start();
    assert_eq!(provider.http.get("/system/namespaces").expect(200).value(), json!(["openfaas-fn"]));
    create(&provider, "dev").expect(201);
    let mut all: Vec<Value> =
        provider.http.get("/system/namespaces").expect(200).value().as_array().expect("an array").clone();
    all.sort_by_key(Value::to_string);
    assert_eq!(all, ["dev", "openfaas-fn"]);
}

#[test]
fn a_namespace_is_created_shown_updated_and_deleted() {
    needs_provider!();
    let provider = Provider::start();
    create(&provider, "dev").expect(201);
    create(&provider, "dev").refused(409, &[409], &["dev"]);
    let shown = provider.http.get("/system/namespace/dev").expect(200).value();
    assert_eq!((&shown["name"], &shown["labels"]["team"]), (&json!("dev"), &json!("a")));
    let body = json!({"name": "dev", "labels": {"openfaas": "1", "team": "b"}, "annotations": {"openfaas": "1"}});
    provider.http.json("PUT", "/system/namespace/dev", &body).accepted();
    assert_eq!(provider.http.get("/system/namespace/dev").expect(200).value()["labels"]["team"], "b");
    provider.http.json("DELETE", "/system/namespace/dev", &json!({"name": "dev"})).accepted();
    provider.http.get("/system/namespace/dev").expect(404);
    assert_eq!(provider.http.get("/system/namespaces").expect(200).value(), json!(["openfaas-fn"]));
}

#[test]
fn a_missing_namespace_is_404() {
    needs_provider!();
    let provider = Provider::start();
    provider.http.get("/system/namespace/dev").expect_error(404, &["dev"]);
    let body = json!({"name": "dev", "labels": {"openfaas": "1"}});
    provider.http.json("PUT", "/system/namespace/dev", &body).expect_error(404, &["dev"]);
    provider.http.json("DELETE", "/system/namespace/dev", &body).expect_error(404, &["dev"]);
}

#[test]
fn bad_namespaces_are_400() {
    needs_provider!();
    let provider = Provider::start();
    for body in [
        json!({"labels": {"openfaas": "1"}}),
        json!({"name": "", "labels": {"openfaas": "1"}}),
        json!({"name": "Bad_Name", "labels": {"openfaas": "1"}}),
        json!({"name": "../up", "labels": {"openfaas": "1"}}),
        json!({"name": "dev", "labels": {"openfaas": "true"}}),
        json!({"name": "dev"}),
    ] {
        let answer = provider.http.json("POST", "/system/namespace/", &body);
        assert_eq!(answer.status, 400, "{body}: {}", answer.text());
    }
    create(&provider, "dev").expect(201);
    let other = json!({"name": "other", "labels": {"openfaas": "1"}});
    provider.http.json("PUT", "/system/namespace/dev", &other).expect(400);
}

#[test]
fn either_the_label_or_the_annotation_marks_a_namespace() {
    needs_provider!();
    let provider = Provider::start();
    let by_annotation = json!({"name": "noted", "annotations": {"openfaas": "1"}});
    provider.http.json("POST", "/system/namespace/", &by_annotation).expect(201);
    create(&provider, "labelled").expect(201);
}

#[test]
fn functions_of_one_name_live_side_by_side_in_two_namespaces() {
    needs_provider!();
    let provider = Provider::start();
    create(&provider, "dev").expect(201);
    provider.deploy(json!({"service": "f", "envVars": {"where": "default"}}));
    provider.deploy(json!({"service": "f", "namespace": "dev", "envVars": {"where": "dev"}}));
    assert_eq!(provider.call("f/env").expect(200).value()["where"], "default");
    assert_eq!(provider.call("f.openfaas-fn/env").expect(200).value()["where"], "default");
    assert_eq!(provider.call("f.dev/env").expect(200).value()["where"], "dev");
    assert_eq!(provider.list("dev"), ["f"]);
    let body = json!({"functionName": "f", "namespace": "dev"});
    provider.http.json("DELETE", "/system/functions", &body).accepted();
    assert_eq!(provider.call("f.dev/env").status, 404);
    assert_eq!(provider.call("f/env").expect(200).value()["where"], "default");
}

#[test]
fn a_namespace_with_functions_in_it_stays() {
    needs_provider!();
    let provider = Provider::start();
    create(&provider, "dev").expect(201);
    provider.deploy(json!({"service": "f", "namespace": "dev"}));
    let refused = provider.http.json("DELETE", "/system/namespace/dev", &json!({"name": "dev"}));
    refused.refused(409, &[400, 500], &["dev"]);
    provider.call("f.dev").expect(200);
    provider.http.json("DELETE", "/system/functions", &json!({"functionName": "f", "namespace": "dev"})).accepted();
    provider.http.json("DELETE", "/system/namespace/dev", &json!({"name": "dev"})).accepted();
}

#[test]
fn the_default_namespace_cannot_be_deleted() {
    needs_provider!();
    let provider = Provider::start();
    let answer = provider.http.json("DELETE", "/system/namespace/openfaas-fn", &json!({"name": "openfaas-fn"}));
    assert!((400..500).contains(&answer.status), "{}", answer.status);
    assert_eq!(provider.http.get("/system/namespaces").expect(200).value(), json!(["openfaas-fn"]));
}
