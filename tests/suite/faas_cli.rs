//! Stock faas-cli, every verb that reaches a server, as a user types it: against the provider's port, the standalone
//! port, and the stock gateway in front of the provider.

use std::io::{Read, Write};
use std::process::Output;

use serde_json::json;

use crate::support::daemon::Options;
use crate::support::gateway::Behind;
use crate::support::{Daemon, eventually, images, parts};

/// What faas-cli talks to.
#[derive(Clone, Copy, PartialEq)]
enum Way {
    /// The provider's port.
    Provider,
    /// The daemon's own gateway.
    Standalone,
    /// The stock gateway in front of the provider.
    Gateway,
}

/// A daemon and the way to it.
struct Stage {
    server: Server,
    url: String,
}

enum Server {
    Alone(Box<Daemon>),
    Behind(Box<Behind>),
}

impl std::ops::Deref for Stage {
    type Target = Daemon;

    fn deref(&self) -> &Daemon {
        match &self.server {
            Server::Alone(daemon) => daemon,
            Server::Behind(stock) => &stock.daemon,
        }
    }
}

impl Stage {
    #[track_caller]
    fn start(way: Way) -> Self {
        Self::with(way, Daemon::with())
    }

    #[track_caller]
    fn with(way: Way, options: Options) -> Self {
        if way == Way::Gateway {
            let program = parts::stock("openfaas-gateway").expect("the test asked for it first");
            let stock = Behind::start(&program, options, &[]);
            let url = format!("http://{}", stock.gateway.address);
            let stage = Self { server: Server::Behind(Box::new(stock)), url };
            ok(stage.faas_cli(&["login", "--username", "admin", "--password", "secret"]));
            return stage;
        }
        let daemon = options.start();
        let url = if way == Way::Provider { daemon.url() } else { daemon.gateway_url() };
        Self { server: Server::Alone(Box::new(daemon)), url }
    }

    fn faas_cli(&self, arguments: &[&str]) -> Output {
        self.faas_cli_with_input(arguments, b"")
    }

    fn faas_cli_with_input(&self, arguments: &[&str], input: &[u8]) -> Output {
        self.faas_cli_at(&self.url, arguments, input)
    }

    /// Deploys the probe with faas-cli.
    #[track_caller]
    fn deployed(way: Way, name: &str) -> Self {
        let stage = Self::start(way);
        ok(stage.faas_cli(&["deploy", "--image", images::PROBE, "--name", name]));
        stage.await_ready(name, 1);
        stage
    }
}

/// Makes a test of each of these functions for each way.
macro_rules! each_way {
    ($($test:ident)*) => {
        mod provider {
            $(#[test] fn $test() { crate::needs_root!(); crate::needs_stock!("faas-cli"); super::$test(super::Way::Provider); })*
        }
        mod standalone {
            $(#[test] fn $test() { crate::needs_root!(); crate::needs_stock!("faas-cli"); super::$test(super::Way::Standalone); })*
        }
        mod gateway {
            $(#[test] fn $test() {
                crate::needs_root!();
                crate::needs_stock!("faas-cli");
                crate::needs_stock!("openfaas-gateway");
                super::$test(super::Way::Gateway);
            })*
        }
    };
}

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

each_way! {
    deploy_creates_and_the_same_command_updates
    deploy_replace_deletes_and_creates
    deploy_from_a_stack_file_carries_every_field
    list_and_describe_show_the_function
    invoke_sends_standard_input_and_prints_the_answer
    ready_waits_for_the_daemon_and_for_a_function
    logs_are_printed
    followed_logs_end_without_an_error
    remove_removes_and_says_when_there_is_nothing
    secrets_are_created_replaced_listed_and_removed
    namespaces_are_created_used_and_removed
    login_keeps_the_credentials_for_later_commands
    refusals_are_shown_as_one_sentence
    versions_are_told_of_both_sides
    a_call_is_queued_with_async
    a_store_of_the_user_s_own_is_deployed_from
    up_deploys_what_needs_no_build
}

/// It sends PUT first, and POST only after exactly 404; it takes 200 and 202 for success.
fn deploy_creates_and_the_same_command_updates(way: Way) {
    let daemon = Stage::start(way);
    let told = ok(daemon.faas_cli(&["deploy", "--image", images::PROBE, "--name", "f", "--env", "a=1"]));
    assert!(told.contains("202"), "{told}");
    daemon.await_ready("f", 1);
    assert_eq!(daemon.call("f/env").expect(200).value()["a"], "1");
    ok(daemon.faas_cli(&["deploy", "--image", images::PROBE, "--name", "f", "--env", "a=2"]));
    eventually("the update", || (daemon.call("f/env").expect(200).value()["a"] == "2").then_some(()));
    let log = daemon.log();
    assert!(!log.contains("panicked"), "{log}");
}

fn deploy_replace_deletes_and_creates(way: Way) {
    let daemon = Stage::deployed(way, "f");
    let replace = ["deploy", "--image", images::PROBE, "--name", "f", "--replace", "--update=false", "--env", "a=2"];
    let told = ok(daemon.faas_cli(&replace));
    assert!(told.contains("Removing old function"), "{told}");
    daemon.await_ready("f", 1);
    assert_eq!(daemon.call("f/env").expect(200).value()["a"], "2");
    let again = ["deploy", "--image", images::PROBE, "--name", "f", "--replace=false", "--update=false"];
    let told = printed(&daemon.faas_cli(&again));
    assert!(told.contains("already exists"), "{told}");
}

fn deploy_from_a_stack_file_carries_every_field(way: Way) {
    let daemon = Stage::start(way);
    ok(daemon.faas_cli(&["secret", "create", "key", "--from-literal", "hush"]));
    let stack = format!(
        "version: 1.0\nprovider:\n  name: openfaas\n  gateway: {}\nfunctions:\n  f:\n    lang: dockerfile\n    handler: ./f\n    image: {}\n    \
         environment:\n      a: one\n    secrets: [key]\n    labels:\n      team: blue\n    annotations:\n      topic: t\n    \
         limits:\n      memory: 128Mi\n      cpu: 500m\n    requests:\n      memory: 16Mi\n    readonly_root_filesystem: true\n    \
         constraints: [\"a=b\"]\n",
        daemon.url,
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

fn list_and_describe_show_the_function(way: Way) {
    let daemon = Stage::deployed(way, "shown");
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

fn invoke_sends_standard_input_and_prints_the_answer(way: Way) {
    let daemon = Stage::deployed(way, "f");
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

fn ready_waits_for_the_daemon_and_for_a_function(way: Way) {
    let daemon = Stage::deployed(way, "f");
    ok(daemon.faas_cli(&["ready"]));
    ok(daemon.faas_cli(&["ready", "f"]));
    fails(daemon.faas_cli(&["ready", "nobody", "--attempts", "1", "--interval", "10ms"]));
}

fn logs_are_printed(way: Way) {
    let daemon = Stage::deployed(way, "f");
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
fn followed_logs_end_without_an_error(way: Way) {
    let daemon = Stage::with(way, Daemon::with().set("write_timeout = \"2s\""));
    ok(daemon.faas_cli(&["deploy", "--image", images::PROBE, "--name", "f"]));
    daemon.await_ready("f", 1);
    let told = ok(daemon.faas_cli(&["logs", "f"]));
    assert!(told.contains("probe is listening") && !told.contains("EOF"), "{told}");
}

fn remove_removes_and_says_when_there_is_nothing(way: Way) {
    let daemon = Stage::deployed(way, "f");
    ok(daemon.faas_cli(&["remove", "f"]));
    assert!(daemon.list("openfaas-fn").is_empty());
    let told = printed(&daemon.faas_cli(&["remove", "f"]));
    assert!(told.contains("No existing function to remove"), "{told}");
}

fn secrets_are_created_replaced_listed_and_removed(way: Way) {
    let daemon = Stage::start(way);
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

fn namespaces_are_created_used_and_removed(way: Way) {
    let daemon = Stage::start(way);
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

fn login_keeps_the_credentials_for_later_commands(way: Way) {
    let daemon = Stage::with(way, Daemon::with().credentials("admin:secret"));
    std::fs::remove_dir_all(daemon.scratch().join(".openfaas")).ok();
    let told = fails(daemon.faas_cli(&["list"]));
    assert!(told.to_lowercase().contains("unauthorized"), "{told}");
    fails(daemon.faas_cli(&["login", "--username", "admin", "--password", "wrong", "--gateway", &daemon.url]));
    ok(daemon.faas_cli(&["login", "--username", "admin", "--password", "secret", "--gateway", &daemon.url]));
    ok(daemon.faas_cli(&["list"]));
}

/// What is refused is one readable sentence on the user's screen.
fn refusals_are_shown_as_one_sentence(way: Way) {
    let daemon = Stage::start(way);
    let told = fails(daemon.faas_cli(&["deploy", "--image", "127.0.0.1:1/no/image:1", "--name", "f"]));
    assert!(told.contains("127.0.0.1:1/no/image:1"), "{told}");
    let told = fails(daemon.faas_cli(&["deploy", "--image", images::PROBE, "--name", "f", "--secret", "api-key"]));
    assert!(told.contains("api-key"), "{told}");
    let told = fails(daemon.faas_cli(&["deploy", "--image", images::PROBE, "--name", "f", "--memory-limit", "lots"]));
    assert!(told.contains("lots"), "{told}");
}

fn versions_are_told_of_both_sides(way: Way) {
    let daemon = Stage::start(way);
    let told = ok(daemon.faas_cli(&["version", "--warn-update=false"]));
    assert!(told.contains("CLI:"), "{told}");
    // A provider's own port tells of itself in a shape that faas-cli does not show.
    let shown = told.contains("faas-jails") && told.contains(env!("CARGO_PKG_VERSION"));
    assert_eq!(shown, way != Way::Provider, "{told}");
}

/// The provider's own port has no queue, as stock providers have none.
fn a_call_is_queued_with_async(way: Way) {
    let daemon = Stage::deployed(way, "f");
    let out = daemon.faas_cli_with_input(&["invoke", "f", "--async", "--query", "text=queued"], b"");
    match way {
        Way::Standalone => {
            assert!(ok(out).contains("submitted"));
            eventually("the call", || (daemon.status("f")["invocationCount"].as_f64() >= Some(1.0)).then_some(()));
        }
        Way::Provider => drop(fails(out)),
        // It has no queue without NATS.
        Way::Gateway => drop(fails(out)),
    }
}

fn a_store_of_the_user_s_own_is_deployed_from(way: Way) {
    let daemon = Stage::start(way);
    let store = json!({"version": "0.2.0", "functions": [{
        "title": "Greeter", "name": "greeter", "description": "Greets", "fprocess": "", "repo_url": "",
        "environment": {"GREETING": "hello"}, "labels": {"team": "blue"}, "annotations": {"topic": "t"},
        "readOnlyRootFilesystem": true,
        "images": {"x86_64": images::PROBE, "arm64": images::PROBE, "armhf": images::PROBE},
    }]});
    let url = serve(store.to_string(), 3);
    let told = ok(daemon.faas_cli(&["store", "list", "--url", &url]));
    assert!(told.contains("Greeter") || told.contains("greeter"), "{told}");
    ok(daemon.faas_cli(&["store", "inspect", "greeter", "--url", &url]));
    ok(daemon.faas_cli(&["store", "deploy", "greeter", "--url", &url]));
    daemon.await_ready("greeter", 1);
    assert_eq!(daemon.call("greeter/env").expect(200).value()["GREETING"], "hello");
    let status = daemon.status("greeter");
    assert_eq!((&status["labels"]["team"], &status["readOnlyRootFilesystem"]), (&json!("blue"), &json!(true)));
}

fn up_deploys_what_needs_no_build(way: Way) {
    let daemon = Stage::start(way);
    let stack = format!(
        "version: 1.0\nprovider:\n  name: openfaas\nfunctions:\n  f:\n    lang: dockerfile\n    handler: ./f\n    image: {}\n    \
         skip_build: true\n",
        images::PROBE
    );
    std::fs::write(daemon.scratch().join("stack.yml"), stack).expect("writing stack.yml");
    std::fs::create_dir_all(daemon.scratch().join("template/dockerfile")).expect("making a template");
    std::fs::write(daemon.scratch().join("template/dockerfile/template.yml"), "language: dockerfile\n")
        .expect("writing");
    ok(daemon.faas_cli(&["up", "--skip-push"]));
    daemon.await_ready("f", 1);
    assert!(ok(daemon.faas_cli(&["generate"])).contains("kind: Function"));
}

/// Answers so many connections with this JSON; gives its address.
fn serve(json: String, connections: usize) -> String {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("listening");
    let url = format!("http://{}/store.json", listener.local_addr().expect("an address"));
    std::thread::spawn(move || {
        for mut stream in listener.incoming().take(connections).flatten() {
            let mut head = [0; 4096];
            let _ = stream.read(&mut head);
            let _ = write!(
                stream,
                "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{json}",
                json.len()
            );
        }
    });
    url
}
