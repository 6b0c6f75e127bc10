//! A blob's bytes, over as many connections as it takes.

use std::io::{self, Read};

use http::header::{CONTENT_RANGE, RANGE};
use http::{HeaderMap, HeaderValue, Method, Response, StatusCode};
use ureq::{Body, BodyReader};

use crate::fault::{Fault, Kind, Result};
use crate::image::manifest;
use crate::image::unpack::entries::skip_by_reading;

use super::Session;

/// Reads a blob. When the connection breaks, the next one goes on at the same byte (RFC 9110, "Range"), so
/// whoever hashes and unpacks the bytes notices nothing. Gives up when several connections in a row bring no
/// byte.
pub struct BlobReader<'a> {
    session: &'a Session,
    digest: String,
    foreign: bool,
    size: u64,
    position: u64,
    body: Option<BodyReader<'static>>,
    barren: u32,
}

impl<'a> BlobReader<'a> {
    /// A reader at the first byte; nothing is sent yet.
    pub fn new(session: &'a Session, blob: &manifest::Blob) -> Self {
        let (digest, foreign, size) = (blob.digest.to_string(), blob.foreign, blob.size);
        Self { session, digest, foreign, size, position: 0, body: None, barren: 0 }
    }

    fn connect(&self) -> Result<BodyReader<'static>> {
        let mut headers = HeaderMap::new();
        if self.position > 0 {
            let range = HeaderValue::from_str(&format!("bytes={}-", self.position));
            headers.insert(RANGE, range.map_err(|_| Fault::invalid("no range can be asked for"))?);
        }
        let response = self.session.request(&Method::GET, &format!("blobs/{}", self.digest), &headers);
        let response = response.map_err(|fault| match fault.kind() {
            Kind::NotFound if self.foreign => Fault::not_found(format!(
                "{} is kept outside of the registry, where it is never fetched from",
                self.digest
            )),
            Kind::NotFound => fault.within(format!("the registry has lost blob {}", self.digest)),
            _ => fault,
        })?;
        let resumed = response.status() == StatusCode::PARTIAL_CONTENT;
        if resumed && !self.begins_here(&response) {
            return Err(Fault::new(Kind::System, "the registry sent another range than it was asked for"));
        }
        let mut body = response.into_body().into_reader();
        if !resumed {
            // It knows no ranges: pass over what is here already.
            skip_by_reading(&mut body, self.position)?;
        }
        Ok(body)
    }

    fn begins_here(&self, response: &Response<Body>) -> bool {
        let range = response.headers().get(CONTENT_RANGE).and_then(|value| value.to_str().ok());
        range.is_some_and(|range| range.starts_with(&format!("bytes {}-", self.position)))
    }

    /// Counts a connection that brought nothing; an error when there were too many.
    fn another(&mut self, why: Fault) -> io::Result<()> {
        self.body = None;
        self.barren += 1;
        if self.barren >= self.session.http.attempts() {
            let what = format!("blob {} broke off at byte {} of {}", self.digest, self.position, self.size);
            return Err(io::Error::other(Fault::new(Kind::System, what).because(why)));
        }
        self.session.http.pause(self.barren, None);
        Ok(())
    }
}

impl Read for BlobReader<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let left = usize::try_from(self.size - self.position).unwrap_or(usize::MAX);
        let want = buffer.len().min(left);
        if left == 0 {
            self.body = None;
        }
        if want == 0 {
            return Ok(0);
        }
        loop {
            let Some(body) = &mut self.body else {
                match self.connect() {
                    Ok(body) => self.body = Some(body),
                    // The request has been retried already.
                    Err(fault) => return Err(io::Error::other(fault)),
                }
                continue;
            };
            match body.read(&mut buffer[..want]) {
                Ok(0) => self.another(Fault::new(Kind::System, "the connection was closed"))?,
                Ok(n) => {
                    self.position += n as u64;
                    self.barren = 0;
                    return Ok(n);
                }
                Err(error) => self.another(error.into())?,
            }
        }
    }
}
