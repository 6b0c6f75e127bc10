//! Basic authentication: everything under /system asks for it, nothing else does.

use serde_json::json;

use crate::needs_root;
use crate::support::http::Client;
use crate::support::{Daemon, images};

const SYSTEM: [(&str, &str); 16] = [
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
    ("GET", "/system/namespaces"),
    ("GET", "/system/namespace/x"),
    ("POST", "/system/namespace/"),
    ("POST", "/system/images/load"),
];

#[test]
fn every_system_route_wants_the_credentials() {
    needs_root!();
    let daemon = Daemon::with().credentials("admin:s3cret:with colon").without_images().start();
    for credentials in [None, Some("admin:wrong"), Some("admin:"), Some("other:s3cret:with colon"), Some(":")] {
        let client = Client { credentials: credentials.map(str::to_owned), ..daemon.http.clone() };
        for (method, target) in SYSTEM {
            let answer = client.request(method, target).body("{}").send();
            let answer = answer.expect(401);
            assert_eq!(answer.header("www-authenticate"), Some("Basic realm=\"Restricted\""), "{method} {target}");
            assert_eq!(answer.text(), "invalid credentials", "{method} {target}");
        }
    }
    for header in ["Basic", "Basic !!!", "Bearer abc", "basic"] {
        let client = Client::new(daemon.http.address);
        client.request("GET", "/system/functions").header("Authorization", header).send().expect(401);
    }
    daemon.http.get("/system/functions").expect(200);
}

#[test]
fn functions_health_and_metrics_want_none() {
    needs_root!();
    let daemon = Daemon::with().credentials("admin:pw").start();
    daemon.deploy(json!({"service": "open"}));
    let client = Client::new(daemon.http.address);
    client.get("/healthz").expect(200);
    client.get("/metrics").expect(200);
    client.get("/function/open").expect(200);
}

#[test]
fn a_function_gets_the_callers_authorization_untouched() {
    needs_root!();
    let daemon = Daemon::with().credentials("admin:pw").start();
    daemon.deploy(json!({"service": "own"}));
    let client = Client::new(daemon.http.address);
    for value in ["Bearer abc", "Basic d3Jvbmc6d3Jvbmc="] {
        let echoed = client.request("GET", "/function/own/x").header("Authorization", value).send().expect(200).value();
        assert_eq!(echoed["headers"]["Authorization"][0], value);
    }
    assert!(client.get("/function/own/x").value()["headers"].get("Authorization").is_none());
}

/// White space around the words in the files is not part of them; the builder writes a line end.
#[test]
fn without_the_credential_files_the_daemon_does_not_start() {
    needs_root!();
    let mut daemon = Daemon::with().set("basic_auth = true").set("secret_mount_path = \"/nonexistent\"").prepare();
    daemon.launch();
    assert!(!daemon.await_exit().success());
    assert!(daemon.log().contains("/nonexistent"), "{}", daemon.log());
}

#[test]
fn the_stock_variables_turn_authentication_on_and_only_the_word_true_does() {
    needs_root!();
    for (word, status) in [("true", 401), ("1", 200), ("True", 200)] {
        let auth = tempfile::tempdir().expect("a temporary directory");
        std::fs::write(auth.path().join("basic-auth-user"), "u").expect("writing");
        std::fs::write(auth.path().join("basic-auth-password"), "p").expect("writing");
        let daemon = Daemon::with()
            .env("basic_auth", word)
            .env("secret_mount_path", &auth.path().display().to_string())
            .without_images()
            .start();
        assert_eq!(daemon.http.get("/system/functions").status, status, "basic_auth={word}");
    }
}

/// An upload is not read to its end before the credentials are looked at.
#[test]
fn an_image_upload_without_credentials_is_refused() {
    needs_root!();
    let daemon = Daemon::with().credentials("admin:pw").without_images().start();
    let client = Client::new(daemon.http.address);
    let archive = images::probe_archive(images::PROBE);
    match client.request("POST", "/system/images/load").body(archive).try_send() {
        Ok(answer) => assert_eq!(answer.status, 401),
        // The daemon may close while the client still writes.
        Err(error) => assert!(matches!(error.raw_os_error(), Some(libc::EPIPE | libc::ECONNRESET)), "{error}"),
    }
    assert!(
        daemon.http.json("POST", "/system/functions", &json!({"service": "x", "image": images::PROBE})).status >= 400
    );
}
