//! Git packs, version 2 (git's Documentation/gitformat-pack): a list of objects, some as differences from others.

use std::collections::HashMap;
use std::io::Read;
use std::path::Path;

use flate2::bufread::ZlibDecoder;
use ring::digest::{Context as Hash, SHA1_FOR_LEGACY_USE_ONLY};

use crate::build::tree::Copier;
use crate::fault::{Fault, Result};

/// Most objects in a pack.
const OBJECTS: u32 = 200_000;
/// Deepest nesting of directories.
const DEPTH: usize = 64;

type Id = [u8; 20];

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Sort {
    Commit,
    Tree,
    Blob,
    Tag,
}

impl Sort {
    fn name(self) -> &'static str {
        match self {
            Sort::Commit => "commit",
            Sort::Tree => "tree",
            Sort::Blob => "blob",
            Sort::Tag => "tag",
        }
    }
}

/// The objects of a pack, each under the name that its content gives it.
pub struct Objects {
    objects: Vec<(Sort, Vec<u8>)>,
    by_id: HashMap<Id, usize>,
}

fn broken(why: &str) -> Fault {
    Fault::invalid(format!("its server sent a pack that makes no sense: {why}"))
}

impl Objects {
    /// Reads a whole pack, whose objects together may have `most` bytes.
    pub fn read(bytes: &[u8], most: u64) -> Result<Self> {
        let (body, sum) = bytes.split_last_chunk::<20>().ok_or_else(|| broken("it is too short"))?;
        if hash(&[body]) != *sum {
            return Err(broken("its checksum is wrong"));
        }
        let header: &[u8; 12] = body.first_chunk().ok_or_else(|| broken("it is too short"))?;
        let count = u32::from_be_bytes([header[8], header[9], header[10], header[11]]);
        if !header.starts_with(b"PACK\0\0\0\x02") {
            return Err(broken("it is no pack of version 2"));
        }
        if count > OBJECTS {
            return Err(Fault::invalid(format!("it has {count} files and directories; {OBJECTS} is the limit")));
        }
        let mut reader = Reader { body, at: header.len(), left: most, most, by_offset: HashMap::new() };
        let mut found = Self { objects: Vec::new(), by_id: HashMap::new() };
        for _ in 0..count {
            let start = reader.at;
            let (sort, content) = reader.object(&found)?;
            let id = hash(&[format!("{} {}\0", sort.name(), content.len()).as_bytes(), &content]);
            reader.by_offset.insert(start, found.objects.len());
            found.by_id.insert(id, found.objects.len());
            found.objects.push((sort, content));
        }
        Ok(found)
    }

    fn get(&self, id: &Id, sort: Sort) -> Result<&[u8]> {
        match self.by_id.get(id).and_then(|at| self.objects.get(*at)) {
            Some((found, content)) if *found == sort => Ok(content),
            _ => Err(broken(&format!("{} {} is not in it", sort.name(), hex::encode(id)))),
        }
    }

    /// Writes the tree of a commit, or of what a tag of that name points to.
    pub fn check_out(&self, commit: &str, to: &mut Copier) -> Result<()> {
        let mut id: Id = id_of(commit).ok_or_else(|| Fault::invalid("no commit name"))?;
        if let Ok(tag) = self.get(&id, Sort::Tag) {
            id = header(tag, "object").ok_or_else(|| broken("a tag points nowhere"))?;
        }
        let tree = header(self.get(&id, Sort::Commit)?, "tree").ok_or_else(|| broken("a commit has no tree"))?;
        self.level(&tree, Path::new(""), 0, to)
    }

    fn level(&self, tree: &Id, at: &Path, depth: usize, to: &mut Copier) -> Result<()> {
        if depth > DEPTH {
            return Err(Fault::invalid(format!("it is more than {DEPTH} directories deep")));
        }
        let mut rest = self.get(tree, Sort::Tree)?;
        while !rest.is_empty() {
            let (entry, after) = split(rest, 0).ok_or_else(|| broken("a directory is cut off"))?;
            let (mode, name) = split(entry, b' ').ok_or_else(|| broken("a directory is cut off"))?;
            let (id, after) = after.split_first_chunk::<20>().ok_or_else(|| broken("a directory is cut off"))?;
            rest = after;
            let name = std::str::from_utf8(name).map_err(|_| Fault::invalid("it has a file whose name is no UTF-8"))?;
            if matches!(name, "" | "." | "..") || name.contains('/') || name.eq_ignore_ascii_case(".git") {
                return Err(broken(&format!("a file is called {}", name.escape_debug())));
            }
            let path = at.join(name);
            match mode {
                b"40000" => {
                    to.directory(&path)?;
                    self.level(id, &path, depth + 1, to)?;
                }
                b"100755" => to.file(&path, self.get(id, Sort::Blob)?, true)?,
                b"100644" | b"100664" => to.bytes(&path, self.get(id, Sort::Blob)?)?,
                b"120000" => {
                    let target = std::str::from_utf8(self.get(id, Sort::Blob)?).map_err(|_| {
                        Fault::invalid(format!("link {} leads to a name that is no UTF-8", path.display()))
                    })?;
                    to.link(&path, Path::new(target))?;
                }
                // A submodule: a commit of another repository, which is not fetched.
                b"160000" => to.directory(&path)?,
                _ => return Err(broken("a file has a mode that Git does not have")),
            }
        }
        Ok(())
    }
}

fn split(bytes: &[u8], at: u8) -> Option<(&[u8], &[u8])> {
    let place = bytes.iter().position(|byte| *byte == at)?;
    Some((&bytes[..place], &bytes[place + 1..]))
}

/// The object that a header line of a commit or tag names.
fn header(object: &[u8], name: &str) -> Option<Id> {
    let text = String::from_utf8_lossy(object.get(..object.len().min(4096))?);
    let line =
        text.lines().take_while(|line| !line.is_empty()).find_map(|line| line.strip_prefix(name)?.strip_prefix(' '))?;
    id_of(line)
}

fn id_of(text: &str) -> Option<Id> {
    hex::decode(text).ok()?.try_into().ok()
}

fn hash(parts: &[&[u8]]) -> Id {
    let mut hash = Hash::new(&SHA1_FOR_LEGACY_USE_ONLY);
    parts.iter().for_each(|part| hash.update(part));
    let mut id = [0; 20];
    id.copy_from_slice(hash.finish().as_ref());
    id
}

/// Goes through a pack from front to back.
struct Reader<'a> {
    body: &'a [u8],
    at: usize,
    left: u64,
    most: u64,
    by_offset: HashMap<usize, usize>,
}

impl Reader<'_> {
    fn byte(&mut self) -> Result<u8> {
        let byte = *self.body.get(self.at).ok_or_else(|| broken("it is cut off"))?;
        self.at += 1;
        Ok(byte)
    }

    fn object(&mut self, found: &Objects) -> Result<(Sort, Vec<u8>)> {
        let start = self.at;
        let first = self.byte()?;
        let (kind, mut size, mut shift, mut byte) = (first >> 4 & 7, u64::from(first & 15), 4, first);
        while byte & 0x80 != 0 {
            byte = self.byte()?;
            if shift > 56 {
                return Err(broken("an object is too large"));
            }
            size |= u64::from(byte & 0x7f) << shift;
            shift += 7;
        }
        let sort = match kind {
            1 => Sort::Commit,
            2 => Sort::Tree,
            3 => Sort::Blob,
            4 => Sort::Tag,
            6 | 7 => {
                let base = if kind == 6 { self.offset_base(start)? } else { self.named_base(found)? };
                let delta = self.inflate(size)?;
                let (sort, content) = found.objects.get(base).ok_or_else(|| broken("a difference has no base"))?;
                return Ok((*sort, self.patch(content, &delta)?));
            }
            _ => return Err(broken("an object is of no known sort")),
        };
        Ok((sort, self.inflate(size)?))
    }

    /// "offset encoding" of gitformat-pack.
    fn offset_base(&mut self, start: usize) -> Result<usize> {
        let mut byte = self.byte()?;
        let mut offset = usize::from(byte & 0x7f);
        while byte & 0x80 != 0 {
            byte = self.byte()?;
            let next = offset
                .checked_add(1)
                .and_then(|o| o.checked_mul(128))
                .ok_or_else(|| broken("an offset is too large"))?;
            offset = next | usize::from(byte & 0x7f);
        }
        let base = start.checked_sub(offset).and_then(|at| self.by_offset.get(&at));
        base.copied().ok_or_else(|| broken("a difference has no base"))
    }

    fn named_base(&mut self, found: &Objects) -> Result<usize> {
        let id = self
            .body
            .get(self.at..)
            .and_then(|rest| rest.first_chunk::<20>())
            .ok_or_else(|| broken("it is cut off"))?;
        self.at += id.len();
        found.by_id.get(id).copied().ok_or_else(|| broken("a difference has no base"))
    }

    fn count(&mut self, bytes: u64) -> Result<()> {
        self.left = self.left.checked_sub(bytes).ok_or_else(|| {
            Fault::invalid(format!("it has more than {} bytes, the limit (builder.source)", self.most))
        })?;
        Ok(())
    }

    fn inflate(&mut self, size: u64) -> Result<Vec<u8>> {
        self.count(size)?;
        let mut decoder = ZlibDecoder::new(&self.body[self.at..]);
        let mut content = Vec::new();
        (&mut decoder).take(size + 1).read_to_end(&mut content).map_err(|_| broken("an object is damaged"))?;
        if content.len() as u64 != size {
            return Err(broken("an object is not as long as it says"));
        }
        self.at += decoder.total_in() as usize;
        Ok(content)
    }

    /// Applies a difference ("Deltified representation" of gitformat-pack).
    fn patch(&mut self, base: &[u8], delta: &[u8]) -> Result<Vec<u8>> {
        let mut rest = delta;
        let cut = || broken("a difference is cut off");
        let next = |rest: &mut &[u8]| -> Result<u8> {
            let (first, after) = rest.split_first().ok_or_else(cut)?;
            *rest = after;
            Ok(*first)
        };
        let length = |rest: &mut &[u8]| -> Result<u64> {
            let (mut value, mut shift) = (0u64, 0);
            loop {
                let byte = next(rest)?;
                value |= u64::from(byte & 0x7f) << shift;
                shift += 7;
                if byte & 0x80 == 0 {
                    return Ok(value);
                }
                if shift > 56 {
                    return Err(broken("a difference is too large"));
                }
            }
        };
        let (from, to) = (length(&mut rest)?, length(&mut rest)?);
        if from != base.len() as u64 {
            return Err(broken("a difference is from something else"));
        }
        self.count(to)?;
        let mut out = Vec::new();
        while let Some((&op, after)) = rest.split_first() {
            rest = after;
            let piece = if op & 0x80 != 0 {
                let mut field = |bits: std::ops::Range<u8>| -> Result<usize> {
                    let mut value = 0;
                    for (place, bit) in bits.enumerate() {
                        if op & (1 << bit) != 0 {
                            let (byte, after) = rest.split_first().ok_or_else(cut)?;
                            rest = after;
                            value |= usize::from(*byte) << (8 * place);
                        }
                    }
                    Ok(value)
                };
                let (offset, size) = (field(0..4)?, field(4..7)?);
                let size = if size == 0 { 0x10000 } else { size };
                base.get(offset..offset + size).ok_or_else(|| broken("a difference reaches too far"))?
            } else if op != 0 {
                let (piece, after) = rest.split_at_checked(usize::from(op)).ok_or_else(cut)?;
                rest = after;
                piece
            } else {
                return Err(broken("a difference has an instruction that there is not"));
            };
            out.extend_from_slice(piece);
            if out.len() as u64 > to {
                return Err(broken("a difference makes more than it says"));
            }
        }
        if out.len() as u64 == to { Ok(out) } else { Err(broken("a difference makes less than it says")) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;
    use std::process::{Command, Stdio};

    fn git(dir: &Path, arguments: &[&str], input: &str) -> Vec<u8> {
        let mut child = Command::new("git")
            .args(["-c", "user.name=t", "-c", "user.email=t@t", "-c", "commit.gpgsign=false"])
            .args(arguments)
            .current_dir(dir)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        child.stdin.take().unwrap().write_all(input.as_bytes()).unwrap();
        let output = child.wait_with_output().unwrap();
        assert!(output.status.success(), "git {arguments:?}");
        output.stdout
    }

    /// A real pack with differences in it, and its commit.
    fn packed() -> Option<(Vec<u8>, String)> {
        if Command::new("git").arg("--version").output().is_err() {
            eprintln!("SKIPPED: needs git");
            return None;
        }
        let temp = tempfile::tempdir().unwrap();
        let at = temp.path();
        git(at, &["init", "-q"], "");
        std::fs::create_dir(at.join("dir")).unwrap();
        let text: String = (0..2000).map(|n| format!("line {n}\n")).collect();
        std::fs::write(at.join("a.txt"), &text).unwrap();
        std::fs::write(at.join("dir/b.txt"), text.replace("line 7\n", "another line\n")).unwrap();
        std::os::unix::fs::symlink("../a.txt", at.join("dir/link")).unwrap();
        git(at, &["add", "."], "");
        git(at, &["commit", "-qm", "x"], "");
        let commit = String::from_utf8(git(at, &["rev-parse", "HEAD"], "")).unwrap().trim().to_owned();
        let list = String::from_utf8(git(at, &["rev-list", "--objects", "HEAD"], "")).unwrap();
        let ids: String = list.lines().map(|line| line.split(' ').next().unwrap().to_owned() + "\n").collect();
        Some((git(at, &["pack-objects", "--delta-base-offset", "--stdout", "-q"], &ids), commit))
    }

    #[test]
    fn what_git_packed_is_checked_out_as_it_was() {
        let Some((pack, commit)) = packed() else { return };
        let temp = tempfile::tempdir().unwrap();
        let to = temp.path().join("to");
        let objects = Objects::read(&pack, 1 << 20).unwrap();
        objects.check_out(&commit, &mut Copier::new(&to, 1 << 20).unwrap()).unwrap();
        assert!(std::fs::read_to_string(to.join("dir/b.txt")).unwrap().contains("\nanother line\nline 8\n"));
        assert_eq!(std::fs::read_link(to.join("dir/link")).unwrap(), Path::new("../a.txt"));
        assert!(Objects::read(&pack, 1000).err().unwrap().to_string().contains("builder.source"));
        assert!(objects.check_out(&"0".repeat(40), &mut Copier::new(&temp.path().join("x"), 1).unwrap()).is_err());
    }

    #[test]
    fn a_damaged_pack_is_refused_and_never_read_beyond_its_end() {
        let Some((pack, _)) = packed() else { return };
        for length in 0..pack.len() {
            assert!(Objects::read(&pack[..length], 1 << 20).is_err(), "cut to {length}");
        }
        for at in 12..pack.len() - 20 {
            let mut bent = pack[..pack.len() - 20].to_vec();
            bent[at] ^= 0x55;
            let sum = hash(&[&bent]);
            bent.extend_from_slice(&sum);
            // Whatever becomes of it, it does not panic and stays inside its limits.
            let _ = Objects::read(&bent, 1 << 20);
        }
    }
}
