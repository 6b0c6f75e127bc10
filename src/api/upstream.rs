//! Connections to replicas: kept alive, one pool a worker thread, so that a request never changes threads.
//!
//! Whoever has a connection drives it: no task of its own has to be woken for each step of an exchange, which
//! would cost as much as all the rest of the exchange. One that is idle is looked at when it is taken again, and
//! twice a second by the pool's [`look_after`].

use std::cell::RefCell;
use std::collections::HashMap;
use std::future::poll_fn;
use std::pin::{Pin, pin};
use std::task::{Context, Poll, Waker};
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

/// How often idle connections are looked at.
const LOOK: Duration = Duration::from_millis(500);

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
    /// Reads and writes; none once the connection is closed.
    driver: Option<Driver>,
    /// It has served a request before, so the other side may have closed it meanwhile.
    pub reused: bool,
}

/// hyper's end of a connection. A failure reaches whoever waits for the response.
type Driver = Pin<Box<dyn Future<Output = hyper::Result<()>>>>;

/// A request that did not get its response. The request comes back when nothing of it had been sent.
pub type SendError = TrySendError<Request<RequestBody>>;

struct Idle {
    connection: Connection,
    since: Instant,
}

impl Idle {
    /// Whether it can take a request still.
    fn fit(&mut self) -> bool {
        self.since.elapsed() < IDLE && self.connection.is_ready()
    }
}

#[derive(Default)]
struct Pool {
    /// By the replica's serial number: addresses are used again, serial numbers never.
    idle: HashMap<u64, Vec<Idle>>,
    /// [`look_after`] runs.
    looked_after: bool,
}

thread_local! {
    static POOL: RefCell<Pool> = RefCell::default();
}

/// An idle connection to a replica, or a new one.
pub async fn connect(replica: &Replica) -> std::io::Result<Connection> {
    let idle = POOL.with_borrow_mut(|pool| {
        let waiting = pool.idle.get_mut(&replica.serial)?;
        // The last one kept is the warmest.
        std::iter::from_fn(|| waiting.pop()).find_map(|mut idle| idle.fit().then_some(idle.connection))
    });
    match idle {
        Some(connection) => Ok(Connection { reused: true, ..connection }),
        None => fresh(replica).await,
    }
}

/// A new connection to a replica.
pub async fn fresh(replica: &Replica) -> std::io::Result<Connection> {
    let stream = tokio::time::timeout(CONNECT, TcpStream::connect(replica.address))
        .await
        .unwrap_or_else(|_| Err(std::io::ErrorKind::TimedOut.into()))?;
    stream.set_nodelay(true)?;
    let handshake = http1::Builder::new().handshake(TokioIo::new(stream));
    let (sender, connection) = handshake.await.map_err(std::io::Error::other)?;
    let driver: Driver = Box::pin(connection.with_upgrades());
    let host = HeaderValue::try_from(replica.address.to_string()).map_err(std::io::Error::other)?;
    Ok(Connection { replica: replica.serial, host, sender, driver: Some(driver), reused: false })
}

impl Connection {
    /// Sends a request; the response's body is still to be read.
    pub async fn send(&mut self, request: Request<RequestBody>) -> Result<Response<Incoming>, SendError> {
        let answer = self.sender.try_send_request(request);
        drive_beside(&mut self.driver, answer).await
    }

    /// Waits for something that the connection brings about.
    pub async fn beside<T>(&mut self, work: impl Future<Output = T>) -> T {
        drive_beside(&mut self.driver, work).await
    }

    /// Reads and writes what can be read and written now.
    pub fn drive(&mut self, cx: &mut Context<'_>) {
        drive(&mut self.driver, cx);
    }

    /// Whether it is open, and at the end of an exchange.
    fn is_ready(&mut self) -> bool {
        self.drive(&mut Context::from_waker(Waker::noop()));
        self.sender.is_ready()
    }

    /// Keeps the connection for another request, unless `most` are kept already, or the replica has answered
    /// without reading the request to its end.
    pub fn keep(mut self, most: usize) {
        if !self.is_ready() {
            return;
        }
        POOL.with_borrow_mut(|pool| {
            let waiting = pool.idle.entry(self.replica).or_default();
            if waiting.len() < most {
                waiting.push(Idle { connection: self, since: Instant::now() });
            }
            if !std::mem::replace(&mut pool.looked_after, true) {
                actix_web::rt::spawn(look_after());
            }
        });
    }
}

fn drive(driver: &mut Option<Driver>, cx: &mut Context<'_>) {
    if driver.as_mut().is_some_and(|driver| driver.as_mut().poll(cx).is_ready()) {
        *driver = None;
    }
}

async fn drive_beside<T>(driver: &mut Option<Driver>, work: impl Future<Output = T>) -> T {
    let mut work = pin!(work);
    poll_fn(|cx| {
        drive(driver, cx);
        work.as_mut().poll(cx)
    })
    .await
}

/// Closes idle connections of this thread that are old, or that the other side has closed, until none is left.
async fn look_after() {
    loop {
        tokio::time::sleep(LOOK).await;
        let left = POOL.with_borrow_mut(|pool| {
            for waiting in pool.idle.values_mut() {
                waiting.retain_mut(Idle::fit);
            }
            pool.idle.retain(|_, waiting| !waiting.is_empty());
            pool.looked_after = !pool.idle.is_empty();
            pool.looked_after
        });
        if !left {
            return;
        }
    }
}
