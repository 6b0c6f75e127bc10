//! /system/logs: what functions print, line by line.

use serde_json::{Value, json};

use crate::needs_root;
use crate::support::{Daemon, eventually};

/// The messages that a query gives, as JSON.
fn messages(daemon: &Daemon, query: &str) -> Vec<Value> {
    let answer = daemon.http.get(&format!("/system/logs?{query}")).expect(200);
    answer.text().lines().map(|line| serde_json::from_str(line).unwrap_or_else(|e| panic!("{line}: {e}"))).collect()
}

fn texts(messages: &[Value]) -> Vec<&str> {
    messages.iter().map(|m| m["text"].as_str().expect("a text")).collect()
}

/// Waits until this line has reached the log.
fn await_line(daemon: &Daemon, name: &str, line: &str) {
    eventually(&format!("{line:?} in the log"), || {
        texts(&messages(daemon, &format!("name={name}"))).contains(&line).then_some(())
    });
}

fn chatty() -> Daemon {
    let daemon = Daemon::start();
    daemon.deploy(json!({"service": "chatty"}));
    daemon.call("chatty/log?text=one").expect(200);
    daemon.call("chatty/log?text=two").expect(200);
    await_line(&daemon, "chatty", "err two");
    daemon
}

#[test]
fn standard_output_and_standard_error_are_told_line_by_line_with_all_fields() {
    needs_root!();
    let daemon = chatty();
    let answer = daemon.http.get("/system/logs?name=chatty&namespace=openfaas-fn").expect(200);
    assert_eq!(answer.header("content-type"), Some("application/x-ndjson"));
    assert_eq!(answer.header("transfer-encoding"), Some("chunked"));
    let messages = messages(&daemon, "name=chatty");
    let told = texts(&messages);
    for line in ["probe is listening", "out one", "err one", "out two", "err two"] {
        assert!(told.contains(&line), "{line} in {told:?}");
    }
    for message in &messages {
        assert_eq!((&message["name"], &message["namespace"]), (&json!("chatty"), &json!("openfaas-fn")));
        assert!(message["instance"].as_str().is_some_and(|i| !i.is_empty()), "{message}");
        let time = message["timestamp"].as_str().expect("a time");
        assert!(time.parse::<jiff::Timestamp>().is_ok(), "{time}");
    }
    let times: Vec<_> = messages.iter().map(|m| m["timestamp"].to_string()).collect();
    assert!(times.is_sorted(), "{times:?}");
}

/// faas-cli sends `tail=-1`, which is no limit.
#[test]
fn tail_gives_the_last_lines_and_zero_or_less_all() {
    needs_root!();
    let daemon = chatty();
    assert_eq!(messages(&daemon, "name=chatty&tail=2").len(), 2);
    assert!(texts(&messages(&daemon, "name=chatty&tail=1"))[0].ends_with("two"));
    let all = messages(&daemon, "name=chatty").len();
    for unlimited in ["0", "-1", "100000"] {
        assert_eq!(messages(&daemon, &format!("name=chatty&tail={unlimited}")).len(), all, "tail={unlimited}");
    }
    assert_eq!(messages(&daemon, "name=chatty&tail=100&tail=1").len(), 1, "the last of repeated keys counts");
}

#[test]
fn since_leaves_out_what_is_older() {
    needs_root!();
    let daemon = chatty();
    let before = jiff::Timestamp::now();
    // The clock of the log may be coarse: what comes next is to be clearly later.
    std::thread::sleep(std::time::Duration::from_millis(1200));
    daemon.call("chatty/log?text=late").expect(200);
    await_line(&daemon, "chatty", "err late");
    let later = before + jiff::SignedDuration::from_millis(600);
    assert_eq!(texts(&messages(&daemon, &format!("name=chatty&since={later}"))), ["out late", "err late"]);
    let offset = "2000-01-01T00:00:00%2B02:00";
    assert!(messages(&daemon, &format!("name=chatty&since={offset}")).len() >= 7);
    assert!(messages(&daemon, "name=chatty&since=2999-01-01T00:00:00Z").is_empty());
}

#[test]
fn queries_that_cannot_be_read_are_422() {
    needs_root!();
    let daemon = chatty();
    for query in ["tail=many", "since=yesterday", "tail=1.5"] {
        let answer = daemon.http.get(&format!("/system/logs?name=chatty&{query}"));
        answer.expect_error(422, &["could not parse the log request"]);
    }
    // What cannot be read as a truth value is false.
    daemon.http.get("/system/logs?name=chatty&follow=perhaps").expect(200);
}

#[test]
fn logs_of_a_missing_function_are_404() {
    needs_root!();
    let daemon = Daemon::with().without_images().start();
    daemon.http.get("/system/logs?name=nobody").expect_error(404, &["nobody"]);
}

#[test]
fn following_tells_lines_as_they_are_printed() {
    needs_root!();
    let daemon = chatty();
    let mut stream = daemon.http.request("GET", "/system/logs?name=chatty&follow=true").open().expect("a stream");
    assert_eq!(stream.status, 200);
    let mut read_until = |wanted: &str| loop {
        let line = stream.body_line().expect("a line").expect("the stream goes on");
        let message: Value = serde_json::from_str(&line).expect("JSON");
        if message["text"] == wanted {
            return message["instance"].as_str().expect("an instance").to_owned();
        }
    };
    read_until("err two");
    daemon.call("chatty/log?text=three").expect(200);
    let first = read_until("err three");
    // A replica that comes later joins.
    daemon.update(json!({"service": "chatty", "envVars": {"v": "2"}})).expect(202);
    eventually("the new replica serves", || (daemon.call("chatty/env").expect(200).value()["v"] == "2").then_some(()));
    daemon.call("chatty/log?text=four").expect(200);
    assert_ne!(read_until("err four"), first);
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
fn headers_come_at_once_even_if_nothing_was_printed_yet() {
    needs_root!();
    let daemon = chatty();
    let later = "since=2999-01-01T00:00:00Z";
    let stream = daemon.http.request("GET", &format!("/system/logs?name=chatty&follow=true&{later}")).open();
    assert_eq!(stream.expect("headers before the first line").status, 200);
}

#[test]
fn lines_of_all_replicas_are_told_and_one_instance_can_be_picked() {
    needs_root!();
    let daemon = Daemon::start();
    daemon.deploy(json!({"service": "pair", "labels": {"com.openfaas.scale.min": "2"}}));
    daemon.await_ready("pair", 2);
    let instances = eventually("lines of two replicas", || {
        let all = messages(&daemon, "name=pair");
        let set: std::collections::BTreeSet<String> =
            all.iter().map(|m| m["instance"].as_str().expect("an instance").to_owned()).collect();
        (set.len() == 2).then_some(set)
    });
    for instance in &instances {
        let own = messages(&daemon, &format!("name=pair&instance={instance}"));
        assert!(!own.is_empty() && own.iter().all(|m| m["instance"] == **instance), "{own:?}");
    }
}

#[test]
fn what_was_printed_survives_a_restart_of_the_daemon() {
    needs_root!();
    let mut daemon = chatty();
    daemon.kill9();
    daemon.start_again();
    daemon.await_ready("chatty", 1);
    daemon.call("chatty/log?text=after").expect(200);
    await_line(&daemon, "chatty", "err after");
    let all = messages(&daemon, "name=chatty&tail=1000");
    let told = texts(&all);
    assert!(told.contains(&"out one") && told.contains(&"out after"), "{told:?}");
}

#[test]
fn bytes_that_are_no_text_and_very_long_lines_do_not_break_the_stream() {
    needs_root!();
    let daemon = chatty();
    let long = "x".repeat(100_000);
    let mut request = String::from("chatty/log?text=");
    request.push_str(&long[..60_000]);
    daemon.call(&request).expect(200);
    daemon.call("chatty/log?text=a%FF%00%1B%22b").expect(200);
    daemon.call("chatty/log?text=end").expect(200);
    await_line(&daemon, "chatty", "err end");
    let all = messages(&daemon, "name=chatty");
    let most: usize = texts(&all).iter().map(|t| t.matches('x').count()).sum();
    assert!(most >= 120_000, "{most} of 120000 characters were told");
}

#[test]
fn logs_are_bounded_on_disk() {
    needs_root!();
    let daemon = Daemon::with().set("log_bytes = 1048576").start();
    daemon.deploy(json!({"service": "flood"}));
    let line = "y".repeat(1000);
    for _ in 0..10 {
        daemon.call(&format!("flood/log?n=500&text={line}")).expect(200);
    }
    // 10 MB were printed; files are cut by a clock, so what is kept is asked for until it fits.
    eventually("the log is cut to about its bound", || {
        let kept = size_of(&daemon.root.join("logs"));
        (kept > 0 && kept < 4 << 20).then_some(())
    });
    daemon.call("flood/log?text=last").expect(200);
    await_line(&daemon, "flood", "err last");
}

fn size_of(directory: &std::path::Path) -> u64 {
    use std::os::unix::fs::MetadataExt;
    let Ok(entries) = std::fs::read_dir(directory) else { return 0 };
    let size = |entry: std::fs::DirEntry| match entry.metadata() {
        Ok(data) if data.is_dir() => size_of(&entry.path()),
        // What it occupies: the beginning of a long log is a hole.
        Ok(data) => data.blocks() * 512,
        Err(_) => 0,
    };
    entries.flatten().map(size).sum()
}
