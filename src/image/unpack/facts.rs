//! What a layer says about users, noted while it is unpacked: later the image's user is looked up without
//! opening a layer again.

use std::io::BufRead;

use serde::{Deserialize, Serialize};

use crate::fault::Result;

use super::entries::{Entry, EntryKind};
use super::whiteout::Whiteout;

/// Largest /etc/passwd or /etc/group that is read; every layer of an image may bring both.
const ACCOUNTS_MAX: u64 = 128 << 10;

/// What a layer does to one file.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Seen {
    /// It has nothing to do with it.
    #[default]
    Untouched,
    /// It takes it away.
    Removed,
    /// It has one that can't be read here: a link, or too large.
    Unreadable,
    /// It brings this text.
    Text(String),
}

/// What is kept of a layer, by diff-id.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Facts {
    /// /etc/passwd
    pub passwd: Seen,
    /// /etc/group
    pub group: Seen,
}

impl Facts {
    fn slot(&mut self, path: &[u8]) -> Option<&mut Seen> {
        match path {
            b"etc/passwd" => Some(&mut self.passwd),
            b"etc/group" => Some(&mut self.group),
            _ => None,
        }
    }

    /// Should [`Facts::note`] be given this entry's data?
    pub fn wants(entry: &Entry) -> bool {
        let named = matches!(entry.path.as_bytes(), b"etc/passwd" | b"etc/group");
        named && matches!(entry.kind, EntryKind::File(size) if size <= ACCOUNTS_MAX)
    }

    /// Notes what `entry` means for the two files. A whiteout hides what lower layers have, not this one.
    pub fn note(&mut self, entry: &Entry, text: Option<&[u8]>) -> Result<()> {
        if let Some(whiteout) = Whiteout::of(entry)? {
            match whiteout {
                Whiteout::File(dir, file) if dir == b"etc" => self.hide_one(&[b"etc/", &file[..]].concat()),
                Whiteout::File(dir, file) if dir.is_empty() && file == b"etc" => self.hide_both(),
                Whiteout::Opaque(dir) if dir == b"etc" || dir.is_empty() => self.hide_both(),
                _ => {}
            }
            return Ok(());
        }
        if entry.path.as_bytes() == b"etc" && entry.kind != EntryKind::Directory {
            *self = Self { passwd: Seen::Removed, group: Seen::Removed };
        }
        if let Some(slot) = self.slot(entry.path.as_bytes()) {
            *slot = match (&entry.kind, text) {
                (EntryKind::Special, _) => return Ok(()),
                (EntryKind::File(_), Some(text)) => Seen::Text(String::from_utf8_lossy(text).into_owned()),
                _ => Seen::Unreadable,
            };
        }
        Ok(())
    }

    fn hide_one(&mut self, path: &[u8]) {
        if let Some(slot @ Seen::Untouched) = self.slot(path) {
            *slot = Seen::Removed;
        }
    }

    fn hide_both(&mut self) {
        self.hide_one(b"etc/passwd");
        self.hide_one(b"etc/group");
    }
}

/// Reads a small file's data.
pub fn read_small(data: &mut dyn BufRead) -> Result<Vec<u8>> {
    super::stream::read_capped(data, ACCOUNTS_MAX, "an account file")
}
