//! The real daemon in a temporary root, with a realm and a subnet that no other test has.

use std::fs::{self, File};
use std::io::Write;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Output, Stdio};

use tempfile::TempDir;

use super::client::Api;
use super::http::Client;
use super::leaks::Traces;
use super::{eventually, images, parts, platform};

/// What a test may decide about its daemon.
#[derive(Default)]
pub struct Options {
    top: String,
    tables: String,
    images: String,
    network: String,
    gateway: String,
    env: Vec<(String, String)>,
    arguments: Vec<String>,
    credentials: Option<String>,
    dataset: Option<String>,
    bare: bool,
    small: bool,
}

impl Options {
    /// Adds a top-level line to the configuration.
    pub fn set(mut self, line: &str) -> Self {
        self.top += line;
        self.top += "\n";
        self
    }

    /// Adds a line to the configuration's `[images]`.
    pub fn images(mut self, line: &str) -> Self {
        self.images += line;
        self.images += "\n";
        self
    }

    /// Adds a line to the configuration's `[network]`; `{host}` in it is the host's address among the
    /// replicas, `{realm6}` two groups of an IPv6 address that no other daemon has.
    pub fn network(mut self, line: &str) -> Self {
        self.network += line;
        self.network += "\n";
        self
    }

    /// Adds a line to the configuration's `[gateway]`.
    pub fn gateway(mut self, line: &str) -> Self {
        self.gateway += line;
        self.gateway += "\n";
        self
    }

    /// Adds a table to the configuration.
    pub fn table(mut self, text: &str) -> Self {
        self.tables += text;
        self.tables += "\n";
        self
    }

    /// Sets an environment variable of the daemon.
    pub fn env(mut self, name: &str, value: &str) -> Self {
        self.env.push((name.to_owned(), value.to_owned()));
        self
    }

    /// Adds an argument to `serve`.
    pub fn argument(mut self, text: &str) -> Self {
        self.arguments.push(text.to_owned());
        self
    }

    /// Turns basic authentication on, with this `user:password`; the daemon's own client uses it.
    pub fn credentials(mut self, text: &str) -> Self {
        self.credentials = Some(text.to_owned());
        self
    }

    /// Keeps images and roots below this dataset, which the test has made.
    pub fn zfs(mut self, dataset: &str) -> Self {
        self.dataset = Some(dataset.to_owned());
        self
    }

    /// A subnet with room for five replicas.
    pub fn small_subnet(mut self) -> Self {
        self.small = true;
        self
    }

    /// Leaves the probe image out.
    pub fn without_images(mut self) -> Self {
        self.bare = true;
        self
    }

    /// Starts the daemon and waits until it answers.
    #[track_caller]
    pub fn start(self) -> Daemon {
        let bare = self.bare;
        let mut daemon = self.prepare();
        daemon.launch();
        daemon.await_address();
        if !bare {
            daemon.load(&images::probe_archive(images::PROBE));
        }
        daemon
    }

    /// Writes the configuration and starts nothing.
    pub fn prepare(self) -> Daemon {
        let dir = tempfile::Builder::new().prefix("faas-jails-").tempdir().expect("making a temporary directory");
        let lease = Lease::take(self.small);
        let root = dir.path().join("root");
        let config = dir.path().join("config.toml");
        let mut top = self.top;
        for (key, line) in [
            ("listen", "listen = \"127.0.0.1:0\"".to_owned()),
            ("read_timeout", "read_timeout = \"200s\"".to_owned()),
            ("write_timeout", "write_timeout = \"200s\"".to_owned()),
            ("deploy_wait", "deploy_wait = \"100s\"".to_owned()),
            ("ready_wait", "ready_wait = \"100s\"".to_owned()),
        ] {
            if !top.lines().any(|l| l.starts_with(&format!("{key} "))) {
                top += &format!("{line}\n");
            }
        }
        if let Some(credentials) = &self.credentials {
            let (user, password) = credentials.split_once(':').expect("user:password");
            let secrets = dir.path().join("auth");
            fs::create_dir(&secrets).expect("making the auth directory");
            fs::write(secrets.join("basic-auth-user"), format!("{user}\n")).expect("writing the user");
            fs::write(secrets.join("basic-auth-password"), format!("{password}\n")).expect("writing the password");
            top += &format!("basic_auth = true\nsecret_mount_path = \"{}\"\n", secrets.display());
        }
        let mut images = self.images;
        if !images.contains("pull =") {
            images += "pull = \"if-not-present\"\n";
        }
        let mut gateway = self.gateway;
        if !gateway.contains("listen =") {
            gateway = format!("listen = \"127.0.0.1:0\"\n{gateway}");
        }
        let realm6 = format!("64:{:x}", lease.number);
        let mut network = self.network.replace("{host}", &lease.host()).replace("{realm6}", &realm6);
        if !network.contains("nat =") {
            network += "nat = false\n";
        }
        let ground = platform::Ground::make(&lease.realm(), self.dataset.as_deref());
        let (mut above, mode) = ground.settings();
        if top.contains("storage =") {
            above.clear();
        }
        let text = format!(
            "root = \"{}\"
realm = \"{}\"
{above}{top}
[network]
{mode}
subnet = \"{}\"
{network}
[images]
{images}
[gateway]
{gateway}
{}{}",
            root.display(),
            lease.realm(),
            lease.subnet(),
            ground.tables(),
            self.tables,
        );
        fs::write(&config, text).expect("writing the configuration");
        let http = Client { address: ([127, 0, 0, 1], 1).into(), credentials: self.credentials };
        let gateway = http.clone();
        Daemon {
            dir,
            root,
            config,
            ground,
            lease,
            env: self.env,
            arguments: self.arguments,
            process: None,
            api: Api { http, image: images::PROBE.into(), foreign: false },
            gateway,
        }
    }
}

/// A daemon. Dropping it ends it, purges its realm, and fails the test if anything is left.
pub struct Daemon {
    api: Api,
    /// Requests to its standalone port, where it has one.
    pub gateway: Client,
    /// Its state directory.
    pub root: PathBuf,
    /// Its configuration.
    pub config: PathBuf,
    dir: TempDir,
    ground: platform::Ground,
    lease: Lease,
    env: Vec<(String, String)>,
    arguments: Vec<String>,
    process: Option<Child>,
}

impl std::ops::Deref for Daemon {
    type Target = Api;
    fn deref(&self) -> &Api {
        &self.api
    }
}

impl Daemon {
    /// A daemon with nothing special, and the probe image.
    #[track_caller]
    pub fn start() -> Self {
        Options::default().start()
    }

    /// Decides something about it first.
    pub fn with() -> Options {
        Options::default()
    }

    /// Starts the process, without waiting for anything.
    pub fn launch(&mut self) {
        for file in ["address", "gateway.address"] {
            let _ = fs::remove_file(self.root.join(file));
        }
        let log = File::options().create(true).append(true).open(self.log_file()).expect("opening the daemon's log");
        let mut command = self.command();
        command.arg("serve").args(&self.arguments);
        command.stdin(Stdio::null()).stdout(log.try_clone().expect("cloning the log")).stderr(log);
        platform::ends_with_us(&mut command);
        self.process = Some(command.spawn().expect("starting the daemon"));
    }

    /// Waits until it has written the address on which it accepts connections.
    #[track_caller]
    pub fn await_address(&mut self) {
        let file = self.root.join("address");
        let address = eventually("the daemon listens", || {
            if let Some(status) = self.process.as_mut().and_then(|p| p.try_wait().ok().flatten()) {
                panic!("the daemon ended with {status}; its log:\n{}", self.log());
            }
            fs::read_to_string(&file).ok()?.trim().parse::<SocketAddr>().ok()
        });
        self.api.http.address = address;
        // Written before the provider's.
        if let Ok(text) = fs::read_to_string(self.root.join("gateway.address")) {
            self.gateway.address = text.trim().parse().expect("the gateway's address");
        }
    }

    /// The program with this daemon's configuration, to which a verb is to be added.
    pub fn command(&self) -> Command {
        let mut command = Command::new(parts::program());
        command.arg("--config").arg(&self.config);
        for name in STOCK_VARIABLES {
            command.env_remove(name);
        }
        command.envs(self.env.iter().map(|(n, v)| (n, v)));
        command
    }

    /// Runs a verb of the program to its end.
    pub fn run(&self, arguments: &[&str]) -> Output {
        self.command().args(arguments).stdin(Stdio::null()).output().expect("running faas-jails")
    }

    /// Runs a verb with this on its standard input.
    pub fn run_with_input(&self, arguments: &[&str], input: &[u8]) -> Output {
        let mut command = self.command();
        command.args(arguments).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().expect("running faas-jails");
        // The program may refuse before it has read all.
        let _ = child.stdin.take().expect("its standard input").write_all(input);
        child.wait_with_output().expect("waiting for faas-jails")
    }

    /// Runs stock faas-cli against this daemon.
    pub fn faas_cli(&self, arguments: &[&str]) -> Output {
        self.faas_cli_with_input(arguments, b"")
    }

    /// The same with this on its standard input.
    pub fn faas_cli_with_input(&self, arguments: &[&str], input: &[u8]) -> Output {
        self.faas_cli_at(&self.url(), arguments, input)
    }

    /// Runs stock faas-cli, with its files in this daemon's temporary directory, against an address.
    pub fn faas_cli_at(&self, url: &str, arguments: &[&str], input: &[u8]) -> Output {
        let program = parts::stock("faas-cli").expect("the test asked for faas-cli first");
        let mut child = Command::new(program)
            .args(arguments)
            .current_dir(self.dir.path())
            .env("HOME", self.dir.path())
            .env("OPENFAAS_URL", url)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("running faas-cli");
        let _ = child.stdin.take().expect("its standard input").write_all(input);
        child.wait_with_output().expect("waiting for faas-cli")
    }

    /// Where it answers.
    pub fn url(&self) -> String {
        format!("http://{}", self.http.address)
    }

    /// Where its standalone port answers.
    pub fn gateway_url(&self) -> String {
        format!("http://{}", self.gateway.address)
    }

    /// Its process id.
    pub fn pid(&self) -> u32 {
        self.process.as_ref().expect("the daemon runs").id()
    }

    /// Its realm.
    pub fn realm(&self) -> String {
        self.lease.realm()
    }

    /// Its subnet.
    pub fn subnet(&self) -> String {
        self.lease.subnet()
    }

    /// The host's address among the replicas.
    pub fn host(&self) -> String {
        self.lease.host()
    }

    /// A directory that goes with it, for the test's own files.
    pub fn scratch(&self) -> &Path {
        self.dir.path()
    }

    /// What it has printed.
    pub fn log(&self) -> String {
        fs::read_to_string(self.log_file()).unwrap_or_default()
    }

    fn log_file(&self) -> PathBuf {
        self.dir.path().join("daemon.log")
    }

    /// Ends it as a service manager does, and gives its status.
    pub fn stop(&mut self) -> ExitStatus {
        self.signal(libc::SIGTERM);
        self.await_exit()
    }

    /// Sends it a signal.
    pub fn signal(&self, signal: i32) {
        // SAFETY: the process is a child that has not been waited for, so the id is its own.
        unsafe { libc::kill(self.pid() as i32, signal) };
    }

    /// Waits for its end.
    #[track_caller]
    pub fn await_exit(&mut self) -> ExitStatus {
        let process = self.process.as_mut().expect("the daemon was started");
        let status = eventually("the daemon ends", || process.try_wait().expect("waiting for the daemon"));
        self.process = None;
        status
    }

    /// Ends it as a power failure does.
    pub fn kill9(&mut self) {
        if let Some(mut process) = self.process.take() {
            let _ = process.kill();
            let _ = process.wait();
        }
    }

    /// Starts it again on the same root.
    #[track_caller]
    pub fn start_again(&mut self) {
        self.launch();
        self.await_address();
    }

    /// What of it the machine shows now.
    pub fn traces(&self) -> Traces {
        Traces::of(&self.realm(), &self.root)
    }

    /// Bytes of memory that the daemon occupies.
    pub fn memory(&self) -> u64 {
        platform::memory(self.pid())
    }

    /// How many layers its storage has.
    pub fn layers(&self) -> usize {
        self.ground.layers().unwrap_or_else(|| fs::read_dir(self.root.join("layers")).map_or(0, Iterator::count))
    }

    /// How many files the daemon has open.
    pub fn open_files(&self) -> usize {
        platform::open_files(self.pid())
    }
}

/// The variables that stock providers read: the test's own environment must not reach the daemon by them.
const STOCK_VARIABLES: [&str; 10] = [
    "port",
    "read_timeout",
    "write_timeout",
    "basic_auth",
    "secret_mount_path",
    "function_namespace",
    "upstream_timeout",
    "ack_wait",
    "max_inflight",
    "RUST_LOG",
];

impl Drop for Daemon {
    fn drop(&mut self) {
        self.kill9();
        let purge = self.run(&["purge"]);
        let left = self.traces();
        if std::thread::panicking() {
            let log = self.log();
            let tail: Vec<_> = log.lines().rev().take(40).collect();
            eprintln!("the end of the daemon's log:");
            tail.iter().rev().for_each(|line| eprintln!("  {line}"));
            return;
        }
        assert!(purge.status.success(), "purge: {}", String::from_utf8_lossy(&purge.stderr));
        assert!(left.is_empty(), "left behind after purge: {left}");
    }
}

/// A number that no other running test has, on this machine: it makes the realm and the subnet.
struct Lease {
    number: u32,
    small: bool,
    _lock: File,
}

impl Lease {
    /// One /24 each in 10.64.0.0/10, so there are 2^14.
    const COUNT: u32 = 1 << 14;

    fn take(small: bool) -> Self {
        let directory = std::env::temp_dir().join("faas-jails-test-leases");
        fs::create_dir_all(&directory).expect("making the lease directory");
        let counter = directory.join("counter");
        let guard =
            File::options().create(true).truncate(false).write(true).open(&counter).expect("opening the counter");
        guard.lock().expect("locking the counter");
        let last: u32 = fs::read_to_string(&counter).ok().and_then(|t| t.trim().parse().ok()).unwrap_or(0);
        for step in 1..=Self::COUNT {
            let number = (last + step) % Self::COUNT;
            let lock = File::create(directory.join(number.to_string())).expect("making a lease");
            if lock.try_lock().is_ok() {
                fs::write(&counter, number.to_string()).expect("writing the counter");
                return Self { number, small, _lock: lock };
            }
        }
        panic!("{} daemons under test at once", Self::COUNT)
    }

    fn realm(&self) -> String {
        const DIGITS: &[u8] = b"0123456789abcdefghijklmnopqrstuvwxyz";
        let mut rest = self.number as usize;
        let mut digits = [0; 3];
        for digit in digits.iter_mut().rev() {
            *digit = DIGITS[rest % DIGITS.len()];
            rest /= DIGITS.len();
        }
        format!("t{}", String::from_utf8_lossy(&digits))
    }

    /// The subnet's first address is the host's own.
    fn host(&self) -> String {
        format!("10.{}.{}.1", 64 + self.number / 256, self.number % 256)
    }

    fn subnet(&self) -> String {
        let length = if self.small { 29 } else { 24 };
        format!("10.{}.{}.0/{length}", 64 + self.number / 256, self.number % 256)
    }
}
