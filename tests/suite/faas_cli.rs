//! Stock faas-cli against the daemon, as a user types it.

use std::process::Output;

use serde_json::json;

use crate::support::{Daemon, eventually, images};
use crate::{needs_root, needs_stock};

/// Everything that it printed.
fn printed(out: &Output) -> String {
    format!("{}{}", String::from_utf8_lossy(&out.stdout), String::from_utf8_lossy(&out.stderr))
}

/// What it printed, if it succeeded.
#[track_caller]
fn ok(out: Output) -> String {
    assert!(out.status.success(), "{}: {}", out.status, printed(&out));
    printed(&out)
}

/// What it printed, if it failed.
#[track_caller]
fn fails(out: Output) -> String {
    assert!(!out.status.success(), "{}", printed(&out));
    printed(&out)
}

/// The function's answer: its last line, after what faas-cli has to say itself.
#[track_caller]
fn answered(out: Output) -> serde_json::Value {
    let told = ok(out);
    let line = told.lines().rfind(|l| l.starts_with('{')).unwrap_or_else(|| panic!("no answer: {told}"));
    serde_json::from_str(line).unwrap_or_else(|e| panic!("{e}: {line}"))
}

fn deployed(name: &str) -> Daemon {
    let daemon = Daemon::start();
    ok(daemon.faas_cli(&["deploy", "--image", images::PROBE, "--name", name]));
    daemon.await_ready(name, 1);
    daemon
}

/// It sends PUT first, and POST only after exactly 404; it takes 200 and 202 for success.
#[test]
fn deploy_creates_and_the_same_command_updates() {
    needs_root!();
    needs_stock!("faas-cli");
    let daemon = Daemon::start();
    let told = ok(daemon.faas_cli(&["deploy", "--image", images::PROBE, "--name", "f", "--env", "a=1"]));
    assert!(told.contains("202"), "{told}");
    daemon.await_ready("f", 1);
    assert_eq!(daemon.call("f/env").expect(200).value()["a"], "1");
    ok(daemon.faas_cli(&["deploy", "--image", images::PROBE, "--name", "f", "--env", "a=2"]));
    eventually("the update", || (daemon.call("f/env").expect(200).value()["a"] == "2").then_some(()));
    let log = daemon.log();
    assert!(!log.contains("panicked"), "{log}");
}

#[test]
fn deploy_replace_deletes_and_creates() {
    needs_root!();
    needs_stock!("faas-cli");
    let daemon = deployed("f");
    let replace = ["deploy", "--image", images::PROBE, "--name", "f", "--replace", "--update=false", "--env", "a=2"];
    let told = ok(daemon.faas_cli(&replace));
    assert!(told.contains("Removing old function"), "{told}");
    daemon.await_ready("f", 1);
    assert_eq!(daemon.call("f/env").expect(200).value()["a"], "2");
    let again = ["deploy", "--image", images::PROBE, "--name", "f", "--replace=false", "--update=false"];
    let told = printed(&daemon.faas_cli(&again));
    assert!(told.contains("already exists"), "{told}");
}

#[test]
fn deploy_from_a_stack_file_carries_every_field() {
    needs_root!();
    needs_stock!("faas-cli");
    let daemon = Daemon::start();
    ok(daemon.faas_cli(&["secret", "create", "key", "--from-literal", "hush"]));
    let stack = format!(
        "version: 1.0\nprovider:\n  name: openfaas\n  gateway: {}\nfunctions:\n  f:\n    lang: dockerfile\n    handler: ./f\n    image: {}\n    \
         environment:\n      a: one\n    secrets: [key]\n    labels:\n      team: blue\n    annotations:\n      topic: t\n    \
         limits:\n      memory: 128Mi\n      cpu: 500m\n    requests:\n      memory: 16Mi\n    readonly_root_filesystem: true\n    \
         constraints: [\"a=b\"]\n",
        daemon.url(),
        images::PROBE
    );
    std::fs::write(daemon.scratch().join("stack.yml"), stack).expect("writing stack.yml");
    std::fs::create_dir_all(daemon.scratch().join("template/dockerfile")).expect("making a template");
    std::fs::write(daemon.scratch().join("template/dockerfile/template.yml"), "language: dockerfile\n")
        .expect("writing");
    ok(daemon.faas_cli(&["deploy", "-f", "stack.yml"]));
    daemon.await_ready("f", 1);
    let status = daemon.status("f");
    assert_eq!((&status["labels"]["team"], &status["annotations"]["topic"]), (&json!("blue"), &json!("t")));
    assert_eq!(
        (&status["limits"], &status["requests"]),
        (&json!({"memory": "128Mi", "cpu": "500m"}), &json!({"memory": "16Mi"}))
    );
    assert_eq!((&status["secrets"], &status["readOnlyRootFilesystem"]), (&json!(["key"]), &json!(true)));
    let told = ok(daemon.faas_cli(&["diff", "-f", "stack.yml"]));
    assert!(!told.contains("changed"), "{told}");
    ok(daemon.faas_cli(&["remove", "-f", "stack.yml"]));
    assert!(daemon.list("openfaas-fn").is_empty());
}

#[test]
fn list_and_describe_show_the_function() {
    needs_root!();
    needs_stock!("faas-cli");
    let daemon = deployed("shown");
    daemon.call("shown").expect(200);
    let told = ok(daemon.faas_cli(&["list"]));
    let line = told.lines().find(|l| l.starts_with("shown")).expect("a line").to_owned();
    assert_eq!(line.split_whitespace().collect::<Vec<_>>(), ["shown", "1", "1"]);
    assert!(ok(daemon.faas_cli(&["list", "-v"])).contains(images::PROBE));
    let told = ok(daemon.faas_cli(&["describe", "shown"]));
    for word in ["shown", "Ready", images::PROBE, "Replicas", "RAM"] {
        assert!(told.contains(word), "{word}: {told}");
    }
    fails(daemon.faas_cli(&["describe", "nobody"]));
}

#[test]
fn invoke_sends_standard_input_and_prints_the_answer() {
    needs_root!();
    needs_stock!("faas-cli");
    let daemon = deployed("f");
    let answer = answered(daemon.faas_cli_with_input(&["invoke", "f"], b"some input"));
    assert_eq!((&answer["method"], &answer["body"]), (&json!("POST"), &json!("some input")));
    let answer = answered(
        daemon.faas_cli_with_input(&["invoke", "f", "--method", "PUT", "--query", "a=1", "--header", "X-A=b"], b"x"),
    );
    assert_eq!(
        (&answer["method"], &answer["query"], &answer["headers"]["X-A"]),
        (&json!("PUT"), &json!("a=1"), &json!(["b"]))
    );
    let told = fails(daemon.faas_cli_with_input(&["invoke", "nobody"], b""));
    assert!(told.contains("nobody"), "{told}");
}

#[test]
fn ready_waits_for_the_daemon_and_for_a_function() {
    needs_root!();
    needs_stock!("faas-cli");
    let daemon = deployed("f");
    ok(daemon.faas_cli(&["ready"]));
    ok(daemon.faas_cli(&["ready", "f"]));
    fails(daemon.faas_cli(&["ready", "nobody", "--attempts", "1", "--interval", "10ms"]));
}

#[test]
fn logs_are_printed() {
    needs_root!();
    needs_stock!("faas-cli");
    let daemon = deployed("f");
    daemon.call("f/log?text=hello").expect(200);
    eventually("both lines", || {
        let told = ok(daemon.faas_cli(&["logs", "f", "--tail=false", "--since", "10m"]));
        (told.contains("out hello") && told.contains("err hello")).then_some(())
    });
    let told = ok(daemon.faas_cli(&["logs", "f", "--tail=false", "--lines", "1"]));
    assert_eq!(told.matches("hello").count(), 1, "{told}");
    fails(daemon.faas_cli(&["logs", "nobody", "--tail=false"]));
}

/// By default it follows; the stream's end must not look like a failure.
#[test]
fn followed_logs_end_without_an_error() {
    needs_root!();
    needs_stock!("faas-cli");
    let daemon = Daemon::with().set("write_timeout = \"2s\"").start();
    ok(daemon.faas_cli(&["deploy", "--image", images::PROBE, "--name", "f"]));
    daemon.await_ready("f", 1);
    let told = ok(daemon.faas_cli(&["logs", "f"]));
    assert!(told.contains("probe is listening") && !told.contains("EOF"), "{told}");
}

#[test]
fn remove_removes_and_says_when_there_is_nothing() {
    needs_root!();
    needs_stock!("faas-cli");
    let daemon = deployed("f");
    ok(daemon.faas_cli(&["remove", "f"]));
    assert!(daemon.list("openfaas-fn").is_empty());
    let told = printed(&daemon.faas_cli(&["remove", "f"]));
    assert!(told.contains("No existing function to remove"), "{told}");
}

#[test]
fn secrets_are_created_replaced_listed_and_removed() {
    needs_root!();
    needs_stock!("faas-cli");
    let daemon = Daemon::start();
    ok(daemon.faas_cli(&["secret", "create", "key", "--from-literal", "first"]));
    let told = printed(&daemon.faas_cli(&["secret", "create", "key", "--from-literal", "second"]));
    assert!(told.contains("already exists"), "{told}");
    ok(daemon.faas_cli(&["secret", "create", "key", "--from-literal", "third", "--replace"]));
    ok(daemon.faas_cli(&["secret", "update", "key", "--from-literal", "fourth"]));
    let file = daemon.scratch().join("binary");
    std::fs::write(&file, [0, 255, 10]).expect("writing");
    ok(daemon.faas_cli(&["secret", "create", "blob", "--from-file", "binary", "--trim=false"]));
    let told = ok(daemon.faas_cli(&["secret", "list"]));
    assert!(told.contains("key") && told.contains("blob"), "{told}");
    ok(daemon.faas_cli(&["deploy", "--image", images::PROBE, "--name", "f", "--secret", "key", "--secret", "blob"]));
    daemon.await_ready("f", 1);
    assert_eq!(daemon.call("f/files?path=/var/openfaas/secrets/key").expect(200).text(), "fourth");
    assert_eq!(daemon.call("f/files?path=/var/openfaas/secrets/blob").expect(200).body, [0, 255, 10]);
    ok(daemon.faas_cli(&["remove", "f"]));
    ok(daemon.faas_cli(&["secret", "remove", "key"]));
    fails(daemon.faas_cli(&["secret", "remove", "key"]));
}

#[test]
fn namespaces_are_created_used_and_removed() {
    needs_root!();
    needs_stock!("faas-cli");
    let daemon = Daemon::start();
    ok(daemon.faas_cli(&["namespace", "create", "dev", "--label", "team=blue"]));
    let told = ok(daemon.faas_cli(&["namespace", "list"]));
    assert!(told.contains("dev") && told.contains("openfaas-fn"), "{told}");
    assert!(ok(daemon.faas_cli(&["namespace", "get", "dev"])).contains("blue"));
    ok(daemon.faas_cli(&["namespace", "update", "dev", "--label", "team=red"]));
    assert!(ok(daemon.faas_cli(&["namespace", "get", "dev"])).contains("red"));
    ok(daemon.faas_cli(&["deploy", "--image", images::PROBE, "--name", "f", "--namespace", "dev"]));
    daemon.await_ready("f.dev", 1);
    assert!(ok(daemon.faas_cli(&["list", "--namespace", "dev"])).contains('f'));
    let out = daemon.faas_cli_with_input(&["invoke", "f", "--namespace", "dev"], b"x");
    assert!(ok(out).contains("\"body\":\"x\""));
    ok(daemon.faas_cli(&["remove", "f", "--namespace", "dev"]));
    ok(daemon.faas_cli(&["namespace", "remove", "dev"]));
    assert!(!ok(daemon.faas_cli(&["namespaces"])).contains("dev"));
}

#[test]
fn login_keeps_the_credentials_for_later_commands() {
    needs_root!();
    needs_stock!("faas-cli");
    let daemon = Daemon::with().credentials("admin:pw").start();
    let told = fails(daemon.faas_cli(&["list"]));
    assert!(told.to_lowercase().contains("unauthorized"), "{told}");
    fails(daemon.faas_cli(&["login", "--username", "admin", "--password", "wrong", "--gateway", &daemon.url()]));
    ok(daemon.faas_cli(&["login", "--username", "admin", "--password", "pw", "--gateway", &daemon.url()]));
    ok(daemon.faas_cli(&["list"]));
}

/// What is refused is one readable sentence on the user's screen.
#[test]
fn refusals_are_shown_as_one_sentence() {
    needs_root!();
    needs_stock!("faas-cli");
    let daemon = Daemon::start();
    let told = fails(daemon.faas_cli(&["deploy", "--image", "127.0.0.1:1/no/image:1", "--name", "f"]));
    assert!(told.contains("127.0.0.1:1/no/image:1"), "{told}");
    let told = fails(daemon.faas_cli(&["deploy", "--image", images::PROBE, "--name", "f", "--secret", "api-key"]));
    assert!(told.contains("api-key"), "{told}");
    let told = fails(daemon.faas_cli(&["deploy", "--image", images::PROBE, "--name", "f", "--memory-limit", "lots"]));
    assert!(told.contains("lots"), "{told}");
}
