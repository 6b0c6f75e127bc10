//! The HTTP/1.1 client for replicas: connections kept alive, one pool a worker thread, so that a request never changes
//! threads. No task and no channel a connection: whoever wants the answer reads the socket.
//!
//! ```text
//! connect ──► send ──► Answer { head, body } ──► body read to its end ──► kept
//!    │          │                                └ dropped before: closed
//!    │          └ SendError { unsent }: the request comes back when none of it had left
//!    └ an idle connection, or a new one
//! ```

use std::cell::RefCell;
use std::collections::HashMap;
use std::os::fd::AsRawFd;
use std::rc::Rc;
use std::time::{Duration, Instant};

use bytes::BytesMut;
use tokio::net::TcpStream;

use super::peer;
use crate::provider::Replica;

mod exchange;
mod request;
mod response;

pub use exchange::{Answer, Body, SendError};
pub use request::{Outgoing, RequestBody};
pub use response::Head;

/// Idle connections are closed after this long: below the idle timeouts that servers commonly have.
const IDLE: Duration = Duration::from_secs(5);

/// Longest time to connect to a replica on the same host.
const CONNECT: Duration = Duration::from_secs(2);

/// A connection to a replica that can take one request now.
pub struct Connection {
    /// The replica's serial number.
    replica: u64,
    /// What the replica's requests carry as Host.
    pub host: Rc<str>,
    /// It has served a request before, so the other side may have closed it meanwhile.
    pub reused: bool,
    stream: Rc<TcpStream>,
    /// What has been read and belongs to nothing yet.
    buffer: BytesMut,
}

struct Idle {
    connection: Connection,
    since: Instant,
}

impl Idle {
    /// Whether it may serve again: young enough, still open, and silent, since nothing was asked on it.
    fn is_usable(&self) -> bool {
        self.since.elapsed() < IDLE && peer::is_silent(self.connection.stream.as_raw_fd())
    }
}

#[derive(Default)]
struct Pool {
    /// By the replica's serial number: addresses are used again, serial numbers never.
    idle: HashMap<u64, Vec<Idle>>,
    /// A task of this thread looks after them; it ends with the last of them.
    swept: bool,
}

thread_local! {
    static POOL: RefCell<Pool> = RefCell::default();
}

/// An idle connection to a replica, or a new one.
pub async fn connect(replica: &Replica) -> std::io::Result<Connection> {
    let serial = replica.serial();
    let idle = POOL.with_borrow_mut(|pool| {
        let waiting = pool.idle.get_mut(&serial)?;
        // The youngest first; what is found unusable on the way is closed.
        std::iter::from_fn(|| waiting.pop()).find(Idle::is_usable)
    });
    match idle {
        Some(Idle { connection, .. }) => Ok(Connection { reused: true, ..connection }),
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
    let host = replica.address.to_string().into();
    Ok(Connection { replica: serial, host, reused: false, stream: Rc::new(stream), buffer: BytesMut::new() })
}

impl Connection {
    /// Keeps the connection for another request, unless `most` are kept already.
    fn keep(self, most: usize) {
        POOL.with_borrow_mut(|pool| {
            let waiting = pool.idle.entry(self.replica).or_default();
            if waiting.len() < most {
                waiting.push(Idle { connection: self, since: Instant::now() });
            }
            if !std::mem::replace(&mut pool.swept, true) {
                actix_web::rt::spawn(sweep());
            }
        });
    }
}

/// Closes what has been idle for too long or was closed by the replica, until nothing is kept.
async fn sweep() {
    loop {
        tokio::time::sleep(IDLE).await;
        let empty = POOL.with_borrow_mut(|pool| {
            pool.idle.retain(|_, waiting| {
                waiting.retain(Idle::is_usable);
                !waiting.is_empty()
            });
            pool.swept = !pool.idle.is_empty();
            !pool.swept
        });
        if empty {
            return;
        }
    }
}
