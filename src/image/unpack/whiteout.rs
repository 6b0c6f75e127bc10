//! Whiteouts (OCI image-spec, layer.md): names that say what of the layers below is gone.

use crate::fault::{Fault, Result};

use super::entries::{Entry, EntryKind};

const PREFIX: &[u8] = b".wh.";
const OPAQUE: &[u8] = b".wh..wh..opq";
/// What AUFS kept for itself; Docker leaves it out, too.
const AUFS: &[u8] = b".wh..wh.";

/// What a whiteout entry asks for. Paths have their components joined by `/`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Whiteout {
    /// Directory and name of what is gone.
    File(Vec<u8>, Vec<u8>),
    /// Everything that lower layers have in this directory is gone.
    Opaque(Vec<u8>),
    /// Another file system's bookkeeping.
    Nothing,
}

impl Whiteout {
    /// The whiteout that `entry` is, if it is one.
    pub fn of(entry: &Entry) -> Result<Option<Self>> {
        let (dir, file) = entry.path.split();
        if dir.split(|b| *b == b'/').any(|part| part.starts_with(AUFS) && part != OPAQUE) {
            return Ok(Some(Self::Nothing));
        }
        if dir.split(|b| *b == b'/').any(|part| part.starts_with(PREFIX)) {
            return Err(Fault::invalid("is a whiteout with a slash in its name"));
        }
        let Some(hidden) = file.strip_prefix(PREFIX) else { return Ok(None) };
        if file == OPAQUE {
            return Self::plain(entry).map(|()| Some(Self::Opaque(dir.to_vec())));
        }
        if file.starts_with(AUFS) {
            return Ok(Some(Self::Nothing));
        }
        if matches!(hidden, b"" | b"." | b"..") {
            return Err(Fault::invalid("is a whiteout of no name"));
        }
        Self::plain(entry).map(|()| Some(Self::File(dir.to_vec(), hidden.to_vec())))
    }

    fn plain(entry: &Entry) -> Result<()> {
        match entry.kind {
            EntryKind::File(_) | EntryKind::Hardlink(_) => Ok(()),
            _ => Err(Fault::invalid("is a whiteout that is no plain file")),
        }
    }
}
