//! /system/logs: what functions print, line by line.

use serde_json::{Value, json};

use super::provider::{Provider, Stated};
use crate::needs_provider;
use crate::support::eventually;

/// The messages that a query gives, as JSON.
fn messages(provider: &Provider, query: &str) -> Vec<Value> {
    let answer = provider.http.get(&format!("/system/logs?{query}")).expect(200);
    answer.text().lines().map(|line| serde_json::from_str(line).unwrap_or_else(|e| panic!("{line}: {e}"))).collect()
}

fn texts(messages: &[Value]) -> Vec<&str> {
    messages.iter().map(|m| m["text"].as_str().expect("a text")).collect()
}

/// Waits until this line has reached the log.
fn await_line(provider: &Provider, name: &str, line: &str) {
    eventually(&format!("{line:?} in the log"), || {
        texts(&messages(provider, &format!("name={name}"))).contains(&line).then_some(())
    });
}

fn chatty() -> Provider {
    let provider = Provider::start();
    provider.deploy(json!({"service": "chatty"}));
    provider.call("chatty/log?text=one").expect(200);
    provider.call("chatty/log?text=two").expect(200);
    await_line(&provider, "chatty", "err two");
    provider
}

#[test]
fn standard_output_and_standard_error_are_told_line_by_line_with_all_fields() {
    needs_provider!();
    let provider = chatty();
    let answer = provider.http.get("/system/logs?name=chatty&namespace=openfaas-fn").expect(200);
    assert_eq!(answer.header("content-type"), Some("application/x-ndjson"));
    assert_eq!(answer.header("transfer-encoding"), Some("chunked"));
    let messages = messages(&provider, "name=chatty");
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
    needs_provider!();
    let provider = chatty();
    assert_eq!(messages(&provider, "name=chatty&tail=2").len(), 2);
    assert!(texts(&messages(&provider, "name=chatty&tail=1"))[0].ends_with("two"));
    let all = messages(&provider, "name=chatty").len();
    for unlimited in ["0", "-1", "100000"] {
        assert_eq!(messages(&provider, &format!("name=chatty&tail={unlimited}")).len(), all, "tail={unlimited}");
    }
    assert_eq!(messages(&provider, "name=chatty&tail=100&tail=1").len(), 1, "the last of repeated keys counts");
}

#[test]
fn since_leaves_out_what_is_older() {
    needs_provider!();
    let provider = chatty();
    let before = jiff::Timestamp::now();
    // The clock of the log may be coarse: what comes next is to be clearly later.
    std::thread::sleep(std::time::Duration::from_millis(1200));
    provider.call("chatty/log?text=late").expect(200);
    await_line(&provider, "chatty", "err late");
    let later = before + jiff::SignedDuration::from_millis(600);
    assert_eq!(texts(&messages(&provider, &format!("name=chatty&since={later}"))), ["out late", "err late"]);
    let offset = "2000-01-01T00:00:00%2B02:00";
    assert!(messages(&provider, &format!("name=chatty&since={offset}")).len() >= 7);
    assert!(messages(&provider, "name=chatty&since=2999-01-01T00:00:00Z").is_empty());
}

#[test]
fn queries_that_cannot_be_read_are_422() {
    needs_provider!();
    let provider = chatty();
    for query in ["tail=many", "since=yesterday", "tail=1.5"] {
        let answer = provider.http.get(&format!("/system/logs?name=chatty&{query}"));
        answer.expect_error(422, &["could not parse the log request"]);
    }
    // What cannot be read as a truth value is false.
    provider.http.get("/system/logs?name=chatty&follow=perhaps").expect(200);
}

#[test]
fn logs_of_a_missing_function_are_404() {
    needs_provider!();
    let provider = Provider::start();
    provider.http.get("/system/logs?name=nobody").refused(404, &[200, 500], &["nobody"]);
}

#[test]
fn following_tells_lines_as_they_are_printed() {
    needs_provider!();
    let provider = chatty();
    let mut stream = provider.http.request("GET", "/system/logs?name=chatty&follow=true").open().expect("a stream");
    assert_eq!(stream.status, 200);
    let mut read_until = |wanted: &str| loop {
        let line = stream.body_line().expect("a line").expect("the stream goes on");
        let message: Value = serde_json::from_str(&line).expect("JSON");
        if message["text"] == wanted {
            return message["instance"].as_str().expect("an instance").to_owned();
        }
    };
    read_until("err two");
    provider.call("chatty/log?text=three").expect(200);
    let first = read_until("err three");
    // A replica that comes later joins.
    provider.update(json!({"service": "chatty", "envVars": {"v": "2"}})).accepted();
    eventually("the new replica serves", || {
        (provider.call("chatty/env").expect(200).value()["v"] == "2").then_some(())
    });
    provider.call("chatty/log?text=four").expect(200);
    assert_ne!(read_until("err four"), first);
}

#[test]
fn headers_come_at_once_even_if_nothing_was_printed_yet() {
    needs_provider!();
    let provider = chatty();
    let later = "since=2999-01-01T00:00:00Z";
    let stream = provider.http.request("GET", &format!("/system/logs?name=chatty&follow=true&{later}")).open();
    assert_eq!(stream.expect("headers before the first line").status, 200);
}

#[test]
fn lines_of_all_replicas_are_told_and_one_instance_can_be_picked() {
    needs_provider!();
    let provider = Provider::start();
    provider.deploy(json!({"service": "pair", "labels": {"com.openfaas.scale.min": "2"}}));
    provider.await_ready("pair", 2);
    let instances = eventually("lines of two replicas", || {
        let all = messages(&provider, "name=pair");
        let set: std::collections::BTreeSet<String> =
            all.iter().map(|m| m["instance"].as_str().expect("an instance").to_owned()).collect();
        (set.len() == 2).then_some(set)
    });
    for instance in &instances {
        let own = messages(&provider, &format!("name=pair&instance={instance}"));
        assert!(!own.is_empty() && own.iter().all(|m| m["instance"] == **instance), "{own:?}");
    }
}

#[test]
fn bytes_that_are_no_text_and_very_long_lines_do_not_break_the_stream() {
    needs_provider!();
    let provider = chatty();
    let long = "x".repeat(100_000);
    let mut request = String::from("chatty/log?text=");
    request.push_str(&long[..60_000]);
    provider.call(&request).expect(200);
    provider.call("chatty/log?text=a%FF%00%1B%22b").expect(200);
    provider.call("chatty/log?text=end").expect(200);
    await_line(&provider, "chatty", "err end");
    let all = messages(&provider, "name=chatty");
    let most: usize = texts(&all).iter().map(|t| t.matches('x').count()).sum();
    assert!(most >= 120_000, "{most} of 120000 characters were told");
}
