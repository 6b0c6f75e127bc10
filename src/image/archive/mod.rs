//! Archives of images: `docker save` tars, OCI archives (a tar of an OCI layout) and OCI layouts (a directory),
//! from a file, a directory or a stream; gzip or zstd around the whole is fine.
//!
//! A tar is never unpacked: where its members begin is noted once, and every layer is read from there. What
//! can't be read at a place of choice (a pipe, a compressed file) is first copied to a file without a name.

use std::collections::HashSet;
use std::fmt;
use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use crate::fault::{Context, Fault, Result};

use super::config::{CONFIG_MAX, ImageConfig};
use super::install::LayerSource;
use super::settings::Settings;
use super::store::Files;
use super::target::Target;
use super::unpack::stream::{Decoder, fault_inside};
use super::{Digest, Reference};

mod docker;
mod layout;
mod members;

use members::Members;

/// Where an archive comes from.
pub enum Source {
    /// A tar, perhaps compressed.
    File(PathBuf),
    /// A directory with an OCI layout.
    Directory(PathBuf),
    /// A tar, perhaps compressed, from anywhere; `name` is for messages.
    Stream {
        /// What to call it: "standard input".
        name: String,
        /// Its bytes.
        reader: Box<dyn Read + Send>,
    },
}

impl Source {
    /// A file or a directory, whichever is there.
    pub fn path(path: &Path) -> Self {
        if path.is_dir() { Self::Directory(path.to_owned()) } else { Self::File(path.to_owned()) }
    }
}

impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File(path) | Self::Directory(path) => write!(f, "{}", path.display()),
            Self::Stream { name, .. } => f.write_str(name),
        }
    }
}

/// An archive that is open.
pub struct Archive {
    members: Members,
}

/// One image found in an archive.
pub struct Archived {
    /// Its names there; may be none.
    pub names: Vec<Reference>,
    /// Its configuration.
    pub config: ImageConfig,
    /// Digest of its manifest, or of its config where there is no manifest.
    pub manifest: Digest,
    /// Digest of what its name stands for.
    pub resolved: Digest,
    /// Lowest first.
    pub layers: Vec<ArchivedLayer>,
}

/// Where a layer is.
pub struct ArchivedLayer {
    /// Its member.
    pub member: String,
    /// Its digest as shipped, where the archive says it.
    pub digest: Option<Digest>,
    /// Its bytes as shipped.
    pub size: u64,
}

/// Opens an archive; `files` gives the place for a copy when one is needed.
pub fn open(source: Source, files: &Files, settings: &Settings) -> Result<Archive> {
    let members = match source {
        Source::Directory(path) => Members::Directory(path),
        Source::File(path) => {
            let file = File::open(&path).context(|| "cannot open it")?;
            let seekable = file.metadata().is_ok_and(|meta| meta.is_file());
            if seekable && Decoder::new(&file).map_err(fault_inside)?.is_plain() {
                Members::tar(file, &settings.limits)?
            } else {
                use std::io::Seek;
                let mut file = file;
                if seekable {
                    file.rewind().context(|| "cannot read it")?;
                }
                Members::tar(copy(file, files, settings)?, &settings.limits)?
            }
        }
        Source::Stream { reader, .. } => Members::tar(copy(reader, files, settings)?, &settings.limits)?,
    };
    Ok(Archive { members })
}

/// The uncompressed bytes of `source` in a file without a name.
fn copy(source: impl Read, files: &Files, settings: &Settings) -> Result<File> {
    let mut scratch = files.scratch()?;
    let limit = settings.limits.bytes;
    let source = Decoder::new(source).map_err(fault_inside).context(|| "cannot read it")?;
    let copied = io::copy(&mut source.take(limit + 1), &mut scratch).map_err(fault_inside);
    if copied.context(|| "cannot copy it to where its layers can be read from")? > limit {
        return Err(Fault::invalid(format!("it is larger than {limit} bytes, the limit")));
    }
    Ok(scratch)
}

impl Archive {
    /// The images in it that this host can run.
    pub fn images(&self, target: &Target) -> Result<Vec<Archived>> {
        let candidates = if self.members.has("manifest.json") {
            docker::images(&self.members, target)?
        } else if self.members.has("index.json") {
            layout::images(&self.members, target)?
        } else if self.members.has("repositories") {
            return Err(Fault::invalid("it was saved by a Docker older than 1.10; save it again with a newer one"));
        } else {
            return Err(Fault::invalid(
                "it is no image: neither manifest.json (docker save) nor index.json (OCI layout) is in it",
            ));
        };
        let mut names = HashSet::new();
        for name in candidates.iter().flat_map(|image| &image.names) {
            if !names.insert(name.canonical()) {
                return Err(Fault::invalid(format!("it has two images named {name}")));
            }
        }
        Ok(candidates)
    }

    /// The layers of one of its images.
    pub fn layer_source<'a>(&'a self, layers: &'a [ArchivedLayer]) -> impl LayerSource + 'a {
        FromArchive { members: &self.members, layers }
    }
}

struct FromArchive<'a> {
    members: &'a Members,
    layers: &'a [ArchivedLayer],
}

impl LayerSource for FromArchive<'_> {
    fn open(&self, at: usize) -> Result<Box<dyn Read + Send + '_>> {
        self.members.open(&self.layers[at].member)
    }
}

/// Reads and checks a configuration.
fn read_config(members: &Members, member: &str, digest: Option<&Digest>) -> Result<(Digest, ImageConfig)> {
    let bytes = members.read(member, CONFIG_MAX)?;
    let found = Digest::of(&bytes);
    if let Some(expected) = digest
        && *expected != found
    {
        return Err(Fault::invalid(format!("{member} has digest {found}, not {expected}: the archive is damaged")));
    }
    Ok((found, ImageConfig::parse(&bytes)?))
}

fn nothing_fits(target: &Target, offered: impl Iterator<Item = String>) -> Fault {
    let offered: Vec<String> = offered.collect();
    Fault::invalid(format!("this host runs {target}, and it has only {}", offered.join(", ")))
}
