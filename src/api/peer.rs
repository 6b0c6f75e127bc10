//! Notices a client that goes away while its call waits for the function, and a function that takes too long.

use std::any::Any;
use std::io;
use std::os::fd::{AsRawFd, RawFd};
use std::time::{Duration, Instant};

use actix_tls::accept::rustls_0_23::TlsStream;
use actix_web::HttpRequest;
use actix_web::dev::Extensions;
use actix_web::rt::net::TcpStream;

/// Time between two looks: a call that is answered sooner pays for none.
const PAUSE: Duration = Duration::from_secs(1);

/// The socket that a request came over.
struct Socket(RawFd);

/// Keeps a new connection's socket where its requests find it. For [`actix_web::HttpServer::on_connect`].
pub fn remember(connection: &dyn Any, data: &mut Extensions) {
    let plain = connection.downcast_ref::<TcpStream>();
    let stream = plain.or_else(|| connection.downcast_ref::<TlsStream<TcpStream>>().map(|tls| tls.get_ref().0));
    if let Some(stream) = stream {
        data.insert(Socket(stream.as_raw_fd()));
    }
}

/// Why a call is not waited for any longer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ended {
    /// The client has closed its connection, or its sending half: Go's server, and so the stock provider, takes
    /// either for the end of the call.
    Gone,
    /// Time is up.
    Late,
}

/// Returns when there is no reason to wait any longer. One timer serves both reasons, since every call sets it.
pub async fn ended(request: &HttpRequest, at_most: Duration) -> Ended {
    let begun = Instant::now();
    loop {
        tokio::time::sleep(PAUSE.min(at_most.saturating_sub(begun.elapsed()))).await;
        if request.conn_data::<Socket>().is_some_and(|Socket(fd)| closed(*fd)) {
            return Ended::Gone;
        }
        if begun.elapsed() >= at_most {
            return Ended::Late;
        }
    }
}

/// Whether the other side has neither closed nor said anything that has not been read.
pub fn is_silent(fd: RawFd) -> bool {
    matches!(peek(fd), Err(e) if is_nothing(&e))
}

fn closed(fd: RawFd) -> bool {
    match peek(fd) {
        Ok(bytes) => bytes == 0,
        Err(error) => !is_nothing(&error),
    }
}

fn is_nothing(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted)
}

/// How many bytes of one wait to be read; 0 at the end.
fn peek(fd: RawFd) -> io::Result<usize> {
    let mut byte = 0u8;
    let flags = libc::MSG_PEEK | libc::MSG_DONTWAIT;
    // SAFETY: one byte is writable at the pointer. The number is a socket of the caller's: a kept connection that he
    // holds, or the request's own, which the server keeps open for as long as the request is being handled.
    let read = unsafe { libc::recv(fd, (&raw mut byte).cast(), 1, flags) };
    usize::try_from(read).map_err(|_| io::Error::last_os_error())
}
