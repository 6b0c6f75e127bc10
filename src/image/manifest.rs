//! Manifests and indexes: OCI image-spec `manifest.md` and `image-index.md`, and Docker's schema 2 of both.

use oci_spec::image::{Descriptor, ImageIndex, ImageManifest};
use serde_json::Value;

use crate::fault::{Fault, Result};

use super::Digest;
use super::target::Platform;

/// Largest manifest or index that is read (distribution-spec: registries should refuse larger ones).
pub const MANIFEST_MAX: u64 = 4 << 20;
/// Most layers in an image. Overlayfs joins at most 500 directories; Docker stops at 127.
pub const LAYERS_MAX: usize = 256;

/// Every media type that is understood, for the `Accept` header.
pub const ACCEPT: &str = "application/vnd.oci.image.manifest.v1+json, application/vnd.oci.image.index.v1+json, \
    application/vnd.docker.distribution.manifest.v2+json, application/vnd.docker.distribution.manifest.list.v2+json";

/// What a digest or a tag leads to.
#[derive(Debug, Clone)]
pub enum Document {
    /// One image.
    Manifest(Box<Manifest>),
    /// Several, one per platform.
    Index(Vec<Listed>),
}

/// One image's parts.
#[derive(Debug, Clone)]
pub struct Manifest {
    /// The configuration.
    pub config: Blob,
    /// Lowest first.
    pub layers: Vec<Blob>,
}

/// Something to fetch by digest.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Blob {
    /// Its digest.
    pub digest: Digest,
    /// Its bytes.
    pub size: u64,
    /// May registries refuse to have it ("foreign", "nondistributable")? Its URLs are never followed.
    pub foreign: bool,
}

/// An image in an index.
#[derive(Debug, Clone)]
pub struct Listed {
    /// Its manifest.
    pub blob: Blob,
    /// What it is for, where the index says so.
    pub platform: Option<Platform>,
    /// `io.containerd.image.name` or `org.opencontainers.image.ref.name`.
    pub name: Option<String>,
}

impl Document {
    /// Reads a manifest or index, which must be one of the two and not both (CVE-2021-41190).
    pub fn parse(bytes: &[u8]) -> Result<Self> {
        let bad = |why: &str| Fault::invalid(format!("the manifest {why}"));
        let mut value: Value =
            serde_json::from_slice(bytes).map_err(|error| bad("is no JSON that can be read").because(error))?;
        drop_nulls(&mut value);
        let version = value.get("schemaVersion").and_then(Value::as_u64);
        if version == Some(1) {
            return Err(bad("is of Docker's schema 1, which no current tool writes; push the image again"));
        }
        let (index, image) = (value.get("manifests").is_some(), value.get("config").is_some());
        let layers = value.get("layers").is_some() || value.get("fsLayers").is_some();
        match (index, image || layers) {
            (true, true) => Err(bad("is a manifest and an index at once, which is refused")),
            (false, false) => Err(bad("has neither layers nor manifests")),
            (true, false) => {
                let index: ImageIndex =
                    serde_json::from_value(value).map_err(|error| bad("is no index").because(error))?;
                let listed = index.manifests().iter().map(listed).collect::<Result<_>>()?;
                Ok(Self::Index(listed))
            }
            (false, true) => {
                let manifest: ImageManifest =
                    serde_json::from_value(value).map_err(|error| bad("is no image manifest").because(error))?;
                if manifest.layers().len() > LAYERS_MAX {
                    return Err(bad(&format!("has more than {LAYERS_MAX} layers, the limit")));
                }
                let layers = manifest.layers().iter().map(blob).collect::<Result<_>>()?;
                Ok(Self::Manifest(Box::new(Manifest { config: blob(manifest.config())?, layers })))
            }
        }
    }
}

/// Some writers say `null` where they mean nothing.
pub fn drop_nulls(value: &mut Value) {
    match value {
        Value::Object(map) => {
            map.retain(|_, value| !value.is_null());
            map.values_mut().for_each(drop_nulls);
        }
        Value::Array(items) => items.iter_mut().for_each(drop_nulls),
        _ => {}
    }
}

fn blob(descriptor: &Descriptor) -> Result<Blob> {
    let media_type = descriptor.media_type().to_string();
    Ok(Blob {
        digest: descriptor.digest().to_string().parse()?,
        size: descriptor.size(),
        foreign: media_type.contains("nondistributable") || media_type.contains("foreign"),
    })
}

fn listed(descriptor: &Descriptor) -> Result<Listed> {
    let platform = descriptor.platform().as_ref().map(|platform| Platform {
        os: platform.os().to_string(),
        architecture: platform.architecture().to_string(),
        variant: platform.variant().clone(),
        version: platform.os_version().clone(),
    });
    let annotation = |key| descriptor.annotations().as_ref().and_then(|all| all.get(key)).cloned();
    let name = annotation("io.containerd.image.name").or_else(|| annotation("org.opencontainers.image.ref.name"));
    Ok(Listed { blob: blob(descriptor)?, platform, name })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_document_that_is_both_is_refused() {
        let d = format!(
            r#"{{"mediaType":"application/vnd.oci.image.config.v1+json","digest":"sha256:{}","size":2}}"#,
            "a".repeat(64)
        );
        let manifest = format!(r#"{{"schemaVersion":2,"config":{d},"layers":[{d}],"annotations":null}}"#);
        assert!(matches!(Document::parse(manifest.as_bytes()).unwrap(), Document::Manifest(m) if m.layers.len() == 1));
        let index = format!(r#"{{"schemaVersion":2,"manifests":[{d}]}}"#);
        assert!(matches!(Document::parse(index.as_bytes()).unwrap(), Document::Index(l) if l.len() == 1));
        let both = format!(r#"{{"schemaVersion":2,"config":{d},"layers":[],"manifests":[{d}]}}"#);
        for refused in [both.as_str(), "{}", "[]", "", r#"{"schemaVersion":1,"fsLayers":[]}"#] {
            assert!(Document::parse(refused.as_bytes()).is_err(), "{refused} was accepted");
        }
    }

    #[test]
    fn a_digest_that_is_a_path_is_refused() {
        let manifest =
            r#"{"schemaVersion":2,"config":{"mediaType":"x","digest":"sha256:../../etc/passwd","size":2},"layers":[]}"#;
        assert!(Document::parse(manifest.as_bytes()).is_err());
    }
}
