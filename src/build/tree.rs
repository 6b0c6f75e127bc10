//! A source tree copied in: plain files and directories, links that stay inside, nothing else; counted, hashed.
//!
//! What is copied is somebody else's. Nothing is opened through a link: each directory is opened by its name in the
//! one above it, and each file without following one. In the copy every file belongs to root and can be read by all.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{Read, Write};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt, symlink};
use std::path::{Component, Path, PathBuf};

use rustix::fs::{AtFlags, Dir, FileType, Mode, OFlags};
use sha2::{Digest as _, Sha256};

use crate::fault::{Context, Fault, Result};
use crate::image::Digest;

/// Most files and directories of a source tree.
const ENTRIES: usize = 100_000;
/// Most bytes of files that are written into a copy afterwards.
const EXTRA: u64 = 64 << 20;
/// Most directories in a path.
const DEPTH: usize = 64;

/// Copies source trees.
pub struct Copier {
    to: PathBuf,
    left: u64,
    entries: usize,
    most: u64,
}

impl Copier {
    /// Into the directory `to`, which must not exist, at most `most` bytes.
    pub fn new(to: &Path, most: u64) -> Result<Self> {
        fs::create_dir(to).context(|| format!("cannot make {}", to.display()))?;
        set_mode(to, 0o755)?;
        Ok(Self { to: to.to_owned(), left: most, entries: ENTRIES, most })
    }

    /// On a copy that is there, for a few files more.
    pub fn again(to: &Path) -> Self {
        Self { to: to.to_owned(), left: EXTRA, entries: ENTRIES, most: EXTRA }
    }

    /// Copies the tree at `from` to `at` (relative) in the copy; files that are there already are replaced. Directories
    /// of version control are left out.
    pub fn tree(&mut self, from: &Path, at: &Path) -> Result<()> {
        let dir = rustix::fs::open(from, OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())
            .map_err(std::io::Error::from)
            .context(|| format!("cannot read {}", from.display()))?;
        self.directory(at)?;
        self.level(File::from(dir), at, 0).context(|| format!("cannot copy {}", from.display()))
    }

    fn level(&mut self, dir: File, at: &Path, depth: usize) -> Result<()> {
        if depth > DEPTH {
            return Err(Fault::invalid(format!("{} is more than {DEPTH} directories deep", at.display())));
        }
        let listed = Dir::read_from(&dir).map_err(std::io::Error::from)?;
        for entry in listed {
            let entry = entry.map_err(std::io::Error::from)?;
            let name = entry.file_name();
            if matches!(name.to_bytes(), b"." | b".." | b".git" | b".hg" | b".svn") {
                continue;
            }
            let path = at.join(std::ffi::OsStr::from_bytes(name.to_bytes()));
            let what = || path.display().to_string();
            let stat = rustix::fs::statat(&dir, name, AtFlags::SYMLINK_NOFOLLOW)
                .map_err(std::io::Error::from)
                .context(what)?;
            let open = |flags| {
                let flags = flags | OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC | OFlags::NONBLOCK;
                rustix::fs::openat(&dir, name, flags, Mode::empty()).map(File::from).map_err(std::io::Error::from)
            };
            match FileType::from_raw_mode(stat.st_mode as _) {
                FileType::Directory => {
                    self.directory(&path)?;
                    self.level(open(OFlags::DIRECTORY).context(what)?, &path, depth + 1)?;
                }
                FileType::RegularFile => {
                    let file = open(OFlags::empty()).context(what)?;
                    self.file(&path, file, stat.st_mode as u32 & 0o111 != 0)?;
                }
                FileType::Symlink => {
                    let target =
                        rustix::fs::readlinkat(&dir, name, Vec::new()).map_err(std::io::Error::from).context(what)?;
                    self.link(&path, Path::new(std::ffi::OsStr::from_bytes(target.as_bytes())))?;
                }
                _ => return Err(Fault::invalid(format!("{} is a device, pipe or socket", path.display()))),
            }
        }
        Ok(())
    }

    /// Makes a directory of the copy, with those above it. One that is there stays; a link or file in its place is an error.
    pub fn directory(&mut self, at: &Path) -> Result<()> {
        let mut so_far = self.to.clone();
        for component in at.components() {
            match component {
                Component::CurDir => continue,
                Component::Normal(name) => so_far.push(name),
                _ => return Err(Fault::invalid(format!("path {} leads out of the source tree", at.display()))),
            }
            match fs::symlink_metadata(&so_far) {
                Ok(metadata) if metadata.is_dir() => {}
                Ok(_) => {
                    let inside = so_far.strip_prefix(&self.to).unwrap_or(&so_far).display();
                    return Err(Fault::invalid(format!("{inside} is a file or link where a directory is needed")));
                }
                Err(_) => {
                    self.count(0)?;
                    fs::create_dir(&so_far).context(|| format!("cannot make {}", so_far.display()))?;
                    set_mode(&so_far, 0o755)?;
                }
            }
        }
        Ok(())
    }

    /// Writes one file of the copy, in place of a file or link of that name.
    pub fn file(&mut self, at: &Path, from: impl Read, executable: bool) -> Result<()> {
        let path = self.place(at)?;
        let mut options = fs::OpenOptions::new();
        options.write(true).create_new(true).mode(0o644).custom_flags(libc::O_NOFOLLOW);
        let what = || format!("cannot write {}", at.display());
        let mut file = options.open(&path).context(what)?;
        let written = std::io::copy(&mut from.take(self.left + 1), &mut file).context(what)?;
        self.count(written)?;
        set_mode(&path, if executable { 0o755 } else { 0o644 })
    }

    /// [`Copier::file`] with bytes.
    pub fn bytes(&mut self, at: &Path, bytes: &[u8]) -> Result<()> {
        self.file(at, bytes, false)
    }

    /// Makes a link, in place of a file or link of that name. One that leads out of the copy is an error.
    pub fn link(&mut self, at: &Path, target: &Path) -> Result<()> {
        if !stays_inside(at, target) {
            return Err(Fault::invalid(format!(
                "link {} leads out of the source tree, to {}",
                at.display(),
                target.display()
            )));
        }
        let path = self.place(at)?;
        self.count(0)?;
        symlink(target, &path).context(|| format!("cannot make link {}", at.display()))
    }

    /// The path where something new is put: what is there goes, unless it is a directory.
    fn place(&mut self, at: &Path) -> Result<PathBuf> {
        if let Some(parent) = at.parent() {
            self.directory(parent)?;
        }
        let Some(Component::Normal(name)) = at.components().next_back() else {
            return Err(Fault::invalid(format!("path {} names no file", at.display())));
        };
        let path = self.to.join(at.parent().unwrap_or(Path::new(""))).join(name);
        match fs::remove_file(&path) {
            Err(e) if e.kind() != std::io::ErrorKind::NotFound => {
                Err(e).context(|| format!("{} cannot be replaced by a file", at.display()))
            }
            _ => Ok(path),
        }
    }

    fn count(&mut self, bytes: u64) -> Result<()> {
        self.entries = self.entries.checked_sub(1).ok_or_else(|| {
            Fault::invalid(format!("the source tree has more than {ENTRIES} files and directories, the limit"))
        })?;
        self.left = self.left.checked_sub(bytes).ok_or_else(|| {
            Fault::invalid(format!("the source tree has more than {} bytes, the limit (builder.source)", self.most))
        })?;
        Ok(())
    }
}

/// A plain file of a copied tree, reached through no link; `None` when it is not there, or no plain file.
pub fn read(top: &Path, at: &str) -> Result<Option<Vec<u8>>> {
    let mut path = top.to_owned();
    for name in at.split('/') {
        path.push(name);
        if fs::symlink_metadata(&path).map_or(true, |metadata| metadata.is_symlink()) {
            return Ok(None);
        }
    }
    if !path.is_file() {
        return Ok(None);
    }
    fs::read(&path).map(Some).context(|| format!("cannot read {at}"))
}

/// [`read`] as text.
pub fn read_text(top: &Path, at: &str) -> Result<Option<String>> {
    let text = |bytes| String::from_utf8(bytes).map_err(|_| Fault::invalid(format!("{at} is no UTF-8 text")));
    read(top, at)?.map(text).transpose()
}

/// Whether a link at `at` (relative to the top) to `target` ends below the top, however it gets there.
fn stays_inside(at: &Path, target: &Path) -> bool {
    let mut depth = at.components().count().saturating_sub(1);
    for component in target.components() {
        match component {
            Component::CurDir => {}
            Component::Normal(_) => depth += 1,
            Component::ParentDir if depth > 0 => depth -= 1,
            _ => return false,
        }
    }
    true
}

fn set_mode(path: &Path, mode: u32) -> Result<()> {
    fs::set_permissions(path, fs::Permissions::from_mode(mode))
        .context(|| format!("cannot set the mode of {}", path.display()))
}

/// A digest of everything in a copied tree: names, kinds, modes and contents.
pub fn digest(top: &Path) -> Result<Digest> {
    let mut hash = Sha256::new();
    let mut entries = BTreeMap::new();
    list(top, top, &mut entries).context(|| format!("cannot read {}", top.display()))?;
    for (path, kind) in entries {
        hash.update(path.as_os_str().as_bytes());
        hash.update([0]);
        let content = match kind {
            Kind::Directory => b"d".to_vec(),
            Kind::Link(target) => [b"l", target.as_os_str().as_bytes()].concat(),
            Kind::File { executable } => {
                let mut file = File::open(top.join(&path)).context(|| format!("cannot read {}", path.display()))?;
                let mut inner = Sha256::new();
                std::io::copy(&mut file, &mut Hashing(&mut inner))
                    .context(|| format!("cannot read {}", path.display()))?;
                [if executable { &b"x"[..] } else { b"f" }, &inner.finalize()].concat()
            }
        };
        hash.update((content.len() as u64).to_be_bytes());
        hash.update(content);
    }
    Ok(Digest::sha256(hash.finalize()))
}

enum Kind {
    Directory,
    File { executable: bool },
    Link(PathBuf),
}

fn list(top: &Path, dir: &Path, into: &mut BTreeMap<PathBuf, Kind>) -> std::io::Result<()> {
    for entry in fs::read_dir(dir)? {
        let entry = entry?;
        let metadata = entry.metadata()?;
        let path = entry.path();
        let kind = if metadata.is_symlink() {
            Kind::Link(fs::read_link(&path)?)
        } else if metadata.is_dir() {
            list(top, &path, into)?;
            Kind::Directory
        } else {
            Kind::File { executable: metadata.permissions().mode() & 0o111 != 0 }
        };
        into.insert(path.strip_prefix(top).unwrap_or(&path).to_owned(), kind);
    }
    Ok(())
}

/// Writes into a hash.
struct Hashing<'a>(&'a mut Sha256);

impl Write for Hashing<'_> {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.update(bytes);
        Ok(bytes.len())
    }
    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn copied(make: impl Fn(&Path)) -> (tempfile::TempDir, Result<()>) {
        let temp = tempfile::tempdir().unwrap();
        let from = temp.path().join("from");
        fs::create_dir(&from).unwrap();
        make(&from);
        let result =
            Copier::new(&temp.path().join("to"), 1000).and_then(|mut copier| copier.tree(&from, Path::new("")));
        (temp, result)
    }

    #[test]
    fn files_and_links_inside_are_copied_and_version_control_is_not() {
        let (temp, result) = copied(|from| {
            fs::create_dir_all(from.join("a/.git")).unwrap();
            fs::write(from.join("a/x.go"), "package a").unwrap();
            symlink("../a/x.go", from.join("a/y.go")).unwrap();
        });
        result.unwrap();
        let to = temp.path().join("to");
        assert_eq!(fs::read_to_string(to.join("a/y.go")).unwrap(), "package a");
        assert!(!to.join("a/.git").exists());
        assert_eq!(digest(&to).unwrap(), digest(&to).unwrap());
    }

    #[test]
    fn what_leads_out_or_is_too_much_is_refused() {
        for target in ["/etc/passwd", "../x", "a/../../x", "../../.."] {
            let (_temp, result) = copied(|from| symlink(target, from.join("link")).unwrap());
            assert!(result.unwrap_err().to_string().contains("leads out of the source tree"), "{target}");
        }
        let (_temp, result) = copied(|from| fs::write(from.join("big"), [0; 1001]).unwrap());
        assert!(result.unwrap_err().to_string().contains("more than 1000 bytes"));
        let (_temp, result) = copied(|from| {
            std::os::unix::net::UnixListener::bind(from.join("socket")).unwrap();
        });
        assert!(result.unwrap_err().to_string().contains("socket"));
    }

    #[test]
    fn a_link_where_a_file_is_written_is_replaced_and_one_on_the_way_is_an_error() {
        let temp = tempfile::tempdir().unwrap();
        let victim = temp.path().join("victim");
        fs::write(&victim, "before").unwrap();
        let to = temp.path().join("to");
        let mut copier = Copier::new(&to, 1000).unwrap();
        copier.directory(Path::new("cmd")).unwrap();
        symlink(&victim, to.join("cmd/main.go")).unwrap();
        symlink(temp.path(), to.join("out")).unwrap();
        copier.bytes(Path::new("cmd/main.go"), b"package main").unwrap();
        assert!(copier.bytes(Path::new("out/victim"), b"x").is_err());
        assert!(copier.bytes(Path::new("../victim"), b"x").is_err());
        assert_eq!(fs::read_to_string(&victim).unwrap(), "before");
        assert_eq!(fs::read_to_string(to.join("cmd/main.go")).unwrap(), "package main");
    }

    #[test]
    fn a_digest_tells_trees_apart() {
        let digest_of = |name: &str, content: &str, mode: u32| {
            let temp = tempfile::tempdir().unwrap();
            fs::write(temp.path().join(name), content).unwrap();
            set_mode(&temp.path().join(name), mode).unwrap();
            digest(temp.path()).unwrap()
        };
        let first = digest_of("a", "x", 0o644);
        assert_eq!(first, digest_of("a", "x", 0o600));
        for other in [digest_of("b", "x", 0o644), digest_of("a", "y", 0o644), digest_of("a", "x", 0o755)] {
            assert_ne!(first, other);
        }
    }
}
