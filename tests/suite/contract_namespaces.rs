//! /system/namespaces and /system/namespace/{name}.

use serde_json::{Value, json};

use crate::needs_root;
use crate::support::{Daemon, Response};

fn create(daemon: &Daemon, name: &str) -> Response {
    daemon.http.json("POST", "/system/namespace/", &json!({"name": name, "labels": {"openfaas": "1", "team": "a"}}))
}

#[test]
fn the_default_namespace_is_listed_exactly_once() {
    needs_root!();
    let daemon = Daemon::with().without_images().start();
    assert_eq!(daemon.http.get("/system/namespaces").expect(200).value(), json!(["openfaas-fn"]));
    create(&daemon, "dev").expect(201);
    let mut all: Vec<Value> =
        daemon.http.get("/system/namespaces").expect(200).value().as_array().expect("an array").clone();
    all.sort_by_key(Value::to_string);
    assert_eq!(all, ["dev", "openfaas-fn"]);
}

#[test]
fn a_namespace_is_created_shown_updated_and_deleted() {
    needs_root!();
    let daemon = Daemon::with().without_images().start();
    create(&daemon, "dev").expect(201);
    create(&daemon, "dev").expect_error(409, &["dev"]);
    let shown = daemon.http.get("/system/namespace/dev").expect(200).value();
    assert_eq!((&shown["name"], &shown["labels"]["team"]), (&json!("dev"), &json!("a")));
    let body = json!({"name": "dev", "labels": {"openfaas": "1", "team": "b"}, "annotations": {"openfaas": "1"}});
    daemon.http.json("PUT", "/system/namespace/dev", &body).expect(202);
    assert_eq!(daemon.http.get("/system/namespace/dev").expect(200).value()["labels"]["team"], "b");
    daemon.http.json("DELETE", "/system/namespace/dev", &json!({"name": "dev"})).expect(202);
    daemon.http.get("/system/namespace/dev").expect(404);
    assert_eq!(daemon.http.get("/system/namespaces").expect(200).value(), json!(["openfaas-fn"]));
}

#[test]
fn a_missing_namespace_is_404() {
    needs_root!();
    let daemon = Daemon::with().without_images().start();
    daemon.http.get("/system/namespace/dev").expect_error(404, &["dev"]);
    let body = json!({"name": "dev", "labels": {"openfaas": "1"}});
    daemon.http.json("PUT", "/system/namespace/dev", &body).expect_error(404, &["dev"]);
    daemon.http.json("DELETE", "/system/namespace/dev", &body).expect_error(404, &["dev"]);
}

#[test]
fn bad_namespaces_are_400() {
    needs_root!();
    let daemon = Daemon::with().without_images().start();
    for body in [
        json!({"labels": {"openfaas": "1"}}),
        json!({"name": "", "labels": {"openfaas": "1"}}),
        json!({"name": "Bad_Name", "labels": {"openfaas": "1"}}),
        json!({"name": "../up", "labels": {"openfaas": "1"}}),
        json!({"name": "dev", "labels": {"openfaas": "true"}}),
        json!({"name": "dev"}),
    ] {
        let answer = daemon.http.json("POST", "/system/namespace/", &body);
        assert_eq!(answer.status, 400, "{body}: {}", answer.text());
    }
    create(&daemon, "dev").expect(201);
    let other = json!({"name": "other", "labels": {"openfaas": "1"}});
    daemon.http.json("PUT", "/system/namespace/dev", &other).expect(400);
}

#[test]
fn either_the_label_or_the_annotation_marks_a_namespace() {
    needs_root!();
    let daemon = Daemon::with().without_images().start();
    let by_annotation = json!({"name": "noted", "annotations": {"openfaas": "1"}});
    daemon.http.json("POST", "/system/namespace/", &by_annotation).expect(201);
    create(&daemon, "labelled").expect(201);
}

#[test]
fn functions_of_one_name_live_side_by_side_in_two_namespaces() {
    needs_root!();
    let daemon = Daemon::start();
    create(&daemon, "dev").expect(201);
    daemon.deploy(json!({"service": "f", "envVars": {"where": "default"}}));
    daemon.deploy(json!({"service": "f", "namespace": "dev", "envVars": {"where": "dev"}}));
    assert_eq!(daemon.call("f/env").expect(200).value()["where"], "default");
    assert_eq!(daemon.call("f.openfaas-fn/env").expect(200).value()["where"], "default");
    assert_eq!(daemon.call("f.dev/env").expect(200).value()["where"], "dev");
    assert_eq!(daemon.list("dev"), ["f"]);
    let body = json!({"functionName": "f", "namespace": "dev"});
    daemon.http.json("DELETE", "/system/functions", &body).expect(202);
    assert_eq!(daemon.call("f.dev/env").status, 404);
    assert_eq!(daemon.call("f/env").expect(200).value()["where"], "default");
}

#[test]
fn a_namespace_with_functions_in_it_stays() {
    needs_root!();
    let daemon = Daemon::start();
    create(&daemon, "dev").expect(201);
    daemon.deploy(json!({"service": "f", "namespace": "dev"}));
    let refused = daemon.http.json("DELETE", "/system/namespace/dev", &json!({"name": "dev"}));
    refused.expect_error(409, &["dev"]);
    daemon.call("f.dev").expect(200);
    daemon.http.json("DELETE", "/system/functions", &json!({"functionName": "f", "namespace": "dev"})).expect(202);
    daemon.http.json("DELETE", "/system/namespace/dev", &json!({"name": "dev"})).expect(202);
}

#[test]
fn the_default_namespace_cannot_be_deleted() {
    needs_root!();
    let daemon = Daemon::with().without_images().start();
    let answer = daemon.http.json("DELETE", "/system/namespace/openfaas-fn", &json!({"name": "openfaas-fn"}));
    assert!((400..500).contains(&answer.status), "{}", answer.status);
    assert_eq!(daemon.http.get("/system/namespaces").expect(200).value(), json!(["openfaas-fn"]));
}

#[test]
fn namespaces_survive_a_restart() {
    needs_root!();
    let mut daemon = Daemon::with().without_images().start();
    create(&daemon, "dev").expect(201);
    daemon.kill9();
    daemon.start_again();
    assert_eq!(daemon.http.get("/system/namespace/dev").expect(200).value()["labels"]["team"], "a");
}

#[test]
fn the_default_namespace_is_the_one_that_the_settings_name() {
    needs_root!();
    for daemon in
        [Daemon::with().set("namespace = \"prod\"").start(), Daemon::with().env("function_namespace", "prod").start()]
    {
        assert_eq!(daemon.http.get("/system/namespaces").expect(200).value(), json!(["prod"]));
        daemon.deploy(json!({"service": "f", "namespace": "prod"}));
        daemon.call("f").expect(200);
        daemon.call("f.prod").expect(200);
        assert_eq!(daemon.list(""), ["f"]);
    }
}
