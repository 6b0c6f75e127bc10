//! The daemon of this configuration, as its API shows it.

use std::io::Read;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;

use serde::de::DeserializeOwned;

use crate::api::{Credentials, FunctionLoad, ReplicaStatus};
use crate::config::Config;
use crate::fault::{Context, Fault, Kind, Result};
use crate::function::{FunctionKey, Namespace};

/// How long the daemon may take to accept a connection: it is on this host.
const CONNECT: Duration = Duration::from_secs(5);

/// Makes requests to the daemon.
pub struct Client {
    agent: ureq::Agent,
    base: String,
    authorization: Option<String>,
}

impl Client {
    /// Finds the daemon by the address file in its state directory, and its password where it reads it itself.
    pub fn new(config: &Config) -> Result<Self> {
        let path = config.root.join("address");
        let address = std::fs::read_to_string(&path).map_err(|error| {
            let sentence =
                format!("no faas-jails serves on {}; start it with: faas-jails serve", config.root.display());
            Fault::new(Kind::Unsupported, sentence).because(error)
        })?;
        let address: SocketAddr =
            address.trim().parse().map_err(|_| Fault::invalid(format!("{} holds no address", path.display())))?;
        let authorization = match config.basic_auth {
            true => Some(Credentials::read(&config.secret_mount_path)?.header()),
            false => None,
        };
        let agent = ureq::Agent::config_builder()
            .http_status_as_error(false)
            .timeout_connect(Some(CONNECT))
            .proxy(None)
            .build()
            .new_agent();
        Ok(Self { agent, base: format!("http://{}", reachable(address)), authorization })
    }

    /// The body of a GET as it comes, or the daemon's sentence of refusal.
    pub fn stream(&self, path: &str) -> Result<impl Read + use<>> {
        let mut request = self.agent.get(format!("{}{path}", self.base));
        if let Some(authorization) = &self.authorization {
            request = request.header("Authorization", authorization);
        }
        let answer = request.call().map_err(|error| {
            Fault::new(Kind::Unsupported, format!("faas-jails at {} does not answer: {error}", self.base))
        })?;
        let (status, mut body) = (answer.status().as_u16(), answer.into_body());
        if status == 200 {
            return Ok(body.into_reader());
        }
        let said = body.read_to_string().unwrap_or_default();
        Err(Fault::new(kind(status), format!("{} ({status})", said.trim())))
    }

    /// A GET's answer.
    pub fn get<T: DeserializeOwned>(&self, path: &str) -> Result<T> {
        let body = self.stream(path)?;
        serde_json::from_reader(body).map_err(|e| Fault::new(Kind::System, e.to_string())).context(|| {
            format!("faas-jails at {} gave an answer to {path} that this version does not understand", self.base)
        })
    }

    /// What the functions that somebody asks for have to do.
    pub fn loads(&self, choice: &Choice) -> Result<Vec<FunctionLoad>> {
        let (function, namespace) = choice.read()?;
        let namespace = namespace.map(|n| n.to_string()).unwrap_or_default();
        let mut all: Vec<FunctionLoad> = self.get(&format!("/system/elastic?namespace={namespace}"))?;
        all.retain(|load| function.as_deref().is_none_or(|name| load.name == name));
        Ok(all)
    }

    /// The replicas that somebody asks for.
    pub fn replicas(&self, choice: &Choice, usage: bool) -> Result<Vec<ReplicaStatus>> {
        let (function, namespace) = choice.read()?;
        let namespace = namespace.map(|n| n.to_string()).unwrap_or_default();
        let mut all: Vec<ReplicaStatus> =
            self.get(&format!("/system/replicas?namespace={namespace}&usage={}", u8::from(usage)))?;
        all.retain(|replica| function.as_deref().is_none_or(|name| replica.name == name));
        Ok(all)
    }
}

/// Which functions a verb is about.
#[derive(Debug, Clone, clap::Args)]
pub struct Choice {
    /// Only this function: NAME or NAME.NAMESPACE
    function: Option<String>,
    /// Only this namespace
    #[arg(short, long)]
    namespace: Option<Namespace>,
}

impl Choice {
    /// This function only.
    pub fn of(key: &FunctionKey) -> Self {
        Self { function: Some(key.name.to_string()), namespace: Some(key.namespace.clone()) }
    }

    fn read(&self) -> Result<(Option<String>, Option<Namespace>)> {
        let Some(text) = &self.function else { return Ok((None, self.namespace.clone())) };
        match (text.contains('.'), &self.namespace) {
            (false, namespace) => Ok((Some(text.clone()), namespace.clone())),
            (true, Some(namespace)) => {
                Err(Fault::invalid(format!("{text} names a namespace already; leave out --namespace {namespace}")))
            }
            (true, None) => {
                let (name, namespace) = text.rsplit_once('.').unwrap_or((text, ""));
                Ok((Some(name.to_owned()), Some(namespace.parse()?)))
            }
        }
    }
}

/// The one function that a verb is about.
#[derive(Debug, Clone, clap::Args)]
pub struct Chosen {
    /// The function: NAME or NAME.NAMESPACE
    function: String,
    /// Its namespace
    #[arg(short, long)]
    namespace: Option<Namespace>,
    /// Only the replica with this id, as ps shows it
    #[arg(short, long, value_name = "ID")]
    pub instance: Option<String>,
}

impl Chosen {
    /// Its full name.
    pub fn key(&self, config: &Config) -> Result<FunctionKey> {
        let choice = Choice { function: Some(self.function.clone()), namespace: self.namespace.clone() };
        let (name, namespace) = choice.read()?;
        let namespace = namespace.unwrap_or_else(|| config.namespace.clone());
        FunctionKey::parse(&name.unwrap_or_default(), &namespace)
    }
}

/// The kind of failure that the daemon answered so.
fn kind(status: u16) -> Kind {
    match status {
        404 => Kind::NotFound,
        401 | 403 => Kind::Denied,
        409 => Kind::Busy,
        503 => Kind::Exhausted,
        400..500 => Kind::Invalid,
        _ => Kind::System,
    }
}

/// An address of all interfaces is reached on loopback.
fn reachable(mut address: SocketAddr) -> SocketAddr {
    if address.ip().is_unspecified() {
        let v4 = address.is_ipv4();
        address.set_ip(if v4 { IpAddr::V4(Ipv4Addr::LOCALHOST) } else { IpAddr::V6(Ipv6Addr::LOCALHOST) });
    }
    address
}

#[cfg(test)]
mod tests {
    use super::*;

    fn choice(function: Option<&str>, namespace: Option<&str>) -> Choice {
        Choice { function: function.map(str::to_owned), namespace: namespace.map(|n| n.parse().unwrap()) }
    }

    #[test]
    fn a_namespace_is_named_once() {
        let read = |f, n| choice(f, n).read().map(|(f, n)| (f, n.map(|n| n.to_string())));
        let some = |text: &str| Some(text.to_owned());
        assert_eq!(read(None, None).unwrap(), (None, None));
        assert_eq!(read(Some("f"), Some("dev")).unwrap(), (some("f"), some("dev")));
        assert_eq!(read(Some("f.dev"), None).unwrap(), (some("f"), some("dev")));
        assert!(read(Some("f.dev"), Some("dev")).unwrap_err().to_string().contains("leave out"));
    }

    #[test]
    fn all_interfaces_are_reached_on_loopback() {
        for (bound, reached) in [("0.0.0.0:1", "127.0.0.1:1"), ("[::]:2", "[::1]:2"), ("192.0.2.1:3", "192.0.2.1:3")] {
            assert_eq!(reachable(bound.parse().unwrap()).to_string(), reached);
        }
    }
}
