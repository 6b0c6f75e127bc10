//! /function/…: what reaches the function, and what comes back.

use std::io::{Read, Write};
use std::time::{Duration, Instant};

use serde_json::json;

use super::provider::{Provider, Stated};
use crate::needs_provider;
use crate::support::eventually;

fn with_function(name: &str) -> Provider {
    let provider = Provider::start();
    provider.deploy(json!({"service": name}));
    provider
}

#[test]
fn a_function_is_reached_by_name_and_by_name_with_namespace() {
    needs_provider!();
    let provider = with_function("f");
    for target in ["f", "f/", "f.openfaas-fn", "f.openfaas-fn/"] {
        assert_eq!(provider.call(target).expect(200).value()["path"], "/", "{target}");
    }
}

#[test]
fn the_rest_of_the_path_and_the_query_reach_the_function_as_they_were_sent() {
    needs_provider!();
    let provider = with_function("f");
    for (sent, path, query) in [
        ("f/a/b", "/a/b", ""),
        ("f/a/", "/a/", ""),
        ("f?x=1&y=%20&z", "/", "x=1&y=%20&z"),
        ("f/a?x=1?2&&=", "/a", "x=1?2&&="),
        ("f/caf%C3%A9/a%2Fb%3Fc", "/caf%C3%A9/a%2Fb%3Fc", ""),
        ("f/a+b;c=d,e:@!$'()*", "/a+b;c=d,e:@!$'()*", ""),
        ("f.openfaas-fn/deep/er?q", "/deep/er", "q"),
        ("f/f.openfaas-fn/function/f", "/f.openfaas-fn/function/f", ""),
    ] {
        let echoed = provider.call(sent).expect(200).value();
        assert_eq!(echoed["uri"].as_str().map(|u| u.split('?').next().unwrap_or_default()), Some(path), "{sent}");
        assert_eq!(echoed["query"], query, "{sent}");
    }
}

#[test]
fn the_seven_methods_pass_and_others_are_405() {
    needs_provider!();
    let provider = with_function("f");
    for method in ["GET", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"] {
        assert_eq!(provider.invoke(method, "f/x").body("b").send().expect(200).value()["method"], method);
    }
    let head = provider.invoke("HEAD", "f/big?kb=2").send().expect(200);
    assert_eq!((head.body.len(), head.header("content-length")), (0, Some("2048")));
    for method in ["TRACE", "CONNECT", "PROPFIND", "BREW"] {
        assert_eq!(provider.invoke(method, "f/x").send().expect(405).text(), "", "{method}");
    }
}

#[test]
fn doubled_slashes_and_dot_segments_are_301_to_the_cleaned_path() {
    needs_provider!();
    let provider = with_function("f");
    for (sent, cleaned) in [
        ("//function/f", "/function/f"),
        ("/function//f", "/function/f"),
        ("/function/f//a", "/function/f/a"),
        ("/function/f/a/../b?q=1", "/function/f/b?q=1"),
        ("/function/./f", "/function/f"),
        ("/system//functions", "/system/functions"),
        ("/function/f/../../system/functions", "/system/functions"),
    ] {
        let answer = provider.http.get(sent);
        assert_eq!((answer.status, answer.header("location")), (301, Some(cleaned)), "{sent}");
    }
}

#[test]
fn an_unknown_function_is_404_and_an_empty_name_400_or_404() {
    needs_provider!();
    let provider = with_function("f");
    for target in ["nobody", "nobody.openfaas-fn/x", "f.nowhere", "a.b.openfaas-fn", ".openfaas-fn", "%00", "UPPER"] {
        let answer = provider.call(target);
        assert_eq!(answer.status, 404, "{target}: {}", answer.text());
    }
    assert!([400, 404].contains(&provider.http.get("/function/").status));
    provider.call("nobody").expect_error(404, &["nobody"]);
}

#[test]
fn request_headers_reach_the_function_without_the_hop_by_hop_ones() {
    needs_provider!();
    let provider = with_function("f");
    let answer = provider
        .invoke("GET", "f/x")
        .header("X-Mine", "1")
        .header("X-Mine", "2")
        .header("Cookie", "a=b; c=d")
        .header("Connection", "close, X-Private")
        .header("X-Private", "for the next hop only")
        .header("Keep-Alive", "timeout=5")
        .header("Te", "trailers")
        .header("Proxy-Connection", "keep-alive")
        .send()
        .expect(200);
    let headers = &answer.value()["headers"];
    assert_eq!(headers["X-Mine"], json!(["1", "2"]));
    assert_eq!(headers["Cookie"], json!(["a=b; c=d"]));
    for name in ["X-Private", "Keep-Alive", "Te", "Proxy-Connection"] {
        assert!(headers.get(name).is_none(), "{name} was passed on: {headers}");
    }
}

#[test]
fn forwarded_headers_are_added_if_absent_and_left_alone_if_there() {
    needs_provider!();
    let provider = with_function("f");
    let echoed = provider.invoke("GET", "f/x").header("Host", "faas.example:1234").send().expect(200).value();
    assert_eq!(echoed["headers"]["X-Forwarded-Host"], json!(["faas.example:1234"]));
    let from = echoed["headers"]["X-Forwarded-For"][0].as_str().expect("X-Forwarded-For");
    assert!(from.starts_with("127.0.0.1"), "{from}");
    let echoed = provider
        .invoke("GET", "f/x")
        .header("X-Forwarded-For", "192.0.2.1")
        .header("X-Forwarded-Host", "outer.example")
        .send()
        .expect(200)
        .value();
    assert_eq!(echoed["headers"]["X-Forwarded-For"], json!(["192.0.2.1"]));
    assert_eq!(echoed["headers"]["X-Forwarded-Host"], json!(["outer.example"]));
}

#[test]
fn a_call_has_an_id_and_a_start_time_which_the_caller_may_choose() {
    needs_provider!();
    let provider = with_function("f");
    let answer = provider.call("f/x").expect(200);
    let id = answer.header("x-call-id").expect("X-Call-Id").to_owned();
    assert_eq!(id.len(), 36, "{id}");
    let start: u64 = answer.header("x-start-time").expect("X-Start-Time").parse().expect("nanoseconds");
    assert!(start > 1_700_000_000_000_000_000, "{start}");
    assert_eq!(answer.value()["headers"]["X-Call-Id"], json!([id]));
    assert_eq!(answer.value()["headers"]["X-Start-Time"], json!([start.to_string()]));
    assert!(answer.header("x-duration-seconds").is_some_and(|d| d.parse::<f64>().is_ok()), "{:?}", answer.headers);
    assert_ne!(provider.call("f/x").header("x-call-id"), Some(id.as_str()));
    let echoed = provider.invoke("GET", "f/x").header("X-Call-Id", "mine").send().expect(200).value();
    assert_eq!(echoed["headers"]["X-Call-Id"], json!(["mine"]));
}

#[test]
fn status_and_headers_of_the_answer_pass_through() {
    needs_provider!();
    let provider = with_function("f");
    for status in [200, 201, 204, 304, 400, 401, 404, 418, 429, 500, 503, 504] {
        let answer = provider.call(&format!("f/status?code={status}"));
        assert_eq!((answer.status, answer.header("x-probe")), (status, Some("yes")));
        assert!(answer.header("x-openfaas-internal").is_none(), "that header is for the provider's own errors");
    }
    assert_eq!(provider.call("f/noexist").header("content-type"), Some("application/json"));
}

#[test]
fn redirects_are_passed_through_and_not_followed() {
    needs_provider!();
    let provider = with_function("f");
    for code in [301, 302, 303, 307, 308] {
        let answer = provider.call(&format!("f/redirect?code={code}"));
        assert_eq!((answer.status, answer.header("location")), (code, Some("/elsewhere?a=1")));
    }
}

#[test]
fn an_answer_without_content_type_gets_the_requests_or_text_plain() {
    needs_provider!();
    let provider = with_function("f");
    assert_eq!(provider.call("f/notype").expect(200).header("content-type"), Some("text/plain"));
    let answer = provider.invoke("POST", "f/notype").header("Content-Type", "application/x-mine").body("x").send();
    assert_eq!(answer.header("content-type"), Some("application/x-mine"));
}

#[test]
fn bodies_of_any_size_pass_unchanged_in_both_directions() {
    needs_provider!();
    let provider = with_function("f");
    for size in [0, 1, 65_535, 65_536, 3_000_001] {
        let body: Vec<u8> = (0..size).map(|i: u32| (i.wrapping_mul(2_654_435_761) >> 24) as u8).collect();
        let answer = provider.invoke("POST", "f/echo").body(body.clone()).send().expect(200);
        assert!(answer.body == body, "{} of {size} bytes came back", answer.body.len());
    }
    assert_eq!(provider.call("f/big?kb=20480").expect(200).body.len(), 20 << 20);
}

/// The function answers the first bytes before the last are sent: nothing is held back in either direction.
#[test]
fn a_body_is_streamed_both_ways_while_it_is_still_being_sent() {
    needs_provider!();
    let provider = with_function("f");
    let mut exchange = provider.http.raw();
    exchange
        .write(b"POST /function/f/echo HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nfirst\r\n")
        .expect("writing the first chunk");
    exchange.read_head(false).expect("the answer begins before the request ends");
    let mut piece = [0; 5];
    exchange.read_exact(&mut piece).expect("the first piece");
    assert_eq!(&piece, b"first");
    exchange.write(b"6\r\nsecond\r\n0\r\n\r\n").expect("writing the rest");
    assert_eq!(exchange.finish().expect("the rest").body, b"second");
}

#[test]
fn expect_100_continue_is_answered_before_the_body_is_sent() {
    needs_provider!();
    let provider = with_function("f");
    let mut exchange = provider.http.raw();
    exchange
        .write(b"POST /function/f/echo HTTP/1.1\r\nHost: x\r\nExpect: 100-continue\r\nContent-Length: 2\r\n\r\n")
        .expect("writing the head");
    exchange.read_one_head(false).expect("an interim answer");
    assert_eq!(exchange.status, 100);
    exchange.write(b"hi").expect("writing the body");
    exchange.read_head(false).expect("the answer");
    assert_eq!((exchange.status, exchange.finish().expect("its body").body), (200, b"hi".to_vec()));
}

/// Each piece is there before the function makes the next: had they been collected, the first would come
/// with the last, so the order of arrival and of making is compared, not a duration.
#[test]
fn events_lines_and_chunks_arrive_one_by_one() {
    needs_provider!();
    let provider = with_function("f");
    for (path, accept, kind) in [
        ("sse", "text/event-stream", "text/event-stream"),
        ("ndjson", "application/x-ndjson", "application/x-ndjson"),
        ("chunked", "*/*", "text/plain"),
    ] {
        // The second piece is made 20 s after the first: who waits for it has waited for the whole.
        let start = Instant::now();
        let mut exchange =
            provider.invoke("GET", &format!("f/{path}?n=2&gap=20000")).header("Accept", accept).open().expect(path);
        assert_eq!((exchange.status, exchange.header("content-type")), (200, Some(kind)));
        let first = exchange.body_line().expect("a line").expect("a first line");
        assert!(first.contains('0'), "{first}");
        assert!(start.elapsed() < Duration::from_secs(19), "the first piece of {path} came with the last");
    }
}

#[test]
fn a_stream_ends_cleanly_when_the_function_ends_it() {
    needs_provider!();
    let provider = with_function("f");
    let answer = provider.call("f/sse?n=5&gap=10").expect(200);
    assert_eq!(answer.text().matches("data: event").count(), 5);
    let answer = provider.call("f/ndjson?n=5&gap=10").expect(200);
    assert_eq!(answer.text().lines().count(), 5);
}

#[test]
fn a_websocket_is_passed_through_and_echoes() {
    needs_provider!();
    let provider = with_function("f");
    let mut exchange = provider.http.raw();
    exchange
        .write(
            b"GET /function/f/ws HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
              Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n",
        )
        .expect("writing the handshake");
    exchange.read_head(false).expect("the handshake's answer");
    assert_eq!(exchange.status, 101);
    // The key and its answer are RFC 6455's own example.
    assert_eq!(exchange.header("sec-websocket-accept"), Some("s3pPLMBiTxaQ9kYGzzhZRbK+xOo="));
    assert!(exchange.header("upgrade").is_some_and(|u| u.eq_ignore_ascii_case("websocket")));
    let mut socket = exchange.upgraded();
    for text in ["hello", "again"] {
        let mask = [1, 2, 3, 4];
        let mut frame = vec![0x81, 0x80 | text.len() as u8];
        frame.extend_from_slice(&mask);
        frame.extend(text.bytes().zip(mask.iter().cycle()).map(|(b, m)| b ^ m));
        socket.get_mut().write_all(&frame).expect("sending a frame");
        let mut head = [0; 2];
        socket.read_exact(&mut head).expect("a frame's head");
        assert_eq!(head, [0x81, text.len() as u8]);
        let mut payload = vec![0; text.len()];
        socket.read_exact(&mut payload).expect("a frame's payload");
        assert_eq!(payload, text.as_bytes());
    }
    drop(socket);
    eventually("the function sees the end", || {
        logs(&provider, "f").contains("websocket: client went away").then_some(())
    });
}

#[test]
fn a_refused_upgrade_is_passed_through_as_an_ordinary_answer() {
    needs_provider!();
    let provider = with_function("f");
    let answer = provider
        .invoke("GET", "f/ws")
        .header("Connection", "Upgrade")
        .header("Upgrade", "websocket")
        .send()
        .expect(400);
    assert!(answer.text().contains("handshake"), "{}", answer.text());
}

#[test]
fn a_client_that_goes_away_ends_the_call_in_the_function() {
    needs_provider!();
    let provider = with_function("f");
    let exchange = provider.invoke("GET", "f/sse?n=1000&gap=50").open().expect("a stream");
    drop(exchange);
    eventually("the stream's end is seen", || logs(&provider, "f").contains("client went away after").then_some(()));
    let mut exchange = provider.http.raw();
    exchange.write(b"GET /function/f/hang HTTP/1.1\r\nHost: x\r\n\r\n").expect("writing");
    eventually("the call arrives", || logs(&provider, "f").contains("hang: waiting").then_some(()));
    drop(exchange);
    eventually("the hanging call's end is seen", || {
        logs(&provider, "f").contains("hang: client went away").then_some(())
    });
}

#[test]
fn an_answer_that_is_no_http_is_502_and_names_the_function() {
    needs_provider!();
    let provider = with_function("f");
    for path in ["garbage", "close"] {
        let answer = provider.call(&format!("f/{path}")).expect_error(502, &["f"]);
        assert_eq!(answer.header("x-openfaas-internal"), Some("proxy"), "{path}");
    }
    provider.call("f/").expect(200);
}

#[test]
fn an_answer_that_breaks_off_is_not_made_to_look_whole() {
    needs_provider!();
    let provider = with_function("f");
    let broken = provider.invoke("GET", "f/partial").try_send();
    assert!(broken.is_err(), "a body that promised 100 bytes and had 10 came as whole: {broken:?}");
    provider.call("f/").expect(200);
}

#[test]
fn requests_are_spread_over_the_replicas() {
    needs_provider!();
    let provider = with_function("wide");
    provider.scale("wide", 3).accepted();
    provider.await_ready("wide", 3);
    // Three at once, each busy: the least busy gets the next.
    let seen: std::collections::BTreeSet<String> = std::thread::scope(|scope| {
        let calls: Vec<_> = (0..9)
            .map(|_| {
                scope.spawn(|| {
                    provider.call("wide/sleep?ms=300").expect(200);
                    provider.identity("wide")["addresses"].to_string()
                })
            })
            .collect();
        calls.into_iter().map(|call| call.join().expect("a call")).collect()
    });
    assert!(seen.len() >= 2, "all went to {seen:?}");
}

#[test]
fn many_calls_on_one_connection_are_answered_in_order() {
    needs_provider!();
    let provider = with_function("f");
    let mut exchange = provider.http.raw();
    let calls: String = (0..20).map(|i| format!("GET /function/f/n{i} HTTP/1.1\r\nHost: x\r\n\r\n")).collect();
    exchange.write(calls.as_bytes()).expect("writing twenty requests at once");
    for i in 0..20 {
        exchange.read_head(false).expect("an answer");
        let mut body = String::new();
        exchange.read_to_string(&mut body).expect("its body");
        assert!(body.contains(&format!("\"/n{i}\"")), "{i}: {body}");
    }
}

#[test]
fn a_hundred_calls_at_once_are_all_answered() {
    needs_provider!();
    let provider = with_function("f");
    std::thread::scope(|scope| {
        for i in 0..100 {
            let provider = &provider;
            scope.spawn(move || {
                assert_eq!(provider.call(&format!("f/{i}?")).expect(200).value()["path"], format!("/{i}"))
            });
        }
    });
}

/// What the function has logged so far.
fn logs(provider: &Provider, name: &str) -> String {
    provider.http.get(&format!("/system/logs?name={name}&follow=false")).expect(200).text()
}
