//! /function/{name}[.namespace][/path]: the streaming proxy. It looks up, leases, forwards; nothing else.

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use actix_web::body::{BodySize, MessageBody};
use actix_web::dev::Payload;
use actix_web::http::header::{
    CONNECTION, CONTENT_LENGTH, CONTENT_TYPE, HeaderMap, RETRY_AFTER, TRANSFER_ENCODING, UPGRADE,
};
use actix_web::http::{StatusCode, Uri};
use actix_web::web::{self, Bytes, Data};
use actix_web::{HttpRequest, HttpResponse, HttpResponseBuilder};
use futures_util::StreamExt;
use hyper::body::{Body, Incoming};
use hyper::header::{HeaderName, HeaderValue};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::peer::{self, Ended};
use super::upstream::{self, Connection, RequestBody};
use super::{Shared, error};
use crate::fault::Fault;
use crate::provider::{Function, Lease, Unserved};

/// Marks an answer that is the provider's and not the function's.
const INTERNAL: (&str, &str) = ("X-OpenFaaS-Internal", "proxy");

/// Forwards one request.
pub async fn invoke(shared: Data<Shared>, request: HttpRequest, payload: web::Payload) -> HttpResponse {
    if !matches!(request.method().as_str(), "GET" | "POST" | "PUT" | "PATCH" | "DELETE" | "OPTIONS" | "HEAD") {
        return HttpResponse::MethodNotAllowed().finish();
    }
    if let Some(clean) = cleaned(request.uri()) {
        return HttpResponse::MovedPermanently().insert_header(("Location", clean)).finish();
    }
    let Some((name, rest)) = split(request.uri().path()) else {
        return error::text(StatusCode::NOT_FOUND, "404 page not found");
    };
    let Some(function) = find(&shared, name) else {
        return refuse(StatusCode::NOT_FOUND, &format!("function {name} does not exist; see faas-cli list"));
    };
    function.invocations.fetch_add(1, Ordering::Relaxed);
    let path = match request.uri().query() {
        Some(query) => format!("{}?{query}", if rest.is_empty() { "/" } else { rest }),
        None => if rest.is_empty() { "/" } else { rest }.to_owned(),
    };
    forward(&shared, &function, &request, payload.into_inner(), &path).await
}

/// The function that `name` or `name.namespace` means.
fn find(shared: &Shared, name: &str) -> Option<Arc<Function>> {
    match name.contains('.') {
        true => shared.provider.catalog.named(name),
        false => shared.provider.catalog.named(&[name, ".", shared.provider.namespaces.default().as_str()].concat()),
    }
}

/// Splits `/function/NAME/rest` into the name and `/rest`, both as the client sent them.
fn split(path: &str) -> Option<(&str, &str)> {
    let path = path.strip_prefix("/function/")?;
    let (name, rest) = path.split_at(path.find('/').unwrap_or(path.len()));
    let fits = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.');
    (!name.is_empty() && name.bytes().all(fits)).then_some((name, rest))
}

/// The path without empty and dot segments, if it has any (Go's `path.Clean`, with the query kept).
pub fn cleaned(uri: &Uri) -> Option<String> {
    let path = uri.path();
    let dirty = path.as_bytes().windows(2).any(|pair| pair == b"//")
        || path.split('/').any(|segment| matches!(segment, "." | ".."));
    if !dirty {
        return None;
    }
    let mut kept: Vec<&str> = Vec::new();
    for segment in path.split('/') {
        match segment {
            "" | "." => {}
            ".." => drop(kept.pop()),
            other => kept.push(other),
        }
    }
    let slash = if path.ends_with('/') && !kept.is_empty() { "/" } else { "" };
    let query = uri.query().map(|query| format!("?{query}")).unwrap_or_default();
    Some(format!("/{}{slash}{query}", kept.join("/")))
}

async fn forward(
    shared: &Shared,
    function: &Arc<Function>,
    request: &HttpRequest,
    payload: Payload,
    path: &str,
) -> HttpResponse {
    let upgrade = is_websocket(request.headers());
    let stamp = Stamp::new(request.headers());
    // After an upgrade the client's bytes are no request body any more.
    let (payload, client) = if upgrade { (Payload::None, payload) } else { (payload, Payload::None) };
    let mut body = Some(RequestBody { length: length(request.headers(), upgrade), payload });
    let mut second = false;
    // A second round only when the first replica got nothing of the request.
    loop {
        let lease = match shared.provider.lease_now(function) {
            Some(lease) => lease,
            None => match wait_for_lease(shared, function, request).await {
                Ok(lease) => lease,
                Err(answer) => return answer,
            },
        };
        let sent = body.take().expect("put back by every round that goes on");
        let timeout = shared.provider.config.read_timeout;
        let exchange = exchange(&lease, request, sent, path, upgrade, &stamp);
        let answered = tokio::select! {
            biased;
            answered = exchange => answered,
            // The exchange is dropped, which closes the replica's connection.
            ended = peer::ended(request, timeout) => return match ended {
                // Nobody reads this answer.
                Ended::Gone => refuse(StatusCode::BAD_GATEWAY, "the client went away"),
                Ended::Late => {
                    let text = format!("{} did not answer within {}s", function.key, timeout.as_secs());
                    refuse(StatusCode::GATEWAY_TIMEOUT, &text)
                }
            },
        };
        match answered {
            Ok((response, connection)) if response.status() == hyper::StatusCode::SWITCHING_PROTOCOLS => {
                drop(connection);
                return switch(response, client, lease).await;
            }
            Ok((response, connection)) => {
                let most = shared.provider.config.max_idle_conns_per_host;
                return answer(response, connection, lease, request, most, &stamp);
            }
            Err(Refused { why, unsent, broken }) => {
                if broken {
                    shared.provider.doubt(function, &lease, &why);
                }
                match unsent {
                    Some(back) if !second => (body, second) = (Some(back), true),
                    _ => return unreachable_(function, &why),
                }
            }
        }
    }
}

/// A replica, waited for in the function's line.
async fn wait_for_lease(
    shared: &Shared,
    function: &Arc<Function>,
    request: &HttpRequest,
) -> Result<Lease, HttpResponse> {
    let waited = tokio::select! {
        biased;
        waited = shared.provider.lease(function) => waited,
        // Nobody reads this answer.
        _ = peer::ended(request, Duration::MAX) => return Err(refuse(StatusCode::BAD_GATEWAY, "the client went away")),
    };
    waited.map_err(|unserved| match unserved {
        Unserved::Gone(fault) => refuse(StatusCode::NOT_FOUND, &fault.to_string()),
        Unserved::Full(fault) => later(StatusCode::TOO_MANY_REQUESTS, &fault, Duration::ZERO),
        Unserved::Nobody { fault, retry_after } => later(StatusCode::SERVICE_UNAVAILABLE, &fault, retry_after),
    })
}

/// An answer that says when to come again, in whole seconds (RFC 9110, section 10.2.3).
fn later(status: StatusCode, fault: &Fault, after: Duration) -> HttpResponse {
    let mut answer = refuse(status, &fault.to_string());
    let seconds = (after.as_secs_f64().ceil() as u64).max(1);
    answer.headers_mut().insert(RETRY_AFTER, seconds.into());
    answer
}

/// What the stock gateway adds to a call: its id and its start, told to the function and to the client. Where a
/// gateway (or the client) has given an id already, both are left to it.
struct Stamp {
    began: Instant,
    given: [Option<(&'static str, String)>; 2],
}

impl Stamp {
    fn new(headers: &HeaderMap) -> Self {
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
    fn told(&self) -> impl Iterator<Item = (&'static str, String)> {
        let took = ("x-duration-seconds", format!("{:.6}", self.began.elapsed().as_secs_f64()));
        self.given.iter().flatten().cloned().chain([took])
    }
}

struct Refused {
    why: String,
    /// The request, when nothing of it has been sent.
    unsent: Option<RequestBody>,
    /// The replica has refused or reset the connection.
    broken: bool,
}

/// One request and the head of its response, on a kept connection or, if that turns out closed, on a new one.
async fn exchange(
    lease: &Lease,
    request: &HttpRequest,
    body: RequestBody,
    path: &str,
    upgrade: bool,
    stamp: &Stamp,
) -> Result<(hyper::Response<Incoming>, Connection), Refused> {
    let mut connection = match upstream::connect(lease).await {
        Ok(connection) => connection,
        Err(error) => return Err(Refused { why: error.to_string(), unsent: Some(body), broken: true }),
    };
    let mut outgoing = outgoing_request(&connection.host, request, body, path, upgrade, stamp)?;
    loop {
        match connection.send(outgoing).await {
            Ok(response) => return Ok((response, connection)),
            Err(mut error) => {
                let why = error.error().to_string();
                // Otherwise the client's body broke off, or the answer is no HTTP.
                let broken = !error.error().is_user() && !error.error().is_parse();
                outgoing = match error.take_message() {
                    Some(unsent) if connection.reused => unsent,
                    Some(unsent) => return Err(Refused { why, unsent: Some(unsent.into_body()), broken }),
                    // The replica may have closed a kept connection just then. As Go's transport does it, and so
                    // the stock provider: what asks for nothing but an answer is asked once more.
                    None if connection.reused && is_replayable(request) => {
                        let nothing = RequestBody { length: Some(0), payload: Payload::None };
                        outgoing_request(&connection.host, request, nothing, path, upgrade, stamp)?
                    }
                    None => return Err(Refused { why, unsent: None, broken }),
                };
                connection = match upstream::fresh(lease).await {
                    Ok(connection) => connection,
                    Err(error) => {
                        return Err(Refused {
                            why: error.to_string(),
                            unsent: Some(outgoing.into_body()),
                            broken: true,
                        });
                    }
                };
            }
        }
    }
}

/// Whether sending it twice is as good as once (net/http, `Request.isReplayable`).
fn is_replayable(request: &HttpRequest) -> bool {
    matches!(request.method().as_str(), "GET" | "HEAD" | "OPTIONS") && length(request.headers(), false) == Some(0)
}

/// Headers of one connection only (RFC 9110, section 7.6.1); Host and Expect are ours to say.
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

fn outgoing_request(
    host: &HeaderValue,
    request: &HttpRequest,
    body: RequestBody,
    path: &str,
    upgrade: bool,
    stamp: &Stamp,
) -> Result<hyper::Request<RequestBody>, Refused> {
    let method = request.method().as_str();
    let built = hyper::Request::builder().method(method).uri(path).body(());
    let (mut parts, ()) = match built {
        Ok(built) => built.into_parts(),
        Err(error) => return Err(Refused { why: error.to_string(), unsent: None, broken: false }),
    };
    let headers = request.headers();
    let connection = headers.get(CONNECTION).and_then(|value| value.to_str().ok());
    parts.headers.reserve(headers.len() + 3);
    for (name, value) in headers {
        let name = name.as_str();
        if is_hop(name) || matches!(name, "host" | "expect" | "content-length") || is_named(connection, name) {
            continue;
        }
        let converted = (HeaderName::from_bytes(name.as_bytes()), HeaderValue::from_bytes(value.as_bytes()));
        if let (Ok(name), Ok(value)) = converted {
            parts.headers.append(name, value);
        }
    }
    // From a String, a value is made without a copy.
    let text = |text: String| HeaderValue::try_from(text).ok();
    parts.headers.insert(hyper::header::HOST, host.clone());
    let forwarded = [
        ("x-forwarded-host", request.headers().get("host").and_then(|h| HeaderValue::from_bytes(h.as_bytes()).ok())),
        ("x-forwarded-for", request.peer_addr().and_then(|peer| text(peer.to_string()))),
    ];
    for (name, value) in forwarded {
        if let (false, Some(value)) = (parts.headers.contains_key(name), value) {
            parts.headers.insert(HeaderName::from_static(name), value);
        }
    }
    for (name, value) in stamp.given.iter().flatten() {
        parts.headers.extend(text(value.clone()).map(|value| (HeaderName::from_static(name), value)));
    }
    if upgrade {
        parts.headers.insert(hyper::header::CONNECTION, HeaderValue::from_static("Upgrade"));
        parts.headers.insert(hyper::header::UPGRADE, HeaderValue::from_static("websocket"));
    }
    Ok(hyper::Request::from_parts(parts, body))
}

fn length(headers: &HeaderMap, upgrade: bool) -> Option<u64> {
    match headers.get(CONTENT_LENGTH) {
        _ if upgrade => Some(0),
        Some(length) => length.to_str().ok()?.parse().ok(),
        None if headers.contains_key(TRANSFER_ENCODING) => None,
        None => Some(0),
    }
}

fn is_websocket(headers: &HeaderMap) -> bool {
    let says =
        |name, word: &str| headers.get(name).and_then(|v| v.to_str().ok()).is_some_and(|v| is_named(Some(v), word));
    says(CONNECTION, "upgrade") && says(UPGRADE, "websocket")
}

/// The function's answer: its status, its headers, its body as it comes.
fn answer(
    response: hyper::Response<Incoming>,
    connection: Connection,
    lease: Lease,
    request: &HttpRequest,
    most: usize,
    stamp: &Stamp,
) -> HttpResponse {
    let (parts, incoming) = response.into_parts();
    let mut builder = head(&parts);
    if !parts.headers.contains_key(hyper::header::CONTENT_TYPE) {
        match request.headers().get(CONTENT_TYPE) {
            Some(same) => builder.insert_header((CONTENT_TYPE, same)),
            None => builder.insert_header((CONTENT_TYPE, "text/plain")),
        };
    }
    for (name, value) in stamp.told() {
        if !parts.headers.contains_key(name) {
            builder.insert_header((name, value));
        }
    }
    let said = parts.headers.get(hyper::header::CONTENT_LENGTH).and_then(|v| v.to_str().ok()?.parse().ok());
    let size = match parts.status.as_u16() {
        204 | 304 => BodySize::None,
        _ => said.map_or(BodySize::Stream, BodySize::Sized),
    };
    let mut body = ProxyBody { incoming, size, connection: Some(connection), _lease: lease, most };
    if body.incoming.is_end_stream() {
        body.finish();
    }
    builder.body(body)
}

fn head(parts: &hyper::http::response::Parts) -> HttpResponseBuilder {
    let status = StatusCode::from_u16(parts.status.as_u16()).unwrap_or(StatusCode::BAD_GATEWAY);
    let mut builder = HttpResponse::build(status);
    let connection = parts.headers.get(hyper::header::CONNECTION).and_then(|value| value.to_str().ok());
    for (name, value) in &parts.headers {
        let name = name.as_str();
        if !is_hop(name) && name != "content-length" && !is_named(connection, name) {
            builder.append_header((name, value.as_bytes()));
        }
    }
    builder
}

/// A response body on its way to the client. Dropped early, it closes the connection to the replica, which so
/// learns that nobody waits any more.
struct ProxyBody {
    incoming: Incoming,
    size: BodySize,
    connection: Option<Connection>,
    _lease: Lease,
    most: usize,
}

impl ProxyBody {
    fn finish(&mut self) {
        if let Some(connection) = self.connection.take() {
            connection.keep(self.most);
        }
    }
}

impl MessageBody for ProxyBody {
    type Error = hyper::Error;

    fn size(&self) -> BodySize {
        self.size
    }

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Bytes, hyper::Error>>> {
        loop {
            match Pin::new(&mut self.incoming).poll_frame(cx) {
                Poll::Pending => return Poll::Pending,
                Poll::Ready(Some(Ok(frame))) => {
                    // Trailers are not forwarded.
                    let Ok(data) = frame.into_data() else { continue };
                    if self.incoming.is_end_stream() {
                        self.finish();
                    }
                    return Poll::Ready(Some(Ok(data)));
                }
                Poll::Ready(Some(Err(error))) => return Poll::Ready(Some(Err(error))),
                Poll::Ready(None) => {
                    self.finish();
                    return Poll::Ready(None);
                }
            }
        }
    }
}

/// Joins client and function after 101: bytes pass both ways until either side ends.
async fn switch(mut response: hyper::Response<Incoming>, mut client: Payload, lease: Lease) -> HttpResponse {
    let upgraded = hyper::upgrade::on(&mut response);
    let (parts, _) = response.into_parts();
    let upgraded = match upgraded.await {
        Ok(upgraded) => hyper_util::rt::TokioIo::new(upgraded),
        Err(error) => return refuse(StatusCode::BAD_GATEWAY, &format!("the function broke off: {error}")),
    };
    let (read, mut write) = tokio::io::split(upgraded);
    actix_web::rt::spawn(async move {
        while let Some(Ok(bytes)) = client.next().await {
            if write.write_all(&bytes).await.is_err() {
                break;
            }
        }
        let _ = write.shutdown().await;
    });
    let from_function = futures_util::stream::unfold((read, lease), |(mut read, lease)| async move {
        let mut bytes = bytes::BytesMut::with_capacity(16 << 10);
        match read.read_buf(&mut bytes).await {
            Ok(0) => None,
            Ok(_) => Some((Ok(bytes.freeze()), (read, lease))),
            Err(error) => Some((Err(error), (read, lease))),
        }
    });
    head(&parts).upgrade("websocket").streaming(from_function)
}

fn unreachable_(function: &Function, why: &str) -> HttpResponse {
    tracing::warn!(function = %function.key, why, "a replica cannot be reached");
    refuse(StatusCode::BAD_GATEWAY, &format!("Can't reach service for: {}.", function.key))
}

/// An answer of the provider's own.
fn refuse(status: StatusCode, message: &str) -> HttpResponse {
    let mut answer = error::text(status, message);
    let (name, value) = INTERNAL;
    answer.headers_mut().insert(
        actix_web::http::header::HeaderName::from_bytes(name.as_bytes()).expect("a header name"),
        actix_web::http::header::HeaderValue::from_static(value),
    );
    answer
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_paths_are_split_as_the_client_sent_them() {
        assert_eq!(split("/function/f"), Some(("f", "")));
        assert_eq!(split("/function/f.ns/"), Some(("f.ns", "/")));
        assert_eq!(split("/function/f/a%2Fb/"), Some(("f", "/a%2Fb/")));
        for path in ["/function/", "/function//a", "/function/a%20b", "/functions/f", "/function/é"] {
            assert_eq!(split(path), None, "{path}");
        }
    }

    #[test]
    fn dirty_paths_are_cleaned() {
        let clean = |text: &str| cleaned(&text.parse().unwrap());
        assert_eq!(clean("/function/f/a"), None);
        assert_eq!(clean("/function/f//a?b=//").as_deref(), Some("/function/f/a?b=//"));
        assert_eq!(clean("/function/f/../g/").as_deref(), Some("/function/g/"));
        assert_eq!(clean("/../..").as_deref(), Some("/"));
        assert_eq!(clean("/function/f/.hidden"), None);
    }
}
