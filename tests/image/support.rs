//! What the image tests share: storage in plain directories, tars written entry by entry, archives of images.

use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use faas_jails::fault::{Fault, Kind, Result};
use faas_jails::function::ReplicaName;
use faas_jails::image::{Digest, Layer, Progress, Settings, Silent, Store, Target};
use faas_jails::storage::{Inventory, LayerOnDisk, Root, RootOptions, Staging, Storage, Whiteouts};
use flate2::Compression;
use flate2::write::GzEncoder;
use serde_json::json;
use tempfile::TempDir;

/// Layers as plain directories. With [`Whiteouts::Apply`] a layer starts as a copy of its parent and is kept by
/// chain-id, as on ZFS; with [`Whiteouts::Overlay`] it is kept alone, by diff-id.
pub struct PlainStorage {
    pub root: PathBuf,
    pub style: Whiteouts,
}

impl PlainStorage {
    pub fn id<'l>(&self, layer: &'l Layer) -> &'l Digest {
        match self.style {
            Whiteouts::Apply => &layer.chain_id,
            Whiteouts::Overlay => &layer.diff_id,
        }
    }

    pub fn dir(&self, layer: &Layer) -> PathBuf {
        self.root.join("layers").join(self.id(layer).hex())
    }
}

impl Storage for PlainStorage {
    fn has(&self, layer: &Layer) -> Result<bool> {
        Ok(self.dir(layer).exists())
    }

    fn stage(&self, layer: &Layer) -> Result<Staging> {
        let dir = self.root.join("staging").join(self.id(layer).hex());
        // Two at the same layer at once would be a defect of the store.
        assert!(!dir.exists(), "{} is being made already", layer.diff_id);
        if let (Whiteouts::Apply, Some(parent)) = (self.style, &layer.parent) {
            let parent = self.root.join("layers").join(parent.hex());
            if !parent.exists() {
                // As from a storage that is slow to say so: by then the layer below may be here.
                std::thread::sleep(std::time::Duration::from_millis(50));
                return Err(Fault::not_found("the layer below is not here"));
            }
            fs::create_dir_all(self.root.join("staging"))?;
            let copied = std::process::Command::new("cp").arg("-a").arg(&parent).arg(&dir).status()?;
            assert!(copied.success());
        } else {
            fs::create_dir_all(&dir)?;
        }
        Ok(Staging { layer: layer.clone(), dir, whiteouts: self.style })
    }

    fn commit(&self, staging: Staging) -> Result<()> {
        fs::create_dir_all(self.root.join("layers"))?;
        Ok(fs::rename(&staging.dir, self.dir(&staging.layer))?)
    }

    fn abort(&self, staging: Staging) -> Result<()> {
        Ok(fs::remove_dir_all(staging.dir)?)
    }

    fn clone_root(&self, _: &[Layer], _: &ReplicaName, _: &RootOptions) -> Result<Root> {
        Err(Fault::new(Kind::Unsupported, "image tests start no replica"))
    }

    fn destroy_root(&self, _: &ReplicaName) -> Result<()> {
        Ok(())
    }

    fn remove_layer(&self, layer: &Layer) -> Result<()> {
        match fs::remove_dir_all(self.dir(layer)) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(error.into()),
            _ => Ok(()),
        }
    }

    fn inventory(&self) -> Result<Inventory> {
        let mut inventory = Inventory::default();
        for entry in fs::read_dir(self.root.join("layers")).into_iter().flatten() {
            let id = format!("sha256:{}", entry?.file_name().to_string_lossy());
            inventory.layers.push(LayerOnDisk { id, bytes: Some(1) });
        }
        Ok(inventory)
    }

    fn recover(&self) -> Result<()> {
        match fs::remove_dir_all(self.root.join("staging")) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(error.into()),
            _ => Ok(()),
        }
    }
}

/// Both ways of keeping layers; overlayfs's marks exist on Linux only.
pub const STYLES: &[Whiteouts] =
    if cfg!(target_os = "linux") { &[Whiteouts::Apply, Whiteouts::Overlay] } else { &[Whiteouts::Apply] };

/// A store over [`PlainStorage`] in a directory that goes when this does.
pub struct Bench {
    pub dir: TempDir,
    pub storage: Arc<PlainStorage>,
    pub store: Store,
}

pub fn settings() -> Settings {
    Settings::new(Target::linux("x86_64"))
}

impl Bench {
    pub fn new(style: Whiteouts) -> Self {
        Self::with(style, settings())
    }

    pub fn with(style: Whiteouts, settings: Settings) -> Self {
        Self::at(tempfile::tempdir().unwrap(), style, settings)
    }

    pub fn at(dir: TempDir, style: Whiteouts, settings: Settings) -> Self {
        let storage = Arc::new(PlainStorage { root: dir.path().join("storage"), style });
        let store = Store::open(dir.path(), storage.clone(), settings).unwrap();
        Self { dir, storage, store }
    }

    /// Loads an archive written to a file here.
    pub fn load(&self, archive: &[u8]) -> Result<Vec<faas_jails::image::Image>> {
        self.load_telling(archive, &Silent)
    }

    pub fn load_telling(&self, archive: &[u8], progress: &dyn Progress) -> Result<Vec<faas_jails::image::Image>> {
        let path = self.dir.path().join("archive.tar");
        fs::write(&path, archive).unwrap();
        self.store.load(faas_jails::image::Source::path(&path), None, progress)
    }

    /// Nothing half made is left.
    pub fn assert_clean(&self) {
        for place in ["storage/staging", "images/tmp"] {
            let left: Vec<_> = fs::read_dir(self.dir.path().join(place)).into_iter().flatten().collect();
            assert!(left.is_empty(), "{place} holds {left:?}");
        }
    }
}

/// Is this process root? Says loudly what is skipped when not.
pub fn is_root(test: &str) -> bool {
    let root = rustix::process::geteuid().is_root();
    if !root {
        eprintln!("SKIPPED: {test} needs root (it sets owners and overlay marks)");
    }
    root
}

/// A tar, entry by entry; names are written as they are, however bad.
#[derive(Default)]
pub struct Tar(Vec<u8>);

/// One entry's header fields.
pub struct Entry<'a> {
    pub name: &'a [u8],
    pub kind: u8,
    pub link: &'a [u8],
    pub mode: u32,
    pub uid: u64,
    pub gid: u64,
    pub mtime: u64,
    pub data: &'a [u8],
    /// What the header claims; the data's length when absent.
    pub size: Option<u64>,
}

impl Default for Entry<'_> {
    fn default() -> Self {
        Self { name: b"", kind: b'0', link: b"", mode: 0o644, uid: 0, gid: 0, mtime: 1_000_000, data: b"", size: None }
    }
}

impl Tar {
    pub fn new() -> Self {
        Self::default()
    }

    pub fn entry(mut self, entry: &Entry<'_>) -> Self {
        let mut header = tar::Header::new_ustar();
        let bytes = header.as_mut_bytes();
        assert!(entry.name.len() <= 100 && entry.link.len() <= 100);
        bytes[..entry.name.len()].copy_from_slice(entry.name);
        bytes[157..157 + entry.link.len()].copy_from_slice(entry.link);
        bytes[156] = entry.kind;
        header.set_mode(entry.mode);
        header.set_uid(entry.uid);
        header.set_gid(entry.gid);
        header.set_mtime(entry.mtime);
        header.set_size(entry.size.unwrap_or(entry.data.len() as u64));
        header.set_cksum();
        self.0.extend_from_slice(header.as_bytes());
        self.raw(entry.data)
    }

    /// Bytes as they are, padded to a block.
    pub fn raw(mut self, bytes: &[u8]) -> Self {
        self.0.extend_from_slice(bytes);
        self.0.resize(self.0.len().next_multiple_of(512), 0);
        self
    }

    pub fn file(self, name: &str, data: impl AsRef<[u8]>) -> Self {
        self.entry(&Entry { name: name.as_bytes(), data: data.as_ref(), ..Entry::default() })
    }

    pub fn dir(self, name: &str) -> Self {
        self.entry(&Entry { name: name.as_bytes(), kind: b'5', mode: 0o755, ..Entry::default() })
    }

    pub fn symlink(self, name: &str, target: &str) -> Self {
        self.entry(&Entry {
            name: name.as_bytes(),
            kind: b'2',
            link: target.as_bytes(),
            mode: 0o777,
            ..Entry::default()
        })
    }

    pub fn hardlink(self, name: &str, target: &str) -> Self {
        self.entry(&Entry { name: name.as_bytes(), kind: b'1', link: target.as_bytes(), ..Entry::default() })
    }

    /// A PAX extended header for the next entry.
    pub fn pax(self, records: &[(&str, &[u8])]) -> Self {
        let mut body = Vec::new();
        for (key, value) in records {
            let rest = key.len() + value.len() + 3;
            let mut length = rest + 1;
            while length != rest + length.to_string().len() {
                length = rest + length.to_string().len();
            }
            body.extend_from_slice(format!("{length} {key}=").as_bytes());
            body.extend_from_slice(value);
            body.push(b'\n');
        }
        self.entry(&Entry { name: b"PaxHeaders/x", kind: b'x', data: &body, ..Entry::default() })
    }

    pub fn end(mut self) -> Vec<u8> {
        self.0.resize(self.0.len() + 1024, 0);
        self.0
    }

    /// Without the two blocks of zeroes.
    pub fn cut(self) -> Vec<u8> {
        self.0
    }
}

pub fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

pub fn zstd(bytes: &[u8]) -> Vec<u8> {
    zstd::encode_all(bytes, 1).unwrap()
}

/// An image to be archived: its layers' tars, and what is in its config.
pub struct Sample {
    pub layers: Vec<Vec<u8>>,
    pub config: serde_json::Value,
    pub platform: (&'static str, &'static str),
}

impl Sample {
    pub fn new(layers: Vec<Vec<u8>>) -> Self {
        Self { layers, config: json!({"Cmd": ["/bin/true"]}), platform: ("linux", "amd64") }
    }

    pub fn config_json(&self) -> Vec<u8> {
        let ids: Vec<String> = self.layers.iter().map(|layer| Digest::of(layer).to_string()).collect();
        serde_json::to_vec(&json!({
            "os": self.platform.0, "architecture": self.platform.1, "config": self.config,
            "rootfs": {"type": "layers", "diff_ids": ids},
        }))
        .unwrap()
    }

    /// As `docker save` up to version 24 writes it.
    pub fn docker_save(&self, tags: &[&str]) -> Vec<u8> {
        let config = self.config_json();
        let name = format!("{}.json", Digest::of(&config).hex());
        let members: Vec<String> = (0..self.layers.len()).map(|at| format!("layer{at}/layer.tar")).collect();
        let manifest = json!([{"Config": name, "RepoTags": tags, "Layers": members}]);
        let mut tar = Tar::new().file(&name, &config);
        for (member, layer) in members.iter().zip(&self.layers) {
            tar = tar.file(member, layer);
        }
        tar.file("manifest.json", manifest.to_string()).end()
    }

    /// The blobs of an OCI image (manifest last) and the manifest's descriptor; layers packed by `pack`.
    pub fn oci_blobs(&self, pack: fn(&[u8]) -> Vec<u8>) -> (Vec<Vec<u8>>, serde_json::Value) {
        let config = self.config_json();
        let mut blobs = vec![config.clone()];
        let mut layers = Vec::new();
        for layer in &self.layers {
            let packed = pack(layer);
            layers.push(json!({"mediaType": "application/vnd.oci.image.layer.v1.tar+gzip",
                "digest": Digest::of(&packed).to_string(), "size": packed.len()}));
            blobs.push(packed);
        }
        let manifest = json!({"schemaVersion": 2, "mediaType": "application/vnd.oci.image.manifest.v1+json",
            "config": {"mediaType": "application/vnd.oci.image.config.v1+json",
                "digest": Digest::of(&config).to_string(), "size": config.len()},
            "layers": layers})
        .to_string()
        .into_bytes();
        let descriptor = json!({"mediaType": "application/vnd.oci.image.manifest.v1+json",
            "digest": Digest::of(&manifest).to_string(), "size": manifest.len(),
            "platform": {"os": self.platform.0, "architecture": self.platform.1}});
        blobs.push(manifest);
        (blobs, descriptor)
    }

    /// An OCI archive with this one image.
    pub fn oci_archive(&self, name: &str, pack: fn(&[u8]) -> Vec<u8>) -> Vec<u8> {
        oci_archive(&[(name, self)], pack)
    }
}

/// An OCI archive of several images; those of one name are one image for several platforms.
pub fn oci_archive(images: &[(&str, &Sample)], pack: fn(&[u8]) -> Vec<u8>) -> Vec<u8> {
    let mut tar = Tar::new().file("oci-layout", r#"{"imageLayoutVersion":"1.0.0"}"#);
    let mut manifests = Vec::new();
    for (name, image) in images {
        let (blobs, mut descriptor) = image.oci_blobs(pack);
        descriptor["annotations"] = json!({"org.opencontainers.image.ref.name": name});
        manifests.push(descriptor);
        for blob in blobs {
            tar = tar.file(&format!("blobs/sha256/{}", Digest::of(&blob).hex()), blob);
        }
    }
    tar.file("index.json", json!({"schemaVersion": 2, "manifests": manifests}).to_string()).end()
}

/// Unpacks an archive as tar(1) does.
pub fn untar(archive: &[u8], into: &Path) {
    fs::create_dir_all(into).unwrap();
    let path = into.with_extension("tmp");
    fs::write(&path, archive).unwrap();
    let done = std::process::Command::new("tar").arg("-xf").arg(&path).arg("-C").arg(into).status().unwrap();
    assert!(done.success());
    fs::remove_file(path).unwrap();
}
