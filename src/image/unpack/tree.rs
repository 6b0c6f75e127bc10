//! The directory a layer is unpacked into, reached only by descriptors.
//!
//! Every directory is opened by its last component alone, relative to its parent's descriptor, with
//! `O_NOFOLLOW`; so no path that a layer names is ever resolved by the kernel across a link. A parent that is
//! a symbolic link, or no directory, is refused.

use std::ffi::OsStr;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use rustix::fs::{AtFlags, CWD, Dir, FileType, Mode, OFlags, Stat, mkdirat, openat, statat, unlinkat};
use rustix::io::Errno;

use crate::fault::{Context, Fault, Result};
use crate::platform::xattr;

use super::path::show;

/// What to do about a parent directory that is not there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Missing {
    /// Make it, as tar(1) does: root's, mode 0755.
    Make,
    /// Say so.
    Report,
}

/// The root, and the chain of open directories down to the one that was used last: consecutive entries
/// mostly share their parent.
pub struct Tree {
    root: OwnedFd,
    open: Vec<(Vec<u8>, OwnedFd)>,
}

const DIRECTORY: OFlags = OFlags::RDONLY.union(OFlags::DIRECTORY).union(OFlags::NOFOLLOW).union(OFlags::CLOEXEC);

/// One component as rustix takes it.
pub fn name(bytes: &[u8]) -> &Path {
    Path::new(OsStr::from_bytes(bytes))
}

/// What `name` in `dir` is, following no link; `None` when nothing is there.
pub fn look(dir: BorrowedFd<'_>, file: &[u8]) -> io::Result<Option<Stat>> {
    match statat(dir, name(file), AtFlags::SYMLINK_NOFOLLOW) {
        Ok(stat) => Ok(Some(stat)),
        Err(Errno::NOENT) => Ok(None),
        Err(errno) => Err(errno.into()),
    }
}

/// The kind of file behind a stat.
pub fn kind(stat: &Stat) -> FileType {
    FileType::from_raw_mode(stat.st_mode as _)
}

/// Opens the directory `file` in `dir`; a link fails.
pub fn open_directory(dir: BorrowedFd<'_>, file: &[u8]) -> io::Result<OwnedFd> {
    Ok(openat(dir, name(file), DIRECTORY, Mode::empty())?)
}

impl Tree {
    /// The tree at `root`, which the caller trusts.
    pub fn open(root: &Path) -> Result<Self> {
        let fd = openat(CWD, root, DIRECTORY, Mode::empty()).map_err(io::Error::from);
        let root = fd.context(|| format!("cannot open {}", root.display()))?;
        Ok(Self { root, open: Vec::new() })
    }

    /// The root itself.
    pub fn root(&self) -> BorrowedFd<'_> {
        self.root.as_fd()
    }

    /// The directory at `path` (components joined by `/`); `None` when it is missing and was to be reported.
    pub fn directory(&mut self, path: &[u8], missing: Missing) -> Result<Option<BorrowedFd<'_>>> {
        self.climb(path);
        let done = self.open.last().map_or(0, |(open, _)| open.len());
        let mut at = done;
        while at < path.len() {
            let from = if at == 0 { 0 } else { at + 1 };
            let to = path[from..].iter().position(|b| *b == b'/').map_or(path.len(), |n| from + n);
            let Some(fd) = self.step(&path[..to], &path[from..to], missing)? else { return Ok(None) };
            self.open.push((path[..to].to_vec(), fd));
            at = to;
        }
        Ok(Some(self.deepest()))
    }

    fn deepest(&self) -> BorrowedFd<'_> {
        self.open.last().map_or(self.root.as_fd(), |(_, fd)| fd.as_fd())
    }

    /// Closes open directories until the last one is `path` or an ancestor of it.
    fn climb(&mut self, path: &[u8]) {
        let above = |open: &[u8]| path.starts_with(open) && (path.len() == open.len() || path[open.len()] == b'/');
        while self.open.last().is_some_and(|(open, _)| !above(open)) {
            self.open.pop();
        }
    }

    fn step(&mut self, whole: &[u8], last: &[u8], missing: Missing) -> Result<Option<OwnedFd>> {
        let parent = self.deepest();
        let what = || format!("cannot enter \"/{}\" of the image", show(whole));
        match open_directory(parent, last) {
            Ok(fd) => Ok(Some(fd)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => match missing {
                Missing::Report => Ok(None),
                Missing::Make => make_implied(parent, whole, last).context(what).map(Some),
            },
            Err(error) => match look(parent, last).context(what)?.map(|stat| kind(&stat)) {
                Some(FileType::Symlink) => Err(Fault::invalid(format!(
                    "\"/{}\" is a symbolic link; an entry that lies behind it is refused",
                    show(whole)
                ))),
                // Only ever made for a whiteout (overlayfs): this layer replaces a file by a directory.
                Some(FileType::CharacterDevice) if missing == Missing::Make => {
                    remove(parent, last).context(what)?;
                    let fd = make_implied(parent, whole, last).context(what)?;
                    xattr::set_overlay_opaque(fd.as_fd()).context(what)?;
                    Ok(Some(fd))
                }
                Some(FileType::Directory) | None => Err(Fault::from(error).within(what())),
                Some(_) => {
                    Err(Fault::invalid(format!("\"/{}\" is no directory, yet an entry lies in it", show(whole))))
                }
            },
        }
    }

    /// Closes `path` and what lies below it, because it is about to be removed.
    pub fn forget(&mut self, path: &[u8]) {
        let below = |open: &[u8]| open.starts_with(path) && (open.len() == path.len() || open[path.len()] == b'/');
        while self.open.last().is_some_and(|(open, _)| below(open)) {
            self.open.pop();
        }
        // Deeper ones go first, so what remains is above `path` or beside it.
    }
}

/// Makes a directory that a layer implies but does not list, and opens it.
fn make_implied(parent: BorrowedFd<'_>, whole: &[u8], last: &[u8]) -> io::Result<OwnedFd> {
    mkdirat(parent, name(last), Mode::from_raw_mode(0o700))?;
    let fd = open_directory(parent, last)?;
    rustix::fs::fchmod(&fd, Mode::from_raw_mode(implied_mode(whole) as _))?;
    Ok(fd)
}

/// The mode of a directory that a layer implies but does not list; two have one of their own everywhere.
fn implied_mode(path: &[u8]) -> rustix::fs::RawMode {
    match path {
        b"tmp" | b"var/tmp" => 0o1777,
        b"root" => 0o700,
        _ => 0o755,
    }
}

/// Removes `file` in `dir` and everything below it, following no link. Nothing there is success.
pub fn remove(dir: BorrowedFd<'_>, file: &[u8]) -> io::Result<()> {
    match unlinkat(dir, name(file), AtFlags::empty()) {
        Ok(()) | Err(Errno::NOENT) => return Ok(()),
        // Linux says ISDIR, FreeBSD PERM, for a directory.
        Err(Errno::ISDIR | Errno::PERM) => {}
        Err(errno) => return Err(errno.into()),
    }
    let inner = open_directory(dir, file)?;
    for child in children(inner.as_fd())? {
        remove(inner.as_fd(), &child)?;
    }
    Ok(unlinkat(dir, name(file), AtFlags::REMOVEDIR)?)
}

/// The names in a directory, without `.` and `..`.
pub fn children(dir: BorrowedFd<'_>) -> io::Result<Vec<Vec<u8>>> {
    let mut names = Vec::new();
    for entry in Dir::read_from(dir)? {
        let entry = entry?;
        let name = entry.file_name().to_bytes();
        if name != b"." && name != b".." {
            names.push(name.to_vec());
        }
    }
    Ok(names)
}
