//! A small HTTP/1.1 client that hides nothing: what goes out is what the test wrote, what comes back is
//! what came, and a body that ends early is an error.

use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::time::Duration;

use serde_json::Value;

/// How long a read may wait before the test fails. Longer than anything that a test waits for.
/// Builds on an emulated machine are slow.
const PATIENCE: Duration = Duration::from_secs(if cfg!(target_os = "freebsd") { 1800 } else { 240 });

/// Sends requests to one address.
#[derive(Debug, Clone)]
pub struct Client {
    /// Where to.
    pub address: SocketAddr,
    /// Basic credentials, `user:password`.
    pub credentials: Option<String>,
}

impl Client {
    /// A client without credentials.
    pub fn new(address: SocketAddr) -> Self {
        Self { address, credentials: None }
    }

    /// Starts a request.
    pub fn request(&self, method: &str, target: &str) -> Request {
        let mut request = Request {
            address: self.address,
            head: format!("{method} {target} HTTP/1.1\r\n"),
            has_host: false,
            body: Body::None,
        };
        if let Some(credentials) = &self.credentials {
            use base64::Engine as _;
            let encoded = base64::engine::general_purpose::STANDARD.encode(credentials);
            request = request.header("Authorization", &format!("Basic {encoded}"));
        }
        request
    }

    /// GET, whole answer.
    #[track_caller]
    pub fn get(&self, target: &str) -> Response {
        self.request("GET", target).send()
    }

    /// A request with a JSON body, whole answer.
    #[track_caller]
    pub fn json(&self, method: &str, target: &str, body: &Value) -> Response {
        self.request(method, target).header("Content-Type", "application/json").body(body.to_string()).send()
    }

    /// A connection on which the test writes the bytes.
    #[track_caller]
    pub fn raw(&self) -> Exchange {
        Exchange::connect(self.address).unwrap_or_else(|e| panic!("connecting to {}: {e}", self.address))
    }
}

enum Body {
    None,
    Whole(Vec<u8>),
    Chunked(Vec<Vec<u8>>),
}

/// A request to be sent.
pub struct Request {
    address: SocketAddr,
    head: String,
    has_host: bool,
    body: Body,
}

impl Request {
    /// Adds a header; the same name may come twice.
    pub fn header(mut self, name: &str, value: &str) -> Self {
        self.has_host |= name.eq_ignore_ascii_case("host");
        self.head.push_str(&format!("{name}: {value}\r\n"));
        self
    }

    /// A body with Content-Length.
    pub fn body(mut self, body: impl Into<Vec<u8>>) -> Self {
        self.body = Body::Whole(body.into());
        self
    }

    /// A body in these chunks.
    pub fn chunks(mut self, chunks: &[&[u8]]) -> Self {
        self.body = Body::Chunked(chunks.iter().map(|c| c.to_vec()).collect());
        self
    }

    /// Sends it on a connection of its own and reads the answer's head.
    pub fn open(self) -> io::Result<Exchange> {
        let mut exchange = Exchange::connect(self.address)?;
        let mut bytes = self.head.into_bytes();
        if !self.has_host {
            bytes.extend_from_slice(format!("Host: {}\r\n", self.address).as_bytes());
        }
        match &self.body {
            Body::None => bytes.extend_from_slice(b"\r\n"),
            Body::Whole(body) => {
                bytes.extend_from_slice(format!("Content-Length: {}\r\n\r\n", body.len()).as_bytes());
                bytes.extend_from_slice(body);
            }
            Body::Chunked(chunks) => {
                bytes.extend_from_slice(b"Transfer-Encoding: chunked\r\n\r\n");
                for chunk in chunks {
                    bytes.extend_from_slice(format!("{:x}\r\n", chunk.len()).as_bytes());
                    bytes.extend_from_slice(chunk);
                    bytes.extend_from_slice(b"\r\n");
                }
                bytes.extend_from_slice(b"0\r\n\r\n");
            }
        }
        let is_head = bytes.starts_with(b"HEAD ");
        // A server may answer and stop reading before the body is out (413, 401): the answer counts.
        let sent = if bytes.len() <= AT_ONCE { exchange.write(&bytes) } else { exchange.write_meanwhile(bytes) };
        match exchange.read_head(is_head) {
            Ok(()) => Ok(exchange),
            Err(error) => Err(sent.err().unwrap_or(error)),
        }
    }

    /// Sends it and reads the whole answer, or says what went wrong.
    pub fn try_send(self) -> io::Result<Response> {
        self.open()?.finish()
    }

    /// Sends it and reads the whole answer.
    #[track_caller]
    pub fn send(self) -> Response {
        let line = self.head.lines().next().unwrap_or_default().to_owned();
        self.try_send().unwrap_or_else(|e| panic!("{line}: {e}"))
    }
}

/// How the answer's body is delimited (RFC 9112, section 6.3).
#[derive(Debug, Clone, Copy, PartialEq)]
enum Framing {
    Length(u64),
    /// Bytes left of the current chunk.
    Chunked(u64),
    UntilClose,
    Done,
}

/// So many bytes are written before any is read: no system's buffers are smaller.
const AT_ONCE: usize = 32 << 10;

/// A connection that another thread still writes to: it ends when the reader loses interest.
struct Writer(TcpStream);

impl Drop for Writer {
    fn drop(&mut self) {
        let _ = self.0.shutdown(Shutdown::Both);
    }
}

/// A connection with a request under way.
pub struct Exchange {
    stream: BufReader<TcpStream>,
    writer: Option<Writer>,
    framing: Framing,
    /// Status of the answer, once [`Exchange::read_head`] returned.
    pub status: u16,
    /// Headers of the answer in the order they came.
    pub headers: Vec<(String, String)>,
}

impl Exchange {
    fn connect(address: SocketAddr) -> io::Result<Self> {
        let stream = TcpStream::connect_timeout(&address, PATIENCE)?;
        stream.set_read_timeout(Some(PATIENCE))?;
        stream.set_write_timeout(Some(PATIENCE))?;
        stream.set_nodelay(true)?;
        let (stream, headers) = (BufReader::new(stream), Vec::new());
        Ok(Self { stream, writer: None, framing: Framing::Done, status: 0, headers })
    }

    /// Writes while the answer is being read, as a function may answer before it has read all.
    fn write_meanwhile(&mut self, bytes: Vec<u8>) -> io::Result<()> {
        let stream = self.stream.get_ref();
        self.writer = Some(Writer(stream.try_clone()?));
        let mut stream = stream.try_clone()?;
        std::thread::spawn(move || stream.write_all(&bytes));
        Ok(())
    }

    /// Writes bytes as they are.
    pub fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.stream.get_mut().write_all(bytes)
    }

    /// Says that no more will be written.
    pub fn finish_writing(&mut self) -> io::Result<()> {
        self.stream.get_ref().shutdown(Shutdown::Write)
    }

    /// Whether anything has come, or comes within this time; also when the connection has ended.
    pub fn wait_readable(&mut self, within: Duration) -> bool {
        let stream = self.stream.get_ref();
        stream.set_read_timeout(Some(within)).expect("setting a time limit");
        let peeked = stream.peek(&mut [0]);
        stream.set_read_timeout(Some(PATIENCE)).expect("setting a time limit");
        !peeked.is_err_and(|e| matches!(e.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut))
    }

    /// Reads status line and headers; interim answers (1xx but 101) are read over.
    pub fn read_head(&mut self, head_request: bool) -> io::Result<()> {
        loop {
            self.read_one_head(head_request)?;
            if !(100..200).contains(&self.status) || self.status == 101 {
                return Ok(());
            }
        }
    }

    /// Reads one status line and its headers, interim or not.
    pub fn read_one_head(&mut self, head_request: bool) -> io::Result<()> {
        let status = self.read_line()?;
        let bad = || io::Error::new(io::ErrorKind::InvalidData, format!("no status line: {status:?}"));
        let code = status.strip_prefix("HTTP/1.1 ").ok_or_else(bad)?.get(..3).ok_or_else(bad)?;
        self.status = code.parse().map_err(|_| bad())?;
        self.headers.clear();
        loop {
            let line = self.read_line()?;
            if line.is_empty() {
                break;
            }
            let (name, value) = line.split_once(':').ok_or_else(|| io::Error::other(format!("no header: {line:?}")))?;
            self.headers.push((name.to_owned(), value.trim().to_owned()));
        }
        self.framing = if head_request || matches!(self.status, 100..=199 | 204 | 304) {
            Framing::Done
        } else if self.header("transfer-encoding").is_some_and(|v| v.eq_ignore_ascii_case("chunked")) {
            Framing::Chunked(0)
        } else if let Some(length) = self.header("content-length") {
            Framing::Length(length.parse().map_err(io::Error::other)?)
        } else {
            Framing::UntilClose
        };
        Ok(())
    }

    /// The first header of that name.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(n, _)| n.eq_ignore_ascii_case(name)).map(|(_, v)| v.as_str())
    }

    /// One line of a streamed body, without its end; `None` after the last.
    pub fn body_line(&mut self) -> io::Result<Option<String>> {
        let mut line = Vec::new();
        let mut byte = [0];
        loop {
            match self.read(&mut byte)? {
                0 if line.is_empty() => return Ok(None),
                0 => break,
                _ if byte[0] == b'\n' => break,
                _ => line.push(byte[0]),
            }
        }
        Ok(Some(String::from_utf8_lossy(&line).into_owned()))
    }

    /// The rest of the answer; a body that ends early is an error.
    pub fn finish(mut self) -> io::Result<Response> {
        let mut body = Vec::new();
        self.read_to_end(&mut body)?;
        Ok(Response { status: self.status, headers: self.headers, body })
    }

    /// The connection itself, after a 101: reads and writes raw bytes.
    pub fn upgraded(self) -> BufReader<TcpStream> {
        self.stream
    }

    fn read_line(&mut self) -> io::Result<String> {
        let mut line = Vec::new();
        self.stream.read_until(b'\n', &mut line)?;
        if line.pop() != Some(b'\n') {
            return Err(io::Error::new(io::ErrorKind::UnexpectedEof, "connection closed before a whole line"));
        }
        line.pop_if(|b| *b == b'\r');
        Ok(String::from_utf8_lossy(&line).into_owned())
    }
}

impl Read for Exchange {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        let early = || io::Error::new(io::ErrorKind::UnexpectedEof, "the body ended early");
        match self.framing {
            Framing::Done => Ok(0),
            Framing::UntilClose => self.stream.read(into),
            Framing::Length(0) => {
                self.framing = Framing::Done;
                Ok(0)
            }
            Framing::Length(left) => {
                let most = into.len().min(usize::try_from(left).unwrap_or(usize::MAX));
                let n = self.stream.read(&mut into[..most])?;
                if n == 0 {
                    return Err(early());
                }
                self.framing = Framing::Length(left - n as u64);
                Ok(n)
            }
            Framing::Chunked(0) => {
                let line = self.read_line()?;
                let size = u64::from_str_radix(line.split(';').next().unwrap_or_default().trim(), 16)
                    .map_err(|e| io::Error::other(format!("chunk size {line:?}: {e}")))?;
                if size > 0 {
                    self.framing = Framing::Chunked(size);
                    return self.read(into);
                }
                while !self.read_line()?.is_empty() {}
                self.framing = Framing::Done;
                Ok(0)
            }
            Framing::Chunked(left) => {
                let most = into.len().min(usize::try_from(left).unwrap_or(usize::MAX));
                let n = self.stream.read(&mut into[..most])?;
                if n == 0 {
                    return Err(early());
                }
                self.framing = Framing::Chunked(left - n as u64);
                if left == n as u64 {
                    self.read_line()?;
                }
                Ok(n)
            }
        }
    }
}

/// A whole answer.
#[derive(Debug)]
pub struct Response {
    /// Its status.
    pub status: u16,
    /// Its headers in the order they came.
    pub headers: Vec<(String, String)>,
    /// Its body, without the framing.
    pub body: Vec<u8>,
}

impl Response {
    /// The first header of that name.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(n, _)| n.eq_ignore_ascii_case(name)).map(|(_, v)| v.as_str())
    }

    /// The body as text.
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    /// The body as JSON.
    #[track_caller]
    pub fn value(&self) -> Value {
        serde_json::from_slice(&self.body)
            .unwrap_or_else(|e| panic!("status {}, no JSON ({e}): {}", self.status, self.text()))
    }

    /// Fails the test, showing the body, unless the status is this one.
    #[track_caller]
    pub fn expect(self, status: u16) -> Self {
        assert_eq!(self.status, status, "{}", self.text());
        self
    }

    /// Fails the test unless the status is this one and the text holds all these words: an error that
    /// names the thing.
    #[track_caller]
    pub fn expect_error(self, status: u16, words: &[&str]) -> Self {
        let text = self.text();
        assert_eq!(self.status, status, "{text}");
        for word in words {
            assert!(text.contains(word), "{word:?} is not in {text:?}");
        }
        assert!(
            !text.contains("Fault") && !text.contains("Os {") && !text.contains("Error {"),
            "no debug text: {text}"
        );
        self
    }
}
