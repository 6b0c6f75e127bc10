//! The builder's base: a system's tree, from an archive or an image, that a Go which is not statically linked is lent in
//! place of the host's own libraries. `faas-jails init` makes it.
//!
//! ```text
//!  URL ─ download ─┐
//!  file ───────────┴─ sum checked ─ unpack ─┐
//!  image ── digests checked ─ unpack ───────┴─> base.new: is it a base? ─ rename ─> base/root, base/sum
//! ```
//!
//! Invariants:
//! - Nothing is unpacked before its checksum is known to be right; the unpacker is that of images, with its rules.
//! - What is under the base's name is whole: it comes there by rename(2), with the sum that it was made from beside it.
//! - None of the directories that builds are lent leads out of the base.

use std::fmt;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use serde::Deserialize;

use super::toolchain::LIBRARIES;
use crate::fault::{Context, Fault, Result};
use crate::files;
use crate::image::{Digest, Reference};
use crate::platform::LOADERS;

mod make;
mod step;

pub use step::Step;

/// `[builder.base]` of the configuration.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(try_from = "Written")]
pub struct Settings {
    /// Where it comes from.
    pub from: Origin,
    /// SHA-256 of the archive, or the image's digest.
    pub sum: Digest,
}

/// Where a base comes from.
#[derive(Debug, Clone, PartialEq)]
pub enum Origin {
    /// An archive on a web server.
    Url(String),
    /// An archive in a file.
    File(PathBuf),
    /// An image in a registry; its name has a digest.
    Image(Reference),
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Url(url) => f.write_str(url),
            Self::File(path) => path.display().fmt(f),
            Self::Image(reference) => write!(f, "image {reference}"),
        }
    }
}

/// As it is written: `from` is a URL, an absolute path, or `image:` and a reference.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Written {
    from: String,
    sum: Option<String>,
}

impl TryFrom<Written> for Settings {
    type Error = Fault;

    fn try_from(Written { from, sum }: Written) -> Result<Self> {
        if let Some(name) = from.strip_prefix("image:") {
            let reference: Reference = name.parse().context(|| "from")?;
            return match (reference.digest().cloned(), sum) {
                (_, Some(_)) => Err(Fault::invalid("sum is for archives: an image has its digest in its name")),
                (None, None) => Err(Fault::invalid(format!("{from} needs a digest: {from}@sha256:…"))),
                (Some(sum), None) => Ok(Self { from: Origin::Image(reference), sum }),
            };
        }
        let origin = match from.as_str() {
            url if url.starts_with("https://") || url.starts_with("http://") => Origin::Url(from.clone()),
            path if path.starts_with('/') => Origin::File(path.into()),
            _ => {
                return Err(Fault::invalid(format!(
                    "{} is none of these: an http or https URL, an absolute path, image:NAME@sha256:…",
                    from.escape_debug()
                )));
            }
        };
        let sum = sum.ok_or_else(|| Fault::invalid(format!("sum is missing: the SHA-256 of {from}")))?;
        let sum = format!("sha256:{}", sum.to_ascii_lowercase()).parse().context(|| "sum")?;
        Ok(Self { from: origin, sum })
    }
}

/// Where the base of a state directory is.
#[derive(Debug, Clone)]
pub struct Place {
    builder: PathBuf,
}

impl Place {
    /// Below the builder's directory.
    pub fn below(builder: &Path) -> Self {
        Self { builder: builder.to_owned() }
    }

    fn dir(&self) -> PathBuf {
        self.builder.join("base")
    }

    /// The tree.
    pub fn root(&self) -> PathBuf {
        self.dir().join("root")
    }

    /// What the base was made from; `None` when none was made.
    pub fn made_from(&self) -> Result<Option<Digest>> {
        files::read_json(&self.dir().join("sum"))
    }

    /// Takes the base away; `false` when there is none that was made here.
    fn remove(&self) -> Result<bool> {
        self.sweep()?;
        if self.made_from()?.is_none() {
            return Ok(false);
        }
        // Out of sight first: what is half removed must not be taken for a base.
        let old = self.beside("old");
        fs::rename(self.dir(), &old).context(|| format!("cannot remove {}", self.dir().display()))?;
        files::remove_tree(&old)
    }

    /// What is not a base yet, or not any more.
    fn beside(&self, what: &str) -> PathBuf {
        self.builder.join(format!(".base.{what}"))
    }

    /// Removes what an interrupted run left.
    fn sweep(&self) -> Result<()> {
        files::remove(&self.beside("archive"))?;
        files::remove_tree(&self.beside("new"))?;
        files::remove_tree(&self.beside("old")).map(drop)
    }
}

/// Whether a tree can be lent: this host's run-time linker is in it, and nothing that is lent leads out of it.
fn check(root: &Path) -> Result<()> {
    let root = fs::canonicalize(root).context(|| format!("cannot enter {}", root.display()))?;
    // A link at any step of such a path is a name of this list itself.
    for name in ["usr"].iter().chain(&LIBRARIES) {
        let path = root.join(name);
        let there = match fs::symlink_metadata(&path) {
            Err(e) if e.kind() == io::ErrorKind::NotFound => continue,
            _ => fs::canonicalize(&path),
        };
        if !there.is_ok_and(|there| there.starts_with(&root)) {
            return Err(Fault::invalid(format!("its {name} leads out of it")));
        }
    }
    let inside = |name: &&str| fs::canonicalize(root.join(name)).is_ok_and(|path| path.starts_with(&root));
    let missing = match root.join("lib").is_dir() {
        false => "lib",
        true if LOADERS.iter().any(inside) => return Ok(()),
        true => LOADERS[0],
    };
    Err(Fault::invalid(format!("it is no system of this host's sort: it has no {missing}")))
}

#[cfg(test)]
mod tests;
