//! Debian's own container registry on loopback, with what tests push into it.

use std::fs;
use std::net::{SocketAddr, TcpListener};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};

use tempfile::TempDir;

use super::http::{Client, Request};
use super::image::{Image, MANIFEST, digest};
use super::{eventually, parts};

/// The user that a registry with authentication knows.
pub const USER: &str = "alice";
/// Her password.
pub const PASSWORD: &str = "wonderland";
/// The same, hashed by bcrypt.
const HTPASSWD: &str = "alice:$2y$05$abcdefghijklmnopqrstuuA0vov2GDneHB3.8.cv9UF9g.RdvScIW\n";

/// Who may read a registry.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Access {
    /// Anybody.
    Anonymous,
    /// Only [`USER`], with basic authentication.
    Password,
}

/// A running registry; dropping it ends it.
pub struct Registry {
    /// Where it listens.
    pub address: SocketAddr,
    process: Child,
    client: Client,
    directory: TempDir,
}

impl Registry {
    /// Starts one. The package that brings it is installed by tools/setup.sh.
    pub fn start(access: Access) -> Self {
        let directory = tempfile::tempdir().expect("making a temporary directory");
        let address = free_address();
        let storage = directory.path().join("storage");
        let mut config = format!(
            "version: 0.1\nlog: {{level: error}}\nstorage:\n  filesystem: {{rootdirectory: {}}}\n  delete: {{enabled: true}}\nhttp: {{addr: \"{address}\"}}\n",
            storage.display()
        );
        if access == Access::Password {
            let htpasswd = directory.path().join("htpasswd");
            fs::write(&htpasswd, HTPASSWD).expect("writing htpasswd");
            config += &format!("auth:\n  htpasswd: {{realm: basic-realm, path: {}}}\n", htpasswd.display());
        }
        let file = directory.path().join("config.yml");
        fs::write(&file, config).expect("writing the registry's configuration");
        let log = fs::File::create(directory.path().join("log")).expect("making the registry's log");
        let process = Command::new(parts::stock("docker-registry").unwrap_or_else(|| "docker-registry".into()))
            .arg("serve")
            .arg(&file)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log)
            .spawn()
            .expect("running docker-registry; tools/setup.sh installs it, tools/freebsd-test.sh brings it");
        let mut client = Client::new(address);
        if access == Access::Password {
            client.credentials = Some(format!("{USER}:{PASSWORD}"));
        }
        let registry = Self { address, process, client, directory };
        eventually("the registry answers", || registry.client.request("GET", "/v2/").try_send().ok());
        registry
    }

    /// The name under which an image is pulled from here.
    pub fn name(&self, repository: &str, tag: &str) -> String {
        format!("{}/{repository}:{tag}", self.address)
    }

    /// Pushes an image as the distribution spec says: blobs, then the manifest. Gives the manifest's digest.
    pub fn push(&self, repository: &str, tag: &str, image: &Image) -> String {
        for layer in &image.layers {
            self.push_blob(repository, &layer.gz);
        }
        self.push_blob(repository, &image.config());
        self.push_manifest(repository, tag, MANIFEST, image.manifest())
    }

    /// Pushes one blob.
    pub fn push_blob(&self, repository: &str, content: &[u8]) {
        let answer =
            self.client.request("POST", &format!("/v2/{repository}/blobs/uploads/")).body("").send().expect(202);
        let location = answer.header("location").expect("the registry names a place for the upload");
        let target = location.strip_prefix(&format!("http://{}", self.address)).unwrap_or(location);
        let join = if target.contains('?') { '&' } else { '?' };
        self.client
            .request("PUT", &format!("{target}{join}digest={}", digest(content)))
            .header("Content-Type", "application/octet-stream")
            .body(content)
            .send()
            .expect(201);
    }

    /// Pushes a manifest or index; gives its digest.
    pub fn push_manifest(&self, repository: &str, tag: &str, media_type: &str, manifest: Vec<u8>) -> String {
        let name = digest(&manifest);
        self.request("PUT", &format!("/v2/{repository}/manifests/{tag}"))
            .header("Content-Type", media_type)
            .body(manifest)
            .send()
            .expect(201);
        name
    }

    /// A request of the registry's own user.
    pub fn request(&self, method: &str, target: &str) -> Request {
        self.client.request(method, target)
    }

    /// The file that holds a blob, to damage it.
    pub fn blob_file(&self, name: &str) -> PathBuf {
        let hex = name.strip_prefix("sha256:").expect("a sha256 digest");
        self.directory.path().join(format!("storage/docker/registry/v2/blobs/sha256/{}/{hex}/data", &hex[..2]))
    }

    /// Ends it, as if it were out of reach.
    pub fn stop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

impl Drop for Registry {
    fn drop(&mut self) {
        self.stop();
    }
}

/// A loopback address that was free a moment ago.
pub fn free_address() -> SocketAddr {
    TcpListener::bind("127.0.0.1:0").and_then(|l| l.local_addr()).expect("a free port on loopback")
}
