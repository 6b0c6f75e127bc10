//! A mirror of files on loopback, over HTTP or HTTPS, that can be told to fail.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread::JoinHandle;

use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::{ServerConfig, ServerConnection, StreamOwned};

/// What a request gets.
pub enum Answer {
    /// A file.
    Whole(Vec<u8>),
    /// The first half of a file, and then the end.
    Short(Vec<u8>),
    /// The first half of a file, and then nothing.
    Stalled(Vec<u8>),
    /// It is elsewhere.
    Moved(String),
    /// There is no such file.
    Missing,
}

/// A running mirror. Ends when it is dropped.
pub struct Mirror {
    /// Where it listens.
    pub address: SocketAddr,
    scheme: &'static str,
    requests: Arc<AtomicUsize>,
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Mirror {
    /// One whose answer depends on the path, and on how many requests there were before.
    pub fn start(answer: impl Fn(&str, usize) -> Answer + Send + 'static) -> Self {
        Self::serve("http", answer, |stream| Some(Box::new(stream)))
    }

    /// The same with a certificate and its key, both in PEM.
    pub fn encrypted(
        (certificate, key): &(PathBuf, PathBuf),
        answer: impl Fn(&str, usize) -> Answer + Send + 'static,
    ) -> Self {
        let certificates = vec![CertificateDer::from_pem_file(certificate).expect("a certificate")];
        let key = PrivateKeyDer::from_pem_file(key).expect("a key");
        let config = ServerConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
            .with_safe_default_protocol_versions()
            .expect("TLS")
            .with_no_client_auth()
            .with_single_cert(certificates, key);
        let config = Arc::new(config.expect("a certificate and its key"));
        Self::serve("https", answer, move |stream| {
            let connection = ServerConnection::new(Arc::clone(&config)).ok()?;
            Some(Box::new(StreamOwned::new(connection, stream)))
        })
    }

    fn serve(
        scheme: &'static str,
        answer: impl Fn(&str, usize) -> Answer + Send + 'static,
        wrap: impl Fn(TcpStream) -> Option<Box<dyn Stream>> + Send + 'static,
    ) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let address = listener.local_addr().expect("its address");
        let (requests, stop) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicBool::new(false)));
        let (counted, stopped) = (requests.clone(), stop.clone());
        let serve = move || {
            for stream in listener.incoming().take_while(|_| !stopped.load(Ordering::SeqCst)).flatten() {
                let Some(mut stream) = wrap(stream) else { continue };
                if let Some(path) = asked(&mut *stream) {
                    // Whoever asks may go away at any time.
                    let _ = reply(&mut *stream, answer(&path, counted.fetch_add(1, Ordering::SeqCst)));
                }
            }
        };
        Self { address, scheme, requests, stop, thread: Some(std::thread::spawn(serve)) }
    }

    /// What a file of it is called.
    pub fn url(&self, path: &str) -> String {
        format!("{}://{}{path}", self.scheme, self.address)
    }

    /// How many requests there have been.
    pub fn requests(&self) -> usize {
        self.requests.load(Ordering::SeqCst)
    }
}

impl Drop for Mirror {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::SeqCst);
        let _ = TcpStream::connect(self.address);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

trait Stream: Read + Write {}
impl<T: Read + Write> Stream for T {}

/// The path that a GET names.
fn asked(stream: &mut dyn Stream) -> Option<String> {
    let mut lines = BufReader::new(stream).lines();
    let first = lines.next()?.ok()?;
    while lines.next()?.is_ok_and(|line| !line.is_empty()) {}
    Some(first.strip_prefix("GET ")?.split(' ').next()?.to_owned())
}

fn reply(stream: &mut dyn Stream, answer: Answer) -> std::io::Result<()> {
    let (status, header, body) = match &answer {
        Answer::Whole(file) | Answer::Short(file) | Answer::Stalled(file) => ("200 OK", String::new(), &file[..]),
        Answer::Moved(to) => ("302 Found", format!("Location: {to}\r\n"), &b""[..]),
        Answer::Missing => ("404 Not Found", String::new(), &b""[..]),
    };
    let length = body.len();
    write!(stream, "HTTP/1.1 {status}\r\n{header}Content-Length: {length}\r\nConnection: close\r\n\r\n")?;
    let sent = if matches!(answer, Answer::Short(_) | Answer::Stalled(_)) { length / 2 } else { length };
    stream.write_all(&body[..sent])?;
    stream.flush()?;
    if matches!(answer, Answer::Stalled(_)) {
        let _ = stream.read(&mut [0])?;
    }
    Ok(())
}
