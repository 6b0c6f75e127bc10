//! HTTP as registries need it: redirects that never carry a login to another host, and retries.

use std::net::IpAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use http::header::{AUTHORIZATION, LOCATION, RETRY_AFTER};
use http::{HeaderMap, HeaderValue, Method, Request, Response, StatusCode, Uri};
use ureq::tls::{PemItem, RootCerts, TlsConfig, parse_pem};
use ureq::{Agent, AsSendBody, Body};

use crate::fault::{Context, Fault, Kind, Result};
use crate::image::Registries;

const REDIRECTS_MAX: usize = 5;
const BACKOFF_MAX: Duration = Duration::from_secs(30);
/// Where systems keep the certificates that they trust: FreeBSD, Debian, ports, Fedora.
const BUNDLES: [&str; 5] = [
    "/etc/ssl/cert.pem",
    "/etc/ssl/certs/ca-certificates.crt",
    "/usr/local/share/certs/ca-root-nss.crt",
    "/usr/local/etc/ssl/cert.pem",
    "/etc/pki/tls/certs/ca-bundle.crt",
];
/// Directories with a certificate a file: what certctl(8) lets this system trust, and what comes with FreeBSD itself.
const DIRECTORIES: [&str; 2] = ["/etc/ssl/certs", "/usr/share/certs/trusted"];

/// Scheme, host and port: what a login is bound to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Origin {
    scheme: String,
    authority: String,
}

impl Origin {
    /// The origin of a URL that has one.
    pub fn of(url: &Uri) -> Option<Self> {
        let scheme = url.scheme_str().filter(|s| matches!(*s, "http" | "https"))?.to_owned();
        let host = url.host()?.to_ascii_lowercase();
        let port = url.port_u16().unwrap_or(if scheme == "https" { 443 } else { 80 });
        Some(Self { authority: format!("{host}:{port}"), scheme })
    }

    /// Is it encrypted?
    pub fn is_https(&self) -> bool {
        self.scheme == "https"
    }
}

/// Makes requests by the rules of [`Registries`].
#[derive(Clone)]
pub struct Http {
    agent: Agent,
    attempts: u32,
    backoff: Duration,
}

/// The certificates that this system trusts, in PEM: those in the file `SSL_CERT_FILE`, in the first bundle that is
/// there, or in the first directory that has any.
pub fn bundle() -> Option<Vec<u8>> {
    let named = std::env::var_os("SSL_CERT_FILE").and_then(|path| std::fs::read(path).ok());
    let bundle = || BUNDLES.iter().find_map(|path| std::fs::read(path).ok());
    named.or_else(bundle).or_else(|| DIRECTORIES.iter().find_map(|dir| gathered(Path::new(dir))))
}

/// All certificates in a directory, in the order of their files' names; `None` if there are none.
fn gathered(dir: &Path) -> Option<Vec<u8>> {
    let mut files: Vec<_> = std::fs::read_dir(dir).ok()?.flatten().map(|entry| entry.path()).collect();
    files.sort();
    let mut all = Vec::new();
    for certificate in files.iter().filter_map(|path| std::fs::read(path).ok()) {
        all.extend_from_slice(&certificate);
        all.push(b'\n');
    }
    all.windows(17).any(|text| text == b"BEGIN CERTIFICATE").then_some(all)
}

/// The certificates in `file`, or of the first bundle that is there.
pub fn roots(file: Option<&Path>) -> Result<RootCerts> {
    let named =
        file.map(|path| std::fs::read(path).context(|| format!("cannot read {}", path.display()))).transpose()?;
    let pem = named.or_else(bundle).unwrap_or_default();
    let certificates = parse_pem(&pem).filter_map(|item| match item {
        Ok(PemItem::Certificate(certificate)) => Some(certificate),
        _ => None,
    });
    Ok(RootCerts::Specific(Arc::new(certificates.collect())))
}

impl Http {
    /// A client with its own connections.
    pub fn new(registries: &Registries) -> Result<Self> {
        // Already installed is fine: the first one stays.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let tls = TlsConfig::builder().root_certs(roots(registries.certificates.as_deref())?).build();
        let timeout = Some(registries.timeout);
        let agent = Agent::config_builder()
            .tls_config(tls)
            .http_status_as_error(false)
            .max_redirects(0)
            .max_redirects_will_error(false)
            .timeout_resolve(timeout)
            .timeout_connect(timeout)
            .timeout_send_request(timeout)
            .timeout_recv_response(timeout)
            .timeout_per_read(timeout)
            .user_agent(concat!("faas-jails/", env!("CARGO_PKG_VERSION")))
            .build()
            .new_agent();
        Ok(Self { agent, attempts: registries.attempts.max(1), backoff: registries.backoff })
    }

    /// How often something is tried.
    pub fn attempts(&self) -> u32 {
        self.attempts
    }

    /// Waits before attempt number `attempt` (the first is 0).
    pub fn pause(&self, attempt: u32, wanted: Option<Duration>) {
        if attempt > 0 {
            let doubled = self.backoff.saturating_mul(1 << (attempt - 1).min(16));
            std::thread::sleep(wanted.unwrap_or(doubled).min(BACKOFF_MAX));
        }
    }

    /// Sends one request and follows redirects. `login` goes to `url`'s own origin and to no other. Says also
    /// whether the answer is from there: no other host's challenge may be answered.
    pub fn send(
        &self,
        method: &Method,
        url: &Uri,
        headers: &HeaderMap,
        login: Option<&HeaderValue>,
    ) -> Result<(Response<Body>, bool)> {
        let home = Origin::of(url).ok_or_else(|| Fault::invalid(format!("{url} is no URL of a registry")))?;
        let mut at = url.clone();
        for _ in 0..=REDIRECTS_MAX {
            let origin = Origin::of(&at).ok_or_else(|| Fault::invalid(format!("{at} is no URL to be sent to")))?;
            if home.is_https() && !origin.is_https() {
                return Err(Fault::invalid(format!("{url} leads to {at}, which is not encrypted")));
            }
            let mut request = Request::builder().method(method).uri(&at);
            if let Some(all) = request.headers_mut() {
                *all = headers.clone();
                if let Some(login) = login.filter(|_| origin == home) {
                    all.insert(AUTHORIZATION, login.clone());
                }
            }
            let request = request.body(()).map_err(|error| Fault::invalid("no request can be made").because(error))?;
            let response = self.run(request).map_err(|error| transport(&at, error))?;
            if !is_redirect(response.status()) {
                return Ok((response, origin == home));
            }
            at = next(&at, response.headers().get(LOCATION))?;
        }
        Err(Fault::new(Kind::System, format!("{url} leads through more than {REDIRECTS_MAX} redirects")))
    }

    /// Gets; follows no redirect.
    pub fn get_once(&self, url: &Uri, headers: &HeaderMap) -> Result<Response<Body>> {
        let mut request = Request::get(url);
        if let Some(all) = request.headers_mut() {
            *all = headers.clone();
        }
        let request = request.body(()).map_err(|error| Fault::invalid("no request can be made").because(error))?;
        self.run(request).map_err(|error| transport(url, error))
    }

    /// Posts a form; follows no redirect.
    pub fn post_form(&self, url: &Uri, form: String) -> Result<Response<Body>> {
        let request = Request::post(url).header("content-type", "application/x-www-form-urlencoded").body(form);
        let request = request.map_err(|error| Fault::invalid("no request can be made").because(error))?;
        self.run(request).map_err(|error| transport(url, error))
    }

    /// Sends bytes; follows no redirect.
    pub fn send_body(
        &self,
        method: &Method,
        url: &Uri,
        headers: &HeaderMap,
        login: Option<&HeaderValue>,
        body: &[u8],
    ) -> Result<Response<Body>> {
        let mut request = Request::builder().method(method).uri(url);
        if let Some(all) = request.headers_mut() {
            *all = headers.clone();
            if let Some(login) = login {
                all.insert(AUTHORIZATION, login.clone());
            }
        }
        let request = request.body(body).map_err(|error| Fault::invalid("no request can be made").because(error))?;
        self.run(request).map_err(|error| transport(url, error))
    }

    /// Through the proxy that the environment names, if any, unless it is for this host itself.
    fn run(&self, request: Request<impl AsSendBody>) -> Result<Response<Body>, ureq::Error> {
        match request.uri().host().is_some_and(is_loopback) {
            true => self.agent.run(self.agent.configure_request(request).proxy(None).build()),
            false => self.agent.run(request),
        }
    }
}

/// Does this name or address mean this host?
pub fn is_loopback(host: &str) -> bool {
    let host = host.trim_start_matches('[').trim_end_matches(']');
    host == "localhost" || host.parse::<IpAddr>().is_ok_and(|address| address.is_loopback())
}

/// Could the same request succeed later?
pub fn is_passing(status: StatusCode) -> bool {
    status.is_server_error() || status == StatusCode::TOO_MANY_REQUESTS || status == StatusCode::REQUEST_TIMEOUT
}

/// What the server says about when to come back.
pub fn retry_after(response: &Response<Body>) -> Option<Duration> {
    let seconds = response.headers().get(RETRY_AFTER)?.to_str().ok()?.trim().parse().ok()?;
    Some(Duration::from_secs(seconds))
}

fn transport(url: &Uri, error: ureq::Error) -> Fault {
    let host = url.authority().map_or("it", |authority| authority.as_str());
    Fault::new(Kind::System, format!("{host} cannot be reached")).because(error)
}

fn is_redirect(status: StatusCode) -> bool {
    matches!(status.as_u16(), 301 | 302 | 303 | 307 | 308)
}

/// Where an answer sends its reader.
pub fn next(at: &Uri, location: Option<&HeaderValue>) -> Result<Uri> {
    let bad = || Fault::new(Kind::System, format!("{at} redirects to nowhere"));
    let location = location.and_then(|value| value.to_str().ok()).ok_or_else(bad)?;
    if location.starts_with('/') && !location.starts_with("//") {
        let mut parts = at.clone().into_parts();
        parts.path_and_query = Some(location.parse().map_err(|_| bad())?);
        return Uri::from_parts(parts).map_err(|_| bad());
    }
    location.parse::<Uri>().ok().filter(|url| Origin::of(url).is_some()).ok_or_else(bad)
}

/// A text as part of a query or form (RFC 3986, unreserved characters stay).
pub fn encode(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
            out.push(byte as char);
        } else {
            out.push_str(&format!("%{byte:02X}"));
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn certificates_in_files_of_their_own_are_one_bundle() {
        let temp = tempfile::tempdir().unwrap();
        assert_eq!(gathered(temp.path()), None);
        std::fs::write(temp.path().join("README"), "none").unwrap();
        assert_eq!(gathered(temp.path()), None);
        for name in ["b", "a"] {
            std::fs::write(temp.path().join(name), format!("-----BEGIN CERTIFICATE-----\n{name}")).unwrap();
        }
        let text = String::from_utf8(gathered(temp.path()).unwrap()).unwrap();
        assert!(text.contains("-----\na\n-----BEGIN CERTIFICATE-----\nb\n"), "{text}");
    }

    #[test]
    fn an_origin_is_scheme_host_and_port() {
        let of = |url: &str| Origin::of(&url.parse().unwrap());
        assert_eq!(of("https://A.example/x"), of("https://a.example:443/y"));
        assert_ne!(of("https://a.example"), of("http://a.example:443"));
        assert_ne!(of("http://a.example:1"), of("http://a.example:2"));
        assert_eq!(of("ftp://a.example/"), None);
    }

    #[test]
    fn locations_are_resolved_or_refused() {
        let at: Uri = "http://a.example:5000/v2/x?y".parse().unwrap();
        let go = |to: &str| next(&at, Some(&HeaderValue::from_str(to).unwrap())).map(|u| u.to_string());
        assert_eq!(go("/z?q=1").unwrap(), "http://a.example:5000/z?q=1");
        assert_eq!(go("https://b.example/z").unwrap(), "https://b.example/z");
        for to in ["//b.example/z", "z", "", "file:///etc/passwd"] {
            assert!(go(to).is_err(), "{to:?} was followed");
        }
    }
}
