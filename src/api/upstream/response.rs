//! A replica's answer: its head, and where its body ends (RFC 9112, section 6.3).

use std::io;
use std::mem::MaybeUninit;

use actix_web::http::StatusCode;
use actix_web::http::header::{HeaderName, HeaderValue};
use bytes::{Buf, Bytes, BytesMut};

/// Most headers of an answer.
const HEADERS: usize = 256;

/// Most bytes of an answer's head, and of a line of its chunks and trailers.
const HEAD_MAX: usize = 1 << 20;

/// Status and headers, as they came.
#[derive(Debug)]
pub struct Head {
    /// Its status.
    pub status: StatusCode,
    /// Its headers, in order; names in lower case.
    pub headers: Vec<(HeaderName, HeaderValue)>,
    /// The replica speaks HTTP/1.1 and not an older version.
    is_new: bool,
}

/// An answer that is no HTTP.
fn garbage(what: impl std::fmt::Display) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, format!("its answer is no HTTP: {what}"))
}

impl Head {
    /// The first head in `buffer`, taken from it; none when its end has not come yet.
    pub fn take(buffer: &mut BytesMut) -> io::Result<Option<Self>> {
        let mut fields = [const { MaybeUninit::uninit() }; HEADERS];
        let mut parsed = httparse::Response::new(&mut []);
        let config = httparse::ParserConfig::default();
        let state = config.parse_response_with_uninit_headers(&mut parsed, buffer, &mut fields).map_err(garbage)?;
        let httparse::Status::Complete(end) = state else {
            return if buffer.len() < HEAD_MAX { Ok(None) } else { Err(garbage("a head without an end")) };
        };
        let status = StatusCode::from_u16(parsed.code.unwrap_or_default()).map_err(garbage)?;
        let is_new = parsed.version == Some(1);
        // Values are slices of one piece of memory, which the head's bytes become.
        let start = buffer.as_ptr() as usize;
        let places: Vec<_> = parsed
            .headers
            .iter()
            .map(|h| {
                Ok((
                    HeaderName::from_bytes(h.name.as_bytes()).map_err(garbage)?,
                    h.value.as_ptr() as usize - start,
                    h.value.len(),
                ))
            })
            .collect::<io::Result<_>>()?;
        let bytes = buffer.split_to(end).freeze();
        let value = |at, len| HeaderValue::from_maybe_shared(bytes.slice(at..at + len)).map_err(garbage);
        let headers =
            places.into_iter().map(|(name, at, len)| Ok((name, value(at, len)?))).collect::<io::Result<_>>()?;
        Ok(Some(Self { status, headers, is_new }))
    }

    /// The first header of this name.
    pub fn get(&self, name: &str) -> Option<&HeaderValue> {
        self.all(name).next()
    }

    fn all(&self, name: &str) -> impl Iterator<Item = &HeaderValue> {
        self.headers.iter().filter(move |(n, _)| n == name).map(|(_, value)| value)
    }

    /// What `Connection` says, if anything.
    pub fn connection(&self) -> Option<&str> {
        self.get("connection")?.to_str().ok()
    }

    /// Whether the connection can be used again after this answer.
    pub fn keeps_alive(&self) -> bool {
        let says = |word: &str| {
            self.connection().is_some_and(|list| list.split(',').any(|item| item.trim().eq_ignore_ascii_case(word)))
        };
        if self.is_new { !says("close") } else { says("keep-alive") }
    }

    /// How the body is delimited; `is_head` when the request was HEAD.
    pub fn framing(&self, is_head: bool) -> io::Result<Framing> {
        if is_head || matches!(self.status.as_u16(), 100..200 | 204 | 304) {
            return Ok(Framing::Length(0));
        }
        if let Some(coding) = self.all("transfer-encoding").last() {
            let last = coding.to_str().unwrap_or_default().rsplit(',').next().unwrap_or_default().trim();
            return match last.eq_ignore_ascii_case("chunked") {
                true => Ok(Framing::Chunked(Chunk::Size)),
                false => Ok(Framing::Close),
            };
        }
        let mut lengths = self.all("content-length").map(|v| v.to_str().ok()?.trim().parse().ok());
        match lengths.next() {
            None => Ok(Framing::Close),
            Some(Some(length)) if lengths.all(|other| other == Some(length)) => Ok(Framing::Length(length)),
            Some(_) => Err(garbage("its Content-Length is no length")),
        }
    }
}

/// What of a body is still to come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Framing {
    /// So many bytes.
    Length(u64),
    /// Chunks.
    Chunked(Chunk),
    /// All that comes until the connection is closed.
    Close,
}

/// What is expected next of a chunked body (RFC 9112, section 7.1).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Chunk {
    /// A line with a size.
    Size,
    /// So many bytes of data.
    Data(u64),
    /// The line end after data.
    End,
    /// Trailers, and the empty line after them.
    Trailers,
    /// Nothing.
    Done,
}

/// One step through a body.
#[derive(Debug, PartialEq, Eq)]
pub enum Step {
    /// Bytes of the body.
    Data(Bytes),
    /// More has to be read.
    More,
    /// The body is whole.
    End,
}

impl Framing {
    /// Whether nothing more is to come.
    pub fn is_done(&self) -> bool {
        matches!(self, Self::Length(0) | Self::Chunked(Chunk::Done))
    }

    /// Takes the next piece of the body from what has been read.
    pub fn step(&mut self, buffer: &mut BytesMut) -> io::Result<Step> {
        loop {
            let chunk = match self {
                Self::Length(0) | Self::Chunked(Chunk::Done) => return Ok(Step::End),
                _ if buffer.is_empty() => return Ok(Step::More),
                Self::Close => return Ok(Step::Data(buffer.split().freeze())),
                Self::Length(left) | Self::Chunked(Chunk::Data(left)) => {
                    let here = usize::try_from(*left).unwrap_or(usize::MAX).min(buffer.len());
                    *left -= here as u64;
                    if *self == Self::Chunked(Chunk::Data(0)) {
                        *self = Self::Chunked(Chunk::End);
                    }
                    return Ok(Step::Data(buffer.split_to(here).freeze()));
                }
                Self::Chunked(chunk) => chunk,
            };
            let Some(line) = line(buffer)? else { return Ok(Step::More) };
            *chunk = match (*chunk, line.is_empty()) {
                (Chunk::Size, _) => match size(&line)? {
                    0 => Chunk::Trailers,
                    size => Chunk::Data(size),
                },
                (Chunk::End, true) => Chunk::Size,
                (Chunk::End, false) => return Err(garbage("a chunk is longer than its size")),
                (_, true) => Chunk::Done,
                // Trailers are not forwarded.
                (_, false) => Chunk::Trailers,
            };
        }
    }
}

/// The next line without its end, taken from the buffer.
fn line(buffer: &mut BytesMut) -> io::Result<Option<BytesMut>> {
    let Some(end) = buffer.iter().position(|b| *b == b'\n') else {
        return if buffer.len() < HEAD_MAX { Ok(None) } else { Err(garbage("a line without an end")) };
    };
    let mut line = buffer.split_to(end);
    buffer.advance(1);
    if line.last() == Some(&b'\r') {
        line.truncate(line.len() - 1);
    }
    Ok(Some(line))
}

/// A chunk's size; extensions after it mean nothing.
fn size(line: &[u8]) -> io::Result<u64> {
    let digits = line.split(|b| *b == b';').next().unwrap_or_default().trim_ascii();
    let text = std::str::from_utf8(digits).map_err(garbage)?;
    let hexadecimal = !text.is_empty() && text.bytes().all(|b| b.is_ascii_hexdigit());
    let size = hexadecimal.then(|| u64::from_str_radix(text, 16).ok()).flatten();
    size.ok_or_else(|| garbage(format!("a chunk's size is ({})", text.escape_debug())))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn head(text: &str) -> io::Result<Option<Head>> {
        Head::take(&mut BytesMut::from(text))
    }

    /// Reads a body that comes in pieces of `piece` bytes; what is left over comes with it.
    fn read(framing: Framing, wire: &str, piece: usize) -> io::Result<(String, usize, bool)> {
        let (mut framing, mut buffer, mut body) = (framing, BytesMut::new(), Vec::new());
        let mut pieces = wire.as_bytes().chunks(piece);
        loop {
            match framing.step(&mut buffer)? {
                Step::Data(data) => body.extend_from_slice(&data),
                Step::End => break,
                Step::More => match pieces.next() {
                    Some(more) => buffer.extend_from_slice(more),
                    None => break,
                },
            }
        }
        let left = buffer.len() + pieces.map(<[u8]>::len).sum::<usize>();
        Ok((String::from_utf8(body).unwrap(), left, framing.is_done()))
    }

    #[test]
    fn a_head_is_taken_when_it_is_whole_and_what_follows_stays() {
        let mut buffer = BytesMut::from("HTTP/1.1 200 OK\r\nA: 1\r\nSet-Cookie: x\r\nset-cookie: y\r\n");
        assert!(Head::take(&mut buffer).unwrap().is_none());
        buffer.extend_from_slice(b"\r\nrest");
        let head = Head::take(&mut buffer).unwrap().unwrap();
        assert_eq!((head.status.as_u16(), &buffer[..]), (200, &b"rest"[..]));
        let all: Vec<_> = head.headers.iter().map(|(n, v)| (n.as_str(), v.as_bytes())).collect();
        assert_eq!(all, [("a", &b"1"[..]), ("set-cookie", b"x"), ("set-cookie", b"y")]);
    }

    #[test]
    fn what_is_no_http_is_an_error() {
        for text in
            ["SSH-2.0-x\r\n", "HTTP/2 200\r\n\r\n", "HTTP/1.1 99 no\r\n\r\n", "HTTP/1.1 200 OK\r\nA B: c\r\n\r\n"]
        {
            assert!(head(text).is_err(), "{text:?}");
        }
        let many = format!("HTTP/1.1 200 OK\r\n{}\r\n", "a: b\r\n".repeat(HEADERS + 1));
        assert!(head(&many).is_err());
        assert!(head(&format!("HTTP/1.1 200 OK\r\na: {}", "b".repeat(HEAD_MAX))).is_err());
    }

    #[test]
    fn a_body_ends_where_its_head_says() {
        let framing =
            |text: &str, is_head| head(&format!("HTTP/1.1 {text}\r\n\r\n")).unwrap().unwrap().framing(is_head);
        let chunked = Framing::Chunked(Chunk::Size);
        for (text, expected) in [
            ("200 OK\r\ncontent-length: 5", Framing::Length(5)),
            ("200 OK\r\ncontent-length: 5\r\ncontent-length: 5", Framing::Length(5)),
            ("200 OK\r\ntransfer-encoding: gzip, Chunked\r\ncontent-length: 5", chunked),
            ("200 OK\r\ntransfer-encoding: gzip", Framing::Close),
            ("200 OK", Framing::Close),
            ("204 None\r\ncontent-length: 5", Framing::Length(0)),
            ("304 Same\r\ntransfer-encoding: chunked", Framing::Length(0)),
        ] {
            assert_eq!(framing(text, false).unwrap(), expected, "{text}");
            assert_eq!(framing(text, true).unwrap(), Framing::Length(0), "{text}");
        }
        for text in ["200 OK\r\ncontent-length: -1", "200 OK\r\ncontent-length: 5\r\ncontent-length: 6"] {
            assert!(framing(text, false).is_err(), "{text}");
        }
    }

    #[test]
    fn connections_are_kept_as_the_version_has_it() {
        let keeps = |text: &str| head(&format!("HTTP/{text}\r\n\r\n")).unwrap().unwrap().keeps_alive();
        assert!(keeps("1.1 200 OK") && keeps("1.0 200 OK\r\nconnection: Keep-Alive"));
        assert!(!keeps("1.0 200 OK") && !keeps("1.1 200 OK\r\nconnection: x, Close"));
    }

    #[test]
    fn chunks_are_read_wherever_they_are_cut() {
        let wire = "5;ext=1\r\nhello\r\n00000A\r\n, 10 bytes\r\n0\r\nX-Trailer: a\r\n\r\nmore";
        for piece in 1..=wire.len() {
            let (body, left, done) = read(Framing::Chunked(Chunk::Size), wire, piece).unwrap();
            assert_eq!((body.as_str(), left, done), ("hello, 10 bytes", 4, true), "{piece}");
        }
        for wire in ["", "5\r\nhel", "5\r\nhello\r\n", "5\r\nhello\r\n0\r\n", "5\r\nhello\r\n0\r\na: b\r\n"] {
            assert!(!read(Framing::Chunked(Chunk::Size), wire, 3).unwrap().2, "{wire:?}");
        }
        for wire in
            ["\r\n", "g\r\n", "-1\r\n", "+1\r\nx\r\n", "1\r\nxy\r\n", "11111111111111111\r\n", "0x5\r\nhello\r\n"]
        {
            assert!(read(Framing::Chunked(Chunk::Size), wire, 3).is_err(), "{wire:?}");
        }
    }

    #[test]
    fn lengths_leave_what_is_too_much() {
        assert_eq!(read(Framing::Length(5), "hello more", 3).unwrap(), ("hello".into(), 5, true));
        assert_eq!(read(Framing::Length(5), "hel", 3).unwrap(), ("hel".into(), 0, false));
        assert_eq!(read(Framing::Close, "hello", 3).unwrap(), ("hello".into(), 0, false));
    }
}
