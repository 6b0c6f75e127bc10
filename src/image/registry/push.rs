//! Putting an image into a registry (OCI distribution-spec 1.1, "Push").

use std::path::Path;

use http::header::{CONTENT_TYPE, LOCATION, WWW_AUTHENTICATE};
use http::{HeaderMap, HeaderValue, Method, Response, StatusCode, Uri};
use ureq::Body;

use super::challenge::Challenge;
use super::http_client::{encode, next};
use super::{Credentials, Http, Session, configured_credentials};
use crate::fault::{Context, Fault, Kind, Result};
use crate::image::manifest::{Blob, Document};
use crate::image::{Digest, Reference, Registries};

/// Pushes the one image of the OCI layout in `dir` to `reference`'s registry. Blobs that are there already are not sent.
pub fn push(registries: &Registries, dir: &Path, reference: &Reference) -> Result<()> {
    let what = || format!("cannot push {reference}");
    let tag = reference.tag().ok_or_else(|| Fault::invalid("a digest cannot be pushed to")).context(what)?;
    let configured: Credentials = configured_credentials(registries)?;
    let http = Http::new(registries)?;
    let session = Session::new(&http, registries, reference.registry(), reference, &[&configured])?.for_pushing();
    session.layout(dir, tag).context(what)
}

fn read(dir: &Path, digest: &Digest) -> Result<Vec<u8>> {
    let path = dir.join("blobs/sha256").join(digest.hex());
    std::fs::read(&path).context(|| format!("cannot read {}", path.display()))
}

impl Session {
    fn layout(&self, dir: &Path, tag: &str) -> Result<()> {
        let index = std::fs::read(dir.join("index.json")).context(|| "the image has no index.json")?;
        let Document::Index(listed) = Document::parse(&index)? else {
            return Err(Fault::invalid("index.json is no index"));
        };
        let manifest = listed.first().ok_or_else(|| Fault::invalid("index.json lists no image"))?.blob.digest.clone();
        let bytes = read(dir, &manifest)?;
        let Document::Manifest(parsed) = Document::parse(&bytes)? else {
            return Err(Fault::invalid("index.json lists no manifest"));
        };
        for blob in parsed.layers.iter().chain([&parsed.config]) {
            self.put_blob(dir, blob)?;
        }
        let kind = "application/vnd.oci.image.manifest.v1+json";
        self.sent(&Method::PUT, &self.url(&format!("manifests/{tag}"))?, kind, &bytes).map(drop)
    }

    fn put_blob(&self, dir: &Path, blob: &Blob) -> Result<()> {
        let (there, _) = self.http.send(
            &Method::HEAD,
            &self.url(&format!("blobs/{}", blob.digest))?,
            &HeaderMap::new(),
            self.authorization().as_ref(),
        )?;
        if there.status().is_success() {
            return Ok(());
        }
        let kind = "application/octet-stream";
        let start = self.url("blobs/uploads/")?;
        let begun = self.sent(&Method::POST, &start, kind, b"")?;
        let at = next(&start, begun.headers().get(LOCATION))?;
        // A login must not follow the registry to another place.
        if at.authority() != start.authority() || at.scheme() != start.scheme() {
            return Err(Fault::new(
                Kind::Unsupported,
                format!("the registry wants blobs sent to {at}, which is another place"),
            ));
        }
        let glue = if at.query().is_some() { '&' } else { '?' };
        let at = format!("{at}{glue}digest={}", encode(blob.digest.as_str()));
        let at: Uri = at.parse().map_err(|_| Fault::new(Kind::System, "the registry names no place for a blob"))?;
        self.sent(&Method::PUT, &at, kind, &read(dir, &blob.digest)?).map(drop)
    }

    /// Sends bytes, a second time with a login when the first is answered by 401. Anything but 2xx is a failure.
    fn sent(&self, method: &Method, url: &Uri, kind: &'static str, bytes: &[u8]) -> Result<Response<Body>> {
        let headers = HeaderMap::from_iter([(CONTENT_TYPE, HeaderValue::from_static(kind))]);
        let mut response = self.http.send_body(method, url, &headers, self.authorization().as_ref(), bytes)?;
        if response.status() == StatusCode::UNAUTHORIZED {
            let all = response.headers().get_all(WWW_AUTHENTICATE).iter().filter_map(|value| value.to_str().ok());
            let challenge = all.filter_map(Challenge::parse).max_by_key(|c| matches!(c, Challenge::Bearer { .. }));
            if let Some(fresh) = challenge.map(|challenge| self.answer(&challenge)).transpose()?.flatten() {
                *self.authorization.lock().unwrap_or_else(|poisoned| poisoned.into_inner()) = Some(fresh.clone());
                response = self.http.send_body(method, url, &headers, Some(&fresh), bytes)?;
            }
        }
        if response.status().is_success() { Ok(response) } else { Err(self.refused(response)) }
    }
}
