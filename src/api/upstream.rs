//! Connections to replicas: kept alive, one pool a worker thread, so that a request never changes threads.

use std::cell::RefCell;
use std::collections::HashMap;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use actix_web::dev::Payload;
use actix_web::error::PayloadError;
use bytes::Bytes;
use futures_util::Stream;
use hyper::body::{Body, Frame, Incoming, SizeHint};
use hyper::client::conn::TrySendError;
use hyper::client::conn::http1::{self, SendRequest};
use hyper::header::HeaderValue;
use hyper::{Request, Response};
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;

use crate::provider::Replica;

/// Idle connections are closed after this long: below the idle timeouts that servers commonly have.
const IDLE: Duration = Duration::from_secs(5);

/// Longest time to connect to a replica on the same host.
const CONNECT: Duration = Duration::from_secs(2);

/// A client's request body on its way to a replica, with its length when the client said it.
pub struct RequestBody {
    pub payload: Payload,
    pub length: Option<u64>,
}

impl Body for RequestBody {
    type Data = Bytes;
    type Error = PayloadError;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, PayloadError>>> {
        Pin::new(&mut self.payload).poll_next(cx).map_ok(Frame::data)
    }

    fn is_end_stream(&self) -> bool {
        self.length == Some(0)
    }

    fn size_hint(&self) -> SizeHint {
        self.length.map_or_else(SizeHint::default, SizeHint::with_exact)
    }
}

/// A connection to a replica that can take one request now.
pub struct Connection {
    /// The replica's serial number.
    replica: u64,
    /// What the replica's requests carry as Host.
    pub host: HeaderValue,
    sender: SendRequest<RequestBody>,
    /// It has served a request before, so the other side may have closed it meanwhile.
    pub reused: bool,
}

/// A request that did not get its response. The request comes back when nothing of it had been sent.
pub type SendError = TrySendError<Request<RequestBody>>;

struct Idle {
    host: HeaderValue,
    sender: SendRequest<RequestBody>,
    since: Instant,
}

#[derive(Default)]
struct Pool {
    /// By the replica's serial number: addresses are used again, serial numbers never.
    idle: HashMap<u64, Vec<Idle>>,
    swept: Option<Instant>,
}

thread_local! {
    static POOL: RefCell<Pool> = RefCell::default();
}

/// An idle connection to a replica, or a new one.
pub async fn connect(replica: &Replica) -> std::io::Result<Connection> {
    let serial = replica.serial();
    let idle = POOL.with_borrow_mut(|pool| {
        let waiting = pool.idle.get_mut(&serial)?;
        waiting.retain(|idle| !idle.sender.is_closed());
        // One whose last exchange is just ending is not ready yet; another one may be.
        let at = waiting.iter().rposition(|idle| idle.sender.is_ready() && idle.since.elapsed() < IDLE)?;
        Some(waiting.swap_remove(at))
    });
    match idle {
        Some(Idle { host, sender, .. }) => Ok(Connection { replica: serial, host, sender, reused: true }),
        None => fresh(replica).await,
    }
}

/// A new connection to a replica.
pub async fn fresh(replica: &Replica) -> std::io::Result<Connection> {
    let serial = replica.serial();
    let stream = tokio::time::timeout(CONNECT, TcpStream::connect(replica.address))
        .await
        .unwrap_or_else(|_| Err(std::io::ErrorKind::TimedOut.into()))?;
    stream.set_nodelay(true)?;
    let handshake = http1::Builder::new().handshake(TokioIo::new(stream));
    let (sender, connection) = handshake.await.map_err(std::io::Error::other)?;
    actix_web::rt::spawn(async move {
        // A failure reaches whoever waits for the response.
        let _ = connection.with_upgrades().await;
    });
    let host = HeaderValue::try_from(replica.address.to_string()).map_err(std::io::Error::other)?;
    Ok(Connection { replica: serial, host, sender, reused: false })
}

impl Connection {
    /// Sends a request; the response's body is still to be read.
    pub async fn send(&mut self, request: Request<RequestBody>) -> Result<Response<Incoming>, SendError> {
        self.sender.try_send_request(request).await
    }

    /// Keeps the connection for another request, unless `most` are kept already.
    pub fn keep(self, most: usize) {
        if self.sender.is_closed() {
            return;
        }
        let now = Instant::now();
        POOL.with_borrow_mut(|pool| {
            if pool.swept.is_none_or(|swept| now.duration_since(swept) > IDLE) {
                pool.swept = Some(now);
                for waiting in pool.idle.values_mut() {
                    waiting.retain(|idle| !idle.sender.is_closed() && now.duration_since(idle.since) < IDLE);
                }
                pool.idle.retain(|_, waiting| !waiting.is_empty());
            }
            let waiting = pool.idle.entry(self.replica).or_default();
            if waiting.len() < most {
                waiting.push(Idle { host: self.host, sender: self.sender, since: now });
            }
        });
    }
}
