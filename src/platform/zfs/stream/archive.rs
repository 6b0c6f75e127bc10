//! The tar file around the streams.

use std::collections::HashMap;
use std::fs::{File, OpenOptions};
use std::io::{Read, Seek, SeekFrom, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use super::{MANIFEST_MAX, Manifest, Meter, Piece, Trust, member};
use crate::fault::{Context, Fault, Result};
use crate::image::Image;

const MANIFEST: &str = "faas-jails.json";
const SIGNATURE: &str = "faas-jails.sig";

/// A file without a name in a directory: it is gone when it is closed, however this program ends.
pub(super) fn scratch(directory: &Path) -> Result<File> {
    let path = directory.join(format!(".faas-jails-{:016x}", rand::random::<u64>()));
    let open = OpenOptions::new().read(true).write(true).create_new(true).mode(0o600).open(&path);
    open.and_then(|file| std::fs::remove_file(&path).map(|()| file))
        .context(|| format!("cannot make a temporary file in {}", directory.display()))
}

/// Writes an archive. `streams` are at their beginnings, one for each piece.
pub(super) fn write(
    to: impl Write,
    manifest: &Manifest,
    sign: impl FnOnce(&[u8]) -> Option<Vec<u8>>,
    streams: Vec<File>,
) -> Result<()> {
    let json = serde_json::to_vec_pretty(manifest).map_err(|error| Fault::invalid(error.to_string()))?;
    let mut tar = tar::Builder::new(to);
    append(&mut tar, MANIFEST, json.len() as u64, &json[..])?;
    if let Some(signature) = sign(&json) {
        append(&mut tar, SIGNATURE, signature.len() as u64, &signature[..])?;
    }
    for (piece, stream) in manifest.pieces.iter().zip(streams) {
        append(&mut tar, &member(&piece.layer), piece.size, stream)?;
    }
    tar.into_inner().and_then(|mut to| to.flush()).context(|| "cannot write the archive")
}

fn append(tar: &mut tar::Builder<impl Write>, name: &str, size: u64, content: impl Read) -> Result<()> {
    let mut header = tar::Header::new_gnu();
    header.set_size(size);
    header.set_mode(0o644);
    tar.append_data(&mut header, name, content).context(|| format!("cannot write {name} into the archive"))
}

/// An archive whose description is trusted and whose digests are right.
pub struct Archive {
    pub(super) manifest: Manifest,
    file: File,
    /// Where each stream begins.
    places: HashMap<String, u64>,
}

impl Archive {
    /// Reads an archive from a file that can be read at any place; checks signature and digests. `Invalid` when it is
    /// damaged or not trusted.
    pub fn open(file: File, trust: &Trust) -> Result<Self> {
        let mut json = Vec::new();
        let mut signature = None;
        let mut found = HashMap::new();
        let mut tar = tar::Archive::new(&file);
        for entry in tar.entries_with_seek().context(|| "cannot read the archive")? {
            let entry = entry.context(|| "the archive is damaged")?;
            let name = String::from_utf8_lossy(&entry.path_bytes()).into_owned();
            let place = (entry.raw_file_position(), entry.size());
            match name.as_str() {
                MANIFEST => json = read_all(entry)?,
                SIGNATURE => signature = Some(read_all(entry)?),
                _ => drop(found.insert(name, place)),
            }
        }
        if json.is_empty() {
            return Err(Fault::invalid(format!("this is no image archive of faas-jails: it has no {MANIFEST}")));
        }
        trust.check(&json, signature.as_deref())?;
        let manifest = Manifest::read(&json)?;
        let mut places = HashMap::new();
        for piece in &manifest.pieces {
            let name = member(&piece.layer);
            let Some((place, size)) = found.remove(&name) else {
                return Err(Fault::invalid(format!("the archive is not whole: it has no {name}")));
            };
            if size != piece.size {
                return Err(damaged(piece));
            }
            places.insert(name, place);
        }
        let archive = Self { manifest, file, places };
        archive.manifest.pieces.iter().try_for_each(|piece| archive.verify(piece))?;
        Ok(archive)
    }

    /// The image in it, as it was where it comes from.
    pub fn image(&self) -> &Image {
        &self.manifest.image
    }

    fn verify(&self, piece: &Piece) -> Result<()> {
        let mut meter = Meter::new(std::io::sink());
        std::io::copy(&mut self.compressed(piece)?, &mut meter).context(|| "cannot read the archive")?;
        let (digest, size, _) = meter.finish();
        if (digest, size) == (piece.digest.clone(), piece.size) { Ok(()) } else { Err(damaged(piece)) }
    }

    /// A layer's compressed stream. One at a time: all share the file's position.
    fn compressed(&self, piece: &Piece) -> Result<impl Read> {
        let place = self.places.get(&member(&piece.layer)).copied().ok_or_else(|| damaged(piece))?;
        let mut file = &self.file;
        file.seek(SeekFrom::Start(place)).context(|| "cannot read the archive")?;
        Ok(file.take(piece.size))
    }

    /// Gives a layer's stream to `take`, and checks once more that it was the one that was promised.
    pub(super) fn unpack<T>(&self, piece: &Piece, take: impl FnOnce(&mut dyn Read) -> Result<T>) -> Result<T> {
        let mut compressed = Meter::new(self.compressed(piece)?);
        let decoder = zstd::stream::read::Decoder::new(&mut compressed).context(|| "cannot decompress")?;
        let mut stream = Meter::new(decoder.take(piece.unpacked.saturating_add(1)));
        let taken = take(&mut stream)?;
        let (_, unpacked, decoder) = stream.finish();
        drop(decoder);
        std::io::copy(&mut compressed, &mut std::io::sink()).context(|| "cannot read the archive")?;
        let (digest, _, _) = compressed.finish();
        if digest == piece.digest && unpacked == piece.unpacked { Ok(taken) } else { Err(damaged(piece)) }
    }
}

fn damaged(piece: &Piece) -> Fault {
    Fault::invalid(format!("the archive is damaged: the stream of layer {} is not the one it describes", piece.layer))
}

fn read_all(entry: impl Read) -> Result<Vec<u8>> {
    let mut bytes = Vec::new();
    let count = entry.take(MANIFEST_MAX + 1).read_to_end(&mut bytes).context(|| "the archive is damaged")?;
    if count as u64 > MANIFEST_MAX {
        return Err(Fault::invalid("the archive's description is too long"));
    }
    Ok(bytes)
}
