//! Sending an answer to where its caller asked for it: X-Callback-Url.

use std::sync::LazyLock;
use std::time::Duration;

use http::{HeaderMap, HeaderName, HeaderValue, Uri};
use ureq::Agent;
use ureq::tls::TlsConfig;

use crate::fault::{Fault, Result};
use crate::image;

/// How often it is tried, and the pause after the first attempt; it doubles.
const ATTEMPTS: u32 = 3;
const PAUSE: Duration = Duration::from_secs(1);

/// Longest time that one attempt may take.
const TIMEOUT: Duration = Duration::from_secs(30);

/// A URL that an answer can be sent to.
#[derive(Debug, Clone, PartialEq)]
pub struct Target(Uri);

impl Target {
    /// Reads the value of X-Callback-Url.
    pub fn read(text: &str) -> Result<Self> {
        let bad = || {
            Fault::invalid(format!(
                "X-Callback-Url ({}) is invalid: a URL such as http://host:8080/path is needed",
                text.escape_debug()
            ))
        };
        let url: Uri = text.parse().map_err(|_| bad())?;
        match (url.scheme_str(), url.host()) {
            (Some("http" | "https"), Some(host)) if !host.is_empty() => Ok(Self(url)),
            _ => Err(bad()),
        }
    }

    /// The URL. A function of this host is asked for by the name `gateway`, as inside a function: `own` then says
    /// where it is.
    fn resolved(self, own: std::net::SocketAddr) -> Uri {
        let ours = matches!(self.0.host(), Some("gateway" | "gateway.openfaas" | "gateway.openfaas.svc.cluster.local"));
        let path = self.0.path_and_query().filter(|path| ours && path.path().starts_with("/function/"));
        match path.and_then(|path| format!("http://{own}{path}").parse().ok()) {
            Some(url) => url,
            None => self.0,
        }
    }
}

/// Posts an answer, a few times if need be. Blocks.
pub fn send(target: Target, own: std::net::SocketAddr, headers: &HeaderMap, body: &[u8]) -> Result<(), String> {
    let url = target.resolved(own);
    let agent = AGENT.as_ref().map_err(|fault| fault.to_string())?;
    let mut pause = PAUSE;
    for attempt in 1.. {
        let mut request = agent.post(&url);
        if let Some(all) = request.headers_mut() {
            all.extend(headers.iter().map(|(name, value)| (name.clone(), value.clone())));
        }
        let why = match request.send(body) {
            Ok(answer) if answer.status().as_u16() == 429 || answer.status().is_server_error() => {
                answer.status().to_string()
            }
            Ok(answer) if !answer.status().is_success() => return Err(answer.status().to_string()),
            Ok(_) => return Ok(()),
            Err(error) => error.to_string(),
        };
        if attempt == ATTEMPTS {
            return Err(why);
        }
        std::thread::sleep(pause);
        pause *= 2;
    }
    unreachable!("the last attempt returns")
}

static AGENT: LazyLock<Result<Agent>> = LazyLock::new(|| {
    let _ = rustls::crypto::ring::default_provider().install_default();
    let tls = TlsConfig::builder().root_certs(image::trusted_roots(None)?).build();
    let config = Agent::config_builder()
        .tls_config(tls)
        .http_status_as_error(false)
        .max_redirects(0)
        .timeout_global(Some(TIMEOUT))
        .user_agent(concat!("faas-jails/", env!("CARGO_PKG_VERSION")));
    Ok(config.build().into())
});

/// The headers of a callback: those of the answer, and what the stock queue-worker adds.
pub fn headers(answer: &[(String, Vec<u8>)], added: &[(&'static str, String)]) -> HeaderMap {
    let mut headers = HeaderMap::new();
    for (name, value) in answer {
        if let (Ok(name), Ok(value)) = (HeaderName::try_from(name), HeaderValue::try_from(&value[..])) {
            headers.append(name, value);
        }
    }
    for name in ["connection", "keep-alive", "transfer-encoding", "content-length", "trailer", "upgrade", "date"] {
        headers.remove(name);
    }
    for (name, value) in added {
        if let Ok(value) = HeaderValue::try_from(value) {
            headers.insert(HeaderName::from_static(name), value);
        }
    }
    headers
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn urls_are_http_and_name_a_host() {
        for good in ["http://127.0.0.1:9/x?y", "https://host.example/", "http://gateway:8080/function/f"] {
            assert!(Target::read(good).is_ok(), "{good}");
        }
        for bad in ["", "/path", "ftp://host/", "http://", "http:///x", "host:80", "http://a b/"] {
            let fault = Target::read(bad).unwrap_err().to_string();
            assert!(fault.contains("X-Callback-Url"), "{fault}");
        }
    }

    #[test]
    fn the_gateway_by_its_usual_names_is_this_host() {
        let own = ([127, 0, 0, 1], 8081).into();
        let resolved = |text| Target::read(text).unwrap().resolved(own).to_string();
        assert_eq!(resolved("http://gateway:8080/function/f?x"), "http://127.0.0.1:8081/function/f?x");
        assert_eq!(resolved("http://gateway.openfaas:8080/function/f"), "http://127.0.0.1:8081/function/f");
        assert_eq!(resolved("http://gateway:8080/system/functions"), "http://gateway:8080/system/functions");
        assert_eq!(resolved("http://other:8080/function/f"), "http://other:8080/function/f");
    }
}
