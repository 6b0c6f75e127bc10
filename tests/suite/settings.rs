//! The configuration file and the variables that stock providers read.

use serde_json::json;

use crate::needs_root;
use crate::support::registry::free_address;
use crate::support::{Daemon, eventually};

#[test]
fn the_variable_port_wins_over_the_file() {
    needs_root!();
    let port = free_address().port();
    let daemon = Daemon::with().env("port", &port.to_string()).without_images().start();
    assert_eq!(daemon.http.address.port(), port);
}

/// Go durations, or whole seconds.
#[test]
fn the_variable_read_timeout_bounds_a_call() {
    needs_root!();
    for text in ["1", "1s", "1000ms", "0m1s"] {
        let daemon = Daemon::with().env("read_timeout", text).start();
        daemon.deploy(json!({"service": "slow"}));
        daemon.call("slow/hang").expect_error(504, &["slow"]);
    }
}

#[test]
fn the_variable_write_timeout_bounds_a_log_stream() {
    needs_root!();
    let daemon = Daemon::with().env("write_timeout", "2s").start();
    daemon.deploy(json!({"service": "f"}));
    daemon.http.get("/system/logs?name=f&follow=true").expect(200);
}

#[test]
fn settings_that_make_no_sense_end_the_start_with_a_sentence_that_names_them() {
    needs_root!();
    for (line, word) in [
        ("realm = \"Too long\"", "realm"),
        ("read_timeout = \"soon\"", "soon"),
        ("listen = \"nowhere\"", "listen"),
        ("unheard_of = 1", "unheard_of"),
        ("storage = \"paper\"", "paper"),
    ] {
        let mut daemon = Daemon::with().without_images().prepare();
        let mut text = std::fs::read_to_string(&daemon.config).expect("the configuration");
        let key = line.split(' ').next().expect("a key");
        text = text.lines().filter(|l| !l.starts_with(&format!("{key} "))).fold(String::new(), |all, l| all + l + "\n");
        let good = std::fs::read_to_string(&daemon.config).expect("the configuration");
        std::fs::write(&daemon.config, format!("{line}\n{text}")).expect("writing the configuration");
        daemon.launch();
        let status = daemon.await_exit();
        assert!(!status.success() && status.code().is_some_and(|c| c != 101), "{line}: {status}");
        assert!(daemon.log().contains(word), "{line}: {}", daemon.log());
        // The purge at the end needs settings that make sense.
        std::fs::write(&daemon.config, good).expect("writing the configuration");
    }
    for (name, value) in [("port", "http"), ("port", "70000"), ("read_timeout", "soon")] {
        let daemon = Daemon::with().without_images().prepare();
        let out = daemon.command().arg("serve").env(name, value).output().expect("running the daemon");
        let told = String::from_utf8_lossy(&out.stderr).into_owned();
        assert!(!out.status.success() && told.contains(value), "{name}={value}: {told}");
    }
}

#[test]
fn a_second_daemon_on_the_same_root_ends_with_a_sentence_and_disturbs_nothing() {
    needs_root!();
    let daemon = Daemon::start();
    daemon.deploy(json!({"service": "f"}));
    let out = daemon.run(&["serve"]);
    assert!(!out.status.success());
    let told = String::from_utf8_lossy(&out.stderr).into_owned();
    assert!(!told.trim().is_empty() && !told.contains("panicked"), "{told}");
    daemon.call("f").expect(200);
}

#[test]
fn a_taken_port_ends_the_start_with_a_sentence() {
    needs_root!();
    let taken = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = taken.local_addr().expect("its address").to_string();
    let mut daemon = Daemon::with().set(&format!("listen = \"{address}\"")).without_images().prepare();
    daemon.launch();
    assert!(!daemon.await_exit().success());
    assert!(daemon.log().contains(&address), "{}", daemon.log());
}

#[test]
fn log_lines_are_json_where_the_setting_asks_for_it() {
    needs_root!();
    let daemon = Daemon::with().set("log_format = \"json\"").start();
    daemon.deploy(json!({"service": "f"}));
    let line = eventually("a line about the deploy", || {
        daemon.log().lines().find(|l| l.contains("f.openfaas-fn")).map(str::to_owned)
    });
    let value: serde_json::Value = serde_json::from_str(&line).expect("JSON");
    assert!(value["timestamp"].is_string() && value["level"].is_string(), "{line}");
}

#[test]
fn info_and_help_need_no_running_daemon() {
    needs_root!();
    let daemon = Daemon::with().without_images().prepare();
    for verb in [&["info"][..], &["--help"], &["--version"], &["image", "ls"]] {
        let out = daemon.run(verb);
        assert!(out.status.success(), "{verb:?}: {}", String::from_utf8_lossy(&out.stderr));
        assert!(!out.stdout.is_empty(), "{verb:?} says nothing");
    }
}

#[test]
fn an_unknown_verb_or_a_missing_file_is_an_error_in_words() {
    needs_root!();
    let daemon = Daemon::with().without_images().prepare();
    let unknown = daemon.run(&["fly"]);
    assert!(!unknown.status.success() && String::from_utf8_lossy(&unknown.stderr).contains("fly"));
    let missing = daemon.run(&["image", "load", "/nonexistent.tar"]);
    assert!(!missing.status.success() && String::from_utf8_lossy(&missing.stderr).contains("/nonexistent.tar"));
}

/// The certifier looks for this label; faas-cli diff would report it as a difference. So it is a setting.
#[test]
fn the_label_faas_function_is_shown_where_the_setting_asks_for_it() {
    needs_root!();
    let daemon = Daemon::with().set("function_label = true").start();
    daemon.deploy(json!({"service": "labelled", "labels": {"mine": "1"}}));
    assert_eq!(daemon.status("labelled")["labels"], json!({"mine": "1", "faas_function": "labelled"}));
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

#[test]
fn a_function_without_a_ready_replica_is_503() {
    needs_root!();
    let daemon = Daemon::with().set("deploy_wait = \"1s\"").set("ready_wait = \"1s\"").start();
    daemon.create(json!({"service": "mute", "envVars": {"NEVER_LISTEN": "1"}})).expect(202);
    let answer = daemon.call("mute/x").expect_error(503, &["mute"]);
    assert_eq!(answer.header("x-openfaas-internal"), Some("proxy"));
    assert_eq!(daemon.status("mute")["availableReplicas"].as_u64().unwrap_or(0), 0);
}

#[test]
fn a_function_that_does_not_answer_in_time_is_504() {
    needs_root!();
    let daemon = Daemon::with().set("read_timeout = \"1s\"").start();
    daemon.deploy(json!({"service": "slow"}));
    let answer = daemon.call("slow/hang").expect_error(504, &["slow"]);
    assert_eq!(answer.header("x-openfaas-internal"), Some("proxy"));
    daemon.call("slow/").expect(200);
}

/// read_timeout bounds the wait for an answer; a stream that has begun may last longer.
#[test]
fn a_stream_may_last_longer_than_the_timeout() {
    needs_root!();
    let daemon = Daemon::with().set("read_timeout = \"1s\"").set("write_timeout = \"1s\"").start();
    daemon.deploy(json!({"service": "long"}));
    let answer = daemon.invoke("GET", "long/sse?n=5&gap=500").header("Accept", "text/event-stream").send().expect(200);
    assert_eq!(answer.text().matches("data: event").count(), 5);
}

/// The gateway cuts the stream at its own write_timeout, which faas-cli reports as an error.
#[test]
fn following_ends_cleanly_before_the_write_timeout() {
    needs_root!();
    let daemon = Daemon::with().set("write_timeout = \"2s\"").start();
    daemon.deploy(json!({"service": "chatty"}));
    let answer = daemon.http.get("/system/logs?name=chatty&follow=true").expect(200);
    assert!(answer.text().contains("probe is listening"));
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
