//! Settings: a TOML file, and over it the environment variables that stock OpenFaaS providers read.
//!
//! Read once, at start, from a string and a look-up function, so that tests need neither files nor a changed
//! environment. Every setting has a default; a setting that this program does not know is an error.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::time::Duration;

use ipnetwork::IpNetwork;
use serde::{Deserialize, Deserializer};

use crate::fault::{Context, Fault, Result};
use crate::function::{Namespace, Realm};
use crate::gateway;
use crate::island;
use crate::network::{Mode, ipam};

/// Everything that can be set.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// Where this program keeps its state.
    pub root: PathBuf,
    /// Which daemon of this host it is: part of every name it gives to the kernel.
    pub realm: Realm,
    /// Where the provider listens. Port 0 takes a free one; `<root>/address` then says which.
    pub listen: SocketAddr,
    /// The namespace of functions that name none.
    pub namespace: Namespace,
    /// Whether /system routes ask for user and password.
    pub basic_auth: bool,
    /// Directory with the files `basic-auth-user` and `basic-auth-password`.
    pub secret_mount_path: PathBuf,
    /// Longest time a function may take to answer.
    #[serde(deserialize_with = "duration")]
    pub read_timeout: Duration,
    /// Longest time a log stream stays open.
    #[serde(deserialize_with = "duration")]
    pub write_timeout: Duration,
    /// Idle connections kept to each replica, per worker thread.
    pub max_idle_conns_per_host: usize,
    /// How log lines look.
    pub log_format: LogFormat,
    /// How long a deploy waits for its first replica to accept connections before it answers anyway.
    #[serde(deserialize_with = "duration")]
    pub deploy_wait: Duration,
    /// How long an update, or a request for a function at zero, waits for a new replica.
    #[serde(deserialize_with = "duration")]
    pub ready_wait: Duration,
    /// How long a replica may take to end after SIGTERM. An image's `grace_period` variable overrides it.
    #[serde(deserialize_with = "duration")]
    pub stop_wait: Duration,
    /// Most bytes kept of one replica's log.
    pub log_bytes: u64,
    /// What keeps layers and roots.
    pub storage: StorageKind,
    /// Used when storage is `zfs`.
    pub zfs: Zfs,
    /// Replicas' network.
    pub network: Network,
    /// Images.
    pub images: Images,
    /// Whether status shows a `faas_function` label that nobody deployed, as Kubernetes providers do.
    pub function_label: bool,
    /// Limits that hold where a function names none.
    pub limits: DefaultLimits,
    /// How Go functions are compiled.
    pub builder: crate::build::Settings,
    /// How the number of replicas follows calls and load.
    pub elastic: crate::provider::ElasticSettings,
    /// The standalone port.
    pub gateway: gateway::config::Settings,
    /// Sky Island's API.
    pub island: island::Settings,
}

/// How log lines look.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum LogFormat {
    /// For people.
    Human,
    /// One JSON object a line.
    Json,
}

/// What keeps layers and roots.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum StorageKind {
    /// Directories joined by Linux's overlayfs.
    Overlay,
    /// ZFS datasets, snapshots and clones.
    Zfs,
}

/// ZFS settings.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Zfs {
    /// The dataset under which this program makes its own.
    pub dataset: String,
}

impl Default for Zfs {
    fn default() -> Self {
        Self { dataset: "zroot/faas-jails".into() }
    }
}

/// Network settings.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Network {
    /// How replicas are connected, unless an annotation of the function says otherwise.
    pub mode: Mode,
    /// What such an annotation may ask for, beside `mode`.
    pub modes: Vec<Mode>,
    /// Replicas' addresses; the first is the host's own.
    pub subnet: IpNetwork,
    /// Addresses of the other family, so that replicas have one of each.
    pub subnet6: Option<IpNetwork>,
    /// Whether replicas can reach beyond this host, by address translation.
    pub nat: bool,
    /// FreeBSD: the interface that leads outside, on which addresses are translated.
    pub egress: Option<String>,
    /// Name servers given to replicas; empty: the host's own that are not loopback.
    pub dns: Vec<IpAddr>,
}

impl Default for Network {
    fn default() -> Self {
        let freebsd = cfg!(target_os = "freebsd");
        Self {
            mode: if freebsd { Mode::Alias } else { Mode::Bridge },
            // Not inherit: a function there is next to everything that trusts the host's loopback.
            modes: if freebsd { vec![Mode::None, Mode::Alias, Mode::Vnet] } else { vec![Mode::None, Mode::Bridge] },
            subnet: IpNetwork::new(Ipv4Addr::new(10, 62, 0, 0).into(), 16).expect("16 is a prefix length"),
            subnet6: None,
            nat: true,
            egress: None,
            dns: Vec::new(),
        }
    }
}

impl Network {
    /// The networks that addresses are taken from: where replicas are called first.
    pub fn networks(&self) -> Vec<IpNetwork> {
        [Some(self.subnet), self.subnet6].into_iter().flatten().map(|n| ipam::whole(n).unwrap_or(n)).collect()
    }

    /// Whether a function may be connected like this.
    pub fn allows(&self, mode: Mode) -> bool {
        mode == self.mode || self.modes.contains(&mode)
    }
}

/// Image settings.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Images {
    /// When a deploy asks the registry. Images loaded from a file are never asked for.
    pub pull: Pull,
    /// A docker `config.json` with registry credentials.
    pub docker_config: Option<PathBuf>,
    /// Registries spoken to over plain http, as `host[:port]`. Loopback ones always are.
    pub insecure_registries: Vec<String>,
    /// Other places to try first, by registry: `{"docker.io" = ["mirror.example"]}`.
    pub mirrors: std::collections::BTreeMap<String, Vec<String>>,
    /// How many layers are fetched at once.
    pub parallel: usize,
    /// Files with public keys (Ed25519, PEM): `image import` takes what one of them has signed.
    pub trusted_keys: Vec<PathBuf>,
}

impl Images {
    /// The image store's settings on this host.
    pub fn settings(&self) -> crate::image::Settings {
        let mut settings = crate::image::Settings::new(crate::platform::image_target());
        settings.parallel = self.parallel;
        settings.registries.insecure = self.insecure_registries.iter().cloned().collect();
        settings.registries.mirrors = self.mirrors.clone();
        settings.registries.docker_config = self.docker_config.clone();
        settings
    }
}

/// When a deploy asks the registry.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Pull {
    /// At every deploy: a tag may have moved.
    Always,
    /// Only when the image is not here.
    IfNotPresent,
}

impl Default for Images {
    fn default() -> Self {
        Self {
            pull: Pull::Always,
            docker_config: None,
            insecure_registries: Vec::new(),
            mirrors: Default::default(),
            parallel: 3,
            trusted_keys: Vec::new(),
        }
    }
}

/// Limits that hold where a function names none.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct DefaultLimits {
    /// Processes and threads of one replica.
    pub pids: u64,
    /// Open files of one process.
    pub open_files: u64,
    /// Whether a function with limits is refused when this kernel cannot enforce them.
    pub required: bool,
}

impl Default for DefaultLimits {
    fn default() -> Self {
        Self { pids: 4096, open_files: 65536, required: true }
    }
}

impl Default for Config {
    fn default() -> Self {
        let freebsd = cfg!(target_os = "freebsd");
        Self {
            root: if freebsd { "/var/db/faas-jails" } else { "/var/lib/faas-jails" }.into(),
            realm: Realm::default(),
            listen: SocketAddr::from(([127, 0, 0, 1], 8081)),
            namespace: "openfaas-fn".parse().expect("a DNS label"),
            basic_auth: false,
            secret_mount_path: "/run/secrets".into(),
            read_timeout: Duration::from_secs(60),
            write_timeout: Duration::from_secs(60),
            max_idle_conns_per_host: 1024,
            log_format: LogFormat::Human,
            deploy_wait: Duration::from_secs(10),
            ready_wait: Duration::from_secs(30),
            stop_wait: Duration::from_secs(10),
            log_bytes: 8 << 20,
            storage: if freebsd { StorageKind::Zfs } else { StorageKind::Overlay },
            zfs: Zfs::default(),
            network: Network::default(),
            images: Images::default(),
            function_label: false,
            limits: DefaultLimits::default(),
            builder: Default::default(),
            elastic: Default::default(),
            gateway: gateway::config::Settings::default(),
            island: island::Settings::default(),
        }
    }
}

impl Config {
    /// Where the configuration file is when nobody says.
    pub fn default_path() -> &'static Path {
        Path::new(if cfg!(target_os = "freebsd") {
            "/usr/local/etc/faas-jails.toml"
        } else {
            "/etc/faas-jails/config.toml"
        })
    }

    /// Reads the file at `path`, or the default one if that exists, and the process's environment.
    pub fn load(path: Option<&Path>) -> Result<Self> {
        let text = match path {
            Some(path) => std::fs::read_to_string(path).context(|| format!("cannot read {}", path.display()))?,
            None => std::fs::read_to_string(Self::default_path()).unwrap_or_default(),
        };
        let shown = path.unwrap_or(Self::default_path());
        Self::read(&text, |name| std::env::var(name).ok()).context(|| format!("configuration {}", shown.display()))
    }

    /// Reads settings from TOML and lays environment variables over them. Variables are the stock ones
    /// (faas-provider, `types/read_config.go`): `port`, `read_timeout`, `write_timeout`, `basic_auth`,
    /// `secret_mount_path`, `function_namespace`, `max_idle_conns_per_host`; and those of the stock gateway
    /// ([`gateway::config`]).
    pub fn read(toml: &str, env: impl Fn(&str) -> Option<String>) -> Result<Self> {
        let mut config: Self = toml::from_str(toml).map_err(|e| Fault::invalid(e.to_string()))?;
        let env = |name: &str| env(name).filter(|value| !value.is_empty());
        let number = |name: &str, value: String| {
            value.parse::<u64>().map_err(|_| Fault::invalid(format!("{name}={value} is no whole number")))
        };
        if let Some(value) = env("port") {
            let port = number("port", value)?;
            let port = u16::try_from(port).map_err(|_| Fault::invalid(format!("port={port} is no port number")))?;
            config.listen.set_port(port);
        }
        if let Some(value) = env("read_timeout") {
            config.read_timeout = parse_duration(&value).context(|| "read_timeout")?;
        }
        if let Some(value) = env("write_timeout") {
            config.write_timeout = parse_duration(&value).context(|| "write_timeout")?;
        }
        if let Some(value) = env("basic_auth") {
            // Stock providers take the literal `true` only.
            config.basic_auth = value == "true";
        }
        if let Some(value) = env("secret_mount_path") {
            config.secret_mount_path = value.into();
        }
        if let Some(value) = env("function_namespace") {
            config.namespace = value.parse()?;
        }
        if let Some(value) = env("max_idle_conns_per_host") {
            config.max_idle_conns_per_host = number("max_idle_conns_per_host", value)? as usize;
        }
        if config.network.subnet6.is_some_and(|second| second.is_ipv4() == config.network.subnet.is_ipv4()) {
            return Err(Fault::invalid("subnet and subnet6 of [network] must be of different families, IPv4 and IPv6"));
        }
        ipam::check(&config.network.networks()).context(|| "[network]")?;
        config.gateway.lay_over(env)?;
        if !config.root.is_absolute() {
            return Err(Fault::invalid(format!("root ({}) must be an absolute path", config.root.display())));
        }
        Ok(config)
    }
}

/// A Go duration (`time.ParseDuration`) or whole seconds: `60`, `1m30s`, `1.5h`, `500ms`.
pub fn parse_duration(text: &str) -> Result<Duration> {
    let bad = || {
        Fault::invalid(format!("duration ({}) is invalid: seconds, or such as 500ms, 1m30s, 1.5h", text.escape_debug()))
    };
    if let Ok(seconds) = text.parse::<u64>() {
        return Ok(Duration::from_secs(seconds));
    }
    let mut rest = text.strip_prefix('+').unwrap_or(text);
    let mut total = 0.0;
    if rest.is_empty() {
        return Err(bad());
    }
    while !rest.is_empty() {
        let end = rest.find(|c: char| !c.is_ascii_digit() && c != '.').ok_or_else(bad)?;
        let number: f64 = rest[..end].parse().map_err(|_| bad())?;
        rest = &rest[end..];
        let end = rest.find(|c: char| c.is_ascii_digit() || c == '.').unwrap_or(rest.len());
        let unit = match &rest[..end] {
            "ns" => 1e-9,
            "us" | "µs" => 1e-6,
            "ms" => 1e-3,
            "s" => 1.0,
            "m" => 60.0,
            "h" => 3600.0,
            _ => return Err(bad()),
        };
        total += number * unit;
        rest = &rest[end..];
    }
    Duration::try_from_secs_f64(total).map_err(|_| bad())
}

/// Reads a duration: a number of seconds, or text for [`parse_duration`].
pub(crate) fn duration<'de, D: Deserializer<'de>>(deserializer: D) -> std::result::Result<Duration, D::Error> {
    #[derive(Deserialize)]
    #[serde(untagged)]
    enum Written {
        Seconds(u64),
        Text(String),
    }
    match Written::deserialize(deserializer)? {
        Written::Seconds(seconds) => Ok(Duration::from_secs(seconds)),
        Written::Text(text) => parse_duration(&text).map_err(serde::de::Error::custom),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn none(_: &str) -> Option<String> {
        None
    }

    #[test]
    fn durations_are_go_s() {
        for (text, millis) in
            [("60", 60_000), ("1m30s", 90_000), ("1.5h", 5_400_000), ("500ms", 500), ("+2s", 2000), ("0", 0)]
        {
            assert_eq!(parse_duration(text).unwrap(), Duration::from_millis(millis), "{text}");
        }
        for text in ["", "-1s", "1", " 1s", "1 s", "s", "1x", "1.2.3s", "1e3s", "99999999999999999999h"] {
            assert_eq!(parse_duration(text).is_ok(), text == "1", "{text:?}");
        }
    }

    #[test]
    fn the_environment_lies_over_the_file() {
        let config = Config::read("listen = '127.0.0.1:9000'\nread_timeout = '5s'\nbasic_auth = true", |name| {
            Some(
                match name {
                    "port" => "8888",
                    "write_timeout" => "90",
                    "basic_auth" => "1",
                    "function_namespace" => "dev",
                    _ => return None,
                }
                .to_owned(),
            )
        })
        .unwrap();
        assert_eq!(config.listen.to_string(), "127.0.0.1:8888");
        assert_eq!(config.read_timeout, Duration::from_secs(5));
        assert_eq!(config.write_timeout, Duration::from_secs(90));
        assert!(!config.basic_auth, "only the literal true turns it on");
        assert_eq!(config.namespace.as_str(), "dev");
    }

    #[test]
    fn a_misspelt_setting_or_a_wrong_value_is_an_error_that_names_it() {
        for (toml, word) in [
            ("lisen = '127.0.0.1:1'", "lisen"),
            ("[network]\nmode = 'magic'", "magic"),
            ("[network]\nmodes = ['magic']", "magic"),
            ("[network]\nsubnet6 = '10.1.0.0/16'", "subnet6"),
            ("[network]\nsubnet = '10.1.0.0/31'", "no room"),
            ("realm = 'too_long'", "realm"),
            ("root = 'relative'", "relative"),
            ("read_timeout = 'soon'", "soon"),
        ] {
            let error = Config::read(toml, none).unwrap_err().to_string();
            assert!(error.contains(word), "{error}");
        }
        assert!(Config::read("", |n| (n == "max_idle_conns_per_host").then(|| "many".into())).is_err());
    }
}
