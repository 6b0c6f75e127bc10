//! Clients and functions that misbehave, on both ports: the right status or a clean close, and the next request works.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::{Duration, Instant};

use serde_json::json;

use crate::support::http::Client;
use crate::support::{Daemon, eventually};
use crate::{linux_only, needs_root};

/// A daemon with the function `f`, and the clients of its two ports.
fn with_function(options: crate::support::daemon::Options) -> (Daemon, [Client; 2]) {
    let daemon = options.start();
    daemon.deploy(json!({"service": "f"}));
    let ports = [daemon.http.clone(), daemon.gateway.clone()];
    (daemon, ports)
}

/// The next request works: a call and a question.
#[track_caller]
fn still_well(port: &Client) {
    assert_eq!(port.request("POST", "/function/f/x").body("well").send().expect(200).value()["body"], "well");
    port.get("/system/functions").expect(200);
}

/// No call is under way any more, as the replica's own count shows.
#[track_caller]
fn await_quiet(daemon: &Daemon) {
    eventually("no call is under way", || {
        let replicas = daemon.http.get("/system/replicas").expect(200).value();
        let all = replicas.as_array().expect("replicas").iter();
        all.map(|replica| replica["inFlight"].as_u64().expect("a number")).sum::<u64>().eq(&0).then_some(())
    });
}

fn log(daemon: &Daemon) -> String {
    daemon.http.get("/system/logs?name=f&follow=false").expect(200).text()
}

#[test]
fn a_wrong_password_is_401_before_the_body_is_looked_at() {
    needs_root!();
    let (daemon, ports) = with_function(Daemon::with().credentials("admin:secret"));
    for port in &ports {
        for credentials in ["admin:wrong", "root:secret", ":", "admin"] {
            let wrong = Client { credentials: Some(credentials.into()), ..port.clone() };
            wrong.request("POST", "/system/functions").body("{").send().expect(401);
            // The body never comes; the answer does.
            let mut exchange = wrong.raw();
            exchange.write(b"POST /system/secrets HTTP/1.1\r\nHost: x\r\nContent-Length: 10\r\n\r\n").expect("writing");
            exchange.read_head(false).expect("an answer");
            assert_eq!(exchange.status, 401);
        }
        still_well(port);
    }
    assert_eq!(daemon.list("openfaas-fn"), ["f"]);
}

#[test]
fn a_call_that_takes_too_long_is_504_and_ends_in_the_function_too() {
    needs_root!();
    let (daemon, ports) = with_function(Daemon::with().set("read_timeout = \"1s\""));
    for (round, port) in ports.iter().enumerate() {
        let answer = port.get("/function/f/hang").expect_error(504, &["f.openfaas-fn"]);
        assert_eq!(answer.header("x-openfaas-internal"), Some("proxy"));
        eventually("the function learns of it", || {
            (log(&daemon).matches("hang: client went away").count() > round).then_some(())
        });
        still_well(port);
    }
    await_quiet(&daemon);
}

#[test]
fn a_body_that_is_cut_off_reaches_nobody_as_whole() {
    needs_root!();
    let (daemon, ports) = with_function(Daemon::with());
    let spec = json!({"service": "half", "image": "example.test/probe:1"}).to_string();
    for port in &ports {
        let queued = "/async-function/f/record?id=half";
        for (target, body) in [("/function/f/record?id=half", "half"), ("/system/functions", &*spec), (queued, "half")]
        {
            for framing in ["Content-Length: 1000\r\n\r\n", "Transfer-Encoding: chunked\r\n\r\n3e8\r\n"] {
                let mut exchange = port.raw();
                exchange
                    .write(format!("POST {target} HTTP/1.1\r\nHost: x\r\n{framing}{body}").as_bytes())
                    .expect("writing");
                drop(exchange);
                // With only the sending half closed, there is an answer or a clean end.
                let mut exchange = port.raw();
                exchange
                    .write(format!("POST {target} HTTP/1.1\r\nHost: x\r\n{framing}{body}").as_bytes())
                    .expect("writing");
                exchange.finish_writing().expect("closing");
                let told = exchange.read_head(false).map(|()| exchange.status);
                assert!(told.as_ref().map_or(true, |status| *status >= 400), "{target}: {told:?}");
            }
        }
        still_well(port);
    }
    await_quiet(&daemon);
    assert_eq!(daemon.list("openfaas-fn"), ["f"]);
    assert_eq!(
        daemon.call("f/recorded").expect(200).value()["calls"],
        json!({}),
        "no half body was taken for a whole one"
    );
}

/// Heads that never end, and bodies that come a byte at a time.
#[test]
fn a_slow_client_is_shown_out() {
    needs_root!();
    let (_daemon, ports) = with_function(Daemon::with().set("read_timeout = \"2s\""));
    for port in &ports {
        std::thread::scope(|scope| {
            for (begin, status) in [
                ("", 408),
                ("GET /healthz HTTP/1.1\r\nX-Slow: ", 408),
                ("POST /system/functions HTTP/1.1\r\nHost: x\r\nContent-Length: 1000\r\n\r\n", 408),
                ("POST /function/f/echo-nothing HTTP/1.1\r\nHost: x\r\nContent-Length: 1000\r\n\r\n", 504),
            ] {
                scope.spawn(move || {
                    let mut exchange = port.raw();
                    exchange.write(begin.as_bytes()).expect("writing");
                    // A byte now and then, until the server has had enough.
                    let start = Instant::now();
                    loop {
                        if exchange.write(b"a").is_err() || exchange.wait_readable(Duration::from_millis(300)) {
                            break;
                        }
                        assert!(start.elapsed() < Duration::from_secs(40), "{begin:?} is waited for without end");
                    }
                    // The answer may be lost when the client writes into a closed connection.
                    if exchange.read_head(false).is_ok() {
                        assert_eq!(exchange.status, status, "{begin:?}");
                    }
                });
            }
            // Meanwhile others are served.
            for _ in 0..5 {
                still_well(port);
            }
        });
        still_well(port);
    }
}

#[test]
fn ten_thousand_idle_connections_keep_nobody_out() {
    needs_root!();
    linux_only!("counts files and memory in /proc");
    const IDLE: usize = 10_000;
    // SAFETY: getrlimit and setrlimit read and write the struct they are given.
    let hard = unsafe {
        let mut limit = std::mem::zeroed::<libc::rlimit>();
        libc::getrlimit(libc::RLIMIT_NOFILE, &raw mut limit);
        limit.rlim_cur = limit.rlim_max;
        libc::setrlimit(libc::RLIMIT_NOFILE, &raw const limit);
        limit.rlim_max
    };
    if hard < 11_000 {
        crate::support::announce_skip(&crate::support::this_test(), "needs a hard limit of 11000 open files");
        return;
    }
    for second in [false, true] {
        let (daemon, ports) = with_function(Daemon::with());
        let port = &ports[usize::from(second)];
        still_well(port);
        let (files, memory) = (daemon.open_files(), daemon.memory());
        // Half of them have asked something before they fell silent.
        let mut idle: Vec<TcpStream> = Vec::with_capacity(IDLE);
        for i in 0..IDLE {
            let mut stream = TcpStream::connect(port.address).expect("connecting");
            if i % 2 == 0 {
                stream.write_all(b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n").expect("writing");
            }
            idle.push(stream);
            if i % 1000 == 0 {
                still_well(port);
            }
        }
        still_well(port);
        let grown = daemon.memory().saturating_sub(memory);
        assert!(grown < 256 << 20, "{} MB for {IDLE} connections", grown >> 20);
        drop(idle);
        eventually("their files are closed", || (daemon.open_files() < files + 50).then_some(()));
        still_well(port);
    }
}

#[test]
fn a_header_over_a_mebibyte_is_431() {
    needs_root!();
    let (_daemon, ports) = with_function(Daemon::with());
    for port in &ports {
        for target in ["/function/f", "/system/functions"] {
            let monster = "v".repeat((1 << 20) + 1);
            match port.request("GET", target).header("X-Long", &monster).try_send() {
                Ok(answer) => assert_eq!(answer.status, 431),
                // The answer is lost when the connection is closed while the client still writes.
                Err(error) => assert!(
                    matches!(error.kind(), std::io::ErrorKind::BrokenPipe | std::io::ErrorKind::ConnectionReset),
                    "{error}"
                ),
            }
            // One that waits to hear what is said before it goes on writing.
            let mut exchange = port.raw();
            let head = format!("GET {target} HTTP/1.1\r\nHost: x\r\nX-Long: {}", &monster[..140_000]);
            exchange.write(head.as_bytes()).expect("writing");
            exchange.read_head(false).expect("an answer");
            assert_eq!(exchange.status, 431);
        }
        still_well(port);
    }
}

/// Through an echo function and back, and at no time more than a little of it in memory.
#[test]
fn two_gibibytes_pass_through_in_constant_memory() {
    needs_root!();
    linux_only!("reads memory in /proc");
    const TOTAL: u64 = 2 << 30;
    const LITTLE: u64 = 32 << 20;
    let (daemon, ports) = with_function(Daemon::with().set("read_timeout = \"10m\""));
    // The second port is the same code: it is enough to see that it does not pile up either.
    for (port, total) in ports.iter().zip([TOTAL, TOTAL / 8]) {
        still_well(port);
        let before = daemon.memory();
        let stream = TcpStream::connect(port.address).expect("connecting");
        let mut writer = stream.try_clone().expect("cloning");
        let head = format!("POST /function/f/echo HTTP/1.1\r\nHost: x\r\nContent-Length: {total}\r\n\r\n");
        let sender = std::thread::spawn(move || {
            writer.write_all(head.as_bytes()).expect("writing the head");
            let block = vec![b'x'; 1 << 20];
            (0..total >> 20).for_each(|_| writer.write_all(&block).expect("writing the body"));
        });
        let mut reader = stream;
        let mut piece = vec![0; 1 << 20];
        let (mut read, mut most) = (0, 0);
        // The answer is chunked, so it is a little longer than the body.
        while read < total {
            let n = reader.read(&mut piece).expect("reading");
            assert_ne!(n, 0, "the end came after {read} bytes");
            if (read + n as u64) >> 26 != read >> 26 {
                most = most.max(daemon.memory());
            }
            read += n as u64;
        }
        sender.join().expect("the sender");
        let grown = most.saturating_sub(before);
        assert!(grown < LITTLE, "the daemon grew by {} MB", grown >> 20);
        still_well(port);
    }
}

#[test]
fn a_client_that_leaves_a_stream_is_let_go() {
    needs_root!();
    let (daemon, ports) = with_function(Daemon::with());
    for (round, port) in ports.iter().enumerate() {
        let mut streams: Vec<_> =
            (0..10).map(|_| port.request("GET", "/function/f/sse?n=1000&gap=50").open().expect("a stream")).collect();
        for stream in &mut streams {
            assert!(stream.body_line().expect("a line").is_some_and(|line| line.starts_with("data:")));
        }
        drop(streams);
        eventually("the function learns of it", || {
            (log(&daemon).matches("client went away after").count() >= 10 * (round + 1)).then_some(())
        });
        await_quiet(&daemon);
        still_well(port);
    }
}

#[test]
fn a_function_that_answers_garbage_is_502_or_a_broken_answer() {
    needs_root!();
    let (daemon, ports) = with_function(Daemon::with());
    for port in &ports {
        for path in ["garbage", "close"] {
            let answer = port.get(&format!("/function/f/{path}")).expect_error(502, &["f.openfaas-fn"]);
            assert_eq!(answer.header("x-openfaas-internal"), Some("proxy"), "{path}");
        }
        // What has begun as an answer can only be broken off.
        let broken = port.request("GET", "/function/f/partial").try_send();
        assert!(broken.is_err(), "ten bytes of a hundred came as whole: {broken:?}");
        still_well(port);
    }
    await_quiet(&daemon);
}
