//! Getting a base: fetched, checked, unpacked, put in its place.

use std::fs::{self, File};
use std::io::{self, BufRead, BufReader, Read, Seek};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::time::Duration;

use lzma_rust2::XzReader;
use sha2::{Digest as _, Sha256};

use super::{Origin, Place, Settings, check};
use crate::build::remote::Remote;
use crate::build::workspace::private;
use crate::fault::{Context, Fault, Kind, Result};
use crate::files;
use crate::image::unpack::{Expected, UnpackLimits, unpack};
use crate::image::{self, Digest, Layer, Progress};
use crate::storage::{Staging, Whiteouts};

/// Most bytes of an archive; of what is in it; longest time for either. A base.txz has 0.2 GB, and 1 GB in it.
const ARCHIVE: u64 = 2 << 30;
const UNPACKED: u64 = 8 << 30;
const TIME: Duration = Duration::from_secs(2 * 3600);
/// What an xz decoder may occupy, in KiB: enough for `xz -9` with its dictionary of 64 MiB.
const XZ_MEMORY: u32 = 80 << 10;
/// File format of xz, section 2.1.1.1.
const XZ_MAGIC: &[u8] = b"\xfd7zXZ\0";

impl Place {
    /// Makes the base, in place of one that is there. On failure, what was there is there.
    pub fn make(&self, settings: &Settings, images: &image::Settings, progress: &dyn Progress) -> Result<()> {
        let dir = self.dir();
        private(&self.builder)?;
        let turn = File::open(&self.builder).context(|| format!("cannot open {}", self.builder.display()))?;
        turn.try_lock().map_err(|_| Fault::new(Kind::Busy, format!("{} is being made already", dir.display())))?;
        let made = self.make_alone(settings, images, progress);
        // Said, rather than left to the end of `turn`: a program that is just being started still has a copy of it.
        let unlocked = turn.unlock().context(|| format!("cannot unlock {}", self.builder.display()));
        made.and(unlocked)
    }

    fn make_alone(&self, settings: &Settings, images: &image::Settings, progress: &dyn Progress) -> Result<()> {
        let dir = self.dir();
        if dir.exists() && self.made_from()?.is_none() {
            let message = format!("{} is in the way, and was not made by init: move it elsewhere", dir.display());
            return Err(Fault::new(Kind::Busy, message));
        }
        self.sweep()?;
        let made = self.prepare(settings, images, progress).context(|| settings.from.to_string());
        let made = made.and_then(|()| self.put());
        match (made, self.sweep()) {
            (Err(fault), swept) => Err(fault.and_cleanup(swept)),
            (Ok(()), swept) => swept,
        }
    }

    fn prepare(&self, settings: &Settings, images: &image::Settings, progress: &dyn Progress) -> Result<()> {
        let new = self.beside("new");
        let root = new.join("root");
        private(&root)?;
        match &settings.from {
            Origin::Image(reference) => image::spread(images, reference, &root, &limits(), progress)?,
            origin => {
                let archive = self.archive(origin, &settings.sum, images, progress)?;
                unpack_archive(archive, &root, &settings.sum, progress)?;
            }
        }
        check(&root)?;
        // What a build is shown, it reads as somebody else.
        fs::set_permissions(&root, std::os::unix::fs::PermissionsExt::from_mode(0o755))?;
        files::replace_json(&new.join("sum"), &settings.sum)
    }

    /// The archive, read from its beginning, with the right sum.
    fn archive(
        &self,
        origin: &Origin,
        sum: &Digest,
        images: &image::Settings,
        progress: &dyn Progress,
    ) -> Result<File> {
        let mut file = match origin {
            Origin::Url(url) => {
                let path = self.beside("archive");
                let mut options = fs::OpenOptions::new();
                let file = options.read(true).write(true).create_new(true).mode(0o600).open(&path);
                let mut file = file.context(|| format!("cannot make {}", path.display()))?;
                Remote::new(&images.registries, TIME)?.save(url, ARCHIVE, &mut file, sum, progress)?;
                file
            }
            Origin::File(path) => File::open(path).context(|| "it cannot be opened")?,
            Origin::Image(_) => return Err(Fault::invalid("an image is no archive")),
        };
        let mut hash = Sha256::new();
        file.rewind()?;
        io::copy(&mut file, &mut hash).context(|| "it cannot be read")?;
        file.rewind()?;
        let found = Digest::sha256(hash.finalize());
        match found == *sum {
            true => Ok(file),
            false => Err(Fault::invalid(format!("its SHA-256 is {}, not {}", found.hex(), sum.hex()))),
        }
    }

    /// Puts what is ready in the base's place.
    fn put(&self) -> Result<()> {
        let dir = self.dir();
        // A machine that goes down must not leave a base whose files are empty.
        rustix::fs::sync();
        let moved = || -> io::Result<()> {
            if dir.exists() {
                fs::rename(&dir, self.beside("old"))?;
            }
            fs::rename(self.beside("new"), &dir)
        };
        moved().context(|| format!("cannot put {} in its place", dir.display()))
    }
}

fn limits() -> UnpackLimits {
    UnpackLimits { bytes: UNPACKED, time: TIME, ..UnpackLimits::default() }
}

/// Unpacks a tar, plain or compressed by gzip, zstd or xz.
fn unpack_archive(archive: File, root: &Path, sum: &Digest, progress: &dyn Progress) -> Result<()> {
    let layer = Layer { diff_id: sum.clone(), chain_id: sum.clone(), parent: None };
    let staging = Staging { layer, dir: root.to_owned(), whiteouts: Whiteouts::Apply };
    progress.layer_started(sum, archive.metadata().ok().map(|file| file.len()));
    let mut source = BufReader::with_capacity(128 << 10, Heard { archive, sum, progress });
    let is_xz = source.fill_buf()?.starts_with(XZ_MAGIC);
    let source: Box<dyn Read + Send + '_> = match is_xz {
        true => Box::new(Xz(XzReader::new_mem_limit(source, true, XZ_MEMORY))),
        false => Box::new(source),
    };
    let expected = Expected { blob: None, diff_id: None };
    unpack(source, &expected, Some(&staging), &limits(), Box::new(|_| Ok(()))).context(|| "cannot unpack it")?;
    progress.layer_done(sum);
    Ok(())
}

/// Tells how much of an archive has been read.
struct Heard<'a> {
    archive: File,
    sum: &'a Digest,
    progress: &'a dyn Progress,
}

impl Read for Heard<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.archive.read(buffer)?;
        self.progress.bytes(self.sum, count as u64);
        Ok(count)
    }
}

/// Says in other words that memory is bounded.
struct Xz<R: Read>(XzReader<R>);

impl<R: Read> Read for Xz<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.0.read(buffer).map_err(|error| match error.kind() {
            io::ErrorKind::OutOfMemory => {
                let message = format!("its xz dictionary needs more than {} MiB, the limit", XZ_MEMORY >> 10);
                io::Error::new(io::ErrorKind::InvalidData, message)
            }
            _ => error,
        })
    }
}
