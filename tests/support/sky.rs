//! A daemon that serves Sky Island's API, with Git repositories on loopback.

use std::fs;

use serde_json::{Value, json};
use tempfile::TempDir;

use super::daemon::Options;
use super::git::{GitServer, Repository};
use super::http::{Client, Response};
use super::{Daemon, eventually, gostd, parts};

/// The token of the admin routes.
pub const TOKEN: &str = "a-token-of-the-tests-0123456789";

/// The header that carries it.
pub const HEADER: &str = "X-Sky-Island-Token";

/// The daemon, its repositories and its API.
pub struct Sky {
    /// The daemon. Before the rest, so that it ends first.
    pub daemon: Daemon,
    /// Requests to Sky Island's API.
    pub http: Client,
    /// The repositories' server.
    pub git: GitServer,
    /// Where repositories and secrets are.
    pub dir: TempDir,
}

impl Sky {
    /// With nothing special.
    #[track_caller]
    pub fn start() -> Self {
        Self::with(Daemon::with(), "")
    }

    /// With these options, and these lines in `[island]`.
    #[track_caller]
    pub fn with(options: Options, island: &str) -> Self {
        let mut sky = Self::prepare(options, island);
        sky.launch();
        sky
    }

    /// Starts nothing yet.
    pub fn prepare(options: Options, island: &str) -> Self {
        let dir = tempfile::Builder::new().prefix("faas-jails-sky-").tempdir().expect("making a temporary directory");
        let (repositories, secrets) = (dir.path().join("git"), dir.path().join("secrets"));
        fs::create_dir(&repositories).expect("making a directory");
        fs::create_dir(&secrets).expect("making a directory");
        fs::write(secrets.join("island-token"), format!("{TOKEN}\n")).expect("writing the token");
        let git = GitServer::start(&repositories);
        let listen = if island.contains("listen =") { "" } else { "listen = \"127.0.0.1:0\"" };
        // A slow machine is no failure.
        let timeout = if island.contains("exec_timeout =") { "" } else { "exec_timeout = \"60s\"" };
        let options = options
            .without_images()
            .set(&format!("secret_mount_path = \"{}\"", secrets.display()))
            .table(&gostd::builder(&format!("git_hosts = [\"{}\"]\nproxy = \"off\"", git.address)))
            .table(&format!("[island]\n{listen}\n{timeout}\n{island}"));
        let daemon = options.prepare();
        gostd::lend(&daemon);
        Self { daemon, http: Client::new(([127, 0, 0, 1], 1).into()), git, dir }
    }

    /// Starts the daemon, or starts it again, and waits until both APIs answer.
    #[track_caller]
    pub fn launch(&mut self) {
        let file = self.daemon.root.join("island.address");
        let _ = fs::remove_file(&file);
        self.daemon.launch();
        self.daemon.await_address();
        let address = eventually("Sky Island's API listens", || fs::read_to_string(&file).ok()?.trim().parse().ok());
        self.http.address = address;
    }

    /// A repository with the functions that tests call, and what a client calls it.
    pub fn functions(&self) -> (Repository, String) {
        let repository = self.git.repository("called");
        let source = parts::project().join("tests/functions/called");
        let read = |name: &str| fs::read_to_string(source.join(name)).expect("reading the functions");
        repository.commit(&[("go.mod", &read("go.mod")), ("called.go", &read("called.go"))]);
        let url = self.git.url("called");
        (repository, url)
    }

    /// A request to run a function, whatever comes of it.
    #[track_caller]
    pub fn ask(&self, body: Value) -> Response {
        self.http.json("POST", "/api/v1/function", &body)
    }

    /// Runs a call, whatever comes of it.
    #[track_caller]
    pub fn try_call(&self, url: &str, call: &str) -> Response {
        self.ask(json!({ "url": url, "call": call }))
    }

    /// Runs a call that must go well, and gives its output.
    #[track_caller]
    pub fn call(&self, url: &str, call: &str) -> String {
        data(&self.try_call(url, call).expect(200))
    }

    /// A request to an admin route.
    #[track_caller]
    pub fn admin(&self, method: &str, target: &str) -> Response {
        self.http.request(method, &format!("/api/v1/admin/{target}")).header(HEADER, TOKEN).send()
    }
}

/// The output in an answer.
#[track_caller]
pub fn data(answer: &Response) -> String {
    answer.value()["data"].as_str().unwrap_or_else(|| panic!("no data: {}", answer.text())).to_owned()
}
