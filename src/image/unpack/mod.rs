//! Unpacks one layer: a stream of bytes from anywhere becomes files beneath one directory, or a refusal.
//!
//! Rules, each of which fails the layer unless it says "left out":
//!
//! * the blob's digest and the diff-id are what the manifest and the config say;
//! * a path has no `..`; a leading `/` or `./` means nothing;
//! * nothing is reached through a link: a parent must be a directory;
//! * one header, one meaning: sizes agree, PAX records are well-formed, nothing follows the end of an entry;
//! * entries, bytes, path lengths, header sizes, compression ratio and time are capped ([`UnpackLimits`]);
//! * left out: devices, fifos, sockets, setuid and setgid bits, file flags, and every extended attribute that
//!   is not `user.*`.

use std::io::Read;

use crate::fault::{Context, Result};
use crate::storage::Staging;

mod apply;
pub(super) mod entries;
mod facts;
mod limits;
pub(super) mod path;
mod pax;
mod pipe;
mod sparse;
pub(super) mod stream;
mod tree;
mod whiteout;

pub use facts::{Facts, Seen};
pub use limits::UnpackLimits;
pub use stream::{Expected, OnBytes};

/// What came of unpacking a layer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Unpacked {
    /// What later steps need to know of it.
    pub facts: Facts,
    /// Bytes as shipped.
    pub shipped: u64,
    /// Files, directories and links made.
    pub made: u64,
    /// Devices, fifos and sockets left out.
    pub left_out: u64,
}

/// Unpacks the layer that `source` holds into `staging`, or only reads and checks it when there is none.
/// On failure the staging directory holds half a layer and must be thrown away.
pub fn unpack(
    source: impl Read + Send,
    expected: &Expected<'_>,
    staging: Option<&Staging>,
    limits: &UnpackLimits,
    on_bytes: OnBytes<'_>,
) -> Result<Unpacked> {
    let stream = stream::LayerStream::new(source, expected, limits, on_bytes)?;
    let (unpacked, stream) = pipe::piped(stream, |tar| {
        let unpacked = place(tar, staging, limits)?;
        // Whatever follows the end of the tar belongs to the digests.
        std::io::copy(tar, &mut std::io::sink()).map_err(stream::fault_inside)?;
        Ok(unpacked)
    })?;
    let shipped = stream.finish(expected)?;
    Ok(Unpacked { shipped, ..unpacked })
}

/// Puts the entries of a tar where they belong.
fn place(tar: &mut pipe::Pipe, staging: Option<&Staging>, limits: &UnpackLimits) -> Result<Unpacked> {
    let mut entries = entries::Entries::new(tar, limits);
    let mut applier = staging.map(apply::Applier::new).transpose()?;
    let mut facts = Facts::default();
    while let Some(entry) = entries.next_entry()? {
        if Facts::wants(&entry) {
            let text = facts::read_small(&mut entries.data()).context(|| format!("entry {}", entry.path))?;
            facts.note(&entry, Some(&text))?;
            if let Some(applier) = &mut applier {
                applier.apply(&entry, &mut &text[..])?;
            }
        } else {
            facts.note(&entry, None)?;
            if let Some(applier) = &mut applier {
                applier.apply(&entry, &mut entries.data())?;
            }
        }
    }
    let (made, left_out) = applier.map(apply::Applier::finish).transpose()?.unwrap_or_default();
    Ok(Unpacked { facts, shipped: 0, made, left_out })
}
