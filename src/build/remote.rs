//! HTTP for the builder: bounded in bytes and in time, no logins. Archives and modules may be redirected, not to what is
//! not encrypted; Git hosts may not redirect at all, so that none but those of the configuration are asked.

use std::fs::File;
use std::io::{Read, Seek, Write};
use std::path::Path;
use std::time::{Duration, Instant};

use http::header::{CONTENT_LENGTH, LOCATION};
use http::{HeaderMap, Method, Response, Uri};
use ureq::Body;

use crate::fault::{Context, Fault, Kind, Result};
use crate::image::registry::Http;
use crate::image::{Digest, Progress, Registries};

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
        self.again(url, |at| self.follow(at), |response, started| self.bytes(url, response, started, most))
    }

    /// Puts what is at `url` into `file`; `progress` hears of it as of `name`.
    pub fn save(&self, url: &str, most: u64, file: &mut File, name: &Digest, progress: &dyn Progress) -> Result<()> {
        let save = |response: Response<Body>, started| {
            let length = response.headers().get(CONTENT_LENGTH).and_then(|length| length.to_str().ok()?.parse().ok());
            progress.layer_started(name, length);
            file.set_len(0)?;
            file.rewind()?;
            self.read(url, response, started, most, &mut |piece| {
                progress.bytes(name, piece.len() as u64);
                file.write_all(piece).context(|| "cannot keep it")
            })
        };
        self.again(url, |at| self.follow(at), save)
    }

    fn follow(&self, at: &Uri) -> Result<Response<Body>> {
        self.http.send(&Method::GET, at, &HeaderMap::new(), None).map(|(response, _)| response)
    }

    /// The answer to a GET, or to a POST of `body`, from this host and no other: no redirect is followed.
    pub fn answer(&self, url: &str, headers: &HeaderMap, body: Option<&[u8]>, most: u64) -> Result<Vec<u8>> {
        let ask = |at: &Uri| match body {
            None => self.http.get_once(at, headers),
            Some(body) => self.http.send_body(&Method::POST, at, headers, None, body),
        };
        self.again(url, ask, |response, started| self.bytes(url, response, started, most))
    }

    /// Asks until there is an answer, or no hope.
    fn again<T>(
        &self,
        url: &str,
        ask: impl Fn(&Uri) -> Result<Response<Body>>,
        mut take: impl FnMut(Response<Body>, Instant) -> Result<T>,
    ) -> Result<T> {
        let at = url.parse().map_err(|_| Fault::invalid(format!("{} is no URL", url.escape_debug())))?;
        let started = Instant::now();
        let mut attempt = 0;
        loop {
            self.http.pause(attempt, None);
            attempt += 1;
            let result = ask(&at).and_then(|response| take(response, started));
            match result {
                Err(fault) if fault.kind() == Kind::System && attempt < self.http.attempts() => {}
                other => return other,
            }
        }
    }

    fn bytes(&self, url: &str, response: Response<Body>, started: Instant, most: u64) -> Result<Vec<u8>> {
        let mut bytes = Vec::new();
        self.read(url, response, started, most, &mut |piece| {
            bytes.extend_from_slice(piece);
            Ok(())
        })?;
        Ok(bytes)
    }

    fn read(
        &self,
        url: &str,
        response: Response<Body>,
        started: Instant,
        most: u64,
        keep: &mut dyn FnMut(&[u8]) -> Result<()>,
    ) -> Result<()> {
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
        let mut count = 0;
        let mut buffer = vec![0; 64 << 10];
        loop {
            let read =
                from.read(&mut buffer).map_err(|e| Fault::new(Kind::System, format!("{url} was cut off: {e}")))?;
            if read == 0 {
                return Ok(());
            }
            count += read as u64;
            if count > most {
                return Err(Fault::invalid(format!("{url} is larger than {most} bytes, the limit")));
            }
            keep(&buffer[..read])?;
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
