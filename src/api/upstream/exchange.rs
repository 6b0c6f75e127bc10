//! One request and its answer.

use std::future::poll_fn;
use std::io;
use std::rc::Rc;
use std::task::{Context, Poll, ready};

use bytes::{Bytes, BytesMut};
use tokio::net::TcpStream;
use tokio::task::JoinHandle;

use super::response::{Framing, Head, Step};
use super::{Connection, Outgoing, RequestBody};

/// Read at once, in bytes.
const PIECE: usize = 16 << 10;

/// A request that did not get an answer.
pub struct SendError {
    /// Why.
    pub why: io::Error,
    /// Its body, when nothing of the request had been sent.
    pub unsent: Option<RequestBody>,
}

/// An answer whose body is still to be read.
pub struct Answer {
    /// Status and headers.
    pub head: Head,
    /// The rest.
    pub body: Body,
}

impl Connection {
    /// Sends a request and reads the answer's head. Both directions go on at the same time: an answer may begin before
    /// the request has ended.
    pub async fn send(mut self, mut request: Outgoing) -> Result<Answer, SendError> {
        let mut unsendable = None;
        let head = poll_fn(|cx| self.poll_head(&mut request, &mut unsendable, cx)).await;
        let framed = head.and_then(|head| Ok((head.framing(request.is_head)?, head)));
        match framed {
            Ok((framing, head)) => {
                let keeps = head.keeps_alive() && request.is_sent() && framing != Framing::Close;
                let rest = (!request.is_sent() && unsendable.is_none()).then(|| Rest::send(&self.stream, request));
                Ok(Answer { head, body: Body { connection: Some(self), framing, keeps, _rest: rest } })
            }
            // What went wrong first is what is told.
            Err(read) => Err(SendError { why: unsendable.unwrap_or(read), unsent: request.into_unsent() }),
        }
    }

    /// Writes the request and reads until a head that is no interim one. A request that cannot be written may have
    /// been answered all the same (413), so the failure is put into `unsendable` and the answer is waited for.
    fn poll_head(
        &mut self,
        request: &mut Outgoing,
        unsendable: &mut Option<io::Error>,
        cx: &mut Context<'_>,
    ) -> Poll<io::Result<Head>> {
        if unsendable.is_none()
            && let Poll::Ready(Err(error)) = request.poll_send(&self.stream, cx)
        {
            // Otherwise the client's body has failed, or nothing has been asked: there is no answer to wait for.
            let refused = matches!(error.kind(), io::ErrorKind::BrokenPipe | io::ErrorKind::ConnectionReset);
            if !refused || !request.is_begun() {
                return Poll::Ready(Err(error));
            }
            *unsendable = Some(error);
        }
        loop {
            if let Some(head) = Head::take(&mut self.buffer)? {
                match head.status.as_u16() {
                    101 | 200.. => return Poll::Ready(Ok(head)),
                    _ => continue,
                }
            }
            if ready!(poll_read(&self.stream, &mut self.buffer, cx))? == 0 {
                return Poll::Ready(Err(io::Error::new(io::ErrorKind::UnexpectedEof, "it closed the connection")));
            }
        }
    }
}

/// Reads more into the buffer.
fn poll_read(stream: &TcpStream, buffer: &mut BytesMut, cx: &mut Context<'_>) -> Poll<io::Result<usize>> {
    loop {
        buffer.reserve(PIECE);
        match stream.try_read_buf(buffer) {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => ready!(stream.poll_read_ready(cx))?,
            read => return Poll::Ready(read),
        }
    }
}

/// The rest of a request whose answer has begun, on its way in a task of its own: a client that does not read the
/// answer yet must not keep its own request from getting on.
struct Rest(JoinHandle<()>);

impl Rest {
    fn send(stream: &Rc<TcpStream>, mut request: Outgoing) -> Self {
        let stream = stream.clone();
        Self(actix_web::rt::spawn(async move {
            // If it fails, the answer breaks off too.
            let _ = poll_fn(|cx| request.poll_send(&stream, cx)).await;
        }))
    }
}

impl Drop for Rest {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// The body of an answer. Dropped before its end, it closes the connection, so that the replica learns that nobody
/// waits any more.
pub struct Body {
    connection: Option<Connection>,
    framing: Framing,
    keeps: bool,
    _rest: Option<Rest>,
}

impl Body {
    /// Whether there is nothing more to read.
    pub fn is_done(&self) -> bool {
        self.framing.is_done()
    }

    /// Gives the connection back for another request, if the body has been read to its end; at most `most` are kept.
    pub fn keep(&mut self, most: usize) {
        // Bytes behind the end belong to no request.
        let fits = |connection: &Connection| self.keeps && self.framing.is_done() && connection.buffer.is_empty();
        if let Some(connection) = self.connection.take()
            && fits(&connection)
        {
            connection.keep(most);
        }
    }

    /// The next bytes; an end that comes too early is an error.
    pub fn poll_data(&mut self, cx: &mut Context<'_>) -> Poll<Option<io::Result<Bytes>>> {
        loop {
            let Some(connection) = &mut self.connection else { return Poll::Ready(None) };
            match self.framing.step(&mut connection.buffer) {
                Err(error) => return Poll::Ready(Some(Err(error))),
                Ok(Step::Data(data)) => return Poll::Ready(Some(Ok(data))),
                Ok(Step::End) => return Poll::Ready(None),
                Ok(Step::More) => {}
            }
            match ready!(poll_read(&connection.stream, &mut connection.buffer, cx)) {
                Ok(0) if self.framing == Framing::Close => return Poll::Ready(None),
                Ok(0) => return Poll::Ready(Some(Err(io::ErrorKind::UnexpectedEof.into()))),
                Ok(_) => {}
                Err(error) => return Poll::Ready(Some(Err(error))),
            }
        }
    }

    /// The connection itself, after 101, and what the replica has sent on it already.
    pub fn into_stream(self) -> Option<(TcpStream, Bytes)> {
        let Connection { stream, buffer, .. } = self.connection?;
        Some((Rc::try_unwrap(stream).ok()?, buffer.freeze()))
    }
}
