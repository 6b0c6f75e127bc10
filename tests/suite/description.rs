//! What the ports say of themselves in OpenAPI, held against what they do, by schemathesis.

use std::path::PathBuf;
use std::process::Command;

use serde_json::{Value, json};

use crate::support::http::Client;
use crate::support::{Daemon, announce_skip, images, parts, this_test};
use crate::{linux_only, needs_root};

/// Ends the test, loudly, where schemathesis is missing.
macro_rules! needs_schemathesis {
    () => {
        if !program().exists() {
            announce_skip(&this_test(), "needs schemathesis, see tools/checkers.sh");
            return;
        }
    };
}

/// The description that a port serves.
fn description(port: &Client) -> Value {
    let answer = port.get("/openapi.json").expect(200);
    assert_eq!(answer.header("content-type"), Some("application/json"));
    answer.value()
}

#[test]
fn each_port_serves_the_description_of_its_own_routes() {
    needs_root!();
    let daemon = Daemon::with().credentials("admin:secret").start();
    // No password is asked for.
    let stranger = |port: &Client| Client::new(port.address);
    let (provider, gateway) = (description(&stranger(&daemon.http)), description(&stranger(&daemon.gateway)));
    for document in [&provider, &gateway] {
        assert_eq!(document["openapi"], "3.0.3");
        assert!(document["paths"].get("/system/functions").is_some());
    }
    for path in ["/async-function/{name}", "/system/alert"] {
        assert!(provider["paths"].get(path).is_none() && gateway["paths"].get(path).is_some(), "{path}");
    }
}

/// RFC 9110, 15.5.6; Go's router leaves it out.
#[test]
fn a_wrong_method_is_told_the_right_ones() {
    needs_root!();
    let daemon = Daemon::with().without_images().start();
    for (method, path, allowed) in [
        ("PATCH", "/system/functions", "GET, POST, PUT, DELETE"),
        ("POST", "/healthz", "GET, HEAD"),
        ("DELETE", "/metrics", "GET, HEAD"),
    ] {
        let answer = daemon.http.request(method, path).send().expect(405);
        assert_eq!(answer.header("allow"), Some(allowed), "{method} {path}");
    }
}

#[test]
fn the_provider_does_as_its_description_says() {
    needs_root!();
    linux_only!("schemathesis is installed on Linux");
    needs_schemathesis!();
    let daemon = guarded();
    hold_against(&daemon, &daemon.http, &daemon.url());
}

#[test]
fn the_standalone_port_does_as_its_description_says() {
    needs_root!();
    linux_only!("schemathesis is installed on Linux");
    needs_schemathesis!();
    let daemon = guarded();
    hold_against(&daemon, &daemon.gateway, &daemon.gateway_url());
}

fn program() -> PathBuf {
    parts::project().join("target/checkers/bin/st")
}

/// A daemon with a password and a function.
fn guarded() -> Daemon {
    let daemon = Daemon::with().credentials("admin:secret").set("write_timeout = \"1s\"").start();
    daemon.deploy(json!({"service": "figlet"}));
    daemon
}

/// Operations that are asked for with good requests only: images of made-up names would be looked for in registries.
const CREATING: [&str; 2] = ["createFunction", "updateFunction"];

/// Makes requests from a port's description, all bad ones and a few good ones, always the same.
#[track_caller]
fn hold_against(daemon: &Daemon, port: &Client, url: &str) {
    let mut document = description(port);
    keep_to_this_host(&mut document);
    let file = daemon.scratch().join("openapi.json");
    std::fs::write(&file, document.to_string()).expect("writing the description");
    let creating = CREATING.iter().flat_map(|id| ["--include-operation-id", id]);
    schemathesis(daemon, url, ["--mode", "positive"].into_iter().chain(creating));
    // The stock gateway answers 500 to an alert about a function that is not there, and so does this port.
    let others = CREATING.iter().chain(&["scaleByAlert"]).flat_map(|id| ["--exclude-operation-id", id]);
    schemathesis(daemon, url, others);
    let log = daemon.log();
    assert!(!log.contains("panicked"), "{log}");
}

/// One image, few replicas, and no callbacks to hosts that have nothing to do with it.
fn keep_to_this_host(document: &mut Value) {
    let schemas = &mut document["components"]["schemas"];
    schemas["FunctionDeployment"]["properties"]["image"] = json!({"type": "string", "enum": [images::PROBE]});
    schemas["FunctionDeployment"]["example"]["image"] = json!(images::PROBE);
    schemas["ScaleServiceRequest"]["properties"]["replicas"]["maximum"] = json!(3);
    for (path, item) in document["paths"].as_object_mut().expect("paths") {
        if path.starts_with("/async-function/") {
            let parameters = item["post"]["parameters"].as_array_mut().expect("parameters");
            parameters.retain(|parameter| parameter["name"] != "X-Callback-Url");
        }
    }
}

/// Two of its checks are left out: this API reads JSON as leniently as Go does, so that requests that break the schema
/// are no errors; and no schema can say that a namespace has to be there, so that requests that keep it may be.
#[track_caller]
fn schemathesis<'a>(daemon: &Daemon, url: &str, which: impl Iterator<Item = &'a str>) {
    let out = Command::new(program())
        .args(["run", "openapi.json", "--url", url, "--auth", "admin:secret", "--no-color"])
        .args(["--seed", "1", "--max-examples", "3", "--phases", "examples,coverage,fuzzing"])
        .args(["--exclude-checks", "positive_data_acceptance,negative_data_rejection", "--warnings", "off"])
        .args(["--continue-on-failure", "--suppress-health-check", "all"])
        .args(which)
        .current_dir(daemon.scratch())
        .output()
        .expect("running schemathesis");
    let told = String::from_utf8_lossy(&out.stdout);
    assert!(out.status.success(), "{told}\n{}", String::from_utf8_lossy(&out.stderr));
    assert!(told.contains("No issues found"), "{told}");
}
