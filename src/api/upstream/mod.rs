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
use tokio::sync::watch;

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
    /// Turns true when the replica serves no more.
    over: watch::Receiver<bool>,
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

thread_local! {
    /// By the replica's serial number: addresses are used again, serial numbers never. A task of this thread looks after
    /// each entry.
    static IDLE_CONNECTIONS: RefCell<HashMap<u64, Vec<Idle>>> = RefCell::default();
}

/// An idle connection to a replica, or a new one.
pub async fn connect(replica: &Replica) -> std::io::Result<Connection> {
    let serial = replica.serial();
    let idle = IDLE_CONNECTIONS.with_borrow_mut(|all| {
        let waiting = all.get_mut(&serial)?;
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
    let (stream, over) = (Rc::new(stream), replica.over());
    Ok(Connection { replica: serial, host, reused: false, stream, over, buffer: BytesMut::new() })
}

impl Connection {
    /// Keeps the connection for another request, unless `most` are kept already.
    fn keep(self, most: usize) {
        IDLE_CONNECTIONS.with_borrow_mut(|all| {
            let waiting = all.entry(self.replica).or_insert_with(|| {
                actix_web::rt::spawn(sweep(self.replica, self.over.clone()));
                Vec::new()
            });
            if waiting.len() < most {
                waiting.push(Idle { connection: self, since: Instant::now() });
            }
        });
    }
}

/// Closes what has been idle to a replica for too long or was closed by it, until nothing is kept; and all at once when it
/// serves no more: a jail whose address goes while somebody still has a connection to it stays for ten minutes, dying
/// (FIN_WAIT_2, tcp(4)).
async fn sweep(replica: u64, mut over: watch::Receiver<bool>) {
    loop {
        let over = tokio::time::timeout(IDLE, over.wait_for(|over| *over)).await.is_ok();
        let empty = IDLE_CONNECTIONS.with_borrow_mut(|all| {
            let Some(waiting) = all.get_mut(&replica) else { return true };
            waiting.retain(|idle| !over && idle.is_usable());
            let empty = waiting.is_empty();
            if empty {
                all.remove(&replica);
            }
            empty
        });
        if empty {
            return;
        }
    }
}
