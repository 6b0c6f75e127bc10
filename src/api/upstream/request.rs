//! A request on its way to a replica.

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use actix_web::dev::Payload;
use bytes::{Buf, Bytes};
use futures_util::Stream;
use tokio::net::TcpStream;

/// A client's request body, with its length when the client said it.
pub struct RequestBody {
    /// Where it comes from.
    pub payload: Payload,
    /// Its bytes; none when only its end will tell.
    pub length: Option<u64>,
    /// What has been taken from the payload already, and not been sent.
    taken: Bytes,
}

impl RequestBody {
    /// A body from a client.
    pub fn new(payload: Payload, length: Option<u64>) -> Self {
        Self { payload, length, taken: Bytes::new() }
    }

    /// A body of no bytes.
    pub fn empty() -> Self {
        Self::new(Payload::None, Some(0))
    }
}

/// A request: its head as bytes, from the method to the empty line, and its body.
pub struct Outgoing {
    head: Bytes,
    body: RequestBody,
    /// The part of the body that is being written, in its frame.
    size: Bytes,
    chunk: Bytes,
    end: &'static [u8],
    /// Bytes of the body that are still in the payload; none when only its end will tell.
    left: Option<u64>,
    /// Whether bytes of the request have left.
    begun: bool,
    /// Nothing more will come from the payload.
    ended: bool,
    /// The answer to it has no body.
    pub is_head: bool,
}

impl Outgoing {
    /// A request with this head, which already says how the body is framed: by its length or, without one, in chunks.
    pub fn new(head: Vec<u8>, mut body: RequestBody) -> Self {
        let (is_head, left, taken) = (head.starts_with(b"HEAD "), body.length, std::mem::take(&mut body.taken));
        let mut request = Self {
            head: head.into(),
            body,
            size: Bytes::new(),
            chunk: Bytes::new(),
            end: b"",
            left,
            begun: false,
            ended: left == Some(0),
            is_head,
        };
        if !taken.is_empty() {
            request.frame(taken);
        }
        request
    }

    /// The body, if nothing of the request has left.
    pub fn into_unsent(self) -> Option<RequestBody> {
        (!self.begun).then_some(RequestBody { taken: self.chunk, ..self.body })
    }

    /// Whether bytes of it have left.
    pub fn is_begun(&self) -> bool {
        self.begun
    }

    /// Whether all of it has been written.
    pub fn is_sent(&self) -> bool {
        self.ended && self.is_written()
    }

    fn is_written(&self) -> bool {
        self.head.is_empty() && self.size.is_empty() && self.chunk.is_empty() && self.end.is_empty()
    }

    /// Writes what can be written now; ready when everything is. The head leaves together with the first bytes of the
    /// body where these are here already.
    pub fn poll_send(&mut self, stream: &TcpStream, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        loop {
            if !self.ended && self.chunk.is_empty() && self.end.is_empty() {
                match self.poll_chunk(cx) {
                    Poll::Pending if self.is_written() => return Poll::Pending,
                    Poll::Pending => {}
                    Poll::Ready(taken) => taken?,
                }
            }
            if self.is_written() {
                match self.ended {
                    true => return Poll::Ready(Ok(())),
                    false => continue,
                }
            }
            let parts = [&self.head[..], &self.size, &self.chunk, self.end].map(IoSlice::new);
            match stream.try_write_vectored(&parts) {
                Ok(written) => self.advance(written),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => ready!(stream.poll_write_ready(cx))?,
                Err(error) => return Poll::Ready(Err(error)),
            }
        }
    }

    /// Takes the next part of the body.
    fn poll_chunk(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let next = ready!(Pin::new(&mut self.body.payload).poll_next(cx));
        match (next.transpose().map_err(io::Error::other)?, self.left) {
            (Some(chunk), _) => self.frame(chunk),
            (None, Some(_)) => return Poll::Ready(Err(io::ErrorKind::UnexpectedEof.into())),
            (None, None) => {
                self.ended = true;
                self.end = b"0\r\n\r\n";
            }
        }
        Poll::Ready(Ok(()))
    }

    /// Makes this the part that is written next. An empty one has no frame: it would be the last chunk.
    fn frame(&mut self, chunk: Bytes) {
        match &mut self.left {
            Some(left) => {
                // The server has cut the payload to its length.
                *left = left.saturating_sub(chunk.len() as u64);
                self.ended = *left == 0;
            }
            None if chunk.is_empty() => {}
            None => {
                self.size = format!("{:x}\r\n", chunk.len()).into();
                self.end = b"\r\n";
            }
        }
        self.chunk = chunk;
    }

    fn advance(&mut self, mut written: usize) {
        self.begun |= written > 0;
        for part in [&mut self.head, &mut self.size, &mut self.chunk] {
            let here = written.min(part.len());
            part.advance(here);
            written -= here;
        }
        self.end = &self.end[written..];
    }
}
