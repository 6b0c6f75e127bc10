//! Git repositories of the tests' own, for machines without git, and for packs that no git would send: objects, packs
//! and the two requests of protocol version 2 that a clone of one commit makes (git's Documentation/gitformat-pack,
//! gitprotocol-v2).

use std::collections::{BTreeMap, HashMap};
use std::fs;
use std::io::Write;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use flate2::Compression;
use flate2::write::ZlibEncoder;
use ring::digest::{SHA1_FOR_LEGACY_USE_ONLY, digest};

/// An object's name.
pub type Id = [u8; 20];

/// Sorts of objects, as packs number them.
pub const COMMIT: u8 = 1;
pub const TREE: u8 = 2;
pub const BLOB: u8 = 3;
const NAMES: [&str; 4] = ["", "commit", "tree", "blob"];

/// What a repository has.
#[derive(Default)]
pub struct Objects {
    objects: HashMap<Id, (u8, Vec<u8>)>,
    refs: BTreeMap<String, Id>,
    /// The branch that commits are put on, which is at first the default one.
    branch: String,
    /// Sent in place of a pack of the objects.
    pub pack: Option<Vec<u8>>,
}

impl Objects {
    /// Keeps an object; gives its name.
    pub fn add(&mut self, sort: u8, content: Vec<u8>) -> Id {
        let head = format!("{} {}\0", NAMES[sort as usize], content.len());
        let id = sha1(&[head.as_bytes(), &content].concat());
        self.objects.insert(id, (sort, content));
        id
    }

    /// A directory of these entries: mode, name, object.
    pub fn tree(&mut self, mut entries: Vec<(&str, Vec<u8>, Id)>) -> Id {
        // Directories sort as if their names ended in a slash.
        let place = |(mode, name, _): &(&str, Vec<u8>, Id)| {
            let slash: &[u8] = if *mode == "40000" { b"/" } else { b"" };
            [name.as_slice(), slash].concat()
        };
        entries.sort_by_key(place);
        let lines = entries.iter().flat_map(|(mode, name, id)| [mode.as_bytes(), b" ", name, b"\0", id].concat());
        let content = lines.collect();
        self.add(TREE, content)
    }

    /// Commits a tree on the branch; gives the commit.
    pub fn commit_tree(&mut self, tree: Id) -> String {
        let reference = format!("refs/heads/{}", self.branch());
        let parent = self.refs.get(&reference).map(|id| format!("parent {}\n", hex::encode(id))).unwrap_or_default();
        let who = "test <test@example.test> 1700000000 +0000";
        let text = format!("tree {}\n{parent}author {who}\ncommitter {who}\n\nchange\n", hex::encode(tree));
        let id = self.add(COMMIT, text.into_bytes());
        self.refs.insert(reference, id);
        hex::encode(id)
    }

    /// Commits what is in a directory.
    pub fn commit(&mut self, work: &Path) -> String {
        let tree = self.directory(work);
        self.commit_tree(tree)
    }

    fn directory(&mut self, dir: &Path) -> Id {
        let mut entries = Vec::new();
        for entry in fs::read_dir(dir).expect("reading a work tree").flatten() {
            let (path, name) = (entry.path(), entry.file_name().as_bytes().to_vec());
            let metadata = entry.metadata().expect("looking at a file");
            let (mode, id) = if metadata.is_symlink() {
                let target = fs::read_link(&path).expect("reading a link");
                ("120000", self.add(BLOB, target.as_os_str().as_bytes().to_vec()))
            } else if metadata.is_dir() {
                ("40000", self.directory(&path))
            } else {
                let mode = if metadata.permissions().mode() & 0o100 != 0 { "100755" } else { "100644" };
                (mode, self.add(BLOB, fs::read(&path).expect("reading a file")))
            };
            entries.push((mode, name, id));
        }
        self.tree(entries)
    }

    fn branch(&self) -> &str {
        if self.branch.is_empty() { "main" } else { &self.branch }
    }

    /// Names the last commit.
    pub fn tag(&mut self, name: &str) {
        let head = self.refs[&format!("refs/heads/{}", self.branch())];
        self.refs.insert(format!("refs/tags/{name}"), head);
    }

    /// Goes on on a new branch.
    pub fn switch(&mut self, name: &str) {
        let head = self.refs[&format!("refs/heads/{}", self.branch())];
        self.branch = name.to_owned();
        self.refs.insert(format!("refs/heads/{name}"), head);
    }

    /// Answers a request: its content type and body.
    pub fn answer(&self, path: &str, body: &[u8]) -> (&'static str, Vec<u8>) {
        let mut out = Vec::new();
        if path.ends_with("/info/refs") {
            for text in ["version 2", "ls-refs", "fetch=shallow", "object-format=sha1"] {
                line(&mut out, format!("{text}\n").as_bytes());
            }
            out.extend_from_slice(b"0000");
            return ("application/x-git-upload-pack-advertisement", out);
        }
        let asked = String::from_utf8_lossy(body);
        if asked.contains("command=ls-refs") {
            self.references(&mut out);
        } else {
            let asked = asked.split("want ").nth(1).and_then(|rest| rest.get(..40)).unwrap_or_default();
            let wanted = hex::decode(asked).ok();
            match wanted.and_then(|id| id.try_into().ok()).filter(|id| self.objects.contains_key(id)) {
                Some(id) => self.send(id, &mut out),
                None => line(&mut out, format!("ERR upload-pack: not our ref {asked}").as_bytes()),
            }
        }
        ("application/x-git-upload-pack-result", out)
    }

    fn references(&self, out: &mut Vec<u8>) {
        if let Some(id) = self.refs.get("refs/heads/main") {
            line(out, format!("{} HEAD symref-target:refs/heads/main\n", hex::encode(id)).as_bytes());
        }
        for (name, id) in &self.refs {
            line(out, format!("{} {name}\n", hex::encode(id)).as_bytes());
        }
        out.extend_from_slice(b"0000");
    }

    fn send(&self, commit: Id, out: &mut Vec<u8>) {
        line(out, b"shallow-info\n");
        line(out, format!("shallow {}\n", hex::encode(commit)).as_bytes());
        out.extend_from_slice(b"0001");
        line(out, b"packfile\n");
        let pack = self.pack.clone().unwrap_or_else(|| self.packed(commit));
        for piece in pack.chunks(60_000) {
            line(out, &[b"\x01", piece].concat());
        }
        out.extend_from_slice(b"0000");
    }

    /// A pack with a commit and its tree.
    fn packed(&self, commit: Id) -> Vec<u8> {
        let mut wanted = vec![commit];
        let mut seen = Vec::new();
        while let Some(id) = wanted.pop() {
            // A submodule's commit is another repository's.
            let Some((sort, content)) = self.objects.get(&id).filter(|_| !seen.contains(&id)) else { continue };
            seen.push(id);
            match *sort {
                COMMIT => wanted.push(hex::decode(&content[5..45]).expect("a tree").try_into().expect("a tree")),
                TREE => wanted.extend(named(content)),
                _ => {}
            }
        }
        let objects: Vec<Vec<u8>> = seen.iter().map(|id| plain(self.objects[id].0, &self.objects[id].1)).collect();
        pack(&objects)
    }
}

/// The objects that a directory names.
fn named(mut tree: &[u8]) -> Vec<Id> {
    let mut ids = Vec::new();
    while let Some(end) = tree.iter().position(|byte| *byte == 0) {
        ids.push(tree[end + 1..end + 21].try_into().expect("a name"));
        tree = &tree[end + 21..];
    }
    ids
}

/// A pack of objects that are encoded already.
pub fn pack(objects: &[Vec<u8>]) -> Vec<u8> {
    let mut out = [&b"PACK\0\0\0\x02"[..], &(objects.len() as u32).to_be_bytes(), &objects.concat()].concat();
    out.extend(sha1(&out));
    out
}

/// An object in a pack.
pub fn plain(sort: u8, content: &[u8]) -> Vec<u8> {
    [head(sort, content.len()), deflated(content)].concat()
}

/// A difference from the object called `base`; `delta` is what is to be done with that.
pub fn difference(base: &Id, delta: &[u8]) -> Vec<u8> {
    [head(7, delta.len()), base.to_vec(), deflated(delta)].concat()
}

/// Sort and size of an object.
pub fn head(sort: u8, size: usize) -> Vec<u8> {
    let mut out = vec![sort << 4 | (size & 15) as u8];
    let mut rest = size >> 4;
    while rest > 0 {
        *out.last_mut().expect("a byte") |= 0x80;
        out.push((rest & 0x7f) as u8);
        rest >>= 7;
    }
    out
}

/// A number in a difference.
pub fn length(mut number: usize) -> Vec<u8> {
    let mut out = Vec::new();
    while number > 0x7f {
        out.push((number & 0x7f) as u8 | 0x80);
        number >>= 7;
    }
    out.push(number as u8);
    out
}

/// Compressed by zlib.
pub fn deflated(content: &[u8]) -> Vec<u8> {
    let mut encoder = ZlibEncoder::new(Vec::new(), Compression::fast());
    encoder.write_all(content).expect("compressing");
    encoder.finish().expect("compressing")
}

fn sha1(bytes: &[u8]) -> Id {
    digest(&SHA1_FOR_LEGACY_USE_ONLY, bytes).as_ref().try_into().expect("twenty bytes")
}

fn line(out: &mut Vec<u8>, content: &[u8]) {
    out.extend_from_slice(format!("{:04x}", content.len() + 4).as_bytes());
    out.extend_from_slice(content);
}
