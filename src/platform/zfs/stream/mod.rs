//! Images as files: an image's layers as `zfs send` streams, with what the other side needs to believe them.
//!
//! ```text
//! image.zfs.tar
//!   faas-jails.json      the image, and for each layer: digest and size of its stream
//!   faas-jails.sig       Ed25519 signature over the file before it (absent when not signed)
//!   <chain-id>.zfs.zst   a stream each, lowest layer first: full, or incremental from the layer below
//! ```
//!
//! Importing checks the signature, then every digest, and only then gives a byte to ZFS. Layers are received into
//! `staging` and renamed when all are there, so a failed import leaves nothing. A layer that is here already is not
//! received; when the one below came here another way (unpacked from a registry, so ZFS takes it for another
//! snapshot) the layer is received with all that is below it, and stands alone.

use std::io;

use serde::{Deserialize, Serialize};

use crate::fault::{Fault, Result};
use crate::image::{Digest, Image, Progress};

mod archive;
mod begin;
mod export;
mod fetch;
mod flatten;
mod import;
mod keys;

pub use archive::Archive;
pub use export::Export;
pub use fetch::{Remote, fetch, keep};
pub use keys::{PublicKey, SigningKey, Trust};

/// The only format there is.
const FORMAT: u32 = 1;

/// Most bytes of `faas-jails.json`.
const MANIFEST_MAX: u64 = 4 << 20;

/// What is in an archive.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
struct Manifest {
    format: u32,
    image: Image,
    /// Streams of the image's uppermost layers, lowest first; of all its layers if it is whole.
    pieces: Vec<Piece>,
}

/// One layer's stream.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Piece {
    /// The chain-id of the layer.
    layer: Digest,
    /// Does it stand alone? Otherwise it is incremental from the layer below.
    full: bool,
    /// Digest of the compressed stream.
    digest: Digest,
    /// Bytes of the compressed stream.
    size: u64,
    /// Bytes of the stream.
    unpacked: u64,
}

impl Manifest {
    /// Reads and checks the description of an archive.
    fn read(json: &[u8]) -> Result<Self> {
        let bad = |why: &str| Fault::invalid(format!("the archive's description is wrong: {why}"));
        let format: u32 = serde_json::from_slice::<serde_json::Value>(json)
            .ok()
            .and_then(|value| value.get("format")?.as_u64()?.try_into().ok())
            .ok_or_else(|| bad("it names no format"))?;
        if format != FORMAT {
            return Err(bad(&format!("format {format} is not known here, a newer faas-jails may know it")));
        }
        let manifest: Self = serde_json::from_slice(json).map_err(|error| bad("it does not parse").because(error))?;
        let layers = &manifest.image.layers;
        let mut below: Option<&Digest> = None;
        for layer in layers {
            // OCI image-spec, config.md, "Layer ChainID".
            let chain_id = match below {
                None => layer.diff_id.clone(),
                Some(below) => Digest::of(format!("{below} {}", layer.diff_id)),
            };
            if layer.parent.as_ref() != below || layer.chain_id != chain_id {
                return Err(bad("its layers are no chain"));
            }
            below = Some(&layer.chain_id);
        }
        let first = layers.len().checked_sub(manifest.pieces.len()).ok_or_else(|| bad("it has too many streams"))?;
        if !layers[first..].iter().map(|layer| &layer.chain_id).eq(manifest.pieces.iter().map(|piece| &piece.layer)) {
            return Err(bad("its streams are not of its last layers"));
        }
        if first == 0 && manifest.pieces.first().is_some_and(|piece| !piece.full) {
            return Err(bad("nothing is below its lowest layer"));
        }
        Ok(manifest)
    }

    /// How many of the image's lower layers have no stream here.
    fn first(&self) -> usize {
        self.image.layers.len() - self.pieces.len()
    }
}

/// The name of a layer's stream in the archive.
fn member(layer: &Digest) -> String {
    format!("{}.zfs.zst", layer.hex())
}

/// Hashes and counts what goes through it, either way.
struct Meter<T> {
    inner: T,
    hash: sha2::Sha256,
    count: u64,
}

impl<T> Meter<T> {
    fn new(inner: T) -> Self {
        Self { inner, hash: sha2::Digest::new(), count: 0 }
    }

    /// Digest and number of the bytes that went through, and what they went to.
    fn finish(self) -> (Digest, u64, T) {
        (Digest::sha256(sha2::Digest::finalize(self.hash)), self.count, self.inner)
    }

    fn note(&mut self, bytes: &[u8]) {
        sha2::Digest::update(&mut self.hash, bytes);
        self.count += bytes.len() as u64;
    }
}

/// Tells a [`Progress`] of the bytes of a layer that are read through it.
struct Told<'a, R> {
    inner: R,
    layer: &'a Digest,
    progress: &'a dyn Progress,
}

impl<R: io::Read> io::Read for Told<'_, R> {
    fn read(&mut self, bytes: &mut [u8]) -> io::Result<usize> {
        let count = self.inner.read(bytes)?;
        self.progress.bytes(self.layer, count as u64);
        Ok(count)
    }
}

impl<W: io::Write> io::Write for Meter<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let count = self.inner.write(bytes)?;
        self.note(&bytes[..count]);
        Ok(count)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.inner.flush()
    }
}

impl<R: io::Read> io::Read for Meter<R> {
    fn read(&mut self, bytes: &mut [u8]) -> io::Result<usize> {
        let count = self.inner.read(bytes)?;
        self.note(&bytes[..count]);
        Ok(count)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn manifest() -> serde_json::Value {
        let base = Digest::of("base");
        let diff = Digest::of("top");
        let top = Digest::of(format!("{base} {diff}"));
        let piece = |layer: &Digest, full: bool| serde_json::json!({"layer": layer, "full": full, "digest": layer, "size": 1, "unpacked": 2});
        serde_json::json!({
            "format": 1,
            "image": {
                "reference": "docker.io/library/x:1", "origin": "loaded", "manifest": base, "resolved": base,
                "layers": [
                    {"diff_id": base, "chain_id": base, "parent": null},
                    {"diff_id": diff, "chain_id": top, "parent": base},
                ],
                "run": {"argv": ["/x"], "env": {}, "workdir": "/", "user": {"uid": 0, "gid": 0, "groups": []},
                    "stop_signal": null},
                "platform": "linux/amd64", "size": 3, "loaded": "2026-01-01T00:00:00Z",
            },
            "pieces": [piece(&base, true), piece(&top, false)],
        })
    }

    fn read(value: &serde_json::Value) -> Result<Manifest> {
        Manifest::read(&serde_json::to_vec(value).unwrap())
    }

    #[test]
    fn an_archive_is_whole_or_has_the_last_layers() {
        let mut value = manifest();
        assert_eq!(read(&value).unwrap().first(), 0);
        value["pieces"].as_array_mut().unwrap().remove(0);
        assert_eq!(read(&value).unwrap().first(), 1);
    }

    #[test]
    fn a_description_that_breaks_a_rule_is_refused() {
        type Change = fn(&mut serde_json::Value);
        let changes: [(&str, Change); 7] = [
            ("format", |v| v["format"] = 2.into()),
            ("chain", |v| v["image"]["layers"][1]["chain_id"] = v["image"]["layers"][0]["chain_id"].clone()),
            ("chain", |v| v["image"]["layers"][1]["parent"] = serde_json::Value::Null),
            ("last layers", |v| drop(v["pieces"].as_array_mut().unwrap().remove(1))),
            ("too many", |v| v["image"]["layers"] = serde_json::json!([])),
            ("below", |v| v["pieces"][0]["full"] = false.into()),
            ("parse", |v| v["pieces"][0]["digest"] = "md5:1".into()),
        ];
        for (why, change) in changes {
            let mut value = manifest();
            change(&mut value);
            let fault = read(&value).unwrap_err();
            assert!(fault.to_string().contains(why), "{why}: {fault}");
        }
        assert!(Manifest::read(b"[]").is_err());
    }

    #[test]
    fn a_meter_counts_and_hashes() {
        let mut meter = Meter::new(Vec::new());
        io::Write::write_all(&mut meter, b"abc").unwrap();
        assert_eq!(meter.finish(), (Digest::of("abc"), 3, b"abc".to_vec()));
    }
}
