//! /system/functions, /system/function, /system/scale-function, /system/info, /healthz.

use serde_json::{Value, json};

use super::provider::{Provider, Stated};
use crate::support::eventually;
use crate::{needs_provider, own_only};

#[test]
fn an_empty_list_is_an_empty_array_and_not_null() {
    needs_provider!();
    let provider = Provider::start();
    let answer = provider.http.get("/system/functions").expect(200);
    assert_eq!(answer.text().trim(), "[]");
    assert_eq!(answer.header("content-type"), Some("application/json"));
    assert_eq!(provider.http.get("/system/functions?namespace=").expect(200).text().trim(), "[]");
    assert_eq!(provider.http.get("/system/functions?namespace=openfaas-fn").expect(200).text().trim(), "[]");
}

#[test]
fn an_update_of_a_missing_function_is_404_and_a_create_after_it_is_202() {
    needs_provider!();
    let provider = Provider::start();
    provider.update(json!({"service": "first"})).refused(404, &[404], &["first"]);
    assert!(provider.list("openfaas-fn").is_empty());
    provider.deploy(json!({"service": "first"}));
    provider.update(json!({"service": "first"})).accepted();
    assert_eq!(provider.list("openfaas-fn"), ["first"]);
}

#[test]
fn a_second_create_is_409() {
    needs_provider!();
    let provider = Provider::start();
    provider.deploy(json!({"service": "twice"}));
    provider.create(json!({"service": "twice"})).refused(409, &[400, 500], &["twice"]);
    assert_eq!(provider.call("twice/").expect(200).value()["method"], "GET");
}

/// Everything that the user wrote comes back as it was written, and nothing that the user did not write.
#[test]
fn the_status_echoes_the_deployment_verbatim() {
    needs_provider!();
    let provider = Provider::start();
    let spec = json!({
        "service": "echoed",
        "image": provider.image,
        "envProcess": "cat -n",
        "envVars": {"a": "1", "b": "two words", "empty": ""},
        "constraints": ["node.platform.os == linux"],
        "labels": {"com.openfaas.scale.min": "1", "odd": "a \"quoted\"\nline"},
        "annotations": {"topic": "x,y", "json": "{\"k\": [1, 2]}\n"},
        "limits": {"memory": "128Mi", "cpu": "0.5"},
        "requests": {"memory": "5Mi", "cpu": "100m"},
        "readOnlyRootFilesystem": true,
    });
    provider.deploy(spec.clone());
    let status = provider.status("echoed");
    for key in
        ["image", "envProcess", "envVars", "constraints", "annotations", "limits", "requests", "readOnlyRootFilesystem"]
    {
        assert_eq!(status[key], spec[key], "{key}");
    }
    assert_eq!(status["name"], "echoed");
    assert_eq!(status["namespace"], "openfaas-fn");
    assert_eq!(status["labels"]["odd"], spec["labels"]["odd"]);
    assert_eq!(status["replicas"], 1);
    assert_eq!(status["availableReplicas"], 1);
    let listed = provider.http.get("/system/functions").expect(200).value();
    for key in [
        "name",
        "image",
        "namespace",
        "envVars",
        "labels",
        "annotations",
        "limits",
        "requests",
        "replicas",
        "createdAt",
    ] {
        assert_eq!(listed[0][key], status[key], "{key} in the list");
    }
}

/// Go's certifier compares with nil: maps that the user left out are left out, but labels and annotations
/// are always objects, because it dereferences them.
#[test]
fn what_was_not_given_is_absent_but_labels_and_annotations_are_objects() {
    needs_provider!();
    let provider = Provider::start();
    provider.deploy(json!({"service": "bare"}));
    let status = provider.status("bare");
    for key in ["envVars", "limits", "requests"] {
        assert!(status.get(key).is_none_or(Value::is_null), "{key}: {status}");
    }
    assert!(status["annotations"].is_object() && status["labels"].is_object(), "{status}");
    assert_eq!(status["labels"], json!({}));
}

#[test]
fn null_stands_for_absent_in_every_field() {
    needs_provider!();
    let provider = Provider::start();
    provider.deploy(json!({
        "service": "nulls", "namespace": null, "envProcess": null, "envVars": null, "constraints": null, "secrets": null,
        "labels": null, "annotations": null, "limits": null, "requests": null, "readOnlyRootFilesystem": null,
    }));
    assert_eq!(provider.status("nulls")["namespace"], "openfaas-fn");
}

#[test]
fn keys_match_without_regard_to_case_and_unknown_keys_are_ignored() {
    needs_provider!();
    let provider = Provider::start();
    let body = json!({
        "Service": "cased", "IMAGE": provider.image, "envprocess": "cat", "EnvVars": {"X": "1"},
        "network": "func_functions", "registryAuth": "",
    });
    provider.http.json("POST", "/system/functions", &body).accepted();
    provider.await_ready("cased", 1);
    let status = provider.status("cased");
    assert_eq!((&status["envProcess"], &status["envVars"]["X"]), (&json!("cat"), &json!("1")));
}

/// The stock gateway sends every body chunked, even one of three bytes.
#[test]
fn chunked_bodies_are_taken_everywhere() {
    needs_provider!();
    let provider = Provider::start();
    let spec = json!({"service": "chunky", "image": provider.image}).to_string();
    let (a, b) = spec.as_bytes().split_at(7);
    provider.http.request("POST", "/system/functions").chunks(&[a, b]).send().accepted();
    provider.await_ready("chunky", 1);
    let answer =
        provider.http.request("POST", "/system/scale-function/chunky").chunks(&[br#"{"replicas":"#, b"2}"]).send();
    answer.accepted();
    provider.await_ready("chunky", 2);
    let echoed = provider.invoke("POST", "chunky/x").chunks(&[b"a", b"bc"]).send().expect(200).value();
    assert_eq!(echoed["body"], "abc");
    provider.http.request("DELETE", "/system/functions").chunks(&[br#"{"functionName":"chunky"}"#]).send().accepted();
    assert!(provider.list("openfaas-fn").is_empty());
}

#[test]
fn created_at_is_always_a_valid_time_and_an_update_keeps_it() {
    needs_provider!();
    let provider = Provider::start();
    provider.deploy(json!({"service": "aged"}));
    let first = provider.status("aged")["createdAt"].as_str().expect("a text").to_owned();
    let time: jiff::Timestamp = first.parse().expect("RFC 3339");
    assert!(time.as_second() > 1_700_000_000, "{first}");
    provider.update(json!({"service": "aged", "envVars": {"x": "y"}})).accepted();
    assert_eq!(provider.status("aged")["createdAt"], json!(first));
}

#[test]
fn replicas_are_at_the_label_scale_min_right_after_the_deploy() {
    needs_provider!();
    let provider = Provider::start();
    provider.create(json!({"service": "pair", "labels": {"com.openfaas.scale.min": "2"}})).accepted();
    assert_eq!(provider.status("pair")["replicas"], 2);
    provider.await_ready("pair", 2);
    assert!(provider.runs(2));
}

#[test]
fn an_update_replaces_the_whole_spec() {
    needs_provider!();
    let provider = Provider::start();
    provider.deploy(json!({
        "service": "whole", "envVars": {"a": "1"}, "labels": {"l": "1"}, "annotations": {"n": "1"},
        "limits": {"memory": "128Mi"}, "constraints": ["c"], "readOnlyRootFilesystem": true, "envProcess": "p",
    }));
    provider.update(json!({"service": "whole", "envVars": {"b": "2"}})).accepted();
    eventually("the new environment", || {
        let env = provider.call("whole/env").expect(200).value();
        (env["b"] == "2" && env.get("a").is_none()).then_some(())
    });
    let status = provider.status("whole");
    assert_eq!(status["envVars"], json!({"b": "2"}));
    assert!(status["labels"].get("l").is_none() && status["annotations"].get("n").is_none(), "{status}");
    for key in ["limits", "constraints", "envProcess"] {
        assert!(status.get(key).is_none_or(Value::is_null), "{key}: {status}");
    }
    assert_ne!(status["readOnlyRootFilesystem"], true);
}

#[test]
fn an_update_keeps_the_replica_count() {
    needs_provider!();
    own_only!("faasd has one replica of a function at most");
    let provider = Provider::start();
    provider.deploy(json!({"service": "kept"}));
    provider.scale("kept", 3).accepted();
    provider.await_ready("kept", 3);
    provider.update(json!({"service": "kept", "envVars": {"v": "2"}})).accepted();
    assert_eq!(provider.status("kept")["replicas"], 3);
    eventually("three new replicas and no old one", || {
        (provider.status("kept")["availableReplicas"] == 3 && provider.runs(3)).then_some(())
    });
    for _ in 0..12 {
        assert_eq!(provider.call("kept/env").expect(200).value()["v"], "2");
    }
}

/// The same spec again still replaces the replicas: that is how a tag is re-resolved and secrets rotated.
#[test]
fn the_same_spec_again_restarts_the_replicas() {
    needs_provider!();
    let provider = Provider::start();
    provider.deploy(json!({"service": "again"}));
    let before = provider.identity("again")["started"].clone();
    provider.update(json!({"service": "again"})).accepted();
    eventually("a replica that started later", || (provider.identity("again")["started"] != before).then_some(()));
}

#[test]
fn delete_is_202_and_a_second_one_404_with_the_name() {
    needs_provider!();
    let provider = Provider::start();
    provider.deploy(json!({"service": "gone"}));
    provider.delete("gone").accepted();
    assert_eq!(provider.http.get("/system/function/gone").status, 404);
    assert_eq!(provider.call("gone").status, 404);
    provider.delete("gone").refused(404, &[404], &["gone"]);
    eventually("nothing of it runs", || provider.runs(0).then_some(()));
}

/// `faas-cli deploy --replace --update=false` deletes and posts within milliseconds.
#[test]
fn a_create_may_follow_a_delete_at_once() {
    needs_provider!();
    let provider = Provider::start();
    provider.deploy(json!({"service": "phoenix"}));
    for round in 0..5 {
        provider.delete("phoenix").accepted();
        provider.create(json!({"service": "phoenix", "envVars": {"round": round.to_string()}})).accepted();
        provider.await_ready("phoenix", 1);
        assert_eq!(provider.call("phoenix/env").expect(200).value()["round"], round.to_string());
    }
    eventually("one replica is left", || provider.runs(1).then_some(()));
}

#[test]
fn the_user_interface_deletes_with_the_namespace_in_the_query() {
    needs_provider!();
    let provider = Provider::start();
    provider.deploy(json!({"service": "viaui"}));
    let body = json!({"functionName": "viaui"});
    provider.http.json("DELETE", "/system/functions?namespace=openfaas-fn", &body).accepted();
    assert!(provider.list("openfaas-fn").is_empty());
}

#[test]
fn the_status_of_a_missing_function_is_404_with_an_empty_body() {
    needs_provider!();
    let provider = Provider::start();
    for target in ["/system/function/nobody", "/system/function/nobody?namespace=openfaas-fn&usage=1"] {
        let answer = provider.http.get(target).expect(404);
        assert_eq!(answer.text(), "");
    }
}

#[test]
fn the_status_is_found_by_name_and_by_name_with_namespace() {
    needs_provider!();
    let provider = Provider::start();
    provider.deploy(json!({"service": "named"}));
    for target in
        ["named", "named?namespace=openfaas-fn", "named.openfaas-fn", "named?namespace=openfaas-fn&usage=false"]
    {
        let status = provider.http.get(&format!("/system/function/{target}")).expect(200).value();
        assert_eq!(status["name"], "named", "{target}");
    }
}

/// faas-cli sends `usage=1`, the gateway `true` or `false`.
#[test]
fn usage_is_told_when_it_is_asked_for() {
    needs_provider!();
    let provider = Provider::start();
    provider.deploy(json!({"service": "used"}));
    for ask in ["1", "true", "t", "TRUE"] {
        let status = provider.http.get(&format!("/system/function/used?usage={ask}")).expect(200).value();
        let memory = status["usage"]["totalMemoryBytes"].as_f64().unwrap_or_else(|| panic!("usage={ask}: {status}"));
        assert!(memory > 100_000.0, "{memory}");
    }
    for ask in ["false", "0", "maybe"] {
        let status = provider.http.get(&format!("/system/function/used?usage={ask}")).expect(200).value();
        assert!(status.get("usage").is_none_or(Value::is_null), "usage={ask}: {status}");
    }
}

#[test]
fn scaling_up_and_down_changes_the_number_of_replicas() {
    needs_provider!();
    own_only!("faasd has one replica of a function at most");
    let provider = Provider::start();
    provider.deploy(json!({"service": "many"}));
    for wanted in [4, 2, 1, 3] {
        provider.scale("many", wanted).accepted();
        assert_eq!(provider.status("many")["replicas"], wanted);
        eventually(&format!("{wanted} replicas"), || {
            let ready = provider.status("many")["availableReplicas"] == wanted;
            (ready && provider.runs(wanted as usize)).then_some(())
        });
        provider.call("many/").expect(200);
    }
}

#[test]
fn scaling_takes_the_namespace_from_the_body_or_from_the_query() {
    needs_provider!();
    let provider = Provider::start();
    provider
        .http
        .json("POST", "/system/namespace/", &json!({"name": "other", "labels": {"openfaas": "1"}}))
        .expect(201);
    provider.deploy(json!({"service": "far", "namespace": "other"}));
    let in_body = json!({"serviceName": "far", "replicas": 2, "namespace": "other"});
    provider.http.json("POST", "/system/scale-function/far", &in_body).accepted();
    assert_eq!(provider.status("far.other")["replicas"], 2);
    let in_query = json!({"serviceName": "far", "replicas": 1});
    provider.http.json("POST", "/system/scale-function/far?namespace=other", &in_query).accepted();
    assert_eq!(provider.status("far.other")["replicas"], 1);
    provider.http.json("POST", "/system/scale-function/far", &in_query).refused(404, &[404, 500], &["far"]);
}

#[test]
fn scaling_takes_the_name_from_the_path() {
    needs_provider!();
    let provider = Provider::start();
    provider.deploy(json!({"service": "pathed"}));
    for body in [json!({"replicas": 2}), json!({"service": "pathed", "replicas": 1})] {
        provider.http.json("POST", "/system/scale-function/pathed", &body).accepted();
        assert_eq!(provider.status("pathed")["replicas"], body["replicas"]);
    }
}

#[test]
fn scaling_a_missing_function_is_404() {
    needs_provider!();
    let provider = Provider::start();
    provider.scale("nobody", 1).refused(404, &[404, 500], &["nobody"]);
}

#[test]
fn scaled_to_zero_nothing_runs_and_the_list_says_zero() {
    needs_provider!();
    own_only!("the free stock providers refuse to scale to zero");
    let provider = Provider::start();
    provider.deploy(json!({"service": "idle"}));
    provider.scale("idle", 0).accepted();
    let status = provider.status("idle");
    assert_eq!(status["replicas"].as_u64().unwrap_or(0), 0);
    eventually("nothing of it runs", || {
        let none = provider.status("idle")["availableReplicas"].as_u64().unwrap_or(0) == 0;
        (none && provider.runs(0)).then_some(())
    });
    assert_eq!(provider.list("openfaas-fn"), ["idle"]);
}

#[test]
fn info_names_the_provider_the_orchestration_and_the_version() {
    needs_provider!();
    let provider = Provider::start();
    let info = provider.http.get("/system/info").expect(200).value();
    for text in [&info["provider"], &info["orchestration"], &info["version"]["release"], &info["version"]["sha"]] {
        assert!(text.as_str().is_some_and(|t| !t.is_empty()), "{info}");
    }
}

#[test]
fn healthz_is_200_with_an_empty_body_by_get_and_head() {
    needs_provider!();
    let provider = Provider::start();
    for method in ["GET", "HEAD"] {
        assert_eq!(provider.http.request(method, "/healthz").send().expect(200).text(), "");
    }
    provider.http.request("POST", "/healthz").send().expect(405);
}

#[test]
fn an_unknown_path_is_404_and_a_known_one_with_a_wrong_method_405() {
    needs_provider!();
    let provider = Provider::start();
    for path in [
        "/",
        "/nothing",
        "/system",
        "/system/functions/",
        "/system/function/",
        "/system/function/a%20b",
        "/system/alert",
    ] {
        provider.http.get(path).expect(404);
    }
    for (method, path) in [
        ("PATCH", "/system/functions"),
        ("POST", "/system/function/x"),
        ("GET", "/system/scale-function/x"),
        ("POST", "/system/info"),
        ("PATCH", "/system/secrets"),
        ("POST", "/system/logs"),
        ("POST", "/system/namespaces"),
    ] {
        assert_eq!(provider.http.request(method, path).body("").send().expect(405).text(), "", "{method} {path}");
    }
}

/// The gateway opens a fresh connection for this before every invocation.
#[test]
fn a_thousand_status_queries_on_fresh_connections_all_answer() {
    needs_provider!();
    let provider = Provider::start();
    provider.deploy(json!({"service": "asked"}));
    std::thread::scope(|scope| {
        for _ in 0..10 {
            scope.spawn(|| {
                for _ in 0..100 {
                    let ask = provider.http.request("GET", "/system/function/asked?namespace=openfaas-fn&usage=false");
                    assert_eq!(ask.header("Connection", "close").send().expect(200).value()["availableReplicas"], 1);
                }
            });
        }
    });
}

#[test]
fn errors_have_the_form_of_gos_http_error() {
    needs_provider!();
    let provider = Provider::start();
    let unknown = provider.http.get("/nothing").expect(404);
    assert_eq!(unknown.text(), "404 page not found\n");
    for answer in [unknown, provider.delete("nobody").expect(404), provider.create(json!({})).expect(400)] {
        assert_eq!(answer.header("content-type"), Some("text/plain; charset=utf-8"));
        assert_eq!(answer.header("x-content-type-options"), Some("nosniff"));
        assert!(answer.text().ends_with('\n') && answer.text().lines().count() == 1, "{:?}", answer.text());
    }
}

#[test]
fn a_label_scale_min_of_zero_means_one_and_no_number_is_400() {
    needs_provider!();
    let provider = Provider::start();
    provider.deploy(json!({"service": "zero", "labels": {"com.openfaas.scale.min": "0"}}));
    assert_eq!(provider.status("zero")["replicas"], 1);
    for text in ["-1", "many", "1.5", ""] {
        let answer = provider.create(json!({"service": "f", "labels": {"com.openfaas.scale.min": text}}));
        answer.expect_error(400, &["com.openfaas.scale.min"]);
    }
}
