//! From a compiled program to an OCI layout, the same bytes for the same inputs: names sorted, no times, no owners but
//! root, nothing compressed (a layer that is not shipped gains nothing, and no library's version shows).
//!
//! ```text
//! layer 1   /etc/passwd, group, nsswitch.conf, certificates; /usr/share/zoneinfo.zip; /tmp, home
//! layer 2   the program, and what its template wants beside it
//! ```

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{Read, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use serde_json::json;

use super::elf::Elf;
use super::recipe::Recipe;
use crate::fault::{Context, Fault, Kind, Result};
use crate::image::{Digest, Platform};

/// Where Go programs look for certificates on Linux; FreeBSD's place is a link to it.
const CERTIFICATES: &str = "etc/ssl/certs/ca-certificates.crt";
/// The user that a built program runs as.
const USER: u32 = 10_001;
/// Most bytes of a program.
const PROGRAM: u64 = 1 << 30;

/// What a tar is made of, bytes.
const BLOCK: usize = 512;

/// A file for a layer.
struct Entry {
    mode: u32,
    content: Content,
}

enum Content {
    Directory,
    Bytes(Vec<u8>),
    Link(String),
}

impl Entry {
    /// How many bytes of a tar it takes.
    fn room(&self) -> usize {
        let content = if let Content::Bytes(bytes) = &self.content { bytes.len() } else { 0 };
        BLOCK + content.next_multiple_of(BLOCK)
    }
}

/// What is the same in all images of one Go version on one host.
pub struct Base {
    certificates: Vec<u8>,
    zones: Vec<u8>,
}

impl Base {
    /// The host's certificates, and the time zones that come with the Go at `root`.
    pub fn read(root: &Path) -> Result<Self> {
        let bundle = crate::image::registry::bundle().ok_or_else(|| {
            Fault::new(
                Kind::Unsupported,
                "this host has no bundle of CA certificates; install the package ca-certificates or ca_root_nss",
            )
        })?;
        let zones = root.join("lib/time/zoneinfo.zip");
        let zones = fs::read(&zones).context(|| format!("cannot read {}", zones.display()))?;
        Ok(Self { certificates: bundle, zones })
    }

    /// Identifies its content.
    pub fn digest(&self) -> Digest {
        Digest::of([Digest::of(&self.certificates).as_str(), Digest::of(&self.zones).as_str()].concat())
    }

    fn layer(&self) -> Result<Vec<u8>> {
        let mut entries = BTreeMap::new();
        let passwd = format!("root:x:0:0:root:/root:/sbin/nologin\napp:x:{USER}:{USER}:app:/home/app:/sbin/nologin\n");
        for (path, text) in [
            ("etc/passwd", passwd),
            ("etc/group", format!("root:x:0:\napp:x:{USER}:\n")),
            ("etc/nsswitch.conf", "hosts: files dns\n".to_owned()),
        ] {
            entries.insert(path.to_owned(), file(0o644, text.into_bytes()));
        }
        entries.insert(CERTIFICATES.into(), file(0o644, self.certificates.clone()));
        let link = Entry { mode: 0o777, content: Content::Link("certs/ca-certificates.crt".into()) };
        entries.insert("etc/ssl/cert.pem".into(), link);
        entries.insert("usr/share/zoneinfo.zip".into(), file(0o644, self.zones.clone()));
        entries.insert("tmp".into(), Entry { mode: 0o1777, content: Content::Directory });
        archive(entries)
    }
}

fn file(mode: u32, bytes: Vec<u8>) -> Entry {
    Entry { mode, content: Content::Bytes(bytes) }
}

/// What goes into an image.
pub struct Parts<'a> {
    /// What all have.
    pub base: &'a Base,
    /// The compiled program.
    pub program: Vec<u8>,
    /// An of-watchdog, if the recipe wants one.
    pub watchdog: Option<Vec<u8>>,
    /// The copied source tree, for files that go beside the program.
    pub source: &'a Path,
    /// How it starts.
    pub recipe: &'a Recipe,
    /// What it is for.
    pub platform: &'a Platform,
}

/// Reads the program that a build left: a plain file, no link, statically linked, for `platform`.
pub fn program(path: &Path, platform: &Platform) -> Result<Vec<u8>> {
    let what = || "the build left no program that can be used".to_owned();
    let mut options = fs::OpenOptions::new();
    let opened = options.read(true).custom_flags(libc::O_NOFOLLOW | libc::O_NONBLOCK).open(path).context(what)?;
    let metadata = opened.metadata().context(what)?;
    if !metadata.is_file() || metadata.nlink() != 1 || metadata.len() > PROGRAM {
        return Err(Fault::invalid("it is no plain file, or too large")).context(what);
    }
    let mut bytes = Vec::new();
    opened.take(PROGRAM).read_to_end(&mut bytes).context(what)?;
    let elf = Elf::read(&bytes).context(what)?;
    if elf.platform != format!("{}/{}", platform.os, platform.architecture) || elf.interpreter.is_some() {
        return Err(Fault::invalid(format!("it is for {}, or not statically linked", elf.platform))).context(what);
    }
    Ok(bytes)
}

/// Writes the OCI layout of an image into `dir`, which must not exist.
pub fn write_layout(dir: &Path, parts: Parts<'_>) -> Result<()> {
    let blobs = dir.join("blobs/sha256");
    fs::create_dir_all(&blobs).context(|| format!("cannot make {}", blobs.display()))?;
    let keep = |bytes: &[u8], media: &str| -> Result<serde_json::Value> {
        let digest = Digest::of(bytes);
        put(&blobs.join(digest.hex()), bytes)?;
        Ok(json!({"mediaType": media, "digest": digest.as_str(), "size": bytes.len()}))
    };
    let (recipe, platform) = (parts.recipe, parts.platform);
    let layers = [parts.base.layer()?, top(parts)?];
    let mut descriptors = Vec::new();
    for layer in &layers {
        descriptors.push(keep(layer, "application/vnd.oci.image.layer.v1.tar")?);
    }
    let diff_ids: Vec<&serde_json::Value> = descriptors.iter().map(|layer| &layer["digest"]).collect();
    let mut env = BTreeMap::from([
        ("PATH".to_owned(), "/usr/local/bin:/usr/bin:/bin".to_owned()),
        ("ZONEINFO".to_owned(), "/usr/share/zoneinfo.zip".to_owned()),
    ]);
    env.extend(recipe.env.clone());
    let env: Vec<String> = env.iter().map(|(name, value)| format!("{name}={value}")).collect();
    let mut config = json!({
        "created": "1970-01-01T00:00:00Z",
        "architecture": platform.architecture,
        "os": platform.os,
        "config": {
            "User": format!("{USER}:{USER}"),
            "Env": env,
            "Entrypoint": recipe.argv,
            "WorkingDir": recipe.workdir,
            "ExposedPorts": {"8080/tcp": {}},
        },
        "rootfs": {"type": "layers", "diff_ids": diff_ids},
    });
    if let Some(variant) = &platform.variant {
        config["variant"] = json!(variant);
    }
    let config = keep(config.to_string().as_bytes(), "application/vnd.oci.image.config.v1+json")?;
    let manifest_type = "application/vnd.oci.image.manifest.v1+json";
    let manifest = json!({"schemaVersion": 2, "mediaType": manifest_type, "config": config, "layers": descriptors});
    let manifest = keep(manifest.to_string().as_bytes(), manifest_type)?;
    let index_type = "application/vnd.oci.image.index.v1+json";
    let index = json!({"schemaVersion": 2, "mediaType": index_type, "manifests": [manifest]});
    put(&dir.join("index.json"), index.to_string().as_bytes())?;
    put(&dir.join("oci-layout"), br#"{"imageLayoutVersion":"1.0.0"}"#)
}

fn put(path: &Path, bytes: &[u8]) -> Result<()> {
    File::create(path).and_then(|mut file| file.write_all(bytes)).context(|| format!("cannot write {}", path.display()))
}

fn top(parts: Parts<'_>) -> Result<Vec<u8>> {
    let home = parts.recipe.workdir.trim_matches('/').to_owned();
    if home.split('/').any(|part| part.is_empty() || part == "." || part == "..") {
        return Err(Fault::invalid(format!("WORKDIR {} cannot be the program's directory", parts.recipe.workdir)));
    }
    let mut entries = BTreeMap::new();
    entries.insert(format!("{home}/handler"), file(0o755, parts.program));
    if let Some(watchdog) = parts.watchdog {
        entries.insert(format!("{home}/fwatchdog"), file(0o755, watchdog));
    }
    if let Some((from, name)) = &parts.recipe.files {
        beside(&parts.source.join(from), &format!("{home}/{name}"), &mut entries)?;
    }
    archive(entries)
}

/// Plain files and directories of a copied tree; links were checked when it was copied, and are left out here.
fn beside(from: &Path, at: &str, entries: &mut BTreeMap<String, Entry>) -> Result<()> {
    entries.insert(at.to_owned(), Entry { mode: 0o755, content: Content::Directory });
    for entry in fs::read_dir(from).context(|| format!("cannot read {}", from.display()))? {
        let entry = entry?;
        let name = entry.file_name().into_string().map_err(|name| {
            Fault::invalid(format!("file {} has a name that is no UTF-8", PathBuf::from(name).display()))
        })?;
        let (path, kind) = (format!("{at}/{name}"), entry.file_type()?);
        if kind.is_dir() {
            beside(&entry.path(), &path, entries)?;
        } else if kind.is_file() {
            let mode = if entry.metadata()?.permissions().mode() & 0o111 != 0 { 0o755 } else { 0o644 };
            let bytes = fs::read(entry.path()).context(|| format!("cannot read {path}"))?;
            entries.insert(path, file(mode, bytes));
        }
    }
    Ok(())
}

/// A tar with the directories that its entries need.
fn archive(mut entries: BTreeMap<String, Entry>) -> Result<Vec<u8>> {
    let parents: Vec<String> =
        entries.keys().flat_map(|path| path.match_indices('/').map(|(at, _)| path[..at].to_owned())).collect();
    for parent in parents {
        entries.entry(parent).or_insert(Entry { mode: 0o755, content: Content::Directory });
    }
    // Without it the bytes of a large program would move again and again.
    let room = entries.values().map(Entry::room).sum::<usize>() + 2 * BLOCK;
    let mut archive = tar::Builder::new(Vec::with_capacity(room));
    for (path, entry) in entries {
        let mut header = tar::Header::new_ustar();
        header.set_mode(entry.mode);
        header.set_mtime(0);
        header.set_uid(0);
        header.set_gid(0);
        let what = || format!("cannot put {path} into a layer");
        match entry.content {
            Content::Directory => {
                header.set_entry_type(tar::EntryType::Directory);
                header.set_size(0);
                archive.append_data(&mut header, format!("{path}/"), std::io::empty()).context(what)?;
            }
            Content::Bytes(bytes) => {
                header.set_entry_type(tar::EntryType::Regular);
                header.set_size(bytes.len() as u64);
                archive.append_data(&mut header, &path, &bytes[..]).context(what)?;
            }
            Content::Link(target) => {
                header.set_entry_type(tar::EntryType::Symlink);
                header.set_size(0);
                archive.append_link(&mut header, &path, target).context(what)?;
            }
        }
    }
    archive.into_inner().context(|| "cannot finish a layer")
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What a build leaves is somebody else's: a link or a second name of a file could lead to one of the host.
    #[test]
    fn a_link_where_the_program_should_be_is_not_followed() {
        let temp = tempfile::tempdir().unwrap();
        let place = |name: &str| temp.path().join(name);
        let platform = "linux/amd64".parse().unwrap();
        let refused = |name: &str| program(&place(name), &platform).unwrap_err().to_string();
        fs::write(place("plain"), "no program").unwrap();
        std::os::unix::fs::symlink(place("plain"), place("link")).unwrap();
        fs::create_dir(place("directory")).unwrap();
        // Read, and no program; the others are not even read.
        assert!(refused("plain").contains("ELF"));
        for name in ["link", "directory", "nothing"] {
            let said = refused(name);
            assert!(said.contains("no program that can be used") && !said.contains("ELF"), "{name}: {said}");
        }
        fs::hard_link(place("plain"), place("second")).unwrap();
        assert!(!refused("second").contains("ELF"));
    }
}
