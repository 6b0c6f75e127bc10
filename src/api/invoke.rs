//! /function/{name}[.namespace][/path]: the streaming proxy. It looks up, leases, forwards; nothing else.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use actix_web::body::{BodySize, MessageBody};
use actix_web::dev::Payload;
use actix_web::http::header::{CONTENT_TYPE, RETRY_AFTER};
use actix_web::http::{StatusCode, Uri};
use actix_web::web::{self, Bytes, Data};
use actix_web::{HttpRequest, HttpResponse};
use futures_util::StreamExt;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::headers::{self, Stamp, is_websocket, length};
use super::peer::{self, Ended};
use super::upstream::{self, Answer, Outgoing, RequestBody, SendError};
use super::{Shared, error};
use crate::fault::Fault;
use crate::provider::{Function, Lease, Unserved};

/// What a call may be; others are answered 405.
pub const METHODS: [&str; 7] = ["GET", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "HEAD"];

/// 405, with the methods that are right (RFC 9110, 15.5.6).
pub fn wrong_method(right: &[&str]) -> HttpResponse {
    HttpResponse::MethodNotAllowed().insert_header(("Allow", right.join(", "))).finish()
}

/// Marks an answer that is the provider's and not the function's.
const INTERNAL: (&str, &str) = ("X-OpenFaaS-Internal", "proxy");

/// The function that a call is for, and what it is to be asked.
pub struct Target {
    /// The function.
    pub function: Arc<Function>,
    /// The function as the caller wrote it.
    pub written: String,
    /// Path and query for the function.
    pub path: String,
}

/// Forwards one request.
pub async fn invoke(shared: Data<Shared>, request: HttpRequest, payload: web::Payload) -> HttpResponse {
    match resolve(&shared, &request, "/function/") {
        Ok(target) => call(&shared, target, &request, payload).await,
        Err(answer) => *answer,
    }
}

/// Finds out what a request below `prefix` calls, or how it is refused.
pub fn resolve(shared: &Shared, request: &HttpRequest, prefix: &str) -> Result<Target, Box<HttpResponse>> {
    if !METHODS.contains(&request.method().as_str()) {
        return Err(wrong_method(&METHODS).into());
    }
    if let Some(clean) = cleaned(request.uri()) {
        return Err(HttpResponse::MovedPermanently().insert_header(("Location", clean)).finish().into());
    }
    let Some((name, rest)) = split(request.uri().path(), prefix) else {
        return Err(error::text(StatusCode::NOT_FOUND, "404 page not found").into());
    };
    let Some(function) = find(shared, name) else {
        let text = format!("function {name} does not exist; see faas-cli list");
        return Err(refuse(StatusCode::NOT_FOUND, &text).into());
    };
    let path = match request.uri().query() {
        Some(query) => format!("{}?{query}", if rest.is_empty() { "/" } else { rest }),
        None => if rest.is_empty() { "/" } else { rest }.to_owned(),
    };
    Ok(Target { function, written: name.to_owned(), path })
}

/// Makes a call that [`resolve`] has found.
pub async fn call(shared: &Shared, target: Target, request: &HttpRequest, payload: web::Payload) -> HttpResponse {
    target.function.invocations.fetch_add(1, Ordering::Relaxed);
    forward(shared, &target.function, request, payload.into_inner(), &target.path).await
}

/// The function that `name` or `name.namespace` means.
fn find(shared: &Shared, name: &str) -> Option<Arc<Function>> {
    match name.contains('.') {
        true => shared.provider.catalog.named(name),
        false => shared.provider.catalog.named(&[name, ".", shared.provider.namespaces.default().as_str()].concat()),
    }
}

/// Splits `/function/NAME/rest` into the name and `/rest`, both as the client sent them.
fn split<'a>(path: &'a str, prefix: &str) -> Option<(&'a str, &'a str)> {
    let path = path.strip_prefix(prefix)?;
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
    let mut body = Some(RequestBody::new(payload, length(request.headers(), upgrade)));
    let (begun, mut second) = (Instant::now(), false);
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
        let timeout = shared.answer_within;
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
            Ok(answer) if answer.head.status == StatusCode::SWITCHING_PROTOCOLS => {
                return switch(answer, client, lease);
            }
            Ok(answer) => {
                function.latency.count(begun.elapsed());
                let most = shared.provider.config.max_idle_conns_per_host;
                return respond(answer, lease, request, most, &stamp);
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

struct Refused {
    why: String,
    /// The request, when nothing of it has been sent.
    unsent: Option<RequestBody>,
    /// The replica has refused or reset the connection.
    broken: bool,
}

impl Refused {
    fn new(why: &io::Error, unsent: Option<RequestBody>) -> Self {
        use io::ErrorKind::{
            BrokenPipe, ConnectionAborted, ConnectionRefused, ConnectionReset, TimedOut, UnexpectedEof,
        };
        // Otherwise the client's body broke off, or the answer is no HTTP.
        let broken = matches!(
            why.kind(),
            ConnectionAborted | ConnectionRefused | ConnectionReset | BrokenPipe | TimedOut | UnexpectedEof
        );
        Self { why: why.to_string(), unsent, broken }
    }
}

/// One request and the head of its answer, on a kept connection or, if that turns out closed, on a new one.
async fn exchange(
    lease: &Lease,
    request: &HttpRequest,
    body: RequestBody,
    path: &str,
    upgrade: bool,
    stamp: &Stamp,
) -> Result<Answer, Refused> {
    let mut connection = match upstream::connect(lease).await {
        Ok(connection) => connection,
        Err(error) => return Err(Refused::new(&error, Some(body))),
    };
    let head = headers::outgoing(&connection.host, request, body.length, path, upgrade, stamp);
    let mut outgoing = Outgoing::new(head.clone(), body);
    // Whether something of it may have been sent already, on a connection that then turned out closed.
    let mut again = false;
    loop {
        let reused = connection.reused;
        let SendError { why, unsent } = match connection.send(outgoing).await {
            Ok(answer) => return Ok(answer),
            Err(error) => error,
        };
        let body = match unsent {
            Some(unsent) if reused => unsent,
            // The replica may have closed a kept connection just then. As Go's transport does it, and so the stock
            // provider: what asks for nothing but an answer is asked once more.
            None if reused && is_replayable(request) => {
                again = true;
                RequestBody::empty()
            }
            unsent => return Err(Refused::new(&why, unsent.filter(|_| !again))),
        };
        connection = match upstream::fresh(lease).await {
            Ok(connection) => connection,
            Err(error) => return Err(Refused::new(&error, (!again).then_some(body))),
        };
        outgoing = Outgoing::new(head.clone(), body);
    }
}

/// Whether sending it twice is as good as once (net/http, `Request.isReplayable`).
fn is_replayable(request: &HttpRequest) -> bool {
    matches!(request.method().as_str(), "GET" | "HEAD" | "OPTIONS") && length(request.headers(), false) == Some(0)
}

/// The function's answer: its status, its headers, its body as it comes.
fn respond(answer: Answer, lease: Lease, request: &HttpRequest, most: usize, stamp: &Stamp) -> HttpResponse {
    let Answer { head, body } = answer;
    let mut builder = headers::incoming(&head);
    if head.get("content-type").is_none() {
        match request.headers().get(CONTENT_TYPE) {
            Some(same) => builder.insert_header((CONTENT_TYPE, same)),
            None => builder.insert_header((CONTENT_TYPE, "text/plain")),
        };
    }
    for (name, value) in stamp.told() {
        if head.get(name).is_none() {
            builder.insert_header((name, value));
        }
    }
    let said = head.get("content-length").and_then(|v| v.to_str().ok()?.parse().ok());
    let size = match head.status.as_u16() {
        204 | 304 => BodySize::None,
        _ => said.map_or(BodySize::Stream, BodySize::Sized),
    };
    let mut body = ProxyBody { body, size, _lease: lease, most };
    if body.body.is_done() {
        body.body.keep(most);
    }
    builder.body(body)
}

/// A response body on its way to the client. Dropped early, it closes the connection to the replica, which so
/// learns that nobody waits any more.
struct ProxyBody {
    body: upstream::Body,
    size: BodySize,
    _lease: Lease,
    most: usize,
}

impl MessageBody for ProxyBody {
    type Error = std::io::Error;

    fn size(&self) -> BodySize {
        self.size
    }

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<std::io::Result<Bytes>>> {
        let next = self.body.poll_data(cx);
        // A server that knows the length does not ask for the end.
        if self.body.is_done() && !matches!(next, Poll::Ready(Some(Err(_)))) {
            let most = self.most;
            self.body.keep(most);
        }
        next
    }
}

/// Joins client and function after 101: bytes pass both ways until either side ends.
fn switch(answer: Answer, mut client: Payload, lease: Lease) -> HttpResponse {
    let mut builder = headers::incoming(&answer.head);
    let Some((stream, early)) = answer.body.into_stream() else {
        return refuse(StatusCode::BAD_GATEWAY, "the function changed the protocol before it had the request");
    };
    let (read, mut write) = stream.into_split();
    actix_web::rt::spawn(async move {
        while let Some(Ok(bytes)) = client.next().await {
            if write.write_all(&bytes).await.is_err() {
                break;
            }
        }
        let _ = write.shutdown().await;
    });
    let rest = futures_util::stream::unfold((read, lease), |(mut read, lease)| async move {
        let mut bytes = bytes::BytesMut::with_capacity(16 << 10);
        match read.read_buf(&mut bytes).await {
            Ok(0) => None,
            Ok(_) => Some((Ok(bytes.freeze()), (read, lease))),
            Err(error) => Some((Err(error), (read, lease))),
        }
    });
    let early = futures_util::stream::iter((!early.is_empty()).then_some(Ok(early)));
    builder.upgrade("websocket").streaming(early.chain(rest))
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
        assert_eq!(split("/function/f", "/function/"), Some(("f", "")));
        assert_eq!(split("/function/f.ns/", "/function/"), Some(("f.ns", "/")));
        assert_eq!(split("/function/f/a%2Fb/", "/function/"), Some(("f", "/a%2Fb/")));
        for path in ["/function/", "/function//a", "/function/a%20b", "/functions/f", "/function/é"] {
            assert_eq!(split(path, "/function/"), None, "{path}");
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
