//! The stock gateway in front of a daemon.
//!
//! It listens on port 8080 of every interface, and can't be told otherwise; so it runs as what it looks like: as a
//! function, in a sandbox of a second daemon, with an address of its own.

use std::collections::BTreeMap;
use std::fs;
use std::net::SocketAddr;
use std::path::Path;

use serde_json::json;

use super::daemon::{Daemon, Options};
use super::http::Client;
use super::image::{Image, Layer};
use super::{eventually, images, parts};

const IMAGE: &str = "example.test/stock-gateway:1";

/// Where the stock gateway runs.
pub struct Stage(Daemon);

impl Stage {
    /// Makes the place.
    #[track_caller]
    pub fn make() -> Self {
        let stage = Daemon::with().gateway("enabled = false").start();
        // With the first replica there is an interface, and with it an address that both can reach.
        stage.deploy(json!({"service": "first"}));
        Self(stage)
    }

    /// The address at which the gateway can reach what listens on this host.
    pub fn host(&self) -> String {
        self.0.host()
    }

    /// Starts the gateway with deploy/gateway/gateway.env, this provider, and these variables; tells where it is.
    #[track_caller]
    pub fn start(&self, program: &Path, provider: SocketAddr, variables: &[(&str, &str)]) -> SocketAddr {
        let Self(stage) = self;
        let mut layer = Layer::new().file("gateway", 0o755, &fs::read(program).expect("reading the gateway"));
        if let Some(assets) = parts::stock("openfaas-gateway-assets") {
            layer = with_files(layer, "assets", &assets);
        }
        let image = Image::new()
            .layer(images::base_layer())
            .layer(layer)
            .set("Entrypoint", json!(["/gateway"]))
            .set("User", json!("1000:1000"));
        stage.load(&image.docker_save(IMAGE));
        let secrets = ["basic-auth-user", "basic-auth-password"];
        for (name, value) in secrets.into_iter().zip(["admin", "secret"]) {
            stage.http.json("POST", "/system/secrets", &json!({"name": name, "value": value})).expect(202);
        }
        let mut settings = settings();
        for (name, value) in [
            ("functions_provider_url", format!("http://{provider}/")),
            ("faas_prometheus_host", provider.ip().to_string()),
            ("faas_prometheus_port", provider.port().to_string()),
            ("secret_mount_path", "/var/openfaas/secrets".to_owned()),
        ] {
            assert!(settings.insert(name.into(), value).is_some(), "{name} is not in gateway.env");
        }
        settings.extend(variables.iter().map(|(name, value)| (name.to_string(), value.to_string())));
        stage.deploy(json!({"service": "gateway", "image": IMAGE, "envVars": settings, "secrets": secrets}));
        let replicas = stage.http.get("/system/replicas").expect(200).value();
        let mut all = replicas.as_array().expect("replicas").iter().filter(|replica| replica["name"] == "gateway");
        let address = all.find_map(|replica| replica["address"].as_str()?.parse().ok());
        address.unwrap_or_else(|| panic!("the gateway's address is not in {replicas}"))
    }

    /// What the gateway has printed.
    pub fn log(&self) -> String {
        self.0.http.get("/system/logs?name=gateway&tail=10000").expect(200).text()
    }

    /// The gateway's process.
    pub fn pid(&self) -> u32 {
        let processes = self.0.traces().processes;
        let found = processes.iter().find_map(|process| process.strip_suffix(" gateway")?.parse().ok());
        found.unwrap_or_else(|| panic!("the gateway is not among {processes:?}"))
    }
}

/// A daemon with the stock gateway in front of it.
pub struct Behind {
    /// The provider.
    pub daemon: Daemon,
    /// Requests to the gateway, as `admin` with the password `secret`.
    pub gateway: Client,
    stage: Stage,
    pid: u32,
}

impl Behind {
    /// Starts both, the gateway with these variables over those that are shipped. `program` is the gateway.
    #[track_caller]
    pub fn start(program: &Path, options: Options, variables: &[(&str, &str)]) -> Self {
        let stage = Stage::make();
        let daemon = options.set(&format!("listen = \"{}:0\"", stage.host())).credentials("admin:secret").start();
        let address = stage.start(program, daemon.http.address, variables);
        let gateway = Client { address, credentials: Some("admin:secret".into()) };
        eventually("the gateway answers", || (gateway.get("/healthz").status == 200).then_some(()));
        let pid = stage.pid();
        Self { daemon, gateway, stage, pid }
    }

    /// What the gateway has printed.
    pub fn log(&self) -> String {
        self.stage.log()
    }

    /// Whether it still is the process that was started.
    pub fn has_lived_on(&self) -> bool {
        self.stage.pid() == self.pid
    }
}

/// Adds what is in a directory.
fn with_files(mut layer: Layer, name: &str, directory: &Path) -> Layer {
    for entry in fs::read_dir(directory).expect("reading the gateway's page") {
        let path = entry.expect("reading the gateway's page").path();
        let name = format!("{name}/{}", path.file_name().expect("a name").to_string_lossy());
        layer = match path.is_dir() {
            true => with_files(layer, &name, &path),
            false => layer.file(&name, 0o644, &fs::read(&path).expect("reading the gateway's page")),
        };
    }
    layer
}

/// The settings that are shipped.
fn settings() -> BTreeMap<String, String> {
    let text = fs::read_to_string(parts::project().join("deploy/gateway/gateway.env")).expect("gateway.env");
    let lines = text.lines().filter(|line| !line.starts_with('#') && !line.is_empty());
    lines.map(|line| line.split_once('=').expect("a setting")).map(|(n, v)| (n.to_owned(), v.to_owned())).collect()
}
