//! TLS on the standalone port.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, ClientConnection, RootCertStore, StreamOwned};
use serde_json::json;

use crate::needs_root;
use crate::support::{Daemon, certificate, eventually};

/// A daemon whose port has the certificate `first`.
fn with_tls(dir: &Path) -> Daemon {
    let (certificate, key) = certificate::make(dir, "first");
    let lines = format!("tls_certificate = \"{}\"\ntls_key = \"{}\"", certificate.display(), key.display());
    let daemon = Daemon::with().gateway(&lines).start();
    daemon.deploy(json!({"service": "f"}));
    daemon
}

type Stream = StreamOwned<ClientConnection, TcpStream>;

/// A connection to the port that believes only this certificate.
fn connect(daemon: &Daemon, certificate: &Path) -> std::io::Result<Stream> {
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from_pem_file(certificate).expect("a certificate")).expect("a root");
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions().expect("TLS");
    let config = Arc::new(config.with_root_certificates(roots).with_no_client_auth());
    let name = ServerName::try_from("localhost").expect("a name");
    let socket = TcpStream::connect(daemon.gateway.address)?;
    socket.set_read_timeout(Some(Duration::from_secs(60)))?;
    let mut stream = StreamOwned::new(ClientConnection::new(config, name).expect("a client"), socket);
    stream.flush()?;
    while stream.conn.is_handshaking() {
        stream.conn.complete_io(&mut stream.sock)?;
    }
    Ok(stream)
}

/// Sends bytes and reads until what has come holds `end`.
fn exchange(stream: &mut Stream, bytes: &str, end: &str) -> String {
    stream.write_all(bytes.as_bytes()).expect("writing");
    let mut told = Vec::new();
    let mut piece = [0; 4096];
    while !String::from_utf8_lossy(&told).contains(end) {
        let read = stream.read(&mut piece).expect("reading");
        assert_ne!(read, 0, "the end came before {end:?}: {}", String::from_utf8_lossy(&told));
        told.extend_from_slice(&piece[..read]);
    }
    String::from_utf8_lossy(&told).into_owned()
}

#[test]
fn calls_streams_and_websockets_pass_encrypted() {
    needs_root!();
    if !certificate::possible() {
        return;
    }
    let dir = tempfile::tempdir().expect("a directory");
    let daemon = with_tls(dir.path());
    let mut stream = connect(&daemon, &dir.path().join("first.pem")).expect("a connection");
    let call = "POST /function/f/x HTTP/1.1\r\nHost: localhost\r\nContent-Length: 4\r\n\r\nbody";
    for _ in 0..2 {
        let answer = exchange(&mut stream, call, "\"body\":\"body\"");
        assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    }
    // The second event is made 20 s after the first: who sees the first at once has a stream.
    let mut events = connect(&daemon, &dir.path().join("first.pem")).expect("a connection");
    exchange(&mut events, "GET /function/f/sse?n=2&gap=20000 HTTP/1.1\r\nHost: localhost\r\n\r\n", "data: event 0");
    drop(events);
    let log = |word: &str| {
        let text = daemon.http.get("/system/logs?name=f&follow=false").expect(200).text();
        text.contains(word).then_some(())
    };
    eventually("the function learns that nobody listens", || log("client went away after"));
    let mut hanging = connect(&daemon, &dir.path().join("first.pem")).expect("a connection");
    hanging.write_all(b"GET /function/f/hang HTTP/1.1\r\nHost: localhost\r\n\r\n").expect("writing");
    eventually("the call arrives", || log("hang: waiting"));
    drop(hanging);
    eventually("the function learns that nobody waits", || log("hang: client went away"));
    let mut socket = connect(&daemon, &dir.path().join("first.pem")).expect("a connection");
    let upgrade = "GET /function/f/ws HTTP/1.1\r\nHost: localhost\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
                   Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n";
    assert!(exchange(&mut socket, upgrade, "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=").starts_with("HTTP/1.1 101"));
    // A frame whose mask is zeros holds its text as it is.
    socket.write_all(b"\x81\x85\0\0\0\0hello").expect("sending a frame");
    let mut frame = [0; 7];
    socket.read_exact(&mut frame).expect("a frame");
    assert_eq!(&frame, b"\x81\x05hello");
}

#[test]
fn sighup_takes_the_certificate_that_is_there_then() {
    needs_root!();
    if !certificate::possible() {
        return;
    }
    let dir = tempfile::tempdir().expect("a directory");
    let daemon = with_tls(dir.path());
    let first = dir.path().join("kept.pem");
    std::fs::copy(dir.path().join("first.pem"), &first).expect("copying");
    let mut before = connect(&daemon, &first).expect("a connection");
    let (second, key) = certificate::make(dir.path(), "second");
    std::fs::copy(&second, dir.path().join("first.pem")).expect("copying");
    // A key that does not fit is not taken, and the port goes on with what it had.
    daemon.signal(libc::SIGHUP);
    eventually("the daemon says that they do not fit", || daemon.log().contains("do not fit together").then_some(()));
    connect(&daemon, &first).expect("the first certificate");
    std::fs::copy(&key, dir.path().join("first.key")).expect("copying");
    daemon.signal(libc::SIGHUP);
    eventually("the second certificate", || connect(&daemon, &second).ok());
    assert!(connect(&daemon, &first).is_err());
    // Connections that were there stay.
    exchange(&mut before, "GET /function/f HTTP/1.1\r\nHost: localhost\r\n\r\n", "\"path\"");
}

#[test]
fn plain_text_to_an_encrypted_port_is_turned_away_and_disturbs_nothing() {
    needs_root!();
    if !certificate::possible() {
        return;
    }
    let dir = tempfile::tempdir().expect("a directory");
    let daemon = with_tls(dir.path());
    assert!(daemon.gateway.request("GET", "/healthz").try_send().is_err());
    let mut stream = connect(&daemon, &dir.path().join("first.pem")).expect("a connection");
    exchange(&mut stream, "GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n", "HTTP/1.1 200");
}

#[test]
fn a_certificate_that_cannot_be_used_ends_the_start_with_a_sentence() {
    needs_root!();
    for (lines, word) in [
        ("tls_certificate = \"/nonexistent.pem\"", "tls_key"),
        ("tls_certificate = \"/nonexistent.pem\"\ntls_key = \"/nonexistent.key\"", "/nonexistent.pem"),
        ("tls_certificate = \"/etc/passwd\"\ntls_key = \"/etc/passwd\"", "holds no PEM certificate"),
    ] {
        let mut daemon = Daemon::with().gateway(lines).without_images().prepare();
        daemon.launch();
        assert!(!daemon.await_exit().success());
        assert!(daemon.log().contains(word), "{}", daemon.log());
        // The purge at the end needs settings that make sense.
        let good = std::fs::read_to_string(&daemon.config).expect("the configuration").replace(lines, "");
        std::fs::write(&daemon.config, good).expect("writing the configuration");
    }
}
