//! An image to a file.

use std::fs::File;
use std::io::{BufWriter, Read, Seek, Write};
use std::path::Path;
use std::process::{Child, Stdio};

use super::archive;
use super::{FORMAT, Manifest, Meter, Piece, SigningKey, Told};
use crate::fault::{Context, Fault, Result};
use crate::image::{Image, Layer, Progress, Silent};
use crate::platform::zfs::ZfsStorage;
use crate::platform::zfs::command;
use crate::platform::zfs::names::Container;
use crate::platform::zfs::refusal::{Refusal, Why};

/// zstd's own default: about 400 MB/s on one core.
const LEVEL: i32 = 3;

/// What to put into an archive.
pub struct Export<'a> {
    /// The other side has this layer, and got it from an archive of this host: it and all below it are left out.
    pub above: Option<&'a Layer>,
    /// Signs the archive.
    pub key: Option<&'a SigningKey>,
    /// Hears of it. A layer is named by its chain-id, its bytes are those of the stream.
    pub progress: &'a dyn Progress,
}

impl Default for Export<'_> {
    /// All layers, unsigned, silently.
    fn default() -> Self {
        Self { above: None, key: None, progress: &Silent }
    }
}

impl ZfsStorage {
    /// Writes an image with its layers to a file, which appears when it is whole. Temporary files are made beside
    /// it. `NotFound` when a layer is not here.
    pub fn export(&self, image: &Image, to: &Path, export: &Export<'_>) -> Result<()> {
        self.export_file(image, to, export).context(|| format!("cannot export {} to {}", image.reference, to.display()))
    }

    /// Writes an image with its layers to whatever takes bytes. Temporary files, as large as the archive in all, are
    /// made in `scratch`.
    pub fn export_to(&self, image: &Image, to: impl Write, scratch: &Path, export: &Export<'_>) -> Result<()> {
        let (manifest, streams) = self.streams(image, scratch, export)?;
        archive::write(to, &manifest, |json| export.key.map(|key| key.sign(json)), streams)
    }

    fn export_file(&self, image: &Image, to: &Path, export: &Export<'_>) -> Result<()> {
        let directory = match to.parent() {
            Some(parent) if parent != Path::new("") => parent,
            _ => Path::new("."),
        };
        let name = to.file_name().ok_or_else(|| Fault::invalid("it names no file"))?;
        let (manifest, streams) = self.streams(image, directory, export)?;
        let partial = directory.join(format!(".{}.{:08x}.partial", name.to_string_lossy(), rand::random::<u32>()));
        let written = File::create_new(&partial).context(|| "cannot make a file").and_then(|file| {
            archive::write(BufWriter::new(&file), &manifest, |json| export.key.map(|key| key.sign(json)), streams)?;
            file.sync_all().context(|| "cannot write the archive")?;
            std::fs::rename(&partial, to).context(|| "cannot give the archive its name")
        });
        written.inspect_err(|_| drop(std::fs::remove_file(&partial)))
    }

    /// The description of an archive, and a file with the stream of each layer in it.
    fn streams(&self, image: &Image, scratch: &Path, export: &Export<'_>) -> Result<(Manifest, Vec<File>)> {
        let first = match export.above {
            None => 0,
            Some(above) => {
                1 + image.layers.iter().position(|layer| layer == above).ok_or_else(|| {
                    Fault::invalid(format!("it has no layer {}, above which it should begin", above.chain_id))
                })?
            }
        };
        let (mut pieces, mut streams) = (Vec::new(), Vec::new());
        export.progress.layers(image.layers.len() - first);
        for layer in &image.layers[first..] {
            export.progress.layer_started(&layer.chain_id, None);
            let (piece, stream) = self.send(layer, archive::scratch(scratch)?, export.progress)?;
            export.progress.layer_done(&layer.chain_id);
            pieces.push(piece);
            streams.push(stream);
        }
        Ok((Manifest { format: FORMAT, image: image.clone(), pieces }, streams))
    }

    /// One layer's stream, compressed into `file`.
    fn send(&self, layer: &Layer, file: File, progress: &dyn Progress) -> Result<(Piece, File)> {
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
        let stream = child.stdout.take().map(|inner| Told { inner, layer: &layer.chain_id, progress });
        let copied = compress(stream, file);
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

/// A stream, compressed into a file: digest and size of that, and the bytes of the stream.
fn compress(stream: Option<impl Read>, file: File) -> std::io::Result<(crate::image::Digest, u64, u64, File)> {
    let mut encoder = zstd::stream::write::Encoder::new(Meter::new(BufWriter::new(file)), LEVEL)?;
    let unpacked = match stream {
        Some(mut stream) => std::io::copy(&mut stream, &mut encoder)?,
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
