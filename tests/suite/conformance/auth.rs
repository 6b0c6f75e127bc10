//! Basic authentication: everything under /system asks for it, nothing else does.

use serde_json::json;

use super::provider::{Provider, is_foreign};
use crate::needs_provider;
use crate::support::http::Client;
use crate::support::{announce_skip, this_test};

const SYSTEM: [(&str, &str); 12] = [
    ("GET", "/system/functions"),
    ("POST", "/system/functions"),
    ("PUT", "/system/functions"),
    ("DELETE", "/system/functions"),
    ("GET", "/system/function/x"),
    ("POST", "/system/scale-function/x"),
    ("GET", "/system/info"),
    ("GET", "/system/secrets"),
    ("POST", "/system/secrets"),
    ("PUT", "/system/secrets"),
    ("DELETE", "/system/secrets"),
    ("GET", "/system/logs?name=x"),
];

/// Stock providers forget these, as their library does.
const UNGUARDED_ELSEWHERE: [(&str, &str); 6] = [
    ("GET", "/system/namespaces"),
    ("GET", "/system/namespace/x"),
    ("POST", "/system/namespace/"),
    ("POST", "/system/images/load"),
    ("GET", "/system/replicas"),
    ("GET", "/system/targets"),
];

/// A provider that wants credentials, or the end of the test.
macro_rules! guarded {
    () => {
        match Provider::guarded() {
            Some(provider) => provider,
            None => {
                announce_skip(&this_test(), "needs FAAS_PROVIDER_CREDENTIALS");
                return;
            }
        }
    };
}

#[test]
fn every_system_route_wants_the_credentials() {
    needs_provider!();
    let provider = guarded!();
    for credentials in [None, Some("admin:wrong"), Some("admin:"), Some("other:s3cret:with colon"), Some(":")] {
        let client = Client { credentials: credentials.map(str::to_owned), ..provider.http.clone() };
        let elsewhere = UNGUARDED_ELSEWHERE.iter().filter(|_| !is_foreign());
        for (method, target) in SYSTEM.iter().chain(elsewhere) {
            let answer = client.request(method, target).body("{}").send();
            let answer = answer.expect(401);
            assert_eq!(answer.header("www-authenticate"), Some("Basic realm=\"Restricted\""), "{method} {target}");
            assert_eq!(answer.text(), "invalid credentials", "{method} {target}");
        }
    }
    for header in ["Basic", "Basic !!!", "Bearer abc", "basic"] {
        let client = Client::new(provider.http.address);
        client.request("GET", "/system/functions").header("Authorization", header).send().expect(401);
    }
    provider.http.get("/system/functions").expect(200);
}

#[test]
fn functions_health_and_metrics_want_none() {
    needs_provider!();
    let provider = guarded!();
    provider.deploy(json!({"service": "open"}));
    let client = Client::new(provider.http.address);
    client.get("/healthz").expect(200);
    client.get("/metrics").expect(200);
    client.get("/function/open").expect(200);
}

#[test]
fn a_function_gets_the_callers_authorization_untouched() {
    needs_provider!();
    let provider = guarded!();
    provider.deploy(json!({"service": "own"}));
    let client = Client::new(provider.http.address);
    for value in ["Bearer abc", "Basic d3Jvbmc6d3Jvbmc="] {
        let echoed = client.request("GET", "/function/own/x").header("Authorization", value).send().expect(200).value();
        assert_eq!(echoed["headers"]["Authorization"][0], value);
    }
    assert!(client.get("/function/own/x").value()["headers"].get("Authorization").is_none());
}
