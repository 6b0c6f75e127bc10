//! The distribution protocol (OCI distribution-spec 1.1, and the Docker registry API v2 before it), pull side.
//!
//! ```text
//! Session (one repository on one host, with its login)
//!   manifest(tag | digest) ─> bytes ─> Document       404 NotFound, 401/403 Denied, silence System
//!   blob(digest) ─> BlobReader: resumes by Range when the connection breaks
//! ```
//!
//! A login is bound to the origin that it was made for: neither a redirect nor a layer's foreign URL gets it.
//! The one exception is the protocol's own: the token server that the registry names gets it, encrypted
//! unless the registry itself is not.

use std::sync::Mutex;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use http::header::{ACCEPT, WWW_AUTHENTICATE};
use http::{HeaderMap, HeaderValue, Method, Response, StatusCode, Uri};
use serde_json::Value;
use ureq::Body;

use crate::fault::{Context, Fault, Kind, Result};

use super::manifest::{self, MANIFEST_MAX};
use super::unpack::stream::read_capped;
use super::{Digest, Progress, Reference, Registries};

mod blob;
mod challenge;
mod credentials;
mod http_client;
mod push;

pub use blob::BlobReader;
pub use credentials::{Credentials, Login};
pub use http_client::{Http, bundle, is_loopback, roots as trusted_roots};
pub use push::push;

use challenge::Challenge;
use http_client::{Origin, encode, is_passing, retry_after};

/// Largest answer of a token server.
const TOKEN_MAX: u64 = 1 << 20;
/// How much of a registry's error is repeated.
const ERROR_MAX: u64 = 4096;

/// One repository on one host.
pub struct Session {
    http: Http,
    base: Uri,
    host: String,
    reference: Reference,
    login: Option<Login>,
    /// What a token is asked for: `pull`, `pull,push`.
    actions: &'static str,
    /// The `Authorization` header that worked last.
    authorization: Mutex<Option<HeaderValue>>,
}

/// Asks for `reference` at its registry's mirrors, in order, and then at the registry: the first answer counts. What a
/// mirror fails at is a warning.
pub fn ask_hosts<T>(
    registries: &Registries,
    reference: &Reference,
    credentials: &[&Credentials],
    progress: &dyn Progress,
    ask: impl Fn(Session) -> Result<T>,
) -> Result<T> {
    let http = Http::new(registries)?;
    let ask = |host: &str| ask(Session::new(&http, registries, host, reference, credentials)?);
    for mirror in registries.mirrors.get(reference.registry()).into_iter().flatten() {
        match ask(mirror) {
            Err(fault) => progress.warn(&format!("mirror {mirror} can't serve {reference}: {fault}")),
            answer => return answer,
        }
    }
    ask(reference.registry())
}

/// Does this host speak plain HTTP: configured so, or on this machine?
fn is_plain(registries: &Registries, host: &str) -> bool {
    let name = match host.strip_prefix('[').and_then(|rest| rest.split_once(']')) {
        Some((v6, _)) => v6,
        None => host.split(':').next().unwrap_or(host),
    };
    registries.insecure.contains(host) || is_loopback(name)
}

impl Session {
    /// A session with `host`, which is `reference`'s registry or a mirror of it. Nothing is sent yet.
    pub fn new(
        http: &Http,
        registries: &Registries,
        host: &str,
        reference: &Reference,
        credentials: &[&Credentials],
    ) -> Result<Self> {
        // The one name that is not where it says (Docker's own, since 2014).
        let server = if host == "docker.io" { "registry-1.docker.io" } else { host };
        let scheme = if is_plain(registries, host) { "http" } else { "https" };
        let base = format!("{scheme}://{server}/v2/{}", reference.repository());
        let base = base.parse().map_err(|error| Fault::invalid(format!("{host} is no host")).because(error))?;
        let login = credentials.iter().find_map(|all| all.login(host, reference.repository())).cloned();
        let (http, host, reference) = (http.clone(), host.to_owned(), reference.clone());
        Ok(Self { http, base, host, reference, login, actions: "pull", authorization: Mutex::new(None) })
    }

    /// The same session, to change the repository, too.
    fn for_pushing(mut self) -> Self {
        self.actions = "pull,push";
        self
    }

    fn url(&self, path: &str) -> Result<Uri> {
        let url = format!("{}/{path}", self.base);
        url.parse().map_err(|error| Fault::invalid(format!("{url} is no URL")).because(error))
    }

    /// What a tag leads to now, by a request without a body; `None` when the registry does not say.
    pub fn resolve(&self, tag: &str) -> Result<Option<Digest>> {
        let response = self.request(&Method::HEAD, &format!("manifests/{tag}"), &accept())?;
        let digest = response.headers().get("docker-content-digest").and_then(|value| value.to_str().ok());
        Ok(digest.and_then(|digest| digest.parse().ok()))
    }

    /// A manifest or index by tag or digest, with the digest of its bytes. A digest is checked.
    pub fn manifest(&self, tag_or_digest: &str) -> Result<(Digest, Vec<u8>)> {
        let response = self.request(&Method::GET, &format!("manifests/{tag_or_digest}"), &accept())?;
        let bytes = body(response, MANIFEST_MAX, "the manifest")?;
        let digest = Digest::of(&bytes);
        if let Ok(expected) = tag_or_digest.parse::<Digest>()
            && expected != digest
        {
            return Err(Fault::invalid(format!("registry {} sent {digest} when asked for {expected}", self.host)));
        }
        Ok((digest, bytes))
    }

    /// A blob's bytes from the first; nothing is checked yet but their number.
    pub fn blob(&self, blob: &manifest::Blob) -> BlobReader<'_> {
        BlobReader::new(self, blob)
    }

    /// A small blob, whole and checked.
    pub fn small_blob(&self, blob: &manifest::Blob, cap: u64, what: &str) -> Result<Vec<u8>> {
        if blob.size > cap {
            return Err(Fault::invalid(format!("{what} is larger than {cap} bytes, the limit")));
        }
        let bytes = read_capped(std::io::BufReader::new(self.blob(blob)), cap, what)?;
        let found = Digest::of(&bytes);
        if found != blob.digest {
            return Err(Fault::invalid(format!("{what} has digest {found}, not {}", blob.digest)));
        }
        Ok(bytes)
    }

    /// Sends a request until it is answered for good. Anything but 2xx is a failure.
    fn request(&self, method: &Method, path: &str, headers: &HeaderMap) -> Result<Response<Body>> {
        let url = self.url(path)?;
        let mut wait = None;
        let mut last = None;
        for attempt in 0..self.http.attempts() {
            self.http.pause(attempt, wait.take());
            match self.exchange(method, &url, headers) {
                Ok(response) if response.status().is_success() => return Ok(response),
                Ok(response) if is_passing(response.status()) => {
                    wait = retry_after(&response);
                    last = Some(self.refused(response));
                }
                Ok(response) => return Err(self.refused(response)),
                Err(fault) if fault.kind() == Kind::System => last = Some(fault),
                Err(fault) => return Err(fault),
            }
        }
        let last = last.unwrap_or_else(|| Fault::new(Kind::System, "it was not asked"));
        Err(last.within(format!("registry {} does not serve {}", self.host, self.reference)))
    }

    /// One request, and a second one with a login when the first is answered by 401.
    fn exchange(&self, method: &Method, url: &Uri, headers: &HeaderMap) -> Result<Response<Body>> {
        let login = self.authorization();
        let (response, from_home) = self.http.send(method, url, headers, login.as_ref())?;
        if response.status() != StatusCode::UNAUTHORIZED || !from_home {
            return Ok(response);
        }
        let challenges = response.headers().get_all(WWW_AUTHENTICATE).iter().filter_map(|value| value.to_str().ok());
        let challenge = challenges.filter_map(Challenge::parse).max_by_key(|c| matches!(c, Challenge::Bearer { .. }));
        let Some(challenge) = challenge else { return Ok(response) };
        let Some(fresh) = self.answer(&challenge)? else { return Ok(response) };
        *self.authorization.lock().unwrap_or_else(|poisoned| poisoned.into_inner()) = Some(fresh.clone());
        self.http.send(method, url, headers, Some(&fresh)).map(|(response, _)| response)
    }

    fn authorization(&self) -> Option<HeaderValue> {
        self.authorization.lock().unwrap_or_else(|poisoned| poisoned.into_inner()).clone()
    }

    /// The header that answers a challenge; `None` when there is no login for it.
    fn answer(&self, challenge: &Challenge) -> Result<Option<HeaderValue>> {
        match challenge {
            Challenge::Basic => match &self.login {
                Some(Login::Basic(user, password)) => Ok(Some(basic(user, password)?)),
                _ => Ok(None),
            },
            Challenge::Bearer { realm, service } => {
                let realm = self.checked_realm(realm)?;
                let token = self.token(&realm, service.as_deref()).map_err(|fault| {
                    fault.within(format!(
                        "no token for {} from {}",
                        self.reference,
                        realm.host().unwrap_or("its token server")
                    ))
                })?;
                Ok(Some(secret(&format!("Bearer {token}"))?))
            }
        }
    }

    fn checked_realm(&self, realm: &str) -> Result<Uri> {
        let bad = |why: &str| Fault::invalid(format!("registry {} names a token server {why}", self.host));
        let url: Uri = realm.parse().map_err(|_| bad("that is no URL"))?;
        let origin = Origin::of(&url).ok_or_else(|| bad("that is no URL"))?;
        let home = Origin::of(&self.base).is_some_and(|home| home.is_https());
        if home && !origin.is_https() {
            return Err(bad("that is not encrypted"));
        }
        Ok(url)
    }

    fn token(&self, realm: &Uri, service: Option<&str>) -> Result<String> {
        let scope = format!("repository:{}:{}", self.reference.repository(), self.actions);
        let mut query = format!("scope={}", encode(&scope));
        if let Some(service) = service {
            query.push_str(&format!("&service={}", encode(service)));
        }
        let response = match &self.login {
            Some(Login::Identity(token)) => {
                let form =
                    format!("grant_type=refresh_token&client_id=faas-jails&{query}&refresh_token={}", encode(token));
                self.http.post_form(realm, form)?
            }
            login => {
                let glue = if realm.query().is_some() { '&' } else { '?' };
                let url = format!("{realm}{glue}{query}");
                let url = url.parse().map_err(|_| Fault::invalid("its address is no URL"))?;
                let header = match login {
                    Some(Login::Basic(user, password)) => Some(basic(user, password)?),
                    _ => None,
                };
                self.http.send(&Method::GET, &url, &HeaderMap::new(), header.as_ref())?.0
            }
        };
        if !response.status().is_success() {
            return Err(self.refused(response));
        }
        let bytes = body(response, TOKEN_MAX, "the token")?;
        let answer: Value = serde_json::from_slice(&bytes).map_err(|_| Fault::new(Kind::System, "it sent no JSON"))?;
        let token = ["token", "access_token"].iter().find_map(|key| answer.get(key)?.as_str());
        token.map(str::to_owned).ok_or_else(|| Fault::new(Kind::System, "it sent no token"))
    }

    /// A failure in words: what was refused, what the registry said, what to do.
    fn refused(&self, response: Response<Body>) -> Fault {
        let (status, image, host) = (response.status(), &self.reference, &self.host);
        let said = said(response);
        match status.as_u16() {
            404 => Fault::not_found(format!("image {image} is not on registry {host}: check its name and tag{said}")),
            401 | 403 => {
                let login = match &self.login {
                    Some(_) => "check the login that is configured for it",
                    None => "it does not exist there, or a login is needed",
                };
                Fault::new(Kind::Denied, format!("registry {host} refuses image {image}: {login}{said}"))
            }
            429 => Fault::new(
                Kind::System,
                format!("registry {host} wants fewer requests (429); try later or log in{said}"),
            ),
            _ => Fault::new(Kind::System, format!("registry {host} answers {status}{said}")),
        }
    }
}

fn accept() -> HeaderMap {
    HeaderMap::from_iter([(ACCEPT, HeaderValue::from_static(manifest::ACCEPT))])
}

fn basic(user: &str, password: &str) -> Result<HeaderValue> {
    secret(&format!("Basic {}", BASE64.encode(format!("{user}:{password}"))))
}

fn secret(text: &str) -> Result<HeaderValue> {
    let mut value =
        HeaderValue::from_str(text).map_err(|_| Fault::invalid("a login has characters that no header can hold"))?;
    value.set_sensitive(true);
    Ok(value)
}

fn body(response: Response<Body>, cap: u64, what: &str) -> Result<Vec<u8>> {
    read_capped(std::io::BufReader::new(response.into_body().into_reader()), cap, what).map_err(|fault| {
        if fault.kind() == Kind::Invalid {
            fault
        } else {
            Fault::new(Kind::System, format!("{what} was cut off")).because(fault)
        }
    })
}

/// What the registry said about it, in its own words, cut short: ` (it says: …)`.
fn said(response: Response<Body>) -> String {
    let Ok(bytes) = body(response, ERROR_MAX, "the answer") else { return String::new() };
    let value: Value = serde_json::from_slice(&bytes).unwrap_or_default();
    let message = value.pointer("/errors/0/message").or_else(|| value.get("details")).and_then(Value::as_str);
    match message.map(|m| m.chars().filter(|c| !c.is_control()).take(200).collect::<String>()) {
        Some(message) if !message.is_empty() => format!(" (it says: {message})"),
        _ => String::new(),
    }
}

/// Reads the Docker config that is configured, if one is.
pub fn configured_credentials(registries: &Registries) -> Result<Credentials> {
    let Some(path) = &registries.docker_config else { return Ok(Credentials::default()) };
    let text = std::fs::read(path).context(|| format!("cannot read the Docker config {}", path.display()))?;
    Credentials::from_docker_config(&text).context(|| format!("{}", path.display()))
}
