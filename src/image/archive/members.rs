//! The members of an archive by name, readable in any order and by several threads.

use std::collections::HashMap;
use std::fs::File;
use std::io::{self, BufReader, Read};
use std::os::unix::fs::FileExt;
use std::path::PathBuf;

use crate::fault::{Context, Fault, Result};
use crate::image::unpack::UnpackLimits;
use crate::image::unpack::entries::{Entries, EntryKind, Skip};
use crate::image::unpack::stream::read_capped;

/// Most members of a docker-save tar or OCI archive, and the longest of their names: they are kept in memory.
const MEMBERS_MAX: u64 = 20_000;
const NAME_MAX: usize = 1024;
/// Most links that lead from one member to the next.
const LINKS_MAX: usize = 8;

/// Where an archive's members are.
pub enum Members {
    /// Files beneath a directory, which is the user's own.
    Directory(PathBuf),
    /// Runs of bytes in a tar.
    Tar(File, HashMap<String, Member>),
}

/// A member of a tar.
pub enum Member {
    /// Offset and length.
    Data(u64, u64),
    /// Another member, by name: older Dockers shipped a layer once and linked to it.
    Link(String),
}

/// A run of bytes in a file, read without moving the file's own offset.
pub struct Slice<'a> {
    file: &'a File,
    at: u64,
    end: u64,
}

impl Read for Slice<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let want = buffer.len().min(usize::try_from(self.end - self.at).unwrap_or(usize::MAX));
        let n = self.file.read_at(&mut buffer[..want], self.at)?;
        self.at += n as u64;
        Ok(n)
    }
}

impl Skip for Slice<'_> {
    fn skip(&mut self, count: u64) -> io::Result<()> {
        if count > self.end - self.at {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        self.at += count;
        Ok(())
    }
}

impl Members {
    /// Notes where a tar's members begin.
    pub fn tar(file: File, limits: &UnpackLimits) -> Result<Self> {
        // A layer inside may be as large as the file, which is here already.
        let end = file.metadata().context(|| "cannot read its size")?.len();
        let limits = UnpackLimits { entries: MEMBERS_MAX, path: NAME_MAX, bytes: end, ..limits.clone() };
        let mut entries = Entries::new(BufReader::new(Slice { file: &file, at: 0, end }), &limits);
        let mut members = HashMap::new();
        while let Some(entry) = entries.next_entry()? {
            let Ok(name) = String::from_utf8(entry.path.as_bytes().to_vec()) else { continue };
            let member = match entry.kind {
                EntryKind::File(size) => Member::Data(entries.position(), size),
                EntryKind::Hardlink(target) => Member::Link(String::from_utf8_lossy(target.as_bytes()).into_owned()),
                EntryKind::Symlink(target) => Member::Link(beside(&name, &String::from_utf8_lossy(&target))),
                _ => continue,
            };
            members.insert(name, member);
        }
        Ok(Self::Tar(file, members))
    }

    /// Is there such a member?
    pub fn has(&self, name: &str) -> bool {
        match self {
            Self::Directory(root) => root.join(name).is_file(),
            Self::Tar(_, members) => members.contains_key(name),
        }
    }

    fn place(&self, name: &str) -> Result<(u64, u64)> {
        let Self::Tar(_, members) = self else { return Err(missing(name)) };
        let mut at = name;
        for _ in 0..LINKS_MAX {
            match members.get(at) {
                Some(Member::Data(offset, size)) => return Ok((*offset, *size)),
                Some(Member::Link(target)) => at = target,
                None => return Err(missing(at)),
            }
        }
        Err(Fault::invalid(format!("{} leads through more than {LINKS_MAX} links", name.escape_debug())))
    }

    /// Bytes of a member.
    pub fn size(&self, name: &str) -> Result<u64> {
        match self {
            Self::Directory(root) => root.join(name).metadata().map(|m| m.len()).map_err(|_| missing(name)),
            Self::Tar(..) => self.place(name).map(|(_, size)| size),
        }
    }

    /// A member's bytes.
    pub fn open(&self, name: &str) -> Result<Box<dyn Read + Send + '_>> {
        match self {
            Self::Directory(root) => {
                if !self.has(name) {
                    return Err(missing(name));
                }
                let file = File::open(root.join(name));
                Ok(Box::new(file.context(|| format!("cannot open {}", name.escape_debug()))?))
            }
            Self::Tar(file, _) => {
                let (at, size) = self.place(name)?;
                Ok(Box::new(Slice { file, at, end: at + size }))
            }
        }
    }

    /// A small member, whole.
    pub fn read(&self, name: &str, cap: u64) -> Result<Vec<u8>> {
        read_capped(BufReader::new(self.open(name)?), cap, name)
    }
}

fn missing(name: &str) -> Fault {
    Fault::invalid(format!("{} is not in it: the archive is not complete", name.escape_debug()))
}

/// The member that a link in `name`'s directory means; names only, no file system is asked.
fn beside(name: &str, target: &str) -> String {
    let mut parts: Vec<&str> = if target.starts_with('/') { Vec::new() } else { name.split('/').collect() };
    parts.pop();
    for part in target.split('/') {
        match part {
            "" | "." => {}
            ".." => {
                parts.pop();
            }
            part => parts.push(part),
        }
    }
    parts.join("/")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn links_are_resolved_by_name_alone() {
        assert_eq!(beside("a/layer.tar", "../b/layer.tar"), "b/layer.tar");
        assert_eq!(beside("layer.tar", "../../../etc/passwd"), "etc/passwd");
        assert_eq!(beside("a/b", "/c"), "c");
    }
}
