//! Makes real OCI images from parts: layers, config, manifest; as docker-save archive, OCI archive, OCI layout.

use std::collections::BTreeMap;
use std::io::Write;
use std::path::Path;

use flate2::Compression;
use flate2::write::GzEncoder;
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};

/// `sha256:` and the hexadecimal digest of these bytes.
pub fn digest(bytes: &[u8]) -> String {
    format!("sha256:{}", hex::encode(Sha256::digest(bytes)))
}

/// One layer while it is put together.
pub struct Layer {
    tar: tar::Builder<Vec<u8>>,
}

impl Default for Layer {
    fn default() -> Self {
        Self { tar: tar::Builder::new(Vec::new()) }
    }
}

impl Layer {
    /// An empty layer.
    pub fn new() -> Self {
        Self::default()
    }

    /// A regular file of root's.
    pub fn file(self, path: &str, mode: u32, content: &[u8]) -> Self {
        self.entry(path, tar::EntryType::Regular, mode, (0, 0), "", content)
    }

    /// A regular file of somebody's.
    pub fn owned_file(self, path: &str, mode: u32, owner: (u64, u64), content: &[u8]) -> Self {
        self.entry(path, tar::EntryType::Regular, mode, owner, "", content)
    }

    /// A directory of root's.
    pub fn directory(self, path: &str, mode: u32) -> Self {
        self.entry(path, tar::EntryType::Directory, mode, (0, 0), "", b"")
    }

    /// A symbolic link.
    pub fn symlink(self, path: &str, target: &str) -> Self {
        self.entry(path, tar::EntryType::Symlink, 0o777, (0, 0), target, b"")
    }

    /// A hard link to a path of the image.
    pub fn hardlink(self, path: &str, target: &str) -> Self {
        self.entry(path, tar::EntryType::Link, 0o644, (0, 0), target, b"")
    }

    /// Removes what a lower layer has at `path` (OCI image-spec layer.md, "Whiteouts").
    pub fn whiteout(self, path: &str) -> Self {
        let (parent, name) = path.rsplit_once('/').unwrap_or(("", path));
        let marker = format!("{parent}/.wh.{name}");
        self.file(marker.trim_start_matches('/'), 0o644, b"")
    }

    /// Hides everything that lower layers have in this directory.
    pub fn opaque(self, directory: &str) -> Self {
        self.file(&format!("{directory}/.wh..wh..opq"), 0o644, b"")
    }

    /// Any entry, the name taken as it is: hostile ones too.
    pub fn entry(
        mut self,
        path: &str,
        kind: tar::EntryType,
        mode: u32,
        owner: (u64, u64),
        link: &str,
        content: &[u8],
    ) -> Self {
        let mut header = tar::Header::new_ustar();
        assert!(path.len() < 100 && link.len() < 100, "name too long for a test image: {path}");
        header.as_old_mut().name[..path.len()].copy_from_slice(path.as_bytes());
        header.as_old_mut().linkname[..link.len()].copy_from_slice(link.as_bytes());
        header.set_entry_type(kind);
        header.set_mode(mode);
        header.set_uid(owner.0);
        header.set_gid(owner.1);
        header.set_mtime(1_700_000_000);
        header.set_size(content.len() as u64);
        header.set_cksum();
        self.tar.append(&header, content).expect("appending to memory");
        self
    }

    fn finish(self) -> Blob {
        let tar = self.tar.into_inner().expect("finishing a tar in memory");
        let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
        encoder.write_all(&tar).expect("compressing in memory");
        let gz = encoder.finish().expect("compressing in memory");
        Blob { diff_id: digest(&tar), digest: digest(&gz), tar, gz }
    }
}

/// A finished layer.
#[derive(Clone)]
pub struct Blob {
    /// Digest of the tar.
    pub diff_id: String,
    /// Digest of the compressed tar.
    pub digest: String,
    /// The tar.
    pub tar: Vec<u8>,
    /// The compressed tar.
    pub gz: Vec<u8>,
}

/// An image while it is put together, and afterwards.
#[derive(Clone, Default)]
pub struct Image {
    /// Its layers, lowest first.
    pub layers: Vec<Blob>,
    config: BTreeMap<&'static str, Value>,
    platform: Option<(String, String)>,
    /// Replaces the true diff-ids, to make an image that lies.
    pub claimed_diff_ids: Option<Vec<String>>,
}

impl Image {
    /// An image without layers.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a layer on top.
    pub fn layer(mut self, layer: Layer) -> Self {
        self.layers.push(layer.finish());
        self
    }

    /// Sets a member of the config object: `Entrypoint`, `Cmd`, `Env`, `User`, `WorkingDir` …
    pub fn set(mut self, name: &'static str, value: Value) -> Self {
        self.config.insert(name, value);
        self
    }

    /// Claims to be for another platform.
    pub fn platform(mut self, os: &str, architecture: &str) -> Self {
        self.platform = Some((os.to_owned(), architecture.to_owned()));
        self
    }

    /// The config blob.
    pub fn config(&self) -> Vec<u8> {
        let (os, architecture) =
            self.platform.clone().unwrap_or_else(|| (std::env::consts::OS.to_owned(), architecture().to_owned()));
        let diff_ids: Vec<_> = match &self.claimed_diff_ids {
            Some(claimed) => claimed.clone(),
            None => self.layers.iter().map(|l| l.diff_id.clone()).collect(),
        };
        json!({
            "created": "2024-01-01T00:00:00Z",
            "architecture": architecture,
            "os": os,
            "config": self.config,
            "rootfs": { "type": "layers", "diff_ids": diff_ids },
            "history": [],
        })
        .to_string()
        .into_bytes()
    }

    /// The manifest, in OCI's media types.
    pub fn manifest(&self) -> Vec<u8> {
        let config = self.config();
        let layers: Vec<_> = self
            .layers
            .iter()
            .map(|l| json!({"mediaType": "application/vnd.oci.image.layer.v1.tar+gzip", "digest": l.digest, "size": l.gz.len()}))
            .collect();
        json!({
            "schemaVersion": 2,
            "mediaType": MANIFEST,
            "config": {
                "mediaType": "application/vnd.oci.image.config.v1+json",
                "digest": digest(&config),
                "size": config.len(),
            },
            "layers": layers,
        })
        .to_string()
        .into_bytes()
    }

    /// What `docker save` writes.
    pub fn docker_save(&self, tag: &str) -> Vec<u8> {
        let config = self.config();
        let config_name = format!("{}.json", hex_of(&digest(&config)));
        let names: Vec<_> = self.layers.iter().map(|l| format!("{}/layer.tar", hex_of(&l.diff_id))).collect();
        let manifest = json!([{"Config": config_name, "RepoTags": [tag], "Layers": names}]);
        let mut archive = Archive::new();
        for (name, layer) in names.iter().zip(&self.layers) {
            archive.add(name, &layer.tar);
        }
        archive.add(&config_name, &config);
        archive.add("manifest.json", manifest.to_string().as_bytes());
        archive.finish()
    }

    /// An OCI layout in a tar.
    pub fn oci_archive(&self, tag: &str) -> Vec<u8> {
        let mut archive = Archive::new();
        for (path, content) in self.layout_files(tag) {
            archive.add(&path, &content);
        }
        archive.finish()
    }

    /// An OCI layout in a directory.
    pub fn oci_layout(&self, tag: &str, directory: &Path) {
        for (path, content) in self.layout_files(tag) {
            let path = directory.join(path);
            std::fs::create_dir_all(path.parent().expect("has a parent")).expect("making the layout's directories");
            std::fs::write(&path, content).expect("writing the layout");
        }
    }

    fn layout_files(&self, tag: &str) -> Vec<(String, Vec<u8>)> {
        let (manifest, config) = (self.manifest(), self.config());
        let index = json!({
            "schemaVersion": 2,
            "mediaType": "application/vnd.oci.image.index.v1+json",
            "manifests": [{
                "mediaType": MANIFEST,
                "digest": digest(&manifest),
                "size": manifest.len(),
                "annotations": {
                    "io.containerd.image.name": tag,
                    "org.opencontainers.image.ref.name": tag.rsplit_once(':').map_or("latest", |(_, t)| t),
                },
            }],
        });
        let mut files = vec![("oci-layout".to_owned(), br#"{"imageLayoutVersion":"1.0.0"}"#.to_vec())];
        let mut blob =
            |content: &[u8]| files.push((format!("blobs/sha256/{}", hex_of(&digest(content))), content.to_vec()));
        blob(&config);
        blob(&manifest);
        for layer in &self.layers {
            blob(&layer.gz);
        }
        files.push(("index.json".to_owned(), index.to_string().into_bytes()));
        files
    }
}

/// Media type of an OCI image manifest.
pub const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";

fn hex_of(digest: &str) -> &str {
    digest.rsplit_once(':').map_or(digest, |(_, hex)| hex)
}

/// The architecture as OCI (Go) calls it.
pub fn architecture() -> &'static str {
    match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    }
}

/// A plain tar in memory.
pub struct Archive(tar::Builder<Vec<u8>>);

impl Archive {
    /// An empty one.
    #[allow(clippy::new_without_default)]
    pub fn new() -> Self {
        Self(tar::Builder::new(Vec::new()))
    }

    /// Adds a file.
    pub fn add(&mut self, path: &str, content: &[u8]) {
        let mut header = tar::Header::new_gnu();
        header.set_mode(0o644);
        header.set_uid(0);
        header.set_gid(0);
        header.set_mtime(0);
        header.set_size(content.len() as u64);
        self.0.append_data(&mut header, path, content).expect("appending to memory");
    }

    /// The archive's bytes.
    pub fn finish(self) -> Vec<u8> {
        self.0.into_inner().expect("finishing a tar in memory")
    }
}
