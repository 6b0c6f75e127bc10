//! Bodies and connections under strain: backpressure, connections that the function closes, large headers.

use std::io::Read;
use std::time::Duration;

use serde_json::json;

use crate::needs_root;
use crate::support::{Daemon, eventually};

/// Far more than the daemon may hold of any body.
const MUCH: usize = 256 << 20;
/// What it may grow by while it holds a body back.
const LITTLE: u64 = 32 << 20;

/// The client stops reading: the daemon stops reading from the function, and does not pile it up.
#[test]
fn an_answer_that_nobody_reads_is_not_piled_up() {
    needs_root!();
    let daemon = Daemon::start();
    daemon.deploy(json!({"service": "f"}));
    daemon.call("f/big?kb=1024").expect(200);
    let before = daemon.memory();
    let mut stream = daemon.invoke("GET", &format!("f/big?kb={}", MUCH >> 10)).open().expect("an answer");
    let mut some = vec![0; 1 << 20];
    stream.read_exact(&mut some).expect("the first megabyte");
    std::thread::sleep(Duration::from_secs(1));
    let grown = daemon.memory().saturating_sub(before);
    assert!(grown < LITTLE, "the daemon grew by {} MB", grown >> 20);
    // Then all of it arrives after all.
    let rest = std::io::copy(&mut stream, &mut std::io::sink()).expect("the rest");
    assert_eq!(rest as usize + some.len(), MUCH);
}

/// The function stops reading: the daemon stops reading from the client.
#[test]
fn a_request_that_the_function_does_not_read_is_not_piled_up() {
    needs_root!();
    let daemon = Daemon::start();
    daemon.deploy(json!({"service": "f"}));
    daemon.invoke("POST", "f/sink").body(vec![b'x'; 1 << 20]).send().expect(200);
    let before = daemon.memory();
    std::thread::scope(|scope| {
        let call = scope.spawn(|| {
            let mut exchange = daemon.http.raw();
            let head = format!("POST /function/f/sink?ms=3000 HTTP/1.1\r\nHost: x\r\nContent-Length: {MUCH}\r\n\r\n");
            exchange.write(head.as_bytes()).expect("writing the head");
            let block = vec![b'x'; 1 << 20];
            for _ in 0..MUCH >> 20 {
                exchange.write(&block).expect("writing the body");
            }
            exchange.read_head(false).expect("the answer");
            exchange.finish().expect("its body").expect(200).value()
        });
        std::thread::sleep(Duration::from_secs(2));
        let grown = daemon.memory().saturating_sub(before);
        assert!(grown < LITTLE, "the daemon grew by {} MB", grown >> 20);
        assert_eq!(call.join().expect("the call")["bytes"], MUCH);
    });
}

/// The function closes kept connections at about the moment they are used again.
#[test]
fn a_kept_connection_that_the_function_has_closed_fails_no_call() {
    needs_root!();
    let daemon = Daemon::start();
    daemon.deploy(json!({"service": "f", "envVars": {"IDLE_TIMEOUT_MS": "20"}}));
    for round in 0..150_u64 {
        let answer = match round % 2 {
            0 => daemon.call("f/x"),
            _ => daemon.invoke("POST", "f/x").body("some body").send(),
        };
        assert_eq!(answer.status, 200, "call {round}: {}", answer.text());
        std::thread::sleep(Duration::from_millis(15 + round % 10));
    }
}

/// A call that is under way on a replica when it ends may fail; those after it go to the other one.
#[test]
fn a_replica_that_has_gone_gets_no_calls_while_another_is_there() {
    needs_root!();
    let daemon = Daemon::start();
    daemon.deploy(json!({"service": "f", "labels": {"com.openfaas.scale.min": "2"}}));
    daemon.await_ready("f", 2);
    for _ in 0..5 {
        let before = daemon.traces().replica_names();
        let _ = daemon.invoke("GET", "f/exit").open();
        let failed = (0..20).filter(|_| daemon.call("f/x").status != 200).count();
        assert!(failed <= 1, "{failed} of 20 calls failed");
        eventually("another replica in its place", || (daemon.traces().replica_names() != before).then_some(()));
        daemon.await_ready("f", 2);
    }
}

#[test]
fn large_headers_pass() {
    needs_root!();
    let daemon = Daemon::start();
    daemon.deploy(json!({"service": "f"}));
    let long = "v".repeat(60_000);
    let answer = daemon.invoke("GET", "f/headers").header("X-Long", &long).send().expect(200);
    assert_eq!(answer.value()["X-Long"][0].as_str().map(str::len), Some(60_000));
    let mut request = daemon.invoke("GET", "f/headers");
    for i in 0..60 {
        request = request.header(&format!("X-Number-{i}"), "1");
    }
    assert!(request.send().expect(200).value().as_object().expect("an object").len() >= 60);
    // Beyond any limit: refused, and the daemon goes on.
    let monster = "v".repeat(4 << 20);
    if let Ok(answer) = daemon.invoke("GET", "f/headers").header("X-Long", &monster).try_send() {
        assert!((400..500).contains(&answer.status), "{}", answer.status);
    }
    daemon.call("f").expect(200);
}

#[test]
fn trailers_are_dropped_and_the_answer_is_whole() {
    needs_root!();
    let daemon = Daemon::start();
    daemon.deploy(json!({"service": "f"}));
    let answer = daemon.call("f/trailers").expect(200);
    assert_eq!(answer.text(), "body");
    assert!(answer.header("x-sum").is_none() && answer.header("trailer").is_none(), "{:?}", answer.headers);
}

/// Two hundred streams open at once, each alive: the second piece of each comes after all have had the first.
#[test]
fn two_hundred_streams_live_side_by_side() {
    needs_root!();
    const STREAMS: usize = 200;
    let daemon = Daemon::start();
    daemon.deploy(json!({"service": "f"}));
    // A client that fails must end the test, so nobody waits for all but this.
    let streams: Vec<_> = std::thread::scope(|scope| {
        let begin = || {
            let mut exchange = daemon.http.raw();
            let head = b"POST /function/f/echo HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nfirst\r\n";
            exchange.write(head).expect("writing");
            exchange.read_head(false).expect("the answer's head");
            exchange.read_exact(&mut [0; 5]).expect("the first piece");
            exchange
        };
        let clients: Vec<_> = (0..STREAMS).map(|_| scope.spawn(begin)).collect();
        clients.into_iter().map(|client| client.join().expect("a client")).collect()
    });
    std::thread::scope(|scope| {
        for (i, mut exchange) in streams.into_iter().enumerate() {
            scope.spawn(move || {
                let second = format!("{i:04}");
                exchange.write(format!("4\r\n{second}\r\n0\r\n\r\n").as_bytes()).expect("writing");
                assert_eq!(exchange.finish().expect("the rest").body, second.as_bytes());
            });
        }
    });
}
