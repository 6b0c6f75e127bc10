//! Who to be towards which registry.

use std::fmt;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use serde_json::Value;

use crate::fault::{Fault, Result};
use crate::image::Reference;

/// A user name with its password, or a refresh token ("identity token") that stands for both.
#[derive(Clone, PartialEq, Eq)]
pub enum Login {
    /// Name and password, or name and access token.
    Basic(String, String),
    /// A refresh token for the registry's token server.
    Identity(String),
}

impl fmt::Debug for Login {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Basic(user, _) => write!(f, "Basic({user:?}, ***)"),
            Self::Identity(_) => f.write_str("Identity(***)"),
        }
    }
}

/// Logins by registry. The default has none.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Credentials {
    /// Registry, path prefix (mostly empty), login.
    logins: Vec<(String, String, Login)>,
    /// Registries for which a helper program is named, and whether one is named for all.
    helpers: Vec<String>,
    helper_for_all: bool,
}

impl Credentials {
    /// One login for one registry (`host[:port]`, or any of Docker Hub's names).
    pub fn basic(registry: &str, user: &str, password: &str) -> Self {
        let (host, prefix) = place(registry);
        Self { logins: vec![(host, prefix, Login::Basic(user.to_owned(), password.to_owned()))], ..Self::default() }
    }

    /// Reads a Docker `config.json` (the content of a registry secret, too). Logins under `auths` are taken;
    /// `credHelpers` and `credsStore` name programs, which are never run.
    pub fn from_docker_config(text: &[u8]) -> Result<Self> {
        let bad = |why: &str| Fault::invalid(format!("the Docker config {why}"));
        // No cause: it would show what is in the file.
        let value: Value = serde_json::from_slice(text).map_err(|_| bad("is no JSON that can be read"))?;
        let mut credentials = Self::default();
        for (key, entry) in value.get("auths").and_then(Value::as_object).into_iter().flatten() {
            let (host, prefix) = place(key);
            if let Some(login) = login(entry).ok_or_else(|| bad(&format!("has a login for {host} that is damaged")))? {
                credentials.logins.push((host, prefix, login));
            }
        }
        let helpers = value.get("credHelpers").and_then(Value::as_object).into_iter().flatten();
        credentials.helpers = helpers.map(|(key, _)| place(key).0).collect();
        credentials.helper_for_all = value.get("credsStore").and_then(Value::as_str).is_some_and(|s| !s.is_empty());
        Ok(credentials)
    }

    /// The login for `repository` on `registry`: the one with the longest matching path.
    pub fn login(&self, registry: &str, repository: &str) -> Option<&Login> {
        let fits = |prefix: &str| {
            prefix.is_empty()
                || repository.strip_prefix(prefix).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
        };
        let here = self.logins.iter().filter(|(host, prefix, _)| host == registry && fits(prefix));
        here.max_by_key(|(_, prefix, _)| prefix.len()).map(|(_, _, login)| login)
    }

    /// Would a credential helper know a login that is missing here?
    pub fn needs_helper(&self, reference: &Reference) -> bool {
        let registry = reference.registry();
        self.login(registry, reference.repository()).is_none()
            && (self.helper_for_all || self.helpers.iter().any(|host| host == registry))
    }
}

/// Several configs as one; where two have a login for the same place, the last one's counts.
impl FromIterator<Credentials> for Credentials {
    fn from_iter<I: IntoIterator<Item = Credentials>>(all: I) -> Self {
        all.into_iter().fold(Self::default(), |mut sum, one| {
            sum.logins.extend(one.logins);
            sum.helpers.extend(one.helpers);
            sum.helper_for_all |= one.helper_for_all;
            sum
        })
    }
}

/// Registry and path prefix of a key in `auths`: a host, a URL, Docker Hub's old address.
fn place(key: &str) -> (String, String) {
    let key = key.trim_start_matches("https://").trim_start_matches("http://").trim_end_matches('/');
    let (host, path) = key.split_once('/').unwrap_or((key, ""));
    let host = match host {
        "index.docker.io" | "registry-1.docker.io" | "registry.hub.docker.com" => "docker.io",
        other => other,
    };
    let prefix = if matches!(path, "v1" | "v2") { "" } else { path };
    (host.to_owned(), prefix.to_owned())
}

/// `Some(None)`: the entry has no login. `None`: it is damaged.
fn login(entry: &Value) -> Option<Option<Login>> {
    let text = |key| entry.get(key).and_then(Value::as_str).filter(|text| !text.is_empty());
    if let Some(token) = text("identitytoken") {
        return Some(Some(Login::Identity(token.to_owned())));
    }
    if let (Some(user), Some(password)) = (text("username"), text("password")) {
        return Some(Some(Login::Basic(user.to_owned(), password.to_owned())));
    }
    let Some(auth) = text("auth") else { return Some(None) };
    let decoded = String::from_utf8(BASE64.decode(auth.trim()).ok()?).ok()?;
    let (user, password) = decoded.split_once(':')?;
    Some(Some(Login::Basic(user.to_owned(), password.trim_end_matches('\0').to_owned())))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_docker_config_is_read_as_docker_reads_it() {
        let config = br#"{"auths":{
            "https://index.docker.io/v1/":{"auth":"dTpwOnE="},
            "r.example:5000":{"username":"a","password":"b"},
            "r.example:5000/team":{"identitytoken":"t"},
            "empty.example":{}},
            "credHelpers":{"h.example":"secretservice"}}"#;
        let credentials = Credentials::from_docker_config(config).unwrap();
        assert_eq!(credentials.login("docker.io", "library/x"), Some(&Login::Basic("u".into(), "p:q".into())));
        assert_eq!(credentials.login("r.example:5000", "x"), Some(&Login::Basic("a".into(), "b".into())));
        assert_eq!(credentials.login("r.example:5000", "team/x"), Some(&Login::Identity("t".into())));
        assert_eq!(credentials.login("r.example:5000", "teams/x"), Some(&Login::Basic("a".into(), "b".into())));
        assert_eq!(credentials.login("empty.example", "x"), None);
        assert!(credentials.needs_helper(&"h.example/x".parse().unwrap()));
        assert!(!credentials.needs_helper(&"alpine".parse().unwrap()));
        assert!(Credentials::from_docker_config(br#"{"auths":{"a":{"auth":"!"}}}"#).is_err());
    }

    #[test]
    fn secrets_are_not_shown() {
        let credentials = Credentials::basic("r.example", "user", "hunter2");
        assert!(!format!("{credentials:?}").contains("hunter2"));
        let fault = Credentials::from_docker_config(b"hunter2").unwrap_err();
        assert!(!fault.to_string().contains("hunter2"));
    }
}
