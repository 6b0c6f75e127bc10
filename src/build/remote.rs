//! HTTP for the builder: bounded in bytes and in time, no logins. Archives and modules may be redirected, not to what is
//! not encrypted; Git hosts may not redirect at all, so that none but those of the configuration are asked.

use std::io::Read;
use std::path::Path;
use std::time::{Duration, Instant};

use http::header::LOCATION;
use http::{HeaderMap, Method, Response, Uri};
use ureq::Body;

use crate::fault::{Context, Fault, Kind, Result};
use crate::image::Registries;
use crate::image::registry::Http;

/// Gets things.
#[derive(Clone)]
pub struct Remote {
    http: Http,
    time: Duration,
}

impl Remote {
    /// By the rules for registries (certificates, timeouts, proxies); no single answer may take longer than `time`.
    pub fn new(registries: &Registries, time: Duration) -> Result<Self> {
        Ok(Self { http: Http::new(registries)?, time })
    }

    /// What is at `url`, which may also be a `file:///` one.
    pub fn get(&self, url: &str, most: u64) -> Result<Vec<u8>> {
        if let Some(path) = url.strip_prefix("file://") {
            return local(Path::new(path), most);
        }
        let headers = HeaderMap::new();
        self.again(url, most, |at| self.http.send(&Method::GET, at, &headers, None).map(|(response, _)| response))
    }

    /// The answer to a GET, or to a POST of `body`, from this host and no other: no redirect is followed.
    pub fn answer(&self, url: &str, headers: &HeaderMap, body: Option<&[u8]>, most: u64) -> Result<Vec<u8>> {
        self.again(url, most, |at| match body {
            None => self.http.get_once(at, headers),
            Some(body) => self.http.send_body(&Method::POST, at, headers, None, body),
        })
    }

    /// Asks until there is an answer, or no hope.
    fn again(&self, url: &str, most: u64, ask: impl Fn(&Uri) -> Result<Response<Body>>) -> Result<Vec<u8>> {
        let at = url.parse().map_err(|_| Fault::invalid(format!("{} is no URL", url.escape_debug())))?;
        let started = Instant::now();
        let mut attempt = 0;
        loop {
            self.http.pause(attempt, None);
            attempt += 1;
            let result = ask(&at).and_then(|response| self.read(url, response, started, most));
            match result {
                Err(fault) if fault.kind() == Kind::System && attempt < self.http.attempts() => {}
                other => return other,
            }
        }
    }

    fn read(&self, url: &str, response: Response<Body>, started: Instant, most: u64) -> Result<Vec<u8>> {
        let status = response.status();
        if status.is_redirection() {
            let to = response.headers().get(LOCATION).and_then(|to| to.to_str().ok()).unwrap_or("nowhere");
            let to: String = to.chars().filter(|c| !c.is_control()).take(200).collect();
            return Err(Fault::invalid(format!("it has moved to {to}, which is not followed: name its new place")));
        }
        if !status.is_success() {
            let kind = match status.as_u16() {
                404 | 410 => Kind::NotFound,
                401 | 403 => Kind::Denied,
                400..=499 => Kind::Invalid,
                _ => Kind::System,
            };
            return Err(Fault::new(kind, format!("{url} answers {status}")));
        }
        let mut from = response.into_body().into_reader();
        let mut bytes = Vec::new();
        let mut buffer = vec![0; 64 << 10];
        loop {
            let read =
                from.read(&mut buffer).map_err(|e| Fault::new(Kind::System, format!("{url} was cut off: {e}")))?;
            if read == 0 {
                return Ok(bytes);
            }
            bytes.extend_from_slice(&buffer[..read]);
            if bytes.len() as u64 > most {
                return Err(Fault::invalid(format!("{url} is larger than {most} bytes, the limit")));
            }
            if started.elapsed() > self.time {
                return Err(Fault::invalid(format!("{url} took longer than {:?}, the limit", self.time)));
            }
        }
    }
}

fn local(path: &Path, most: u64) -> Result<Vec<u8>> {
    let what = || format!("cannot read {}", path.display());
    let file = std::fs::File::open(path).context(what)?;
    let mut bytes = Vec::new();
    file.take(most + 1).read_to_end(&mut bytes).context(what)?;
    if bytes.len() as u64 > most {
        return Err(Fault::invalid(format!("{} is larger than {most} bytes, the limit", path.display())));
    }
    Ok(bytes)
}
