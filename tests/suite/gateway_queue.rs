//! /async-function: accepted now, made later, whatever happens in between.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpListener;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, channel};
use std::time::Duration;

use serde_json::json;

use crate::needs_root;
use crate::support::http::Response;
use crate::support::{Daemon, eventually, eventually_within};

/// What a callback was sent.
struct Received {
    line: String,
    headers: BTreeMap<String, String>,
    body: String,
}

/// A place for callbacks: answers each with the next of these statuses, the last of them for ever.
fn recorder(statuses: &'static [u16]) -> (String, Receiver<Received>) {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let url = format!("http://{}/answers?to=me", listener.local_addr().expect("its address"));
    let (sender, receiver) = channel();
    std::thread::spawn(move || {
        for (i, stream) in listener.incoming().flatten().enumerate() {
            let mut reader = BufReader::new(stream);
            let mut line = String::new();
            reader.read_line(&mut line).expect("a request line");
            let mut headers = BTreeMap::new();
            loop {
                let mut header = String::new();
                reader.read_line(&mut header).expect("a header");
                let Some((name, value)) = header.trim_end().split_once(": ") else { break };
                headers.insert(name.to_lowercase(), value.to_owned());
            }
            let mut body = vec![0; headers["content-length"].parse().expect("a length")];
            reader.read_exact(&mut body).expect("a body");
            let status = statuses[i.min(statuses.len() - 1)];
            let answer = format!("HTTP/1.1 {status} X\r\nContent-Length: 0\r\nConnection: close\r\n\r\n");
            reader.get_mut().write_all(answer.as_bytes()).expect("answering");
            let body = String::from_utf8_lossy(&body).into_owned();
            if sender.send(Received { line: line.trim_end().to_owned(), headers, body }).is_err() {
                return;
            }
        }
    });
    (url, receiver)
}

fn with_function(spec: serde_json::Value) -> Daemon {
    let queue = "[gateway.queue]\nmin_wait = \"100ms\"\nattempts = 4\nmax_inflight = 2";
    let daemon = Daemon::with().table(queue).start();
    daemon.deploy(spec);
    daemon
}

fn post(daemon: &Daemon, target: &str, body: &str) -> Response {
    daemon.gateway.request("POST", &format!("/async-function/{target}")).body(body).send()
}

/// How often each id has been called, and how many calls there were at once.
fn recorded(daemon: &Daemon) -> (BTreeMap<String, u64>, u64) {
    let told = daemon.call("f/recorded").expect(200).value();
    let calls = told["calls"].as_object().expect("calls").iter();
    (calls.map(|(id, n)| (id.clone(), n.as_u64().expect("a number"))).collect(), told["atOnce"].as_u64().unwrap_or(0))
}

fn await_calls(daemon: &Daemon, wanted: usize) -> BTreeMap<String, u64> {
    eventually_within(Duration::from_secs(60), "every call is made", || {
        let (calls, _) = recorded(daemon);
        (calls.len() >= wanted).then_some(calls)
    })
}

#[test]
fn a_call_is_made_as_it_was_sent_and_its_answer_goes_to_the_callback() {
    needs_root!();
    let daemon = with_function(json!({"service": "f"}));
    let (url, answers) = recorder(&[200]);
    let answer = daemon
        .gateway
        .request("POST", "/async-function/f.openfaas-fn/a%2Fb/?q=1")
        .header("X-Callback-Url", &url)
        .header("Content-Type", "application/x-mine")
        .header("X-Mine", "1")
        .header("X-Mine", "2")
        .header("Connection", "X-Private")
        .header("X-Private", "for the next hop only")
        .body("b\u{e9}")
        .send()
        .expect(202);
    let id = answer.header("x-call-id").expect("X-Call-Id").to_owned();
    assert_eq!((id.len(), answer.body.len()), (36, 0));
    let received = answers.recv_timeout(Duration::from_secs(30)).expect("a callback");
    assert_eq!(received.line, "POST /answers?to=me HTTP/1.1");
    for (name, value) in [
        ("x-call-id", &*id),
        ("x-function-name", "f.openfaas-fn"),
        ("x-function-status", "200"),
        ("content-type", "application/json"),
    ] {
        assert_eq!(received.headers.get(name).map(String::as_str), Some(value), "{name}");
    }
    assert!(received.headers["x-duration-seconds"].parse::<f64>().is_ok());
    let echoed: serde_json::Value = serde_json::from_str(&received.body).expect("the function's answer");
    assert_eq!((&echoed["path"], &echoed["query"], &echoed["body"]), (&json!("/a%2Fb/"), &json!("q=1"), &json!("bé")));
    assert_eq!(echoed["method"], "POST");
    assert_eq!(echoed["contentLength"], 3);
    let headers = &echoed["headers"];
    assert_eq!(headers["X-Mine"], json!(["1", "2"]));
    assert_eq!(headers["X-Call-Id"], json!([id]));
    assert!(headers["X-Start-Time"][0].is_string() && headers["X-Forwarded-For"][0].is_string());
    assert!(headers.get("X-Private").is_none() && headers.get("X-Callback-Url").is_none(), "{headers}");
}

#[test]
fn what_cannot_be_queued_is_refused_in_words() {
    needs_root!();
    let queue = "[gateway.queue]\nbody = 1000\ncalls = 2\nmax_inflight = 1";
    let daemon = Daemon::with().table(queue).start();
    daemon.deploy(json!({"service": "f"}));
    post(&daemon, "nobody", "").expect_error(404, &["nobody"]);
    for method in ["GET", "PUT", "DELETE"] {
        daemon.gateway.request(method, "/async-function/f").send().expect(405);
    }
    for url in ["nowhere", "ftp://host/", "http://"] {
        let request = daemon.gateway.request("POST", "/async-function/f").header("X-Callback-Url", url);
        request.send().expect_error(400, &["X-Callback-Url", url]);
    }
    post(&daemon, "f", &"x".repeat(1001)).expect_error(413, &["1000 bytes", "[gateway.queue]"]);
    post(&daemon, "f", &"x".repeat(1000)).expect(202);
    eventually("it is made", || (daemon.status("f")["invocationCount"] == 1.0).then_some(()));
    eventually("room for a long one", || (post(&daemon, "f/sleep?ms=8000", "").status == 202).then_some(()));
    eventually("room behind it", || (post(&daemon, "f/record?id=second", "").status == 202).then_some(()));
    let full = post(&daemon, "f/record?id=third", "").expect_error(429, &["the queue is full", "[gateway.queue]"]);
    assert_eq!(full.header("retry-after"), Some("1"));
    assert_eq!(await_calls(&daemon, 1).keys().collect::<Vec<_>>(), ["second"]);
    eventually("room again", || (post(&daemon, "f/record?id=fourth", "").status == 202).then_some(()));
    await_calls(&daemon, 2);
}

#[test]
fn a_call_that_fails_is_made_again_until_it_succeeds_or_is_given_up() {
    needs_root!();
    let daemon = with_function(json!({"service": "f"}));
    let (url, answers) = recorder(&[200]);
    for (target, status, made) in [
        ("record?id=twice&fail=2", "200", 3),
        ("record?id=never&fail=99&code=500", "500", 4),
        ("record?id=refused&fail=99&code=404", "404", 1),
    ] {
        let request = daemon.gateway.request("POST", &format!("/async-function/f/{target}"));
        request.header("X-Callback-Url", &url).body("b").send().expect(202);
        let received = answers.recv_timeout(Duration::from_secs(30)).expect("a callback");
        assert_eq!(received.headers["x-function-status"], status, "{target}");
        assert!(received.body.ends_with(&format!("call {made}: b")), "{target}: {}", received.body);
    }
}

#[test]
fn a_function_s_annotations_say_when_its_calls_are_made_again() {
    needs_root!();
    let annotations = json!({"com.openfaas.retry.attempts": "2", "com.openfaas.retry.codes": "418, 404",
        "com.openfaas.retry.min_wait": "10ms"});
    let daemon = with_function(json!({"service": "f", "annotations": annotations}));
    post(&daemon, "f/record?id=teapot&fail=9&code=418", "").expect(202);
    eventually("two attempts", || (recorded(&daemon).0.get("teapot") == Some(&2)).then_some(()));
    post(&daemon, "f/record?id=other&fail=9&code=503", "").expect(202);
    post(&daemon, "f/record?id=last", "").expect(202);
    let calls = await_calls(&daemon, 3);
    assert_eq!((calls["teapot"], calls["other"]), (2, 1));
    let bad = json!({"service": "g", "annotations": {"com.openfaas.retry.codes": "often"}});
    daemon.create(bad).expect_error(400, &["com.openfaas.retry.codes"]);
}

#[test]
fn a_callback_that_fails_is_tried_again() {
    needs_root!();
    let daemon = with_function(json!({"service": "f"}));
    let (url, answers) = recorder(&[503, 200]);
    let request = daemon.gateway.request("POST", "/async-function/f/record?id=once");
    request.header("X-Callback-Url", &url).send().expect(202);
    for _ in 0..2 {
        let received = answers.recv_timeout(Duration::from_secs(30)).expect("a callback");
        assert_eq!(received.headers["x-recorded"], "once");
    }
    assert_eq!(recorded(&daemon).0["once"], 1, "the call itself is made once");
}

/// As inside a function, the name `gateway` in a callback means this host.
#[test]
fn a_callback_may_be_another_function() {
    needs_root!();
    let daemon = with_function(json!({"service": "f"}));
    let request = daemon.gateway.request("POST", "/async-function/f/echo");
    request
        .header("X-Callback-Url", "http://gateway.openfaas:8080/function/f/record?id=chained")
        .body("b")
        .send()
        .expect(202);
    await_calls(&daemon, 1);
}

#[test]
fn so_many_calls_are_made_at_once_and_no_more() {
    needs_root!();
    let daemon = with_function(json!({"service": "f"}));
    for i in 0..8 {
        post(&daemon, &format!("f/record?id={i}&ms=1000"), "").expect(202);
    }
    let text = daemon.http.get("/metrics").expect(200).text();
    let told = |state: &str| {
        let series = format!("faas_jails_queue_calls{{function_name=\"f.openfaas-fn\",state=\"{state}\"}} ");
        text.lines().find_map(|line| line.strip_prefix(&series)?.parse::<u64>().ok())
    };
    assert!(told("waiting").is_some() && told("delivering").is_some_and(|calls| calls <= 2), "{text}");
    await_calls(&daemon, 8);
    assert_eq!(recorded(&daemon).1, 2);
}

#[test]
fn a_call_starts_a_function_at_zero_and_survives_its_removal() {
    needs_root!();
    let daemon = with_function(json!({"service": "f"}));
    daemon.scale("f", 0).expect(202);
    post(&daemon, "f/record?id=woke", "").expect(202);
    assert_eq!(await_calls(&daemon, 1)["woke"], 1);
    // One that is gone when its call is due: the callback hears 404.
    let (url, answers) = recorder(&[200]);
    for _ in 0..2 {
        post(&daemon, "f/sleep?ms=2000", "").expect(202);
    }
    let request = daemon.gateway.request("POST", "/async-function/f/x").header("X-Callback-Url", &url);
    request.send().expect(202);
    daemon.delete("f").expect(202);
    let received = answers.recv_timeout(Duration::from_secs(30)).expect("a callback");
    assert_eq!(received.headers["x-function-status"], "404");
}

#[test]
fn calls_that_wait_at_sigterm_are_made_by_the_next_daemon() {
    needs_root!();
    let mut daemon = with_function(json!({"service": "f"}));
    for i in 0..10 {
        post(&daemon, &format!("f/record?id={i}&ms=300"), "").expect(202);
    }
    assert!(daemon.stop().success());
    daemon.start_again();
    let calls = await_calls(&daemon, 10);
    assert!(calls.values().all(|n| *n == 1), "a stop in order delivers each once: {calls:?}");
}

/// Killed again and again in the middle of accepting and delivering: what was answered 202 is made.
#[test]
fn every_accepted_call_is_made_whatever_kills_the_daemon() {
    needs_root!();
    let mut daemon = with_function(json!({"service": "f"}));
    let mut accepted = Vec::new();
    for round in 0..6 {
        let answers = AtomicUsize::new(0);
        std::thread::scope(|scope| {
            let answers = &answers;
            let clients: Vec<_> = (0..4)
                .map(|client| {
                    let gateway = daemon.gateway.clone();
                    scope.spawn(move || {
                        let mut mine = Vec::new();
                        // Until the daemon is gone.
                        for i in 0.. {
                            let id = format!("{round}-{client}-{i}");
                            let target = format!("/async-function/f/record?ms=5&id={id}");
                            match gateway.request("POST", &target).body(vec![b'x'; 2000]).try_send() {
                                Ok(answer) if answer.status == 202 => {
                                    answers.fetch_add(1, Ordering::Relaxed);
                                    mine.push(id);
                                }
                                Ok(answer) => panic!("{}: {}", answer.status, answer.text()),
                                Err(_) => break,
                            }
                        }
                        mine
                    })
                })
                .collect();
            eventually("some are accepted", || (answers.load(Ordering::Relaxed) > 6 + 5 * round).then_some(()));
            daemon.kill9();
            accepted.extend(clients.into_iter().flat_map(|client| client.join().expect("a client")));
        });
        daemon.start_again();
    }
    assert!(accepted.len() > 20, "{} calls are too few to mean anything", accepted.len());
    let calls = eventually_within(Duration::from_secs(120), "every call that was accepted is made", || {
        let (calls, _) = recorded(&daemon);
        accepted.iter().all(|id| calls.contains_key(id)).then_some(calls)
    });
    let more_than_once = calls.values().filter(|n| **n > 1).count();
    // At a kill, two are being delivered, and a few done ones are not yet written down.
    assert!(more_than_once < calls.len() / 2, "{more_than_once} of {} were made more than once", calls.len());
    eventually("all segments but the current one are removed, or hold nothing", || {
        std::fs::read_dir(daemon.root.join("queue")).expect("the queue").count().eq(&1).then_some(())
    });
}
