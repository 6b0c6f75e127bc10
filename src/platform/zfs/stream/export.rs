//! An image to a file.

use std::fs::File;
use std::io::{BufWriter, Read, Seek, Write};
use std::path::Path;
use std::process::{Child, Stdio};

use super::archive::{self, scratch};
use super::{FORMAT, Manifest, Meter, Piece, SigningKey};
use crate::fault::{Context, Fault, Result};
use crate::image::{Image, Layer};
use crate::platform::zfs::ZfsStorage;
use crate::platform::zfs::command;
use crate::platform::zfs::names::Container;
use crate::platform::zfs::refusal::{Refusal, Why};

/// zstd's own default: about 400 MB/s on one core.
const LEVEL: i32 = 3;

/// What to put into an archive.
#[derive(Default)]
pub struct Export<'a> {
    /// The other side has this layer, and got it from an archive of this host: it and all below it are left out.
    pub above: Option<&'a Layer>,
    /// Signs the archive.
    pub key: Option<&'a SigningKey>,
}

impl ZfsStorage {
    /// Writes an image with its layers to a file, which appears when it is whole. Temporary files are made beside
    /// it. `NotFound` when a layer is not here.
    pub fn export(&self, image: &Image, to: &Path, export: &Export<'_>) -> Result<()> {
        self.export_inner(image, to, export)
            .context(|| format!("cannot export {} to {}", image.reference, to.display()))
    }

    fn export_inner(&self, image: &Image, to: &Path, export: &Export<'_>) -> Result<()> {
        let directory = match to.parent() {
            Some(parent) if parent != Path::new("") => parent,
            _ => Path::new("."),
        };
        let first = match export.above {
            None => 0,
            Some(above) => {
                1 + image.layers.iter().position(|layer| layer == above).ok_or_else(|| {
                    Fault::invalid(format!("it has no layer {}, above which it should begin", above.chain_id))
                })?
            }
        };
        let (mut pieces, mut streams) = (Vec::new(), Vec::new());
        for layer in &image.layers[first..] {
            let (piece, stream) = self.send(layer, scratch(directory)?)?;
            pieces.push(piece);
            streams.push(stream);
        }
        let manifest = Manifest { format: FORMAT, image: image.clone(), pieces };
        let name = to.file_name().ok_or_else(|| Fault::invalid("it names no file"))?;
        let partial = directory.join(format!(".{}.{:08x}.partial", name.to_string_lossy(), rand::random::<u32>()));
        let written = File::create_new(&partial).context(|| "cannot make a file").and_then(|file| {
            archive::write(BufWriter::new(&file), &manifest, |json| export.key.map(|key| key.sign(json)), streams)?;
            file.sync_all().context(|| "cannot write the archive")?;
            std::fs::rename(&partial, to).context(|| "cannot give the archive its name")
        });
        written.inspect_err(|_| drop(std::fs::remove_file(&partial)))
    }

    /// One layer's stream, compressed into `file`.
    fn send(&self, layer: &Layer, file: File) -> Result<(Piece, File)> {
        let snapshot = self.parent.layer_snapshot(layer.chain_id.hex());
        let origin = self.origin(layer)?;
        let below = layer.parent.as_ref().map(|below| self.parent.layer_snapshot(below.hex()));
        let base = origin.filter(|origin| Some(origin) == below.as_ref());
        let mut arguments = vec!["send"];
        if let Some(base) = &base {
            arguments.extend(["-i", base]);
        }
        arguments.push(&snapshot);
        let told = |refusal| self.fault(refusal, format!("cannot send {snapshot}"));
        let mut child = command::program(&arguments)
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .map_err(|error| told(command::not_started(error)))?;
        let copied = compress(&mut child, file);
        finished(child).map_err(told)?;
        let (digest, size, unpacked, mut file) = copied.context(|| format!("cannot keep the stream of {snapshot}"))?;
        file.rewind()?;
        Ok((Piece { layer: layer.chain_id.clone(), full: base.is_none(), digest, size, unpacked }, file))
    }

    /// The snapshot that a layer was cloned from, if from any.
    fn origin(&self, layer: &Layer) -> Result<Option<String>> {
        let dataset = self.parent.child(Container::Layers, layer.chain_id.hex());
        if !self.has_layer(layer.chain_id.hex())? {
            return Err(self.layer_missing(layer.chain_id.hex()));
        }
        let read = command::get(&dataset, command::Below::Left, &["origin"]);
        let mut datasets = read.map_err(|refusal| self.fault(refusal, format!("cannot read {dataset}")))?;
        Ok(datasets.remove(&dataset).and_then(|mut properties| properties.remove("origin")))
    }
}

/// What a child writes, compressed into a file: digest and size of that, and the bytes it wrote.
fn compress(child: &mut Child, file: File) -> std::io::Result<(crate::image::Digest, u64, u64, File)> {
    let mut encoder = zstd::stream::write::Encoder::new(Meter::new(BufWriter::new(file)), LEVEL)?;
    let unpacked = match child.stdout.take() {
        Some(mut stdout) => std::io::copy(&mut stdout, &mut encoder)?,
        None => 0,
    };
    let (digest, size, mut file) = encoder.finish()?.finish();
    file.flush()?;
    Ok((digest, size, unpacked, file.into_inner().map_err(std::io::IntoInnerError::into_error)?))
}

/// Waits for a `zfs` whose standard error is piped.
pub(super) fn finished(mut child: Child) -> Result<(), Refusal> {
    let mut said = Vec::new();
    if let Some(mut stderr) = child.stderr.take() {
        let _ = stderr.read_to_end(&mut said);
    }
    match child.wait() {
        Ok(status) if status.success() => Ok(()),
        Ok(_) => Err(Refusal::read(&String::from_utf8_lossy(&said))),
        Err(error) => Err(Refusal { why: Why::Other, said: error.to_string() }),
    }
}
