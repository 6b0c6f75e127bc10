//! The programs that faas-jails is compared with, each with one worker, on loopback, in front of one address.

use std::fs;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

use crate::process::Process;
use crate::support::image::{Image, Layer};
use crate::support::{eventually, images, parts, platform};

/// A server that answers on loopback.
pub struct Server {
    /// Where it listens.
    pub address: SocketAddr,
    /// The process that serves.
    pub process: Process,
}

impl Server {
    fn start(address: SocketAddr, command: Command) -> Self {
        let mut process = Process::start(command);
        eventually("a server listens", || {
            assert_eq!(process.ended(), None, "a server ended before it listened");
            TcpStream::connect(address).ok()
        });
        Self { address, process }
    }

    /// haproxy with one thread and kept connections.
    pub fn haproxy(upstream: SocketAddr, scratch: &Path) -> Self {
        let address = free_address();
        let text = format!(
            "global\n nbthread 1\n maxconn 4000\n\
             defaults\n mode http\n http-reuse always\n timeout connect 5s\n timeout client 30s\n timeout server 30s\n\
             frontend in\n bind {address}\n default_backend out\n\
             backend out\n server function {upstream}\n"
        );
        let file = scratch.join("haproxy.cfg");
        fs::write(&file, text).expect("writing haproxy's configuration");
        let mut command = Command::new(program("haproxy"));
        command.arg("-q").arg("-db").arg("-f").arg(file);
        Self::start(address, command)
    }

    /// nginx with one worker: `/` goes to the upstream on kept connections, `/fixed` is answered with `fixed`.
    pub fn nginx(upstream: SocketAddr, fixed: &str, scratch: &Path) -> Self {
        let address = free_address();
        let home = scratch.join("nginx");
        fs::create_dir_all(&home).expect("making nginx's directory");
        let fixed = fixed.replace('\\', "\\\\").replace('\'', "\\'").replace('$', "");
        let text = format!(
            "daemon off; master_process off; pid nginx.pid; error_log stderr crit;\n\
             events {{ worker_connections 4096; }}\n\
             http {{ access_log off; keepalive_requests 1000000000; client_max_body_size 0; client_body_buffer_size 128k;\n\
             client_body_temp_path body; proxy_temp_path proxy; fastcgi_temp_path f; uwsgi_temp_path u; scgi_temp_path s;\n\
             upstream function {{ server {upstream}; keepalive 256; keepalive_requests 1000000000; }}\n\
             server {{ listen {address};\n\
             location / {{ proxy_pass http://function; proxy_http_version 1.1; proxy_set_header Connection \"\"; }}\n\
             location = /fixed {{ default_type application/json; return 200 '{fixed}'; }} }} }}\n"
        );
        fs::write(home.join("nginx.conf"), text).expect("writing nginx's configuration");
        let mut command = Command::new(program("nginx"));
        command.arg("-p").arg(&home).args(["-c", "nginx.conf", "-e", "stderr"]);
        Self::start(address, command)
    }

    /// The proxy of the stock faas-provider, in Go. None, loudly, where it could not be built.
    pub fn stock(upstream: SocketAddr) -> Option<Self> {
        Self::stock_at(free_address(), upstream)
    }

    /// The same at an address of one's choice.
    pub fn stock_at(address: SocketAddr, upstream: SocketAddr) -> Option<Self> {
        let Some(program) = parts::stock("stock-proxy") else {
            println!("(without the stock proxy: tools/stock.sh bench builds it)\n");
            return None;
        };
        let mut command = Command::new(program);
        command.env("upstream", upstream.to_string()).env("listen", address.to_string());
        Some(Self::start(address, command))
    }

    /// The benchmarks' function, outside of any sandbox; returns without waiting for it to listen.
    pub fn bare(address: SocketAddr) -> Process {
        let mut command = Command::new(function());
        command.env("listen", address.to_string());
        Process::start(command)
    }
}

fn program(name: &str) -> PathBuf {
    let path = Path::new("/usr/sbin").join(name);
    if path.exists() { path } else { name.into() }
}

/// A port of loopback that nobody uses now.
pub fn free_address() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").expect("binding a port");
    listener.local_addr().expect("a bound address")
}

/// The benchmarks' function: compiled here, or brought along.
pub fn function() -> &'static Path {
    static FUNCTION: OnceLock<PathBuf> = OnceLock::new();
    FUNCTION.get_or_init(|| {
        if let Some(parts) = platform::shipped_parts() {
            return parts.join("function");
        }
        let directory = parts::project().join("target/functions");
        fs::create_dir_all(&directory).expect("making target/functions");
        let binary = directory.join("bench");
        let status = Command::new("go")
            .args(["build", "-trimpath", "-ldflags=-s -w", "-buildvcs=false", "-o"])
            .arg(&binary)
            .arg(".")
            .current_dir(parts::project().join("benches/function"))
            .env("CGO_ENABLED", "0")
            .env("GOTOOLCHAIN", "local")
            .status()
            .expect("running go; tools/setup.sh installs it");
        assert!(status.success(), "building the function");
        binary
    })
}

/// The name of the image that holds it.
pub const IMAGE: &str = "example.test/bench:1";

/// That image: users and directories, and above them the function.
pub fn function_image() -> Image {
    let binary = fs::read(function()).expect("reading the function");
    Image::new()
        .layer(images::base_layer())
        .layer(Layer::new().file("function", 0o755, &binary))
        .set("Entrypoint", serde_json::json!(["/function"]))
        .set("User", serde_json::json!("1000:1000"))
}
