//! What faas-cli sends to a remote builder: one signed tar with a build context, a configuration and, perhaps, secrets.
//!
//! ```text
//! context, context/…            the template with the handler in it
//! com.openfaas.docker.config    JSON: image, build arguments, platforms
//! com.openfaas.secrets          YAML: build secrets, sealed for this builder's key
//! ```
//!
//! The signature is checked first, then every name in the tar; only then is anything unpacked.

use std::collections::BTreeMap;
use std::io::Read;
use std::path::{Component, Path, PathBuf};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use crypto_box::aead::Aead;
use crypto_box::{PublicKey, SalsaBox, SecretKey};
use serde::Deserialize;
use tar::EntryType;

use super::tree::Copier;
use crate::fault::{Context, Fault, Kind, Result};
use crate::files;
use crate::image::{Platform, Reference};

/// The entry with the configuration.
const CONFIG: &str = "com.openfaas.docker.config";
/// The entry with the secrets.
const SECRETS: &str = "com.openfaas.secrets";
/// Most bytes of either.
const SMALL: u64 = 1 << 20;
/// NaCl's crypto_box takes nonces of this length.
const NONCE: usize = 24;

/// Checks `sha256=<hex>` against the body, in constant time.
pub fn check_signature(secret: &[u8], header: Option<&str>, body: &[u8]) -> Result<()> {
    let denied = |why: &str| Fault::new(Kind::Denied, format!("the build is refused: {why}"));
    let header = header.ok_or_else(|| denied("it is not signed (X-Build-Signature)"))?;
    let signature = header.strip_prefix("sha256=").and_then(|hex| hex::decode(hex).ok());
    let signature =
        signature.ok_or_else(|| denied("its signature is none: sha256= and hexadecimal digits are needed"))?;
    let key = ring::hmac::Key::new(ring::hmac::HMAC_SHA256, secret);
    ring::hmac::verify(&key, body, &signature)
        .map_err(|_| denied("its signature is wrong: is the payload secret the same on both sides?"))
}

/// The configuration as it is sent.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Wire {
    image: String,
    #[serde(default)]
    build_args: Option<BTreeMap<String, String>>,
    #[serde(default)]
    platforms: Option<Vec<String>>,
    #[serde(default)]
    skip_push: bool,
}

/// A remote build, checked.
#[derive(Debug)]
pub struct Parcel {
    /// What to call the image.
    pub image: Reference,
    /// Build arguments.
    pub args: BTreeMap<String, String>,
    /// What it is for, if it says so.
    pub platforms: Vec<Platform>,
    /// Whether the image is not to be pushed.
    pub skip_push: bool,
    /// The sealed secrets, as they came.
    pub sealed: Option<Vec<u8>>,
}

/// What an entry of the tar is.
enum Place {
    Context(PathBuf),
    Config,
    Secrets,
}

impl Parcel {
    /// Reads a tar without unpacking it.
    pub fn read(body: &[u8]) -> Result<Self> {
        let (mut config, mut sealed) = (None, None);
        let mut archive = tar::Archive::new(body);
        for entry in archive.entries().context(|| "the request is no tar")? {
            let mut entry = entry.context(|| "the request's tar is damaged")?;
            let kind = entry.header().entry_type();
            match place(&entry_path(&entry)?)? {
                Place::Config => config = Some(small(&mut entry)?),
                Place::Secrets => sealed = Some(small(&mut entry)?),
                Place::Context(path) => match kind {
                    EntryType::Regular | EntryType::Directory | EntryType::Symlink | EntryType::Continuous => {}
                    _ => {
                        let path = path.display();
                        return Err(Fault::invalid(format!(
                            "{path} in the request's tar is no file, directory or link"
                        )));
                    }
                },
            }
        }
        let config = config.ok_or_else(|| Fault::invalid(format!("the request's tar has no {CONFIG}")))?;
        let wire: Wire = serde_json::from_slice(&config).map_err(|e| Fault::invalid(format!("{CONFIG}: {e}")))?;
        let platforms = wire.platforms.unwrap_or_default();
        let named = platforms.iter().map(|text| text.trim()).filter(|text| !text.is_empty());
        Ok(Self {
            image: wire.image.parse()?,
            args: wire.build_args.unwrap_or_default(),
            platforms: named.map(str::parse).collect::<Result<_>>()?,
            skip_push: wire.skip_push,
            sealed,
        })
    }

    /// Unpacks the context of the tar that was read.
    pub fn unpack(body: &[u8], to: &mut Copier) -> Result<()> {
        let mut archive = tar::Archive::new(body);
        for entry in archive.entries().context(|| "the request is no tar")? {
            let mut entry = entry.context(|| "the request's tar is damaged")?;
            let Place::Context(path) = place(&entry_path(&entry)?)? else { continue };
            match entry.header().entry_type() {
                EntryType::Directory => to.directory(&path)?,
                EntryType::Symlink => {
                    let target = entry.link_name().context(|| "the request's tar is damaged")?.unwrap_or_default();
                    to.link(&path, &target)?;
                }
                _ => {
                    let executable = entry.header().mode().unwrap_or(0o644) & 0o111 != 0;
                    to.file(&path, &mut entry, executable)?;
                }
            }
        }
        Ok(())
    }
}

fn small(entry: &mut tar::Entry<'_, &[u8]>) -> Result<Vec<u8>> {
    let mut bytes = Vec::new();
    entry.take(SMALL).read_to_end(&mut bytes).context(|| "the request's tar is damaged")?;
    Ok(bytes)
}

fn entry_path(entry: &tar::Entry<'_, &[u8]>) -> Result<PathBuf> {
    entry.path().map(|path| path.into_owned()).context(|| "the request's tar has a name that is none")
}

fn place(path: &Path) -> Result<Place> {
    let mut parts = Vec::new();
    for part in path.components() {
        match part {
            Component::CurDir => {}
            Component::Normal(name) => parts.push(name),
            _ => {
                return Err(Fault::invalid(format!(
                    "{} in the request's tar is an absolute name, or leads out of it",
                    path.display()
                )));
            }
        }
    }
    match parts.split_first() {
        Some((first, rest)) if *first == "context" => Ok(Place::Context(rest.iter().collect())),
        Some((first, [])) if *first == CONFIG => Ok(Place::Config),
        Some((first, [])) if *first == SECRETS => Ok(Place::Secrets),
        None => Ok(Place::Context(PathBuf::new())),
        _ => Err(Fault::invalid(format!("{} in the request's tar is not below context/", path.display()))),
    }
}

/// The builder's key pair for build secrets, kept in a file that only root may read.
pub struct Key(SecretKey);

/// What faas-cli (go-sdk, `seal`) writes.
#[derive(Deserialize)]
struct Envelope {
    version: String,
    algorithm: String,
    public_key: String,
    secrets: BTreeMap<String, String>,
}

impl Key {
    /// Reads the key in `path`, making it if it is not there.
    pub fn open(path: &Path) -> Result<Self> {
        let bytes = match std::fs::read(path) {
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => {
                let fresh: [u8; 32] = rand::random();
                files::replace(path, &fresh)?;
                fresh.to_vec()
            }
            other => other.context(|| format!("cannot read {}", path.display()))?,
        };
        let bytes: [u8; 32] = bytes
            .try_into()
            .map_err(|_| Fault::invalid(format!("{} is no key: remove it and another is made", path.display())))?;
        Ok(Self(SecretKey::from(bytes)))
    }

    /// The public key, in base64.
    pub fn public(&self) -> String {
        STANDARD.encode(self.0.public_key().as_bytes())
    }

    /// Opens sealed secrets.
    pub fn open_secrets(&self, sealed: &[u8]) -> Result<BTreeMap<String, Vec<u8>>> {
        let envelope: Envelope =
            serde_yaml_ng::from_slice(sealed).map_err(|e| Fault::invalid(format!("{SECRETS} cannot be read: {e}")))?;
        if envelope.version != "v1" || envelope.algorithm != "nacl/box" {
            let (version, algorithm) = (envelope.version.escape_debug(), envelope.algorithm.escape_debug());
            return Err(Fault::invalid(format!(
                "{SECRETS} is of version {version}, algorithm {algorithm}; v1, nacl/box is known"
            )));
        }
        let sender: [u8; 32] = STANDARD
            .decode(&envelope.public_key)
            .ok()
            .and_then(|bytes| bytes.try_into().ok())
            .ok_or_else(|| Fault::invalid(format!("{SECRETS} has no public key")))?;
        let opener = SalsaBox::new(&PublicKey::from(sender), &self.0);
        let open = |(name, value): (&String, &String)| {
            let bytes = STANDARD.decode(value).ok().filter(|bytes| bytes.len() > NONCE);
            let opened = bytes.and_then(|bytes| {
                let (nonce, sealed) = bytes.split_at(NONCE);
                opener.decrypt(nonce.into(), sealed).ok()
            });
            opened.map(|value| (name.clone(), value)).ok_or_else(|| {
                Fault::invalid(format!("build secret {} was not sealed for this builder's key", name.escape_debug()))
            })
        };
        envelope.secrets.iter().map(open).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tar_of(entries: &[(&str, &str)]) -> Vec<u8> {
        let mut archive = tar::Builder::new(Vec::new());
        for (name, text) in entries {
            let mut header = tar::Header::new_ustar();
            header.set_size(text.len() as u64);
            header.set_mode(0o644);
            // Written as it is: the library's own setter refuses absolute names.
            header.as_old_mut().name[..name.len()].copy_from_slice(name.as_bytes());
            header.set_cksum();
            archive.append(&header, text.as_bytes()).unwrap();
        }
        archive.into_inner().unwrap()
    }

    const GOOD: (&str, &str) =
        (CONFIG, r#"{"image":"r.example/f:1","buildArgs":{"A":"b"},"platforms":["linux/amd64"],"skipPush":true}"#);

    #[test]
    fn only_what_is_signed_with_the_secret_is_accepted() {
        let key = ring::hmac::Key::new(ring::hmac::HMAC_SHA256, b"secret");
        let signed = format!("sha256={}", hex::encode(ring::hmac::sign(&key, b"body")));
        check_signature(b"secret", Some(&signed), b"body").unwrap();
        for (secret, header, body) in [
            (&b"secret"[..], Some(signed.as_str()), &b"other"[..]),
            (b"other", Some(&signed), b"body"),
            (b"secret", Some("sha256="), b"body"),
            (b"secret", Some(&signed[7..]), b"body"),
            (b"secret", None, b"body"),
        ] {
            assert_eq!(check_signature(secret, header, body).unwrap_err().kind(), Kind::Denied);
        }
    }

    #[test]
    fn a_parcel_is_read_in_any_order_and_spelling() {
        let body = tar_of(&[GOOD, ("./context/main.go", "package main"), ("context/function/f.go", "x")]);
        let parcel = Parcel::read(&body).unwrap();
        assert_eq!((parcel.image.as_written(), parcel.skip_push), ("r.example/f:1", true));
        assert_eq!(parcel.args["A"], "b");
        let temp = tempfile::tempdir().unwrap();
        let to = temp.path().join("to");
        Parcel::unpack(&body, &mut Copier::new(&to, 1000).unwrap()).unwrap();
        assert_eq!(std::fs::read_to_string(to.join("main.go")).unwrap(), "package main");
        assert_eq!(std::fs::read_to_string(to.join("function/f.go")).unwrap(), "x");
    }

    #[test]
    fn a_bad_parcel_is_refused_before_anything_is_unpacked() {
        for (entries, word) in [
            (vec![("context/a", "x")], "no com.openfaas.docker.config"),
            (vec![GOOD, ("/etc/passwd", "x")], "absolute name"),
            (vec![GOOD, ("context/../../x", "x")], "leads out of it"),
            (vec![GOOD, ("elsewhere/x", "x")], "not below context/"),
            (vec![(CONFIG, "{}")], "image"),
            (vec![(CONFIG, r#"{"image":"UPPER CASE"}"#)], "invalid"),
        ] {
            let said = Parcel::read(&tar_of(&entries)).unwrap_err().to_string();
            assert!(said.contains(word), "{said}");
        }
        assert!(Parcel::read(&[7; 700]).is_err());
    }

    #[test]
    fn secrets_open_for_the_key_that_they_were_sealed_for_and_no_other() {
        let temp = tempfile::tempdir().unwrap();
        let key = Key::open(&temp.path().join("key")).unwrap();
        assert_eq!(Key::open(&temp.path().join("key")).unwrap().public(), key.public());
        let sender = SecretKey::from([7; 32]);
        let nonce = [9u8; NONCE];
        let sealed = SalsaBox::new(&key.0.public_key(), &sender).encrypt((&nonce).into(), &b"hush"[..]).unwrap();
        let value = STANDARD.encode([&nonce[..], &sealed].concat());
        let envelope = format!(
            "version: v1\nalgorithm: nacl/box\nkey_id: abc\npublic_key: {}\nsecrets:\n  token: {value}\n",
            STANDARD.encode(sender.public_key().as_bytes())
        );
        assert_eq!(key.open_secrets(envelope.as_bytes()).unwrap()["token"], b"hush");
        let other = Key::open(&temp.path().join("other")).unwrap();
        assert!(
            other.open_secrets(envelope.as_bytes()).unwrap_err().to_string().contains("not sealed for this builder")
        );
        assert!(key.open_secrets(b"version: v2\nalgorithm: x\npublic_key: ''\nsecrets: {}\n").is_err());
    }
}
