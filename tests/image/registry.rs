//! Pulling from a real registry (Debian's docker-registry) on loopback.

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use faas_jails::fault::Kind;
use faas_jails::image::{Credentials, Digest, Origin, PullPolicy, Reference, Silent};
use faas_jails::storage::Whiteouts;

use crate::support::*;

/// docker-registry with its data in a temporary directory; ends when this does.
pub struct Registry {
    child: Child,
    pub address: String,
    _dir: tempfile::TempDir,
}

fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

impl Registry {
    /// `None`, loudly, where the program is not installed.
    pub fn start(test: &str) -> Option<Self> {
        let program = ["/usr/bin/docker-registry", "/usr/local/bin/docker-registry"];
        let Some(program) = program.iter().find(|path| Path::new(path).exists()) else {
            eprintln!("SKIPPED: {test} needs the program docker-registry");
            return None;
        };
        let dir = tempfile::tempdir().unwrap();
        let address = format!("127.0.0.1:{}", free_port());
        let config = dir.path().join("config.yml");
        let text = format!(
            "version: 0.1\nlog: {{level: error}}\nstorage: {{filesystem: {{rootdirectory: {}}}, delete: {{enabled: true}}}}\nhttp: {{addr: {address}}}\n",
            dir.path().join("data").display()
        );
        std::fs::write(&config, text).unwrap();
        let child = Command::new(program).arg("serve").arg(&config).stdout(Stdio::null()).stderr(Stdio::null()).spawn();
        let registry = Self { child: child.unwrap(), address, _dir: dir };
        let started = Instant::now();
        while TcpStream::connect(&registry.address).is_err() {
            assert!(started.elapsed() < Duration::from_secs(20), "docker-registry does not answer");
            std::thread::sleep(Duration::from_millis(20));
        }
        Some(registry)
    }

    /// Puts bytes there: a blob, or a manifest under a tag or digest.
    fn put(&self, method: &str, path: &str, kind: &str, body: &[u8]) -> String {
        let mut stream = TcpStream::connect(&self.address).unwrap();
        let head = format!(
            "{method} {path} HTTP/1.1\r\nHost: {}\r\nContent-Type: {kind}\r\nContent-Length: {}\r\nConnection: close\r\n\r\n",
            self.address,
            body.len()
        );
        stream.write_all(head.as_bytes()).unwrap();
        stream.write_all(body).unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        let status: u16 = answer.split(' ').nth(1).unwrap().parse().unwrap();
        assert!((200..300).contains(&status), "{method} {path}: {answer}");
        answer
    }

    fn blob(&self, repository: &str, bytes: &[u8]) {
        let answer = self.put("POST", &format!("/v2/{repository}/blobs/uploads/"), "text/plain", b"");
        let location = answer.lines().find_map(|line| line.strip_prefix("Location: ")).unwrap().trim();
        let path = location.split_once(&self.address).map_or(location, |(_, path)| path);
        self.put("PUT", &format!("{path}&digest={}", Digest::of(bytes)), "application/octet-stream", bytes);
    }

    /// Pushes an image; returns its manifest's digest.
    pub fn push(&self, repository: &str, tag: &str, sample: &Sample) -> Digest {
        let (blobs, _) = sample.oci_blobs(gzip);
        let (manifest, rest) = blobs.split_last().unwrap();
        rest.iter().for_each(|blob| self.blob(repository, blob));
        let path = format!("/v2/{repository}/manifests/{tag}");
        self.put("PUT", &path, "application/vnd.oci.image.manifest.v1+json", manifest);
        Digest::of(manifest)
    }

    /// Pushes one image for several platforms; returns the index's digest.
    pub fn push_index(&self, repository: &str, tag: &str, samples: &[&Sample]) -> Digest {
        let manifests: Vec<_> = samples
            .iter()
            .map(|sample| {
                let (_, descriptor) = sample.oci_blobs(gzip);
                self.push(repository, descriptor["digest"].as_str().unwrap(), sample);
                descriptor
            })
            .collect();
        let kind = "application/vnd.oci.image.index.v1+json";
        let index = serde_json::json!({"schemaVersion": 2, "mediaType": kind, "manifests": manifests}).to_string();
        self.put("PUT", &format!("/v2/{repository}/manifests/{tag}"), kind, index.as_bytes());
        Digest::of(index)
    }

    pub fn reference(&self, rest: &str) -> Reference {
        format!("{}/{rest}", self.address).parse().unwrap()
    }
}

impl Drop for Registry {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn sample(text: &str) -> Sample {
    Sample::new(vec![Tar::new().file("base", "x").end(), Tar::new().file("text", text).end()])
}

fn bench() -> Bench {
    let mut settings = settings();
    settings.registries.backoff = Duration::from_millis(1);
    Bench::with(Whiteouts::Overlay, settings)
}

fn none() -> Credentials {
    Credentials::default()
}

#[test]
fn images_are_pulled_by_tag_and_by_digest_and_refreshed_as_the_policy_says() {
    let test = "images_are_pulled_by_tag_and_by_digest_and_refreshed_as_the_policy_says";
    let Some(registry) = Registry::start(test).filter(|_| is_root(test)) else { return };
    let bench = bench();
    let digest = registry.push("team/f", "1", &sample("one"));
    let tag = registry.reference("team/f:1");
    let first = bench.store.ensure(&tag, PullPolicy::IfNotPresent, &none(), &Silent).unwrap();
    assert_eq!((first.origin, &first.manifest, &first.resolved), (Origin::Pulled, &digest, &digest));
    let text = |image: &faas_jails::image::Image| {
        std::fs::read_to_string(bench.storage.dir(&image.layers[1]).join("text")).unwrap()
    };
    assert_eq!(text(&first), "one");

    registry.push("team/f", "1", &sample("two"));
    let kept = bench.store.ensure(&tag, PullPolicy::IfNotPresent, &none(), &Silent).unwrap();
    assert_eq!(kept, first);
    let second = bench.store.ensure(&tag, PullPolicy::Always, &none(), &Silent).unwrap();
    assert_eq!(text(&second), "two");
    assert_eq!(second.layers[0], first.layers[0]);
    let same = bench.store.ensure(&tag, PullPolicy::Always, &none(), &Silent).unwrap();
    assert_eq!(same, second);

    let pinned = registry.reference(&format!("team/f@{digest}"));
    let pinned = bench.store.ensure(&pinned, PullPolicy::Always, &none(), &Silent).unwrap();
    assert_eq!(text(&pinned), "one");
    bench.assert_clean();
}

#[test]
fn of_an_index_the_image_for_this_host_is_taken() {
    let test = "of_an_index_the_image_for_this_host_is_taken";
    let Some(registry) = Registry::start(test).filter(|_| is_root(test)) else { return };
    let other = Sample { platform: ("freebsd", "amd64"), ..sample("freebsd") };
    let index = registry.push_index("f", "multi", &[&other, &sample("linux")]);
    let bench = bench();
    let image = bench.store.pull(&registry.reference("f:multi"), &none(), &Silent).unwrap();
    assert_eq!(image.platform, "linux/amd64");
    assert_eq!(image.resolved, index);
    assert_ne!(image.manifest, index);
    let again = bench.store.ensure(&image.reference, PullPolicy::Always, &none(), &Silent).unwrap();
    assert_eq!(again, image);
}

#[test]
fn an_unknown_name_is_not_found_and_a_registry_that_is_away_says_so_unless_the_image_is_here() {
    let test = "an_unknown_name_is_not_found_and_a_registry_that_is_away_says_so_unless_the_image_is_here";
    let Some(registry) = Registry::start(test).filter(|_| is_root(test)) else { return };
    let bench = bench();
    registry.push("f", "1", &sample("one"));
    let here = registry.reference("f:1");
    let image = bench.store.pull(&here, &none(), &Silent).unwrap();
    for name in ["f:2", "g:1"] {
        let fault = bench.store.pull(&registry.reference(name), &none(), &Silent).unwrap_err();
        assert_eq!(fault.kind(), Kind::NotFound, "{fault}");
    }
    let away = registry.reference("f:3");
    drop(registry);
    let fault = bench.store.ensure(&away, PullPolicy::IfNotPresent, &none(), &Silent).unwrap_err();
    assert_eq!(fault.kind(), Kind::System, "{fault}");
    assert!(fault.to_string().contains(away.registry()), "{fault}");
    assert_eq!(bench.store.ensure(&here, PullPolicy::Always, &none(), &Silent).unwrap(), image);
    bench.assert_clean();
}
