//! Which headers pass the proxy in either direction, and what it adds to them.

use std::time::Instant;

use actix_web::http::header::{CONNECTION, CONTENT_LENGTH, HeaderMap, TRANSFER_ENCODING, UPGRADE};
use actix_web::{HttpRequest, HttpResponse, HttpResponseBuilder};

use super::upstream::Head;

/// What the stock gateway adds to a call: its id and its start, told to the function and to the client. Where a
/// gateway (or the client) has given an id already, both are left to it.
pub struct Stamp {
    began: Instant,
    given: [Option<(&'static str, String)>; 2],
}

impl Stamp {
    /// For a request with these headers, which begins now.
    pub fn new(headers: &HeaderMap) -> Self {
        let id = || uuid::Builder::from_random_bytes(rand::random()).into_uuid().to_string();
        let start = || jiff::Timestamp::now().as_nanosecond().to_string();
        let ours = !headers.contains_key("x-call-id");
        let given = [
            ours.then(|| ("x-call-id", id())),
            (ours && !headers.contains_key("x-start-time")).then(|| ("x-start-time", start())),
        ];
        Self { began: Instant::now(), given }
    }

    /// Headers of the answer, where the function has not set them itself.
    pub fn told(&self) -> impl Iterator<Item = (&'static str, String)> {
        let took = ("x-duration-seconds", format!("{:.6}", self.began.elapsed().as_secs_f64()));
        self.given.iter().flatten().cloned().chain([took])
    }
}

/// Headers of one connection only (RFC 9110, section 7.6.1).
fn is_hop(name: &str) -> bool {
    matches!(
        name,
        "connection"
            | "keep-alive"
            | "proxy-authenticate"
            | "proxy-authorization"
            | "proxy-connection"
            | "te"
            | "trailer"
            | "transfer-encoding"
            | "upgrade"
    )
}

/// Whether a Connection header names this one.
fn is_named(connection: Option<&str>, name: &str) -> bool {
    connection.is_some_and(|list| list.split(',').any(|item| item.trim().eq_ignore_ascii_case(name)))
}

/// The head of the request that a replica gets, as bytes. `length` is the body's; none means that it comes in chunks.
pub fn outgoing(
    host: &str,
    request: &HttpRequest,
    length: Option<u64>,
    path: &str,
    upgrade: bool,
    stamp: &Stamp,
) -> Vec<u8> {
    let method = request.method().as_str();
    let mut head = Vec::with_capacity(1024);
    let mut add = |parts: &[&[u8]]| parts.iter().for_each(|part| head.extend_from_slice(part));
    add(&[method.as_bytes(), b" ", path.as_bytes(), b" HTTP/1.1\r\nhost: ", host.as_bytes(), b"\r\n"]);
    let mut field = |name: &str, value: &[u8]| add(&[name.as_bytes(), b": ", value, b"\r\n"]);
    pass(request, stamp, &mut field);
    match length {
        _ if upgrade => {
            field("connection", b"Upgrade");
            field("upgrade", b"websocket");
        }
        None => field("transfer-encoding", b"chunked"),
        Some(0) if !matches!(method, "POST" | "PUT" | "PATCH") => {}
        Some(length) => field("content-length", length.to_string().as_bytes()),
    }
    head.extend_from_slice(b"\r\n");
    head
}

/// The headers that a function gets with a request that is sent to it later, its id and start among them. A byte is
/// a character each, since values need not be UTF-8.
pub fn kept(request: &HttpRequest) -> Vec<(String, String)> {
    let mut kept = Vec::new();
    pass(request, &Stamp::new(request.headers()), &mut |name, value| {
        kept.push((name.to_owned(), value.iter().map(|byte| char::from(*byte)).collect()));
    });
    kept
}

/// The head of a POST with headers that [`kept`] gave.
pub fn later(host: &str, path: &str, headers: &[(String, String)], length: usize) -> Vec<u8> {
    let mut head = format!("POST {path} HTTP/1.1\r\nhost: {host}\r\ncontent-length: {length}\r\n").into_bytes();
    for (name, value) in headers {
        head.extend_from_slice(name.as_bytes());
        head.extend_from_slice(b": ");
        head.extend(value.chars().map(|c| c as u8));
        head.extend_from_slice(b"\r\n");
    }
    head.extend_from_slice(b"\r\n");
    head
}

/// Gives `field` each header of a request that passes, and those that are added.
fn pass(request: &HttpRequest, stamp: &Stamp, field: &mut impl FnMut(&str, &[u8])) {
    let headers = request.headers();
    let connection = headers.get(CONNECTION).and_then(|value| value.to_str().ok());
    for (name, value) in headers {
        let name = name.as_str();
        // Host, Expect and the length are ours to say.
        if !is_hop(name) && !matches!(name, "host" | "expect" | "content-length") && !is_named(connection, name) {
            field(name, value.as_bytes());
        }
    }
    if let (Some(asked), false) = (headers.get("host"), headers.contains_key("x-forwarded-host")) {
        field("x-forwarded-host", asked.as_bytes());
    }
    if let (Some(peer), false) = (request.peer_addr(), headers.contains_key("x-forwarded-for")) {
        field("x-forwarded-for", peer.to_string().as_bytes());
    }
    for (name, value) in stamp.given.iter().flatten() {
        field(name, value.as_bytes());
    }
}

/// The head of the answer that the client gets.
pub fn incoming(head: &Head) -> HttpResponseBuilder {
    let mut builder = HttpResponse::build(head.status);
    let connection = head.connection();
    for (name, value) in &head.headers {
        let text = name.as_str();
        if !is_hop(text) && text != "content-length" && !is_named(connection, text) {
            builder.append_header((name, value));
        }
    }
    builder
}

/// The length of a request's body; none when it comes in chunks. After an upgrade the client's bytes are no body.
pub fn length(headers: &HeaderMap, upgrade: bool) -> Option<u64> {
    match headers.get(CONTENT_LENGTH) {
        _ if upgrade => Some(0),
        Some(length) => length.to_str().ok()?.parse().ok(),
        None if headers.contains_key(TRANSFER_ENCODING) => None,
        None => Some(0),
    }
}

/// Whether a request asks for a WebSocket.
pub fn is_websocket(headers: &HeaderMap) -> bool {
    let says =
        |name, word: &str| headers.get(name).and_then(|v| v.to_str().ok()).is_some_and(|v| is_named(Some(v), word));
    says(CONNECTION, "upgrade") && says(UPGRADE, "websocket")
}
