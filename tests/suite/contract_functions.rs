//! /system/functions, /system/function, /system/scale-function, /system/info, /healthz.

use serde_json::{Value, json};

use crate::needs_root;
use crate::support::{Daemon, eventually, images};

#[test]
fn an_empty_list_is_an_empty_array_and_not_null() {
    needs_root!();
    let daemon = Daemon::with().without_images().start();
    let answer = daemon.http.get("/system/functions").expect(200);
    assert_eq!(answer.text().trim(), "[]");
    assert_eq!(answer.header("content-type"), Some("application/json"));
    assert_eq!(daemon.http.get("/system/functions?namespace=").expect(200).text().trim(), "[]");
    assert_eq!(daemon.http.get("/system/functions?namespace=openfaas-fn").expect(200).text().trim(), "[]");
}

#[test]
fn an_update_of_a_missing_function_is_404_and_a_create_after_it_is_202() {
    needs_root!();
    let daemon = Daemon::start();
    daemon.update(json!({"service": "first"})).expect_error(404, &["first"]);
    assert!(daemon.list("openfaas-fn").is_empty());
    daemon.deploy(json!({"service": "first"}));
    daemon.update(json!({"service": "first"})).expect(202);
    assert_eq!(daemon.list("openfaas-fn"), ["first"]);
}

#[test]
fn a_second_create_is_409() {
    needs_root!();
    let daemon = Daemon::start();
    daemon.deploy(json!({"service": "twice"}));
    daemon.create(json!({"service": "twice"})).expect_error(409, &["twice"]);
    assert_eq!(daemon.call("twice/").expect(200).value()["method"], "GET");
}

/// Everything that the user wrote comes back as it was written, and nothing that the user did not write.
#[test]
fn the_status_echoes_the_deployment_verbatim() {
    needs_root!();
    let daemon = Daemon::start();
    let spec = json!({
        "service": "echoed",
        "image": images::PROBE,
        "envProcess": "cat -n",
        "envVars": {"a": "1", "b": "two words", "empty": ""},
        "constraints": ["node.platform.os == linux"],
        "labels": {"com.openfaas.scale.min": "1", "odd": "a \"quoted\"\nline"},
        "annotations": {"topic": "x,y", "json": "{\"k\": [1, 2]}\n"},
        "limits": {"memory": "128Mi", "cpu": "0.5"},
        "requests": {"memory": "5Mi", "cpu": "100m"},
        "readOnlyRootFilesystem": true,
    });
    daemon.deploy(spec.clone());
    let status = daemon.status("echoed");
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
    let listed = daemon.http.get("/system/functions").expect(200).value();
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
    needs_root!();
    let daemon = Daemon::start();
    daemon.deploy(json!({"service": "bare"}));
    let status = daemon.status("bare");
    for key in ["envVars", "limits", "requests"] {
        assert!(status.get(key).is_none_or(Value::is_null), "{key}: {status}");
    }
    assert!(status["annotations"].is_object() && status["labels"].is_object(), "{status}");
    assert_eq!(status["labels"], json!({}));
}

/// The certifier looks for this label; faas-cli diff would report it as a difference. So it is a setting.
#[test]
fn the_label_faas_function_is_shown_where_the_setting_asks_for_it() {
    needs_root!();
    let daemon = Daemon::with().set("function_label = true").start();
    daemon.deploy(json!({"service": "labelled", "labels": {"mine": "1"}}));
    assert_eq!(daemon.status("labelled")["labels"], json!({"mine": "1", "faas_function": "labelled"}));
}

#[test]
fn null_stands_for_absent_in_every_field() {
    needs_root!();
    let daemon = Daemon::start();
    daemon.deploy(json!({
        "service": "nulls", "namespace": null, "envProcess": null, "envVars": null, "constraints": null, "secrets": null,
        "labels": null, "annotations": null, "limits": null, "requests": null, "readOnlyRootFilesystem": null,
    }));
    assert_eq!(daemon.status("nulls")["namespace"], "openfaas-fn");
}

#[test]
fn keys_match_without_regard_to_case_and_unknown_keys_are_ignored() {
    needs_root!();
    let daemon = Daemon::start();
    let body = json!({
        "Service": "cased", "IMAGE": images::PROBE, "envprocess": "cat", "EnvVars": {"X": "1"},
        "network": "func_functions", "registryAuth": "",
    });
    daemon.http.json("POST", "/system/functions", &body).expect(202);
    daemon.await_ready("cased", 1);
    let status = daemon.status("cased");
    assert_eq!((&status["envProcess"], &status["envVars"]["X"]), (&json!("cat"), &json!("1")));
}

/// The stock gateway sends every body chunked, even one of three bytes.
#[test]
fn chunked_bodies_are_taken_everywhere() {
    needs_root!();
    let daemon = Daemon::start();
    let spec = json!({"service": "chunky", "image": images::PROBE}).to_string();
    let (a, b) = spec.as_bytes().split_at(7);
    daemon.http.request("POST", "/system/functions").chunks(&[a, b]).send().expect(202);
    daemon.await_ready("chunky", 1);
    let answer =
        daemon.http.request("POST", "/system/scale-function/chunky").chunks(&[br#"{"replicas":"#, b"2}"]).send();
    answer.expect(202);
    daemon.await_ready("chunky", 2);
    let echoed = daemon.invoke("POST", "chunky/x").chunks(&[b"a", b"bc"]).send().expect(200).value();
    assert_eq!(echoed["body"], "abc");
    daemon.http.request("DELETE", "/system/functions").chunks(&[br#"{"functionName":"chunky"}"#]).send().expect(202);
    assert!(daemon.list("openfaas-fn").is_empty());
}

#[test]
fn created_at_is_always_a_valid_time_and_an_update_keeps_it() {
    needs_root!();
    let daemon = Daemon::start();
    daemon.deploy(json!({"service": "aged"}));
    let first = daemon.status("aged")["createdAt"].as_str().expect("a text").to_owned();
    let time: jiff::Timestamp = first.parse().expect("RFC 3339");
    assert!(time.as_second() > 1_700_000_000, "{first}");
    daemon.update(json!({"service": "aged", "envVars": {"x": "y"}})).expect(202);
    assert_eq!(daemon.status("aged")["createdAt"], json!(first));
}

#[test]
fn replicas_are_at_the_label_scale_min_right_after_the_deploy() {
    needs_root!();
    let daemon = Daemon::start();
    daemon.create(json!({"service": "pair", "labels": {"com.openfaas.scale.min": "2"}})).expect(202);
    assert_eq!(daemon.status("pair")["replicas"], 2);
    daemon.await_ready("pair", 2);
    assert_eq!(daemon.traces().replica_names().len(), 2);
}

#[test]
fn an_update_replaces_the_whole_spec() {
    needs_root!();
    let daemon = Daemon::start();
    daemon.deploy(json!({
        "service": "whole", "envVars": {"a": "1"}, "labels": {"l": "1"}, "annotations": {"n": "1"},
        "limits": {"memory": "128Mi"}, "constraints": ["c"], "readOnlyRootFilesystem": true, "envProcess": "p",
    }));
    daemon.update(json!({"service": "whole", "envVars": {"b": "2"}})).expect(202);
    eventually("the new environment", || {
        let env = daemon.call("whole/env").expect(200).value();
        (env["b"] == "2" && env.get("a").is_none()).then_some(())
    });
    let status = daemon.status("whole");
    assert_eq!(status["envVars"], json!({"b": "2"}));
    assert!(status["labels"].get("l").is_none() && status["annotations"].get("n").is_none(), "{status}");
    for key in ["limits", "constraints", "envProcess"] {
        assert!(status.get(key).is_none_or(Value::is_null), "{key}: {status}");
    }
    assert_ne!(status["readOnlyRootFilesystem"], true);
}

#[test]
fn an_update_keeps_the_replica_count() {
    needs_root!();
    let daemon = Daemon::start();
    daemon.deploy(json!({"service": "kept"}));
    daemon.scale("kept", 3).expect(202);
    daemon.await_ready("kept", 3);
    daemon.update(json!({"service": "kept", "envVars": {"v": "2"}})).expect(202);
    assert_eq!(daemon.status("kept")["replicas"], 3);
    eventually("three new replicas and no old one", || {
        (daemon.status("kept")["availableReplicas"] == 3 && daemon.traces().replica_names().len() == 3).then_some(())
    });
    for _ in 0..12 {
        assert_eq!(daemon.call("kept/env").expect(200).value()["v"], "2");
    }
}

/// The same spec again still replaces the replicas: that is how a tag is re-resolved and secrets rotated.
#[test]
fn the_same_spec_again_restarts_the_replicas() {
    needs_root!();
    let daemon = Daemon::start();
    daemon.deploy(json!({"service": "again"}));
    let before = daemon.identity("again")["started"].clone();
    daemon.update(json!({"service": "again"})).expect(202);
    eventually("a replica that started later", || (daemon.identity("again")["started"] != before).then_some(()));
}

#[test]
fn delete_is_202_and_a_second_one_404_with_the_name() {
    needs_root!();
    let daemon = Daemon::start();
    daemon.deploy(json!({"service": "gone"}));
    daemon.delete("gone").expect(202);
    assert_eq!(daemon.http.get("/system/function/gone").status, 404);
    assert_eq!(daemon.call("gone").status, 404);
    daemon.delete("gone").expect_error(404, &["gone"]);
    eventually("nothing of it runs", || daemon.traces().replica_names().is_empty().then_some(()));
}

/// `faas-cli deploy --replace --update=false` deletes and posts within milliseconds.
#[test]
fn a_create_may_follow_a_delete_at_once() {
    needs_root!();
    let daemon = Daemon::start();
    daemon.deploy(json!({"service": "phoenix"}));
    for round in 0..5 {
        daemon.delete("phoenix").expect(202);
        daemon.create(json!({"service": "phoenix", "envVars": {"round": round.to_string()}})).expect(202);
        daemon.await_ready("phoenix", 1);
        assert_eq!(daemon.call("phoenix/env").expect(200).value()["round"], round.to_string());
    }
    eventually("one replica is left", || (daemon.traces().replica_names().len() == 1).then_some(()));
}

#[test]
fn the_user_interface_deletes_with_the_namespace_in_the_query() {
    needs_root!();
    let daemon = Daemon::start();
    daemon.deploy(json!({"service": "viaui"}));
    let body = json!({"functionName": "viaui"});
    daemon.http.json("DELETE", "/system/functions?namespace=openfaas-fn", &body).expect(202);
    assert!(daemon.list("openfaas-fn").is_empty());
}

#[test]
fn the_status_of_a_missing_function_is_404_with_an_empty_body() {
    needs_root!();
    let daemon = Daemon::with().without_images().start();
    for target in ["/system/function/nobody", "/system/function/nobody?namespace=openfaas-fn&usage=1"] {
        let answer = daemon.http.get(target).expect(404);
        assert_eq!(answer.text(), "");
    }
}

#[test]
fn the_status_is_found_by_name_and_by_name_with_namespace() {
    needs_root!();
    let daemon = Daemon::start();
    daemon.deploy(json!({"service": "named"}));
    for target in
        ["named", "named?namespace=openfaas-fn", "named.openfaas-fn", "named?namespace=openfaas-fn&usage=false"]
    {
        let status = daemon.http.get(&format!("/system/function/{target}")).expect(200).value();
        assert_eq!(status["name"], "named", "{target}");
    }
}

/// faas-cli sends `usage=1`, the gateway `true` or `false`.
#[test]
fn usage_is_told_when_it_is_asked_for() {
    needs_root!();
    let daemon = Daemon::start();
    daemon.deploy(json!({"service": "used"}));
    for ask in ["1", "true", "t", "TRUE"] {
        let status = daemon.http.get(&format!("/system/function/used?usage={ask}")).expect(200).value();
        let memory = status["usage"]["totalMemoryBytes"].as_f64().unwrap_or_else(|| panic!("usage={ask}: {status}"));
        assert!(memory > 100_000.0, "{memory}");
    }
    for ask in ["false", "0", "maybe"] {
        let status = daemon.http.get(&format!("/system/function/used?usage={ask}")).expect(200).value();
        assert!(status.get("usage").is_none_or(Value::is_null), "usage={ask}: {status}");
    }
}

#[test]
fn scaling_up_and_down_changes_the_number_of_replicas() {
    needs_root!();
    let daemon = Daemon::start();
    daemon.deploy(json!({"service": "many"}));
    for wanted in [4, 2, 1, 3] {
        daemon.scale("many", wanted).expect(202);
        assert_eq!(daemon.status("many")["replicas"], wanted);
        eventually(&format!("{wanted} replicas"), || {
            let ready = daemon.status("many")["availableReplicas"] == wanted;
            (ready && daemon.traces().replica_names().len() as u64 == wanted).then_some(())
        });
        daemon.call("many/").expect(200);
    }
}

#[test]
fn scaling_takes_the_namespace_from_the_body_or_from_the_query() {
    needs_root!();
    let daemon = Daemon::start();
    daemon.http.json("POST", "/system/namespace/", &json!({"name": "other", "labels": {"openfaas": "1"}})).expect(201);
    daemon.deploy(json!({"service": "far", "namespace": "other"}));
    let in_body = json!({"serviceName": "far", "replicas": 2, "namespace": "other"});
    daemon.http.json("POST", "/system/scale-function/far", &in_body).expect(202);
    assert_eq!(daemon.status("far.other")["replicas"], 2);
    let in_query = json!({"serviceName": "far", "replicas": 1});
    daemon.http.json("POST", "/system/scale-function/far?namespace=other", &in_query).expect(202);
    assert_eq!(daemon.status("far.other")["replicas"], 1);
    daemon.http.json("POST", "/system/scale-function/far", &in_query).expect_error(404, &["far"]);
}

#[test]
fn scaling_takes_the_name_from_the_path() {
    needs_root!();
    let daemon = Daemon::start();
    daemon.deploy(json!({"service": "pathed"}));
    for body in [json!({"replicas": 2}), json!({"service": "pathed", "replicas": 1})] {
        daemon.http.json("POST", "/system/scale-function/pathed", &body).expect(202);
        assert_eq!(daemon.status("pathed")["replicas"], body["replicas"]);
    }
}

#[test]
fn scaling_a_missing_function_is_404() {
    needs_root!();
    let daemon = Daemon::with().without_images().start();
    daemon.scale("nobody", 1).expect_error(404, &["nobody"]);
}

#[test]
fn scaled_to_zero_nothing_runs_and_the_list_says_zero() {
    needs_root!();
    let daemon = Daemon::start();
    daemon.deploy(json!({"service": "idle"}));
    daemon.scale("idle", 0).expect(202);
    let status = daemon.status("idle");
    assert_eq!(status["replicas"].as_u64().unwrap_or(0), 0);
    eventually("nothing of it runs", || {
        let none = daemon.status("idle")["availableReplicas"].as_u64().unwrap_or(0) == 0;
        (none && daemon.traces().replica_names().is_empty()).then_some(())
    });
    assert_eq!(daemon.list("openfaas-fn"), ["idle"]);
}

#[test]
fn info_names_the_provider_the_orchestration_and_the_version() {
    needs_root!();
    let daemon = Daemon::with().without_images().start();
    let info = daemon.http.get("/system/info").expect(200).value();
    for text in [&info["provider"], &info["orchestration"], &info["version"]["release"], &info["version"]["sha"]] {
        assert!(text.as_str().is_some_and(|t| !t.is_empty()), "{info}");
    }
}

#[test]
fn healthz_is_200_with_an_empty_body_by_get_and_head() {
    needs_root!();
    let daemon = Daemon::with().without_images().start();
    for method in ["GET", "HEAD"] {
        assert_eq!(daemon.http.request(method, "/healthz").send().expect(200).text(), "");
    }
    daemon.http.request("POST", "/healthz").send().expect(405);
}

#[test]
fn an_unknown_path_is_404_and_a_known_one_with_a_wrong_method_405() {
    needs_root!();
    let daemon = Daemon::with().without_images().start();
    for path in [
        "/",
        "/nothing",
        "/system",
        "/system/functions/",
        "/system/function/",
        "/system/function/a%20b",
        "/system/alert",
    ] {
        daemon.http.get(path).expect(404);
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
        assert_eq!(daemon.http.request(method, path).body("").send().expect(405).text(), "", "{method} {path}");
    }
}

/// The gateway opens a fresh connection for this before every invocation.
#[test]
fn a_thousand_status_queries_on_fresh_connections_all_answer() {
    needs_root!();
    let daemon = Daemon::start();
    daemon.deploy(json!({"service": "asked"}));
    std::thread::scope(|scope| {
        for _ in 0..10 {
            scope.spawn(|| {
                for _ in 0..100 {
                    let ask = daemon.http.request("GET", "/system/function/asked?namespace=openfaas-fn&usage=false");
                    assert_eq!(ask.header("Connection", "close").send().expect(200).value()["availableReplicas"], 1);
                }
            });
        }
    });
}

#[test]
fn errors_have_the_form_of_gos_http_error() {
    needs_root!();
    let daemon = Daemon::with().without_images().start();
    let unknown = daemon.http.get("/nothing").expect(404);
    assert_eq!(unknown.text(), "404 page not found\n");
    for answer in [unknown, daemon.delete("nobody").expect(404), daemon.create(json!({})).expect(400)] {
        assert_eq!(answer.header("content-type"), Some("text/plain; charset=utf-8"));
        assert_eq!(answer.header("x-content-type-options"), Some("nosniff"));
        assert!(answer.text().ends_with('\n') && answer.text().lines().count() == 1, "{:?}", answer.text());
    }
}

#[test]
fn a_label_scale_min_of_zero_means_one_and_no_number_is_400() {
    needs_root!();
    let daemon = Daemon::start();
    daemon.deploy(json!({"service": "zero", "labels": {"com.openfaas.scale.min": "0"}}));
    assert_eq!(daemon.status("zero")["replicas"], 1);
    for text in ["-1", "many", "1.5", ""] {
        let answer = daemon.create(json!({"service": "f", "labels": {"com.openfaas.scale.min": text}}));
        answer.expect_error(400, &["com.openfaas.scale.min"]);
    }
}

#[test]
fn an_update_to_another_image_runs_the_other_image() {
    needs_root!();
    let daemon = Daemon::start();
    daemon.load(&images::probe_image().set("User", json!("root")).docker_save(images::PROBE_ROOT));
    daemon.deploy(json!({"service": "f"}));
    assert_eq!(daemon.identity("f")["uid"], 1000);
    daemon.update(json!({"service": "f", "image": images::PROBE_ROOT})).expect(202);
    assert_eq!(daemon.identity("f")["uid"], 0);
    assert_eq!(daemon.status("f")["image"], images::PROBE_ROOT);
}
